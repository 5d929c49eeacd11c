//! Tokens as a stranger may write them, and claims that somebody has signed.

#![no_main]

use std::sync::LazyLock;

use jsonwebtoken::{EncodingKey, Header};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use vigie::internals::{TokenOptions, TokenVerifier};

const SECRET: &str = "a secret that is known to this program alone";

static VERIFIER: LazyLock<TokenVerifier> = LazyLock::new(|| {
    let options = TokenOptions {
        secret: Some(SECRET.to_owned()),
        ..TokenOptions::default()
    };
    TokenVerifier::new(&options).expect("a secret is a key")
});

fuzz_target!(|text: &str| {
    assert!(VERIFIER.verify(text).is_err(), "nobody has signed it");
    if let Ok(claims) = serde_json::from_str::<&RawValue>(text) {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key).expect("it is JSON");
        if let Ok(identity) = VERIFIER.verify(&token) {
            assert!(text.contains(&identity.user.to_string()));
        }
    }
});
