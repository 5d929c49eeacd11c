//! Verifies tokens (JWT), and issues them for development.
//!
//! The configured key decides how a token is verified, the token never does: algorithms are pinned per kind of key, and a
//! key inside a token is ignored.

mod keys;
#[cfg(test)]
mod samples;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use parking_lot::RwLock;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

pub(crate) use self::keys::TokenSetupError;
use self::keys::{Keys, VerifyingKey};
use crate::clock::{now_ms, since_epoch};
use crate::ids::{SAFE_INTEGER_MAX, UserId};

/// Tokens longer than this are refused unread; the largest in use carry a few KiB of groups and roles.
const TOKEN_LEN_MAX: usize = 8 * 1024;

/// How tokens are verified and issued. Has no `Debug`, because it holds secrets.
#[derive(Clone)]
pub struct TokenOptions {
    /// Shared secret of HS256, HS384 and HS512.
    pub secret: Option<String>,
    /// PEM file with one RSA, EC (P-256, P-384) or Ed25519 public key.
    pub public_key_file: Option<PathBuf>,
    /// JSON file with a set of public keys (RFC 7517), chosen by `kid`.
    pub jwks_file: Option<PathBuf>,
    /// Shared secret that was in use before the present key.
    pub previous_secret: Option<String>,
    /// PEM file with the public key that was in use before the present key.
    pub previous_public_key_file: Option<PathBuf>,
    /// The previous key is refused from then on; set exactly where there is one.
    pub previous_until: Option<SystemTime>,
    /// Required value of `iss`.
    pub issuer: Option<String>,
    /// Required entry of `aud`; without it `aud` is ignored.
    pub audience: Option<String>,
    /// Name of the claim that holds the user id.
    pub user_id_claim: String,
    /// Tolerance for `exp`, `nbf` and `iat`, in whole seconds.
    pub leeway: Duration,
}

impl Default for TokenOptions {
    fn default() -> Self {
        Self {
            secret: None,
            public_key_file: None,
            jwks_file: None,
            previous_secret: None,
            previous_public_key_file: None,
            previous_until: None,
            issuer: None,
            audience: None,
            user_id_claim: "sub".to_owned(),
            leeway: Duration::from_secs(5),
        }
    }
}

/// The user a token was issued to, and its lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account that the token authenticates.
    pub user: UserId,
    /// Expiry in ms since 1970, without leeway.
    pub expires_at: u64,
    /// Issue time in ms since 1970, if the token has `iat`.
    pub issued_at: Option<u64>,
}

/// Why a token is refused. Never contains the token or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token will never be valid here; the reason is for logs.
    #[error("invalid token: {0}")]
    Invalid(&'static str),
    /// The token was valid until it expired.
    #[error("expired token")]
    Expired,
}

/// Why a token cannot be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Public keys verify but do not sign.
    #[error(
        "no options.secret is set: with public keys the hub can verify tokens but not sign them; \
         get one from whoever holds the private key"
    )]
    NoSecret,
    /// The library failed to sign.
    #[error("cannot sign the token: {0}")]
    Signing(#[from] JwtError),
}

/// Verifies tokens with the configured keys, which a reload replaces.
#[derive(Debug)]
pub struct TokenVerifier(RwLock<Arc<Verification>>);

/// Keys and rules, immutable between two reloads.
#[derive(Debug)]
struct Verification {
    keys: Keys,
    /// Without algorithms, which belong to the key.
    rules: Validation,
    user_id_claim: String,
}

impl TokenVerifier {
    /// Reads the configured keys.
    ///
    /// # Errors
    /// When there is not exactly one source of keys, or a file holds no usable key.
    pub fn new(options: &TokenOptions) -> Result<Self, TokenSetupError> {
        let verification = Verification::read(options)?;
        Ok(Self(RwLock::new(Arc::new(verification))))
    }

    /// Reads the configured keys and replaces the present ones. Open connections stay open until their tokens expire,
    /// even if the key that signed them is gone.
    ///
    /// # Errors
    /// As for [`Self::new`]; the present keys then stay in use.
    pub fn reload(&self, options: &TokenOptions) -> Result<(), TokenSetupError> {
        let verification = Arc::new(Verification::read(options)?);
        *self.0.write() = verification;
        Ok(())
    }

    /// How long after its expiry a token is still accepted, to tolerate clock skew.
    pub fn leeway(&self) -> Duration {
        Duration::from_secs(self.present().rules.leeway)
    }

    /// Returns the identity of a token that is valid now. Does not check revocation, which only the engine knows.
    ///
    /// # Errors
    /// When the token is invalid or has expired.
    pub fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        self.present().verify(token, now_ms())
    }

    /// A snapshot, so that no reader blocks a reload.
    fn present(&self) -> Arc<Verification> {
        Arc::clone(&self.0.read())
    }
}

impl Verification {
    fn read(options: &TokenOptions) -> Result<Self, TokenSetupError> {
        Ok(Self {
            keys: Keys::read(options)?,
            rules: rules(options),
            user_id_claim: options.user_id_claim.clone(),
        })
    }

