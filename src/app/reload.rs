//! Takes over settings that may change while a node runs: keys and limits. Whatever else differs waits for a restart.

use std::sync::Arc;

use super::{StartError, allowances, api_keys, limits};
use crate::domain::Hub;
use crate::domain::token::TokenVerifier;
use crate::settings::Settings;
use crate::transport::http::ApiKeyCheck;
use crate::transport::limits::CurrentLimits;

/// What takes over settings. Cloning is cheap.
#[derive(Clone)]
pub struct Reload {
    pub(super) hub: Hub,
    pub(super) tokens: Arc<TokenVerifier>,
    pub(super) keys: ApiKeyCheck,
    pub(super) limits: CurrentLimits,
}

impl Reload {
    /// Has the keys and limits of `settings` hold from now on. Who is connected stays connected.
    ///
    /// # Errors
    /// When a key cannot be used; then nothing has changed.
    pub fn take_over(&self, settings: &Settings) -> Result<(), StartError> {
        let keys = api_keys(settings)?;
        self.tokens.reload(&settings.auth)?;
        self.keys.replace(keys);
        self.limits.set(limits(settings));
        self.hub.allow(allowances(settings));
        Ok(())
    }
}
