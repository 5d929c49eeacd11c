//! The keys that verify tokens: read from where the settings say, each with the algorithms it may be used with.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Header};
use serde::Deserialize;
use serde_json::Value;

use super::TokenError;
use crate::settings::AuthSettings;

/// Shortest RSA modulus that signatures are trusted with (RFC 7518, 3.3).
const RSA_BYTES_MIN: usize = 2048 / 8;

/// Why the configured keys cannot verify tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenSetupError {
    /// No key, or several kinds.
    #[error("set exactly one of auth.secret, auth.public_key_file and auth.jwks_file")]
    NotOneKey,
    /// A previous key without an end, or an end without one, or several.
    #[error(
        "set auth.previous_until with one of auth.previous_secret and auth.previous_public_key_file, or none of them"
    )]
    NotOnePreviousKey,
    /// A key file cannot be read.
    #[error("cannot read {}, which {key} names: {source}", path.display())]
    Unreadable {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key file holds no usable key.
    #[error("{}, which {key} names, {problem}", path.display())]
    Unusable {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what would do.
        problem: String,
    },
}

/// The keys that are in use.
#[derive(Debug)]
pub(super) struct Keys {
    /// At least one; several only from a set.
    present: Vec<VerifyingKey>,
    /// Whether a token's `kid` chooses among the present ones.
    chosen_by_kid: bool,
    previous: Option<PreviousKey>,
}

/// The key before, while tokens that it signed may be left.
#[derive(Debug)]
struct PreviousKey {
    key: VerifyingKey,
    /// Not accepted from then on, in ms since 1970.
    until_ms: u64,
}

/// One key, and the algorithms it may be used with.
#[derive(Debug)]
pub(super) struct VerifyingKey {
    kid: Option<String>,
    pub(super) key: DecodingKey,
    pub(super) algorithms: Vec<Algorithm>,
}

impl Keys {
    /// Reads the keys that `auth` names.
    pub(super) fn read(auth: &AuthSettings) -> Result<Self, TokenSetupError> {
        let (present, chosen_by_kid) = match (&auth.secret, &auth.public_key_file, &auth.jwks_file)
        {
            (Some(secret), None, None) => (vec![VerifyingKey::from_secret(secret.expose())], false),
            (None, Some(path), None) => {
                (vec![read_public_key("auth.public_key_file", path)?], false)
            }
            (None, None, Some(path)) => (read_key_set(path)?, true),
            _ => return Err(TokenSetupError::NotOneKey),
        };
        Ok(Self {
            present,
            chosen_by_kid,
            previous: PreviousKey::read(auth)?,
        })
    }

    /// The key that has to have signed a token with this header.
    pub(super) fn present(&self, header: &Header) -> Result<&VerifyingKey, TokenError> {
        match (self.present.as_slice(), &header.kid) {
            ([key], None) => Ok(key),
            ([key], Some(_)) if !self.chosen_by_kid => Ok(key),
            (_, None) => Err(TokenError::Invalid(
                "it names no key, and there are several",
            )),
            (keys, kid) => {
                let named = keys.iter().find(|key| key.kid == *kid);
                named.ok_or(TokenError::Invalid("it names a key that is not in the set"))
            }
        }
    }

    /// The key that may have signed it instead, at this time in ms since 1970.
    pub(super) fn previous(&self, now_ms: u64) -> Option<&VerifyingKey> {
        let previous = self.previous.as_ref();
        let previous = previous.filter(|previous| now_ms < previous.until_ms);
        previous.map(|previous| &previous.key)
    }
}

impl PreviousKey {
    fn read(auth: &AuthSettings) -> Result<Option<Self>, TokenSetupError> {
        let secret = auth.previous_secret.as_ref();
        let (key, until) = match (secret, &auth.previous_public_key_file, auth.previous_until) {
            (None, None, None) => return Ok(None),
            (Some(secret), None, Some(until)) => {
                (VerifyingKey::from_secret(secret.expose()), until)
            }
            (None, Some(path), Some(until)) => {
                let key = read_public_key("auth.previous_public_key_file", path)?;
                (key, until)
            }
            _ => return Err(TokenSetupError::NotOnePreviousKey),
        };
        let until_ms = ms_since_epoch(until);
        Ok(Some(Self { key, until_ms }))
    }
}

