//! Applies changed keys and limits while a node runs. All other settings need a restart.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{StartError, allowances, api_keys, limits, playground_options, token_options};
use crate::domain::Hub;
use crate::domain::token::TokenVerifier;
use crate::settings::Settings;
use crate::transport::http::{ApiKeyCheck, Playground};
use crate::transport::limits::CurrentLimits;

/// Applies settings to a running node. Clones refer to the same node.
#[derive(Clone)]
pub struct Reload {
    pub(super) hub: Hub,
    pub(super) tokens: Arc<TokenVerifier>,
    pub(super) keys: ApiKeyCheck,
    pub(super) limits: CurrentLimits,
    pub(super) playground: Playground,
    pub(super) public_address: SocketAddr,
    /// Whether other machines may reach the node, which keeps its listeners and its engine.
    pub(super) exposed: bool,
    /// Whether the node started with development keys.
    pub(super) development: bool,
}

impl Reload {
    /// Applies the keys and limits of `settings`. Open connections stay open.
    ///
    /// # Errors
    /// When a key is unusable, or a development key would replace the node's own. Then nothing has changed.
    pub fn take_over(&self, settings: &Settings) -> Result<(), StartError> {
        // Checked here, because listeners and engine stay as they are, whatever the new settings say.
        if settings.development() && !self.development {
            return Err(StartError::DevelopmentKeys);
        }
        let keys = api_keys(settings)?;
        self.tokens.reload(&token_options(&settings.auth))?;
        self.keys.replace(keys);
        let playground = playground_options(settings, self.public_address);
        self.playground
            .set(playground.filter(|_| !self.exposed).as_ref());
        self.limits.set(limits(settings));
        self.hub.allow(allowances(settings));
        Ok(())
    }
}
