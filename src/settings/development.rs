//! Default keys for development.
//!
//! They are published, so they serve only a hub on loopback with the memory engine; any other hub needs its own.

use super::error::SettingsError;
use super::{AuthSettings, EngineKind, Secret, Settings};

/// Default token secret of a hub that only this machine can reach.
pub const DEVELOPMENT_SECRET: &str = "vigie-development-secret-known-to-everybody";

/// Default API key of a hub that only this machine can reach.
pub const DEVELOPMENT_API_KEY: &str = "vigie-development-key";

impl Settings {
    /// Whether a development key is in use, which must not happen in production.
    pub fn development(&self) -> bool {
        self.uses_development_secret() || self.uses_development_api_key()
    }

    /// Whether tokens signed with [`DEVELOPMENT_SECRET`] are accepted.
    pub fn uses_development_secret(&self) -> bool {
        let secrets = [&self.auth.secret, &self.auth.previous_secret];
        let mut secrets = secrets.into_iter().flatten();
        secrets.any(|secret| secret.expose() == DEVELOPMENT_SECRET)
    }

    /// Whether callers may present [`DEVELOPMENT_API_KEY`].
    pub fn uses_development_api_key(&self) -> bool {
        let mut keys = self.internal.keys();
        keys.any(|(_, key)| key.expose() == DEVELOPMENT_API_KEY)
    }

    /// Whether to serve `/playground`, which has both development keys: while they are in use, on a hub that only this
    /// machine can reach.
    pub fn serves_playground(&self) -> bool {
        let secret = self.auth.secret.as_ref().map(Secret::expose);
        secret.is_some_and(|secret| secret == DEVELOPMENT_SECRET)
            && self.uses_development_api_key()
            && self.exposed().is_none()
    }

    /// The reason why development keys would be insecure, if they would.
    pub(crate) fn exposed(&self) -> Option<String> {
        for (key, listen) in [
            ("http.listen", self.http.listen),
            ("internal.listen", self.internal.listen),
        ] {
            if !listen.ip().to_canonical().is_loopback() {
                return Some(format!(
                    "{key} = \"{listen}\" can be reached from other machines"
                ));
            }
        }
        (self.engine == EngineKind::Redis)
            .then(|| "engine = \"redis\" serves real users".to_owned())
    }

    fn has_api_key(&self) -> bool {
        self.internal.keys().next().is_some()
    }
}

impl AuthSettings {
    /// Whether a present key of any kind is configured.
    pub(super) fn has_key(&self) -> bool {
        self.secret.is_some() || self.public_key_file.is_some() || self.jwks_file.is_some()
    }
}

/// Fills in missing keys with development keys; fails if the hub is exposed.
pub(super) fn fill_in(settings: &mut Settings) -> Result<(), SettingsError> {
    if let Some(why) = settings.exposed() {
        return match missing(settings) {
            "" => Ok(()),
            what => Err(SettingsError::KeysMissing { why, what }),
        };
    }
    if !settings.auth.has_key() {
        settings.auth.secret = Some(Secret::new(DEVELOPMENT_SECRET));
    }
    if !settings.has_api_key() {
        settings.internal.api_key = Some(Secret::new(DEVELOPMENT_API_KEY));
    }
    Ok(())
}

/// Names the keys to set; empty if none is missing.
fn missing(settings: &Settings) -> &'static str {
    match (settings.auth.has_key(), settings.has_api_key()) {
        (true, true) => "",
        (true, false) => "internal.api_key (VIGIE_INTERNAL__API_KEY) or internal.api_keys",
        (false, true) => "auth.secret (VIGIE_AUTH__SECRET), auth.public_key_file or auth.jwks_file",
        (false, false) => {
            "auth.secret (VIGIE_AUTH__SECRET), auth.public_key_file or auth.jwks_file, and internal.api_key (VIGIE_INTERNAL__API_KEY) or internal.api_keys"
        }
    }
}