fn ms_since_epoch(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl VerifyingKey {
    fn from_secret(secret: &str) -> Self {
        Self {
            kid: None,
            key: DecodingKey::from_secret(secret.as_bytes()),
            algorithms: AlgorithmFamily::Hmac.algorithms().to_vec(),
        }
    }

    /// Pins the algorithms of a public key; says what is wrong with one that cannot be used.
    fn from_public(kid: Option<String>, key: DecodingKey) -> Result<Self, &'static str> {
        let algorithms = match (key.family(), key_len(&key)) {
            (AlgorithmFamily::Rsa, RSA_BYTES_MIN..) => AlgorithmFamily::Rsa.algorithms().to_vec(),
            (AlgorithmFamily::Rsa, _) => return Err("is an RSA key of less than 2048 bits"),
            // A point, uncompressed or compressed, is as long as its curve says.
            (AlgorithmFamily::Ec, 65 | 33) => vec![Algorithm::ES256],
            (AlgorithmFamily::Ec, 97 | 49) => vec![Algorithm::ES384],
            (AlgorithmFamily::Ed, 32) => vec![Algorithm::EdDSA],
            _ => return Err("is of a kind that the hub does not know"),
        };
        // The library looks at a key only when it verifies: have it do so now.
        let usable = algorithms
            .iter()
            .all(|&algorithm| jsonwebtoken::crypto::verify("", b"", &key, algorithm).is_ok());
        if !usable {
            return Err("is damaged");
        }
        Ok(Self {
            kid,
            key,
            algorithms,
        })
    }

    /// Reads one key of a set; `None` for a key that is not for signatures.
    fn from_jwk(jwk: &Value) -> Result<Option<Self>, &'static str> {
        if jwk["kty"] == "oct" {
            return Err(
                "is symmetric: a set holds public keys only, a shared secret is auth.secret",
            );
        }
        let Ok(jwk) = Jwk::deserialize(jwk) else {
            return Ok(None);
        };
        let common = &jwk.common;
        let for_signatures = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
        let operations = common.key_operations.as_ref();
        if !for_signatures || operations.is_some_and(|all| !all.contains(&KeyOperations::Verify)) {
            return Ok(None);
        }
        let Ok(key) = DecodingKey::from_jwk(&jwk) else {
            return Ok(None);
        };
        let mut key = Self::from_public(common.key_id.clone(), key)?;
        if let Some(pinned) = common.key_algorithm {
            key.algorithms
                .retain(|&algorithm| KeyAlgorithm::from(algorithm) == pinned);
        }
        Ok((!key.algorithms.is_empty()).then_some(key))
    }
}

/// Length of the modulus, the point or the raw key, in bytes; of the DER of an RSA key from PEM,
/// which is a few bytes more than its modulus.
fn key_len(key: &DecodingKey) -> usize {
    match key.kind() {
        DecodingKeyKind::SecretOrDer(bytes) => bytes.len(),
        DecodingKeyKind::RsaModulusExponent { n, .. } => n.len(),
    }
}

/// Reads the file that the setting `key` names.
fn read_public_key(key: &'static str, path: &Path) -> Result<VerifyingKey, TokenSetupError> {
    let pem = read(key, path)?;
    if pem.contains("PRIVATE KEY") {
        return Err(unusable(
            key,
            path,
            "holds a private key: give the hub only the public one",
        ));
    }
    let readers = [
        DecodingKey::from_rsa_pem,
        DecodingKey::from_ec_pem,
        DecodingKey::from_ed_pem,
    ];
    let public = readers.iter().find_map(|read| read(pem.as_bytes()).ok());
    let public = public.ok_or_else(|| {
        unusable(
            key,
            path,
            "holds no public key in PEM (RSA, EC on P-256 or P-384, Ed25519)",
        )
    })?;
    VerifyingKey::from_public(None, public).map_err(|problem| unusable(key, path, problem))
}