    /// `now_ms` applies to the previous key and to `iat`; the library compares `exp` and `nbf` with the wall clock.
    fn verify(&self, token: &str, now_ms: u64) -> Result<Identity, TokenError> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(TokenError::Invalid("it is too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(refusal)?;
        if header.crit.is_some() {
            // RFC 7515, 4.1.11: an unknown critical extension makes the token invalid.
            return Err(TokenError::Invalid("its header has critical extensions"));
        }
        let present = self.keys.present(&header);
        let signed = present.and_then(|key| self.claims(key, token));
        let claims = match (signed, self.keys.previous(now_ms)) {
            (Err(refused @ TokenError::Invalid(_)), Some(previous)) => {
                let signed = self.claims(previous, token);
                signed.map_err(|error| match error {
                    TokenError::Expired => error,
                    TokenError::Invalid(_) => refused,
                })?
            }
            (signed, _) => signed?,
        };
        self.identity(&claims, now_ms)
    }

    /// The claims of the token, if `key` signed it.
    fn claims(&self, key: &VerifyingKey, token: &str) -> Result<Claims, TokenError> {
        let rules = Validation {
            algorithms: key.algorithms.clone(),
            ..self.rules.clone()
        };
        let verified = jsonwebtoken::decode(token, &key.key, &rules);
        verified.map(|token| token.claims).map_err(refusal)
    }

    fn identity(&self, Claims(claims): &Claims, now_ms: u64) -> Result<Identity, TokenError> {
        let user = claims.get(&self.user_id_claim).and_then(user_id);
        let expires_at = claims.get("exp").and_then(milliseconds);
        let latest_ms = now_ms.saturating_add(self.rules.leeway.saturating_mul(1000));
        Ok(Identity {
            user: user.ok_or(TokenError::Invalid("the claim of the user id holds none"))?,
            expires_at: expires_at.ok_or(TokenError::Invalid("exp is no time"))?,
            issued_at: issued_at(claims.get("iat"), latest_ms)?,
        })
    }
}

/// The claims of a token. A duplicate claim is an error, because it is ambiguous.
#[derive(Debug)]
struct Claims(Map<String, Value>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ClaimsVisitor)
    }
}

struct ClaimsVisitor;

impl<'de> Visitor<'de> for ClaimsVisitor {
    type Value = Claims;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with each claim once")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Claims, A::Error> {
        let mut claims = Map::new();
        while let Some((name, value)) = entries.next_entry::<String, Value>()? {
            if claims.insert(name, value).is_some() {
                return Err(A::Error::custom("a claim is there twice"));
            }
        }
        Ok(Claims(claims))
    }
}

/// The checks that the library makes.
fn rules(options: &TokenOptions) -> Validation {
    let mut rules = Validation {
        leeway: options.leeway.as_secs(),
        validate_nbf: true,
        validate_aud: options.audience.is_some(),
        ..Validation::default()
    };
    let mut required = vec!["exp"];
    if let Some(issuer) = &options.issuer {
        rules.set_issuer(&[issuer]);
        required.push("iss");
    }
    if let Some(audience) = &options.audience {
        rules.set_audience(&[audience]);
        required.push("aud");
    }
    rules.set_required_spec_claims(&required);
    rules
}

/// Reads `42` or `"42"`; neither `42.0` nor `"042"`.
fn user_id(claim: &Value) -> Option<UserId> {
    match claim {
        Value::Number(number) => number.as_u64()?.try_into().ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Seconds since 1970, which may have a fraction, as milliseconds that JavaScript can hold.
fn milliseconds(seconds: &Value) -> Option<u64> {
    let milliseconds = match seconds.as_u64() {
        Some(seconds) => seconds.saturating_mul(1000),
        // A float is exact to a microsecond at best, so round to microseconds first. Values too large for an integer
        // saturate.
        None => (seconds.as_f64().filter(|seconds| *seconds >= 0.0)? * 1e6).round() as u64 / 1000,
    };
    Some(milliseconds.min(SAFE_INTEGER_MAX))
}

/// Reads `iat`. A time in the future (another clock, or another unit) would survive a revocation, so it is refused.
fn issued_at(claim: Option<&Value>, latest_ms: u64) -> Result<Option<u64>, TokenError> {
    match claim {
        None | Some(Value::Null) => Ok(None),
        Some(seconds) => match milliseconds(seconds) {
            Some(issued_at) if issued_at <= latest_ms => Ok(Some(issued_at)),
            Some(_) => Err(TokenError::Invalid("it is from the future (iat)")),
            None => Err(TokenError::Invalid("iat is no time")),
        },
    }
}

/// Maps the library's errors to fixed texts, because its own may quote the token.
fn refusal(error: JwtError) -> TokenError {
    TokenError::Invalid(match error.kind() {
        ErrorKind::ExpiredSignature => return TokenError::Expired,
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::InvalidAlgorithm => "its algorithm does not fit the key",
        ErrorKind::MissingRequiredClaim(_) => "it lacks exp, or iss or aud, which are checked",
        ErrorKind::InvalidClaimFormat(_) => "exp or nbf is no time",
        ErrorKind::ImmatureSignature => "it is not valid yet (nbf)",
        ErrorKind::InvalidIssuer => "it is of another issuer",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::Json(_) => "its header or claims are not as they must be",
        _ => "it is no token",
    })
}

/// Issues a token for `user` that expires after `ttl`, signed with the secret (HS256).
///
/// # Errors
/// When no secret is configured, or the library fails to sign.
pub fn issue(options: &TokenOptions, user: UserId, ttl: Duration) -> Result<String, IssueError> {
    let secret = options.secret.as_ref().ok_or(IssueError::NoSecret)?;
    let now = since_epoch();
    let mut claims = Map::new();
    claims.insert("iat".to_owned(), now.as_secs().into());
    claims.insert("exp".to_owned(), now.saturating_add(ttl).as_secs().into());
    if let Some(issuer) = &options.issuer {
        claims.insert("iss".to_owned(), issuer.as_str().into());
    }
    if let Some(audience) = &options.audience {
        claims.insert("aud".to_owned(), audience.as_str().into());
    }
    // `sub` is a string by RFC 7519; `verify` accepts strings and numbers in any claim.
    claims.insert(options.user_id_claim.clone(), user.to_string().into());
    let key = EncodingKey::from_secret(secret.as_bytes());
    Ok(jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &key,
    )?)
}

#[cfg(test)]
mod tests;
