//! Reads the keys that verify tokens, and pins the algorithms of each.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Header};
use serde::Deserialize;
use serde_json::Value;

use super::{TokenError, TokenOptions};

/// Shortest RSA modulus that signatures are trusted with (RFC 7518, 3.3).
const RSA_BYTES_MIN: usize = 2048 / 8;

/// Why the configured keys cannot verify tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenSetupError {
    /// No key, or keys of several sources.
    #[error("set exactly one of auth.secret, auth.public_key_file and auth.jwks_file")]
    NotOneKey,
    /// A previous key without an end, an end without a key, or several previous keys.
    #[error(
        "set auth.previous_until with one of auth.previous_secret and auth.previous_public_key_file, or none of them"
    )]
    NotOnePreviousKey,
    /// A key file cannot be read.
    #[error("cannot read {}, which {key} names: {source}", path.display())]
    Unreadable {
        /// The setting that names the file.
        key: &'static str,
        /// The file as configured.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A key file holds no usable key.
    #[error("{}, which {key} names, {problem}", path.display())]
    Unusable {
        /// The setting that names the file.
        key: &'static str,
        /// The file as configured.
        path: PathBuf,
        /// The fault, in words that follow the file's name.
        problem: String,
    },
}

#[derive(Debug)]
pub(super) struct Keys {
    /// At least one key; several only if they come from a set.
    present: Vec<VerifyingKey>,
    /// Whether the `kid` of a token selects the present key.
    chosen_by_kid: bool,
    previous: Option<PreviousKey>,
}

/// The key that was replaced; tokens that it signed are accepted for a while.
#[derive(Debug)]
struct PreviousKey {
    key: VerifyingKey,
    /// In ms since 1970; the key is refused from then on.
    until_ms: u64,
}

/// A key and the algorithms it may verify.
#[derive(Debug)]
pub(super) struct VerifyingKey {
    kid: Option<String>,
    pub(super) key: DecodingKey,
    pub(super) algorithms: Vec<Algorithm>,
}

impl Keys {
    pub(super) fn read(options: &TokenOptions) -> Result<Self, TokenSetupError> {
        let (present, chosen_by_kid) = match (
            &options.secret,
            &options.public_key_file,
            &options.jwks_file,
        ) {
            (Some(secret), None, None) => (vec![VerifyingKey::from_secret(secret)], false),
            (None, Some(path), None) => {
                (vec![read_public_key("auth.public_key_file", path)?], false)
            }
            (None, None, Some(path)) => (read_key_set(path)?, true),
            _ => return Err(TokenSetupError::NotOneKey),
        };
        Ok(Self {
            present,
            chosen_by_kid,
            previous: PreviousKey::read(options)?,
        })
    }

    /// The only key that may have signed a token with this header, the previous key apart.
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

    /// The previous key, if it is still accepted at `now_ms`.
    pub(super) fn previous(&self, now_ms: u64) -> Option<&VerifyingKey> {
        let previous = self.previous.as_ref();
        let previous = previous.filter(|previous| now_ms < previous.until_ms);
        previous.map(|previous| &previous.key)
    }
}

impl PreviousKey {
    fn read(options: &TokenOptions) -> Result<Option<Self>, TokenSetupError> {
        let secret = options.previous_secret.as_ref();
        let (key, until) = match (
            secret,
            &options.previous_public_key_file,
            options.previous_until,
        ) {
            (None, None, None) => return Ok(None),
            (Some(secret), None, Some(until)) => (VerifyingKey::from_secret(secret), until),
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

    /// Pins the algorithms of a public key. An error names the fault in words that follow the file's name.
    fn from_public(kid: Option<String>, key: DecodingKey) -> Result<Self, &'static str> {
        let algorithms = match (key.family(), key_len(&key)) {
            (AlgorithmFamily::Rsa, RSA_BYTES_MIN..) => AlgorithmFamily::Rsa.algorithms().to_vec(),
            (AlgorithmFamily::Rsa, _) => return Err("is an RSA key of less than 2048 bits"),
            // The length of a point, uncompressed or compressed, identifies its curve.
            (AlgorithmFamily::Ec, 65 | 33) => vec![Algorithm::ES256],
            (AlgorithmFamily::Ec, 97 | 49) => vec![Algorithm::ES384],
            (AlgorithmFamily::Ed, 32) => vec![Algorithm::EdDSA],
            _ => return Err("is of a kind that the hub does not know"),
        };
        // The library parses a key only when it verifies, so verify something now.
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

    /// Reads a key of a set; `None` if it is not for signatures or of an unknown kind.
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

/// Length in bytes of the modulus, the point or the raw key. For an RSA key from PEM it is the length of the DER, a few
/// bytes more than the modulus.
fn key_len(key: &DecodingKey) -> usize {
    match key.kind() {
        DecodingKeyKind::SecretOrDer(bytes) => bytes.len(),
        DecodingKeyKind::RsaModulusExponent { n, .. } => n.len(),
    }
}

/// Reads the PEM file that the setting `key` names.
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
    /// A set with its keys unparsed, because keys of unknown kinds are skipped.
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
mod tests;
