//! The keys that are used where nobody set any, and where they must not be.
//!
//! They are public knowledge: good on loopback with the memory engine, refused anywhere else.

use super::error::SettingsError;
use super::{EngineKind, Secret, Settings};

/// The token secret of a hub that has none configured and can be reached from this machine only.
pub const DEVELOPMENT_SECRET: &str = "vigie-development-secret-known-to-everybody";

/// The API key of a hub that has none configured and can be reached from this machine only.
pub const DEVELOPMENT_API_KEY: &str = "vigie-development-key";

impl Settings {
    /// Whether a development key is in use: never so in production.
    pub fn development(&self) -> bool {
        self.uses_development_secret() || self.uses_development_api_key()
    }

    /// Whether tokens are signed with [`DEVELOPMENT_SECRET`].
    pub fn uses_development_secret(&self) -> bool {
        let secret = self.auth.secret.as_ref();
        secret.is_some_and(|secret| secret.expose() == DEVELOPMENT_SECRET)
    }

    /// Whether callers present [`DEVELOPMENT_API_KEY`].
    pub fn uses_development_api_key(&self) -> bool {
        let key = self.internal.api_key.as_ref();
        key.is_some_and(|key| key.expose() == DEVELOPMENT_API_KEY)
    }

    /// Why development keys would be a hole, in words, if they would.
    pub(super) fn exposed(&self) -> Option<String> {
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

    fn has_token_key(&self) -> bool {
        let auth = &self.auth;
        auth.secret.is_some() || auth.public_key_file.is_some() || auth.jwks_file.is_some()
    }
}

/// Fills in the keys that are missing, or says which to set where the hub is exposed.
pub(super) fn fill_in(settings: &mut Settings) -> Result<(), SettingsError> {
    if let Some(why) = settings.exposed() {
        return match missing(settings) {
            "" => Ok(()),
            what => Err(SettingsError::KeysMissing { why, what }),
        };
    }
    if !settings.has_token_key() {
        settings.auth.secret = Some(Secret::new(DEVELOPMENT_SECRET));
    }
    if settings.internal.api_key.is_none() {
        settings.internal.api_key = Some(Secret::new(DEVELOPMENT_API_KEY));
    }
    Ok(())
}

/// What to set, in words; empty where nothing is missing.
fn missing(settings: &Settings) -> &'static str {
    match (
        settings.has_token_key(),
        settings.internal.api_key.is_some(),
    ) {
        (true, true) => "",
        (true, false) => "internal.api_key (VIGIE_INTERNAL__API_KEY)",
        (false, true) => "auth.secret (VIGIE_AUTH__SECRET), auth.public_key_file or auth.jwks_file",
        (false, false) => {
            "auth.secret (VIGIE_AUTH__SECRET), auth.public_key_file or auth.jwks_file, and internal.api_key (VIGIE_INTERNAL__API_KEY)"
        }
    }
}
