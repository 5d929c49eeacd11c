//! Takes over settings that may change while a node runs: keys and limits. Whatever else differs waits for a restart.

use std::sync::Arc;

use super::{StartError, allowances, api_keys, limits, token_options};
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
    /// Whether keys that everybody knows were good when the node started.
    pub(super) development: bool,
}

impl Reload {
    /// Has the keys and limits of `settings` hold from now on. Who is connected stays connected.
    ///
    /// # Errors
    /// When a key cannot be used, or is one that everybody knows although the node began with its own; then nothing
    /// has changed.
    pub fn take_over(&self, settings: &Settings) -> Result<(), StartError> {
        // What the node listens on and works with is as it was, whatever the new settings say of it.
        if settings.development() && !self.development {
            return Err(StartError::DevelopmentKeys);
        }
        let keys = api_keys(settings)?;
        self.tokens.reload(&token_options(&settings.auth))?;
        self.keys.replace(keys);
        self.limits.set(limits(settings));
        self.hub.allow(allowances(settings));
        Ok(())
    }
}
