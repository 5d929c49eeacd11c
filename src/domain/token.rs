//! Which tokens (JWT) are valid, and whose they are. Also makes them, for development.
//!
//! What may verify a token is decided by the key that is configured, never by the token: the
//! algorithms are pinned per kind of key, and a key that a token brings along is not looked at.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey, Header, Validation,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::clock::since_epoch;
use crate::ids::{SAFE_INTEGER_MAX, UserId};
use crate::settings::AuthSettings;

/// Longest token that is looked at; the largest in use carry a few KiB of groups and roles.
const TOKEN_LEN_MAX: usize = 8 * 1024;

/// Shortest RSA modulus that signatures are trusted with (RFC 7518, 3.3).
const RSA_BYTES_MIN: usize = 2048 / 8;

/// Who a token speaks for, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub user: UserId,
    /// When the token expires, in milliseconds since 1970; the leeway is not in it.
    pub expires_at: u64,
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

/// Why the configured keys cannot verify tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenSetupError {
    /// No key, or several kinds.
    #[error("set exactly one of auth.secret, auth.public_key_file and auth.jwks_file")]
    NotOneKey,
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
#[derive(Clone, Debug)]
pub struct TokenVerifier {
    /// At least one; several only from a set.
    keys: Vec<VerifyingKey>,
    /// Whether a token's `kid` chooses among the keys.
    chosen_by_kid: bool,
    /// Everything but the algorithms, which come with the key.
    rules: Validation,
    user_id_claim: String,
}

