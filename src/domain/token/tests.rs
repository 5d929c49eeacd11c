use jsonwebtoken::crypto::sign;
use serde_json::json;

use super::samples::*;
use super::*;

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
    let verifier = verifier(|options| {
        options.user_id_claim = "uid".to_owned();
        options.issuer = Some("https://accounts.example".to_owned());
        options.audience = Some("vigie".to_owned());
    });
    let mut options = with_secret();
    options.user_id_claim = "uid".to_owned();
    options.issuer = Some("https://accounts.example".to_owned());
    options.audience = Some("vigie".to_owned());
    let token = issue(&options, user(7), Duration::from_secs(60)).unwrap();
    assert_eq!(verifier.verify(&token).unwrap().user, user(7));

    options.secret = None;
    assert!(matches!(
        issue(&options, user(7), Duration::from_secs(60)),
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

    let strict = verifier(|options| {
        options.issuer = Some("us".to_owned());
        options.audience = Some("vigie".to_owned());
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
    let mut options = TokenOptions {
        public_key_file: Some(file(folder.path(), P256_PUBLIC)),
        ..Default::default()
    };
    let verifier = Arc::new(TokenVerifier::new(&options).unwrap());
    let accepted = || [&p256, &ed].map(|token| verifier.verify(token).is_ok());
    file(folder.path(), ED_PUBLIC);
    assert_eq!(accepted(), [true, false], "read once");
    verifier.reload(&options).unwrap();
    assert_eq!(accepted(), [false, true]);

    file(folder.path(), "no key");
    assert!(verifier.reload(&options).is_err());
    assert_eq!(accepted(), [false, true], "everything stays");
    options.public_key_file = None;
    assert!(verifier.reload(&options).is_err());
    assert_eq!(accepted(), [false, true], "everything stays");

    options.secret = Some(SECRET.to_owned());
    options.leeway = Duration::from_secs(60);
    verifier.reload(&options).unwrap();
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
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = text.as_bytes().chunks(3).flat_map(|chunk| {
        let bits = (0..3).fold(0_usize, |bits, i| {
            bits << 8 | usize::from(*chunk.get(i).unwrap_or(&0))
        });
        (0..=chunk.len()).map(move |i| char::from(DIGITS[bits >> (18 - 6 * i) & 63]))
    });
    digits.collect()
}
