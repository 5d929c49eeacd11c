//! Which tokens (JWT) are valid, and whose they are. Also makes them, for development.
//!
//! What may verify a token is decided by the key that is configured, never by the token: the
//! algorithms are pinned per kind of key, and a key that a token brings along is not looked at.

mod keys;
#[cfg(test)]
mod samples;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

pub use self::keys::TokenSetupError;
use self::keys::{Keys, VerifyingKey};
use crate::clock::{now_ms, since_epoch};
use crate::ids::{SAFE_INTEGER_MAX, UserId};
use crate::settings::AuthSettings;

/// Longest token that is looked at; the largest in use carry a few KiB of groups and roles.
const TOKEN_LEN_MAX: usize = 8 * 1024;

/// Who a token speaks for, since when and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub user: UserId,
    /// When the token expires, in milliseconds since 1970; the leeway is not in it.
    pub expires_at: u64,
    /// When the token was issued, in milliseconds since 1970, if it says so.
    pub issued_at: Option<u64>,
}

/// Why a token is refused. Never holds the token or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not, and will not be, valid here; the reason is for logs.
    #[error("invalid token: {0}")]
    Invalid(&'static str),
    /// It was valid once.
    #[error("expired token")]
    Expired,
}

/// Why no token can be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Whoever has only public keys can verify but not sign.
    #[error(
        "no auth.secret is set: with public keys the hub can verify tokens but not sign them; \
         get one from whoever holds the private key"
    )]
    NoSecret,
    /// The signing failed.
    #[error("cannot sign the token: {0}")]
    Signing(#[from] JwtError),
}

/// Verifies tokens with the configured keys.
#[derive(Debug)]
pub struct TokenVerifier(RwLock<Arc<Verification>>);

/// What holds between two reloads.
#[derive(Debug)]
struct Verification {
    keys: Keys,
    /// Everything but the algorithms, which come with the key.
    rules: Validation,
    user_id_claim: String,
}

impl TokenVerifier {
    /// Reads the keys that `auth` names.
    ///
    /// # Errors
    /// When there is not exactly one source of keys, or a file cannot serve.
    pub fn new(auth: &AuthSettings) -> Result<Self, TokenSetupError> {
        let verification = Verification::read(auth)?;
        Ok(Self(RwLock::new(Arc::new(verification))))
    }

    /// Reads the keys that `auth` names anew, and from then on does as `auth` says. `auth` comes from
    /// [`Settings::load`](crate::settings::Settings::load), which has read the files with secrets anew. Connections
    /// that are open stay so until their tokens expire, whatever key has signed them.
    ///
    /// # Errors
    /// As for [`Self::new`]; then everything stays as it was.
    pub fn reload(&self, auth: &AuthSettings) -> Result<(), TokenSetupError> {
        let verification = Arc::new(Verification::read(auth)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = verification;
        Ok(())
    }

    /// How long a token is accepted after it expired, because clocks differ.
    pub fn leeway(&self) -> Duration {
        Duration::from_secs(self.present().rules.leeway)
    }

    /// Whose token this is, if it is valid now. The engine says whether it was revoked.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        self.present().verify(token, now_ms())
    }

    /// What holds now. Whoever holds it does not hold up a reload.
    fn present(&self) -> Arc<Verification> {
        let present = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&present)
    }
}

impl Verification {
    fn read(auth: &AuthSettings) -> Result<Self, TokenSetupError> {
        Ok(Self {
            keys: Keys::read(auth)?,
            rules: rules(auth),
            user_id_claim: auth.user_id_claim.clone(),
        })
    }