fn read_key_set(path: &Path) -> Result<Vec<VerifyingKey>, TokenSetupError> {
    /// A set before its keys are looked at: those of kinds that nobody here knows are skipped.
    #[derive(Deserialize)]
    struct KeySet {
        keys: Vec<Value>,
    }

    const KEY: &str = "auth.jwks_file";
    let text = read(KEY, path)?;
    let set: KeySet = serde_json::from_str(&text)
        .map_err(|_| unusable(KEY, path, "is no JSON Web Key Set: { \"keys\": [ … ] }"))?;
    let mut keys = Vec::new();
    for (index, jwk) in set.keys.iter().enumerate() {
        let key = VerifyingKey::from_jwk(jwk).map_err(|problem| {
            unusable(
                KEY,
                path,
                format!("has a key (number {}) that {problem}", index + 1),
            )
        })?;
        keys.extend(key);
    }
    let mut kids = HashSet::new();
    if keys.is_empty() {
        return Err(unusable(
            KEY,
            path,
            "holds no key for signatures (RSA, P-256, P-384, Ed25519)",
        ));
    }
    if !keys.iter().all(|key| kids.insert(key.kid.as_deref())) {
        return Err(unusable(
            KEY,
            path,
            "has several keys with one kid: name each differently",
        ));
    }
    Ok(keys)
}

fn read(key: &'static str, path: &Path) -> Result<String, TokenSetupError> {
    fs::read_to_string(path).map_err(|source| {
        let path = path.to_owned();
        TokenSetupError::Unreadable { key, path, source }
    })
}

