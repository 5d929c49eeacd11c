//! Takes over settings that may change while a node runs: keys and limits. Whatever else differs waits for a restart.

use super::{allowances, limits};
use crate::domain::Hub;
use crate::domain::token::TokenSetupError;
use crate::settings::Settings;
use crate::transport::limits::CurrentLimits;

/// What takes over settings. Cloning is cheap.
#[derive(Clone)]
pub struct Reload {
    hub: Hub,
    limits: CurrentLimits,
}

impl Reload {
    pub(super) fn new(hub: Hub, limits: CurrentLimits) -> Self {
        Self { hub, limits }
    }

    /// Has the keys and limits of `settings` hold from now on.
    ///
    /// # Errors
    /// When a key cannot be used; then nothing has changed.
    pub fn take_over(&self, settings: &Settings) -> Result<(), TokenSetupError> {
        self.limits.set(limits(settings));
        self.hub.allow(allowances(settings));
        Ok(())
    }
}