    /// `now_ms` decides which keys count, and what is in the future; `exp` and `nbf` are held against the wall clock.
    fn verify(&self, token: &str, now_ms: u64) -> Result<Identity, TokenError> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(TokenError::Invalid("it is too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(refusal)?;
        if header.crit.is_some() {
            // RFC 7515, 4.1.11: what must be understood and is not makes the token invalid.
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

    /// What the token says, if this key has signed it.
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

/// What a token says. A claim that is there twice makes it invalid: nobody knows which one was meant.
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

/// What `auth` asks of claims.
fn rules(auth: &AuthSettings) -> Validation {
    let mut rules = Validation {
        leeway: auth.leeway.as_secs(),
        validate_nbf: true,
        validate_aud: auth.audience.is_some(),
        ..Validation::default()
    };
    let mut required = vec!["exp"];
    if let Some(issuer) = &auth.issuer {
        rules.set_issuer(&[issuer]);
        required.push("iss");
    }
    if let Some(audience) = &auth.audience {
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
        // A float is exact to a microsecond at best: what is a whole millisecond but for that, is one. What is more
        // than an integer can be becomes the largest.
        None => (seconds.as_f64().filter(|seconds| *seconds >= 0.0)? * 1e6).round() as u64 / 1000,
    };
    Some(milliseconds.min(SAFE_INTEGER_MAX))
}

/// When the token was issued, if it says so. One from the future, whose issuer has another clock or another unit,
/// would outlive a revocation.
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

/// The reason in fixed words: the library's own may quote what the token says.
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

/// Makes a token of `user` that is valid from now on for `ttl`, signed with `auth.secret` (HS256).
pub fn issue(auth: &AuthSettings, user: UserId, ttl: Duration) -> Result<String, IssueError> {
    let secret = auth.secret.as_ref().ok_or(IssueError::NoSecret)?;
    let now = since_epoch();
    let mut claims = Map::new();
    claims.insert("iat".to_owned(), now.as_secs().into());
    claims.insert("exp".to_owned(), now.saturating_add(ttl).as_secs().into());
    if let Some(issuer) = &auth.issuer {
        claims.insert("iss".to_owned(), issuer.as_str().into());
    }
    if let Some(audience) = &auth.audience {
        claims.insert("aud".to_owned(), audience.as_str().into());
    }
    // `sub` is a string by RFC 7519; of any other claim both forms are read.
    claims.insert(auth.user_id_claim.clone(), user.to_string().into());
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    Ok(jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &key,
    )?)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::crypto::sign;
    use serde_json::json;

    use super::samples::*;
    use super::*;
    use crate::settings::Secret;

    #[test]
    fn a_token_signed_with_the_secret_names_its_user() {
        let exp = now() + 60;
        let ada = Ok(Identity {
            user: user(42),
            expires_at: exp * 1000,
            issued_at: None,
        });
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            for sub in [json!(42), json!("42")] {
                let token = signed(algorithm, json!({ "sub": sub, "exp": exp }));
                assert_eq!(verifier(|_| ()).verify(&token), ada, "{algorithm:?}");
            }
        }
    }

    #[test]
    fn what_is_issued_is_valid() {
        let verifier = verifier(|auth| {
            auth.user_id_claim = "uid".to_owned();
            auth.issuer = Some("https://accounts.example".to_owned());
            auth.audience = Some("vigie".to_owned());
        });
        let mut auth = with_secret();
        auth.user_id_claim = "uid".to_owned();
        auth.issuer = Some("https://accounts.example".to_owned());
        auth.audience = Some("vigie".to_owned());
        let token = issue(&auth, user(7), Duration::from_secs(60)).unwrap();
        assert_eq!(verifier.verify(&token).unwrap().user, user(7));

        auth.secret = None;
        assert!(matches!(
            issue(&auth, user(7), Duration::from_secs(60)),
            Err(IssueError::NoSecret)
        ));
    }

    #[test]
    fn user_ids_are_exact() {
        let exp = now() + 60;
        for bad in [
            json!(0),
            json!(-1),
            json!(42.0),
            json!(9_007_199_254_740_992_u64),
            json!(true),
            json!([42]),
            json!(""),
            json!("0"),
            json!("042"),
            json!("+42"),
            json!("42.0"),
            json!(" 42"),
            json!(null),
        ] {
            let token = signed(Algorithm::HS256, json!({ "sub": bad, "exp": exp }));
            assert!(is_invalid(verifier(|_| ()).verify(&token)), "{bad}");
        }
        let token = signed(Algorithm::HS256, json!({ "exp": exp }));
        assert!(is_invalid(verifier(|_| ()).verify(&token)));
    }

    #[test]
    fn times_count_with_leeway() {
        let verify = |claims: Value| verifier(|_| ()).verify(&signed(Algorithm::HS256, claims));
        let now = now();
        assert!(verify(json!({ "sub": 1, "exp": now - 3 })).is_ok());
        assert_eq!(
            verify(json!({ "sub": 1, "exp": now - 8 })),
            Err(TokenError::Expired)
        );
        assert_eq!(
            verify(json!({ "sub": 1, "exp": 0 })),
            Err(TokenError::Expired)
        );
        assert!(verify(json!({ "sub": 1, "exp": now + 60, "nbf": now + 3 })).is_ok());
        assert!(is_invalid(verify(
            json!({ "sub": 1, "exp": now + 60, "nbf": now + 20 })
        )));
        for bad in [json!(null), json!("9999999999"), json!(-1), json!(1e300)] {
            assert!(is_invalid(verify(json!({ "sub": 1, "exp": bad }))), "{bad}");
        }
        assert!(is_invalid(verify(json!({ "sub": 1 }))));
        assert!(is_invalid(verify(
            json!({ "sub": 1, "exp": now + 60, "nbf": "soon" })
        )));

        let far = verify(json!({ "sub": 1, "exp": u64::MAX })).unwrap();
        assert_eq!(far.expires_at, SAFE_INTEGER_MAX);
        let fraction = verify(json!({ "sub": 1, "exp": 9_999_999_999.5 })).unwrap();
        assert_eq!(fraction.expires_at, 9_999_999_999_500);
    }

    #[test]
    fn issuer_and_audience_are_checked_where_configured() {
        let claims = |extra: Value| {
            let mut claims = json!({ "sub": 1, "exp": now() + 60 });
            claims
                .as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            signed(Algorithm::HS256, claims)
        };
        assert!(
            verifier(|_| ())
                .verify(&claims(json!({ "iss": "x", "aud": ["y"] })))
                .is_ok()
        );

        let strict = verifier(|auth| {
            auth.issuer = Some("us".to_owned());
            auth.audience = Some("vigie".to_owned());
        });
        for good in [
            json!({ "iss": "us", "aud": "vigie" }),
            json!({ "iss": "us", "aud": ["x", "vigie"] }),
        ] {
            assert!(strict.verify(&claims(good)).is_ok());
        }
        for bad in [
            json!({}),
            json!({ "iss": "us" }),
            json!({ "aud": "vigie" }),
            json!({ "iss": "them", "aud": "vigie" }),
            json!({ "iss": "us", "aud": "vigie2" }),
            json!({ "iss": "us", "aud": [] }),
            json!({ "iss": 1, "aud": "vigie" }),
        ] {
            assert!(is_invalid(strict.verify(&claims(bad.clone()))), "{bad}");
        }
    }

    #[test]
    fn what_is_not_signed_with_the_key_is_invalid() {
        let verifier = verifier(|_| ());
        let good = signed(Algorithm::HS256, json!({ "sub": 1, "exp": now() + 60 }));
        assert!(verifier.verify(&good).is_ok());

        let (message, signature) = good.rsplit_once('.').unwrap();
        let (_, claims) = message.split_once('.').unwrap();
        let header = |json: &str| format!("{}.{claims}", base64url(json));
        let none = header(r#"{"alg":"none"}"#);
        let critical = header(r#"{"alg":"HS256","crit":["exp"]}"#);
        let critical_signature = sign(critical.as_bytes(), &hmac_key(), Algorithm::HS256).unwrap();
        for bad in [
            String::new(),
            "a.b.c".to_owned(),
            message.to_owned(),
            format!("{message}."),
            format!("{good}."),
            format!("{good}A"),
            format!("{none}."),
            format!("{none}.{signature}"),
            format!("{critical}.{critical_signature}"),
            encoded(
                Algorithm::HS256,
                None,
                &EncodingKey::from_secret(b"another"),
                json!({ "sub": 1, "exp": now() + 60 }),
            ),
            signed(
                Algorithm::HS256,
                json!({ "sub": 1, "exp": now() + 60, "fill": "x".repeat(TOKEN_LEN_MAX) }),
            ),
        ] {
            assert!(is_invalid(verifier.verify(&bad)), "{bad}");
        }
    }

    #[test]
    fn a_token_says_when_it_was_issued() {
        let verification = Verification::read(&with_secret()).unwrap();
        let now_ms = now_ms();
        let issued = |iat: Value| {
            let claims = json!({ "sub": 1, "exp": now() + 60, "iat": iat });
            let token = signed(Algorithm::HS256, claims);
            let verified = verification.verify(&token, now_ms);
            verified.map(|identity| identity.issued_at)
        };
        for (iat, issued_at) in [
            (json!(0), Some(0)),
            (json!(1_700_000_000), Some(1_700_000_000_000)),
            (json!(1_700_000_000.25), Some(1_700_000_000_250)),
            (json!(1_700_000_000.007), Some(1_700_000_000_007)),
            (json!(1_700_000_000.007_9), Some(1_700_000_000_007)),
            (json!(null), None),
        ] {
            assert_eq!(issued(iat.clone()), Ok(issued_at), "{iat}");
        }
        // Every millisecond of a second is itself again.
        for ms in 0..1000 {
            let iat = json!((1_700_000_000_000 + ms) as f64 / 1000.0);
            assert_eq!(issued(iat), Ok(Some(1_700_000_000_000 + ms)));
        }
        let seconds = now_ms as f64 / 1000.0;
        assert!(issued(json!(seconds + 4.9)).is_ok(), "within the leeway");
        for bad in [
            json!(seconds + 5.1),
            json!(now_ms),
            json!(u64::MAX),
            json!(1e308),
            json!(-1),
            json!(-0.5),
            json!("1700000000"),
            json!(true),
            json!([1_700_000_000]),
            json!({}),
        ] {
            assert!(
                matches!(issued(bad.clone()), Err(TokenError::Invalid(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_claim_that_is_there_twice_makes_a_token_invalid() {
        let exp = now() + 60;
        let with = |more: &str| {
            let claims = format!(r#"{{"sub":"1","exp":{exp}{more}}}"#);
            let message = format!("{}.{}", base64url(r#"{"alg":"HS256"}"#), base64url(&claims));
            let signature = sign(message.as_bytes(), &hmac_key(), Algorithm::HS256).unwrap();
            verifier(|_| ()).verify(&format!("{message}.{signature}"))
        };
        assert!(with("").is_ok());
        assert!(with(r#","__proto__":{"sub":"2"},"constructor":1"#).is_ok());
        for twice in [
            r#","sub":"1""#,
            r#","sub":"2""#,
            r#","s\u0075b":"2""#,
            r#","exp":9999999999"#,
            r#","iat":1,"iat":2"#,
            r#","x":1,"x":1"#,
        ] {
            assert!(is_invalid(with(twice)), "{twice}");
        }
    }

    #[test]
    fn reloading_reads_the_keys_anew() {
        let folder = tempfile::tempdir().unwrap();
        let token = |pem, algorithm| {
            let claims = json!({ "sub": 1, "exp": now() + 60 });
            encoded(algorithm, None, &private(pem, algorithm), claims)
        };
        let (p256, ed) = (
            token(P256_PRIVATE, Algorithm::ES256),
            token(ED_PRIVATE, Algorithm::EdDSA),
        );
        let mut auth = AuthSettings {
            public_key_file: Some(file(folder.path(), P256_PUBLIC)),
            ..Default::default()
        };
        let verifier = Arc::new(TokenVerifier::new(&auth).unwrap());
        let accepted = || [&p256, &ed].map(|token| verifier.verify(token).is_ok());
        file(folder.path(), ED_PUBLIC);
        assert_eq!(accepted(), [true, false], "read once");
        verifier.reload(&auth).unwrap();
        assert_eq!(accepted(), [false, true]);

        file(folder.path(), "no key");
        assert!(verifier.reload(&auth).is_err());
        assert_eq!(accepted(), [false, true], "everything stays");
        auth.public_key_file = None;
        assert!(verifier.reload(&auth).is_err());
        assert_eq!(accepted(), [false, true], "everything stays");

        auth.secret = Some(Secret::new(SECRET));
        auth.leeway = Duration::from_secs(60);
        verifier.reload(&auth).unwrap();
        assert_eq!(accepted(), [false, false]);
        assert_eq!(verifier.leeway(), Duration::from_secs(60));
        let claims = json!({ "sub": 1, "exp": now() - 30 });
        assert!(verifier.verify(&signed(Algorithm::HS256, claims)).is_ok());
    }

    fn user(id: u64) -> UserId {
        UserId::try_from(id).unwrap()
    }

    /// Encodes as the parts of a token are.
    fn base64url(text: &str) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let digits = text.as_bytes().chunks(3).flat_map(|chunk| {
            let bits = (0..3).fold(0_usize, |bits, i| {
                bits << 8 | usize::from(*chunk.get(i).unwrap_or(&0))
            });
            (0..=chunk.len()).map(move |i| char::from(DIGITS[bits >> (18 - 6 * i) & 63]))
        });
        digits.collect()
    }
}
