use std::time::Duration;

use jsonwebtoken::EncodingKey;
use serde_json::json;

use super::super::samples::*;
use super::super::{TokenVerifier, Verification};
use super::*;

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
        let verifier = TokenVerifier::new(&TokenOptions {
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
        let options = TokenOptions {
            public_key_file: Some(file(folder.path(), text)),
            ..Default::default()
        };
        let error = TokenVerifier::new(&options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(matches!(
        TokenVerifier::new(&TokenOptions::default()),
        Err(TokenSetupError::NotOneKey)
    ));
    let options = TokenOptions {
        public_key_file: Some("/nowhere".into()),
        ..Default::default()
    };
    assert!(matches!(
        TokenVerifier::new(&options),
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

/// A verification with a present and a previous key.
fn rotated(change: impl FnOnce(&mut TokenOptions)) -> Verification {
    let mut options = TokenOptions {
        previous_until: Some(UNIX_EPOCH + Duration::from_secs(UNTIL)),
        ..Default::default()
    };
    change(&mut options);
    Verification::read(&options).unwrap()
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
    let keys = rotated(|options| {
        options.secret = Some(SECRET.to_owned());
        options.previous_secret = Some("the secret before".to_owned());
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
    let to_public = rotated(|options| {
        options.public_key_file = Some(public.clone());
        options.previous_secret = Some(SECRET.to_owned());
    });
    let to_secret = rotated(|options| {
        options.secret = Some(SECRET.to_owned());
        options.previous_public_key_file = Some(public.clone());
    });
    let to_set = rotated(|options| {
        options.jwks_file = Some(set.clone());
        options.previous_public_key_file = Some(public.clone());
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
    let refused = |change: &dyn Fn(&mut TokenOptions)| {
        let mut options = with_secret();
        options.previous_until = Some(UNIX_EPOCH);
        change(&mut options);
        TokenVerifier::new(&options).unwrap_err()
    };
    let private = file(folder.path(), P256_PRIVATE);
    let error = refused(&|options| options.previous_public_key_file = Some(private.clone()));
    let text = error.to_string();
    assert!(
        text.contains("auth.previous_public_key_file names, holds a private key"),
        "{text}"
    );
    let secret = || Some("before".to_owned());
    assert!(matches!(
        refused(&|_| ()),
        TokenSetupError::NotOnePreviousKey
    ));
    assert!(matches!(
        refused(&|options| (options.previous_secret, options.previous_until) = (secret(), None)),
        TokenSetupError::NotOnePreviousKey
    ));
    assert!(matches!(
        refused(&|options| {
            options.previous_secret = secret();
            options.previous_public_key_file = Some("/nowhere".into());
        }),
        TokenSetupError::NotOnePreviousKey
    ));
}