fn unusable(key: &'static str, path: &Path, problem: impl Into<String>) -> TokenSetupError {
    let (path, problem) = (path.to_owned(), problem.into());
    TokenSetupError::Unusable { key, path, problem }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jsonwebtoken::EncodingKey;
    use serde_json::json;

    use super::super::samples::*;
    use super::super::{TokenVerifier, Verification};
    use super::*;
    use crate::settings::Secret;

    /// When the previous key of these tests ends, in seconds since 1970: long past, or still to come.
    const UNTIL: u64 = 1_500_000_000;

    #[test]
    fn a_public_key_verifies_its_own_algorithms_only() {
        let folder = tempfile::tempdir().unwrap();
        let private: [(&[Algorithm], EncodingKey, &str); 4] = [
            (
                AlgorithmFamily::Rsa.algorithms(),
                EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap(),
                RSA_PUBLIC,
            ),
            (
                &[Algorithm::ES256],
                EncodingKey::from_ec_pem(P256_PRIVATE.as_bytes()).unwrap(),
                P256_PUBLIC,
            ),
            (
                &[Algorithm::ES384],
                EncodingKey::from_ec_pem(P384_PRIVATE.as_bytes()).unwrap(),
                P384_PUBLIC,
            ),
            (
                &[Algorithm::EdDSA],
                EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap(),
                ED_PUBLIC,
            ),
        ];
        let claims = json!({ "sub": 1, "exp": now() + 60 });
        for (own, _, public) in &private {
            let verifier = TokenVerifier::new(&AuthSettings {
                public_key_file: Some(file(folder.path(), public)),
                ..Default::default()
            })
            .unwrap();
            for (algorithms, key, _) in &private {
                for &algorithm in *algorithms {
                    let token = encoded(algorithm, Some("any"), key, claims.clone());
                    assert_eq!(
                        verifier.verify(&token).is_ok(),
                        own == algorithms,
                        "{algorithm:?}"
                    );
                }
            }
            // The classic confusion: the public key, which everybody has, taken for a shared secret.
            let key = EncodingKey::from_secret(public.as_bytes());
            let token = encoded(Algorithm::HS256, None, &key, claims.clone());
            assert_eq!(
                verifier.verify(&token),
                Err(TokenError::Invalid("its algorithm does not fit the key"))
            );
        }
    }

    #[test]
    fn key_files_that_cannot_serve_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (text, expected) in [
            (RSA_PRIVATE, "holds a private key"),
            ("", "holds no public key in PEM"),
            (SECRET, "holds no public key in PEM"),
            (RSA_SHORT, "less than 2048 bits"),
        ] {
            let auth = AuthSettings {
                public_key_file: Some(file(folder.path(), text)),
                ..Default::default()
            };
            let error = TokenVerifier::new(&auth).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(matches!(
            TokenVerifier::new(&AuthSettings::default()),
            Err(TokenSetupError::NotOneKey)
        ));
        let auth = AuthSettings {
            public_key_file: Some("/nowhere".into()),
            ..Default::default()
        };
        assert!(matches!(
            TokenVerifier::new(&auth),
            Err(TokenSetupError::Unreadable { .. })
        ));
    }

    #[test]
    fn a_key_of_a_set_is_chosen_by_its_name() {
        let (p256, ed) = (
            jwk("p", P256_PRIVATE, Algorithm::ES256),
            jwk("e", ED_PRIVATE, Algorithm::EdDSA),
        );
        let encryption = json!({ "kty": "RSA", "use": "enc", "kid": "x", "alg": "RSA-OAEP", "n": "AQAB", "e": "AQAB" });
        let unknown = json!({ "kty": "OKP", "crv": "X448", "x": "AQAB", "kid": "y" });
        let verifier = key_set(&[p256.clone(), ed.clone(), encryption, unknown]).unwrap();

        let (p_key, e_key) = (
            private(P256_PRIVATE, Algorithm::ES256),
            private(ED_PRIVATE, Algorithm::EdDSA),
        );
        let claims = json!({ "sub": 1, "exp": now() + 60 });
        let token = |algorithm, kid: Option<&str>, key: &EncodingKey| {
            encoded(algorithm, kid, key, claims.clone())
        };
        assert!(
            verifier
                .verify(&token(Algorithm::ES256, Some("p"), &p_key))
                .is_ok()
        );
        assert!(
            verifier
                .verify(&token(Algorithm::EdDSA, Some("e"), &e_key))
                .is_ok()
        );
        for bad in [
            token(Algorithm::ES256, Some("e"), &p_key),
            token(Algorithm::ES256, Some("z"), &p_key),
            token(Algorithm::ES256, None, &p_key),
            token(Algorithm::HS256, Some("p"), &hmac_key()),
        ] {
            assert!(is_invalid(verifier.verify(&bad)));
        }

        let alone = key_set(&[p256]).unwrap();
        assert!(alone.verify(&token(Algorithm::ES256, None, &p_key)).is_ok());
        assert!(is_invalid(alone.verify(&token(
            Algorithm::ES256,
            Some("z"),
            &p_key
        ))));
    }

    #[test]
    fn a_key_of_a_set_may_pin_one_algorithm() {
        let key = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
        let jwk =
            serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::PS256).unwrap()).unwrap();
        let verifier = key_set(&[jwk]).unwrap();
        let claims = json!({ "sub": 1, "exp": now() + 60 });
        assert!(
            verifier
                .verify(&encoded(Algorithm::PS256, None, &key, claims.clone()))
                .is_ok()
        );
        assert!(is_invalid(verifier.verify(&encoded(
            Algorithm::RS256,
            None,
            &key,
            claims
        ))));
    }

    #[test]
    fn sets_that_cannot_serve_are_refused() {
        let p256 = jwk("p", P256_PRIVATE, Algorithm::ES256);
        let mut off_curve = p256.clone();
        off_curve["y"] = off_curve["x"].clone();
        for (keys, expected) in [
            (vec![], "no key for signatures"),
            (
                vec![json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "s" })],
                "symmetric",
            ),
            (vec![p256.clone(), p256], "several keys with one kid"),
            (vec![off_curve], "is damaged"),
            (
                vec![json!({ "kty": "OKP", "crv": "Ed25519", "x": "AQAB" })],
                "does not know",
            ),
            (
                vec![json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" })],
                "less than 2048 bits",
            ),
            (
                vec![json!({ "kty": "RSA", "n": "?", "e": "AQAB" })],
                "no key for signatures",
            ),
        ] {
            let error = key_set(&keys).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// What verifies with a present and a previous key.
    fn rotated(change: impl FnOnce(&mut AuthSettings)) -> Verification {
        let mut auth = AuthSettings {
            previous_until: Some(UNIX_EPOCH + Duration::from_secs(UNTIL)),
            ..Default::default()
        };
        change(&mut auth);
        Verification::read(&auth).unwrap()
    }

    fn hs256(secret: &str) -> String {
        let claims = json!({ "sub": 1, "exp": now() + 60 });
        let key = EncodingKey::from_secret(secret.as_bytes());
        encoded(Algorithm::HS256, None, &key, claims)
    }

    fn es256() -> String {
        let claims = json!({ "sub": 1, "exp": now() + 60 });
        let key = private(P256_PRIVATE, Algorithm::ES256);
        encoded(Algorithm::ES256, Some("p"), &key, claims)
    }

    #[test]
    fn a_previous_key_is_accepted_until_its_time() {
        let keys = rotated(|auth| {
            auth.secret = Some(Secret::new(SECRET));
            auth.previous_secret = Some(Secret::new("the secret before"));
        });
        let until_ms = UNTIL * 1000;
        for (now_ms, accepted) in [
            (0, true),
            (until_ms - 1, true),
            (until_ms, false),
            (u64::MAX, false),
        ] {
            assert!(keys.verify(&hs256(SECRET), now_ms).is_ok(), "{now_ms}");
            let previous = keys.verify(&hs256("the secret before"), now_ms);
            assert_eq!(previous.is_ok(), accepted, "{now_ms}");
            assert!(is_invalid(keys.verify(&hs256("another"), now_ms)));
            assert!(is_invalid(keys.verify(&es256(), now_ms)));
        }
        let claims = json!({ "sub": 1, "exp": now() - 60 });
        let key = EncodingKey::from_secret(b"the secret before");
        let expired = encoded(Algorithm::HS256, None, &key, claims);
        assert_eq!(keys.verify(&expired, 0), Err(TokenError::Expired));
        assert!(is_invalid(keys.verify(&expired, until_ms)));
    }

    #[test]
    fn keys_of_different_kinds_take_each_others_place() {
        let folder = tempfile::tempdir().unwrap();
        let public = file(folder.path(), P256_PUBLIC);
        let other = tempfile::tempdir().unwrap();
        let set = json!({ "keys": [jwk("e", ED_PRIVATE, Algorithm::EdDSA)] });
        let set = file(other.path(), &set.to_string());
        let to_public = rotated(|auth| {
            auth.public_key_file = Some(public.clone());
            auth.previous_secret = Some(Secret::new(SECRET));
        });
        let to_secret = rotated(|auth| {
            auth.secret = Some(Secret::new(SECRET));
            auth.previous_public_key_file = Some(public.clone());
        });
        let to_set = rotated(|auth| {
            auth.jwks_file = Some(set.clone());
            auth.previous_public_key_file = Some(public.clone());
        });
        let before_ms = UNTIL * 1000 - 1;
        for keys in [&to_public, &to_secret] {
            assert!(keys.verify(&hs256(SECRET), before_ms).is_ok());
            assert!(keys.verify(&es256(), before_ms).is_ok());
            // A public key is no secret, whichever of the two it is.
            assert!(is_invalid(keys.verify(&hs256(P256_PUBLIC), before_ms)));
            assert!(is_invalid(
                keys.verify(&hs256(&P256_PUBLIC.replace('\n', "")), before_ms)
            ));
        }
        // The set chooses by `kid`, the previous key is one for all.
        assert!(to_set.verify(&es256(), before_ms).is_ok());
        assert!(is_invalid(to_set.verify(&hs256(SECRET), before_ms)));
        assert!(is_invalid(to_set.verify(&hs256(P256_PUBLIC), before_ms)));
        let claims = json!({ "sub": 1, "exp": now() + 60 });
        let key = private(ED_PRIVATE, Algorithm::EdDSA);
        let named = |kid| encoded(Algorithm::EdDSA, Some(kid), &key, claims.clone());
        assert!(to_set.verify(&named("e"), before_ms).is_ok());
        assert!(is_invalid(to_set.verify(&named("p"), before_ms)));

        let after_ms = UNTIL * 1000;
        assert!(is_invalid(to_public.verify(&hs256(SECRET), after_ms)));
        assert!(is_invalid(to_secret.verify(&es256(), after_ms)));
        assert!(is_invalid(to_set.verify(&es256(), after_ms)));
    }

    #[test]
    fn a_previous_key_that_cannot_serve_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |change: &dyn Fn(&mut AuthSettings)| {
            let mut auth = with_secret();
            auth.previous_until = Some(UNIX_EPOCH);
            change(&mut auth);
            TokenVerifier::new(&auth).unwrap_err()
        };
        let private = file(folder.path(), P256_PRIVATE);
        let error = refused(&|auth| auth.previous_public_key_file = Some(private.clone()));
        let text = error.to_string();
        assert!(
            text.contains("auth.previous_public_key_file names, holds a private key"),
            "{text}"
        );
        let secret = || Some(Secret::new("before"));
        assert!(matches!(
            refused(&|_| ()),
            TokenSetupError::NotOnePreviousKey
        ));
        assert!(matches!(
            refused(&|auth| (auth.previous_secret, auth.previous_until) = (secret(), None)),
            TokenSetupError::NotOnePreviousKey
        ));
        assert!(matches!(
            refused(&|auth| {
                auth.previous_secret = secret();
                auth.previous_public_key_file = Some("/nowhere".into());
            }),
            TokenSetupError::NotOnePreviousKey
        ));
    }
}