/// One key, and the algorithms it may be used with.
#[derive(Clone, Debug)]
struct VerifyingKey {
    kid: Option<String>,
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl TokenVerifier {
    /// How long a token is accepted after it expired, because clocks differ.
    pub fn leeway(&self) -> Duration {
        Duration::from_secs(self.rules.leeway)
    }

    /// Reads the keys that `auth` names.
    pub fn new(auth: &AuthSettings) -> Result<Self, TokenSetupError> {
        let (keys, chosen_by_kid) = match (&auth.secret, &auth.public_key_file, &auth.jwks_file) {
            (Some(secret), None, None) => (vec![VerifyingKey::from_secret(secret.expose())], false),
            (None, Some(path), None) => (vec![read_public_key(path)?], false),
            (None, None, Some(path)) => (read_key_set(path)?, true),
            _ => return Err(TokenSetupError::NotOneKey),
        };
        Ok(Self {
            keys,
            chosen_by_kid,
            rules: rules(auth),
            user_id_claim: auth.user_id_claim.clone(),
        })
    }

    /// Whose token this is, if it is valid now.
    pub fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(TokenError::Invalid("it is too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(refusal)?;
        if header.crit.is_some() {
            // RFC 7515, 4.1.11: what must be understood and is not makes the token invalid.
            return Err(TokenError::Invalid("its header has critical extensions"));
        }
        let key = self.choose_key(&header)?;
        let rules = Validation {
            algorithms: key.algorithms.clone(),
            ..self.rules.clone()
        };
        let verified = jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &rules);
        self.identity(&verified.map_err(refusal)?.claims)
    }

    fn choose_key(&self, header: &Header) -> Result<&VerifyingKey, TokenError> {
        match (self.keys.as_slice(), &header.kid) {
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

    fn identity(&self, claims: &Map<String, Value>) -> Result<Identity, TokenError> {
        let user = claims.get(&self.user_id_claim).and_then(user_id);
        let expires_at = claims.get("exp").and_then(milliseconds);
        Ok(Identity {
            user: user.ok_or(TokenError::Invalid("the claim of the user id holds none"))?,
            expires_at: expires_at.ok_or(TokenError::Invalid("exp is no time"))?,
        })
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
        // A float becomes the nearest integer there is.
        None => (seconds.as_f64()? * 1000.0) as u64,
    };
    Some(milliseconds.min(SAFE_INTEGER_MAX))
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
        match usable {
            true => Ok(Self {
                kid,
                key,
                algorithms,
            }),
            false => Err("is damaged"),
        }
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

fn read_public_key(path: &Path) -> Result<VerifyingKey, TokenSetupError> {
    const KEY: &str = "auth.public_key_file";
    let pem = read(KEY, path)?;
    if pem.contains("PRIVATE KEY") {
        return Err(unusable(
            KEY,
            path,
            "holds a private key: give the hub only the public one",
        ));
    }
    let readers = [
        DecodingKey::from_rsa_pem,
        DecodingKey::from_ec_pem,
        DecodingKey::from_ed_pem,
    ];
    let key = readers.iter().find_map(|read| read(pem.as_bytes()).ok());
    let key = key.ok_or_else(|| {
        unusable(
            KEY,
            path,
            "holds no public key in PEM (RSA, EC on P-256 or P-384, Ed25519)",
        )
    })?;
    VerifyingKey::from_public(None, key).map_err(|problem| unusable(KEY, path, problem))
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

    use super::*;
    use crate::settings::Secret;

    const SECRET: &str = "a secret of these tests, and of nothing else";

    #[test]
    fn a_token_signed_with_the_secret_names_its_user() {
        let exp = now() + 60;
        let ada = Ok(Identity {
            user: user(42),
            expires_at: exp * 1000,
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
            let path = folder.path().join("key.pem");
            fs::write(&path, public).unwrap();
            let verifier = TokenVerifier::new(&AuthSettings {
                public_key_file: Some(path),
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
        let path = folder.path().join("key.pem");
        for (text, expected) in [
            (RSA_PRIVATE, "holds a private key"),
            ("", "holds no public key in PEM"),
            (SECRET, "holds no public key in PEM"),
            (RSA_SHORT, "less than 2048 bits"),
        ] {
            fs::write(&path, text).unwrap();
            let auth = AuthSettings {
                public_key_file: Some(path.clone()),
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

    fn now() -> u64 {
        since_epoch().as_secs()
    }

    fn user(id: u64) -> UserId {
        UserId::try_from(id).unwrap()
    }

    fn is_invalid(result: Result<Identity, TokenError>) -> bool {
        matches!(result, Err(TokenError::Invalid(_)))
    }

    fn with_secret() -> AuthSettings {
        AuthSettings {
            secret: Some(Secret::new(SECRET)),
            ..Default::default()
        }
    }

    fn verifier(change: impl FnOnce(&mut AuthSettings)) -> TokenVerifier {
        let mut auth = with_secret();
        change(&mut auth);
        TokenVerifier::new(&auth).unwrap()
    }

    fn key_set(keys: &[Value]) -> Result<TokenVerifier, TokenSetupError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwks.json");
        fs::write(&path, json!({ "keys": keys }).to_string()).unwrap();
        TokenVerifier::new(&AuthSettings {
            jwks_file: Some(path),
            ..Default::default()
        })
    }

    fn hmac_key() -> EncodingKey {
        EncodingKey::from_secret(SECRET.as_bytes())
    }

    fn private(pem: &str, algorithm: Algorithm) -> EncodingKey {
        match algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()).unwrap(),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()).unwrap(),
        }
    }

    fn jwk(kid: &str, pem: &str, algorithm: Algorithm) -> Value {
        let mut jwk = Jwk::from_encoding_key(&private(pem, algorithm), algorithm).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    fn signed(algorithm: Algorithm, claims: Value) -> String {
        encoded(algorithm, None, &hmac_key(), claims)
    }

    fn encoded(
        algorithm: Algorithm,
        kid: Option<&str>,
        key: &EncodingKey,
        claims: Value,
    ) -> String {
        let mut header = Header::new(algorithm);
        header.kid = kid.map(str::to_owned);
        jsonwebtoken::encode(&header, &claims, key).unwrap()
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

    // Keys made for these tests and used nowhere else.

    const RSA_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQC5KmPvIrq0TS9X
K8nOx6DiNphtzs9qTIF+RsZAtTpJOtBW7apdCVuVTfz6vKAY7YRc3YHslJ6vDri6
gqXkoSUEU1uSTaq/CkCisBWi2EjIPhmC/NVxKiFpHYj/7JYS/3lLMECIEiY+cGYi
8tvCS+tSjIQauUGRWvf6U8fHXWzDiRtLodfD/Z4eRiPgdX9xjDCMCSFJr5RCJOqL
SGkDQq8lQ6XlTNryTmHgDslHMajefwDYxzfwEfjCIor0KR9FwlH/znZqGmQ8VNM+
oitxaFhAIwFTQFZNz+g1MP3Ad/0VQ8DerkaRpa3QH3dtg19ijSrMFOiSLQIDsxML
9fNfUtRdAgMBAAECggEAUSTyhmmByGHKzTizR5rUNk4Wnohy/PJqDRyW5OSGlnDf
vDiK4Bqpt9RleLwQrNvplYi81yCKKc0ZxyJZ8MdtoWemSYcfvHiRurnPwX1m59nO
9Eg4gU8lNRtsXjsfyVOLpBeRMBBEEjjPiaFEDPGYPqS1f8CPq1NiOKFee0/Fyioc
nea7bz76wrw7POjg3N9uJi8bZ485OTSKw7T+NLeZwGYEXoed4oQ1rPL5tFqk7gzc
ftme2KwLTp5cniqgg1n/6aGDRAUplaOU7UGUO27Sb3UgN5TICrgeV3Le9wWa+gH9
E3KvzfoakfYxzPp8KgfWq+MvOBTYlDgN79qWnN+pQQKBgQDeZ6USl8q+fgrCo9Ej
rtuNZU8dt0sqm+ValoMhYB33QVI0YS1VQR6nFPpNItiy7Fm25NHVlDoXHXS6IxzR
FPEI3DrCA/C/ysVfmZjlYaUZA6du0aKMOGcgjDeW9GT1fv4ZmkJ/byfexBfVJago
/LrKIE//n+Po1zWvYPj/NKMwBwKBgQDVIrWpvJQM0hYIKVoS+U9qe1Li/tSA9rR5
WVGZaebV6V1c8EN+eIxbzJJbj0XEYTq68ehIqsG9dz15kKmgEliZ+KLZkroi2Y3u
bn99tZnDmfkUUYJo9we3+dP6di1lbu+75gJ/G0Wu/jBjpJdjI8D4z8OHAoH/R3Bk
T35kxMz3ewKBgDvfdR4DRS5xKh5qEYRkr3BqRJlAXfjzjRQNDvIuOQL2T9YQDy8z
X7glOpkHd4T7gc9t3Ft+EwFkCaeOilRzKcxz1VGj0+0d/nKVHAcseVC5nhqETxkm
mgS2GsUFuCQq8ucbkylRWE9tROk5wQJ/vx1pA4BSn/1v6mDzXzT9C62DAoGAVTjs
xLMHy9yRPLA0ORQBIkWvjd5xYCPFZCRH0X0b9Pq7/zZ+9moDTY2OFBhEwFJUZn3l
8HB+yWCNbzdd7AiJ7v8RNshJrzeoXedHCR/9HM5LX0l8SLZGGtVFYoewfTePmmVN
KD/ibCdtd9pPQjAAsDx7JVfmXQnWsfVrR6W9g1MCgYA3FR0+0VoL9bE06Dm8jZ1G
7CYCY0Kd8EX4FTe81d4fYBzsDcHmpmb95coNLLrXvPgBxXa9zEax/gs3QQNploQr
pRaNuUsr//zc0uhxH9m/1jTpQGr6ALU0G60ilh3lbcKVPsBQTe+lkQydcXP6cgQw
k2tENuB2w/rebpMB/ImM5Q==
-----END PRIVATE KEY-----";
    const RSA_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAuSpj7yK6tE0vVyvJzseg
4jaYbc7PakyBfkbGQLU6STrQVu2qXQlblU38+rygGO2EXN2B7JSerw64uoKl5KEl
BFNbkk2qvwpAorAVothIyD4ZgvzVcSohaR2I/+yWEv95SzBAiBImPnBmIvLbwkvr
UoyEGrlBkVr3+lPHx11sw4kbS6HXw/2eHkYj4HV/cYwwjAkhSa+UQiTqi0hpA0Kv
JUOl5Uza8k5h4A7JRzGo3n8A2Mc38BH4wiKK9CkfRcJR/852ahpkPFTTPqIrcWhY
QCMBU0BWTc/oNTD9wHf9FUPA3q5GkaWt0B93bYNfYo0qzBToki0CA7MTC/XzX1LU
XQIDAQAB
-----END PUBLIC KEY-----";
    const RSA_SHORT: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCXCpgOv9Z/WvtNOt0WikLh5lBo
IMryiiWy9bMHxsk/y732bNXsrszujOs02hLA/w3ZHOFZ/3xZOeOrlSanAP1PjQvE
42dfpEEEsoVAbc0l4MH26PMd9Ei/k246IgkQd6gL81tG2ri2jQWO/ZyaSsb1kV5m
gIdBy2302l/LNAsV2wIDAQAB
-----END PUBLIC KEY-----";
    const P256_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQglZSVbDk0gL0WpCpS
fajZiCAC7PESW9JFJ/yG15SWoN6hRANCAASvqNZT3dkiUet9d9fEGkms0Hd9cYp2
7uhv5tzBKz2pJEdA8yvXQnL4tVxyZhNPMeRXrWxE5eARuewWx9SRqy7G
-----END PRIVATE KEY-----";
    const P256_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEr6jWU93ZIlHrfXfXxBpJrNB3fXGK
du7ob+bcwSs9qSRHQPMr10Jy+LVccmYTTzHkV61sROXgEbnsFsfUkasuxg==
-----END PUBLIC KEY-----";
    const P384_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDC086yVcG90Xa746fzB
cT36r+R0DpIQmYpPvymUCckNOcBhsBC77/CnJXWijEbXxZyhZANiAASo8w7La66a
OCC9IsnliMQ+2WhIm5B4DAsQKh6KBkA4a2RYQKS5A/on4aQfpGF4NgUD/QjzT1P6
TTN2LvFHVZHb+HXMQwgaUt2FAvSVZGnalXt8Xm/sL64lFni2S7PVsSs=
-----END PRIVATE KEY-----";
    const P384_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEqPMOy2uumjggvSLJ5YjEPtloSJuQeAwL
ECoeigZAOGtkWECkuQP6J+GkH6RheDYFA/0I809T+k0zdi7xR1WR2/h1zEMIGlLd
hQL0lWRp2pV7fF5v7C+uJRZ4tkuz1bEr
-----END PUBLIC KEY-----";
    const ED_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJo9XE6ruAX0ZMNsFgGiYgNBb2Ym3i/sI7dS+gQ38Iaf
-----END PRIVATE KEY-----";
    const ED_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAzjTbJZY8PPWDI51LTclwEbLgxk7ruP+eDPza6CWPwmo=
-----END PUBLIC KEY-----";
}
