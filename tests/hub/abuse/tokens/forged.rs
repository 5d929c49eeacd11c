//! Tokens of those who have no key: they talk the hub out of checking, or into checking with a key that they have.

use jsonwebtoken::Algorithm;
use vigie::settings::DEVELOPMENT_SECRET;

use super::{Case, Target, good_claims, key_set};
use crate::harness::{EC_PUBLIC, ED_PUBLIC, FOREIGN_PRIVATE, FOREIGN_X, Signer, base64url};

/// Everything that whoever has no key can think of. `url` is where keys of theirs are to be had.
pub(super) fn cases(target: &Target, url: &str) -> Vec<Case> {
    let mut cases = unsigned(target);
    cases.extend(confused(target));
    cases.extend(brought_along(url));
    cases.extend(guessed());
    cases.extend(altered(target));
    cases
}

/// No algorithm, or one that there is not.
fn unsigned(target: &Target) -> Vec<Case> {
    let good = target.good();
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (_, claims) = message.split_once('.').expect("three parts");
    let mut cases = Vec::new();
    for header in [
        r#"{"typ":"JWT","alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"NONE"}"#,
        r#"{"alg":"nOnE"}"#,
        r#"{"alg":"none\u0000"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":null}"#,
        r#"{"alg":0}"#,
        r#"{"alg":true}"#,
        r#"{"alg":["HS256","none"]}"#,
        r#"{"alg":{"name":"HS256"}}"#,
        r#"{"alg":"HS256 "}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS1"}"#,
        r#"{"alg":"RSA1_5"}"#,
        r#"{"alg":"dir","enc":"A256GCM"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"ALG":"none"}"#,
        r#"{"__proto__":{"alg":"none"}}"#,
        "{}",
    ] {
        let unsigned = format!("{}.{claims}", base64url(header));
        for signature in ["", signature, "AA", &base64url([0; 64])] {
            let token = format!("{unsigned}.{signature}");
            cases.push(Case::invalid(header, token));
        }
        cases.push(Case::invalid(header, unsigned));
    }
    cases
}

/// Signed with what everybody has, as if it were a secret.
fn confused(target: &Target) -> Vec<Case> {
    let body = |pem: &str| -> String { pem.lines().filter(|line| !line.contains('-')).collect() };
    let public: Vec<String> = [EC_PUBLIC, ED_PUBLIC]
        .iter()
        .flat_map(|pem| {
            [
                (*pem).to_owned(),
                pem.trim_end().to_owned(),
                pem.replace('\n', "\r\n"),
                pem.replace('\n', ""),
                body(pem),
            ]
        })
        .chain([key_set(), FOREIGN_X.to_owned()])
        .collect();
    let mut cases = Vec::new();
    for secret in &public {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = format!(r#"{{"alg":"{algorithm:?}"{}}}"#, target.header);
            let signer = Signer::hmac(algorithm, secret);
            let what = format!("{header} with a public key as the secret");
            cases.push(Case::invalid(what, signer.sign(&header, good_claims())));
        }
    }
    cases
}

/// Signed with a key of one's own, which the token brings along, or says where to find.
fn brought_along(url: &str) -> Vec<Case> {
    let jwk = format!(r#""jwk":{{"kty":"OKP","crv":"Ed25519","kid":"e","x":"{FOREIGN_X}"}}"#);
    let oct = r#""jwk":{"kty":"oct","k":"AAAA","kid":"e"}"#;
    let foreign = Signer::ed(FOREIGN_PRIVATE);
    let mut cases = Vec::new();
    for more in [
        String::new(),
        jwk.clone(),
        format!(r#"{jwk},"kid":"e""#),
        oct.to_owned(),
        r#""jwk":{}"#.to_owned(),
        r#""jwk":"x""#.to_owned(),
        format!(r#""jku":"{url}""#),
        format!(r#""jku":"{url}","kid":"e""#),
        r#""jku":"file:///etc/passwd""#.to_owned(),
        format!(r#""x5u":"{url}""#),
        format!(r#""x5c":["{FOREIGN_X}"]"#),
        r#""x5t":"AAAA","x5t#S256":"AAAA""#.to_owned(),
    ] {
        for alg in ["EdDSA", "ES256", "HS256"] {
            let comma = if more.is_empty() { "" } else { "," };
            let header = format!(r#"{{"alg":"{alg}"{comma}{more}}}"#);
            cases.push(Case::invalid(&header, foreign.sign(&header, good_claims())));
        }
    }
    cases
}

/// Signed with a secret that is none, or named so that one would be looked for in the wrong place.
fn guessed() -> Vec<Case> {
    let long = format!("\"{}\"", "e".repeat(4_000));
    let mut cases = Vec::new();
    for kid in [
        r#""/dev/null""#,
        r#""../../../../../../dev/null""#,
        r#""..\\..\\NUL""#,
        r#""file:///dev/null""#,
        r#""http://127.0.0.1/""#,
        r#""' UNION SELECT 'x' --""#,
        r#""x' OR '1'='1""#,
        r#""$(id)""#,
        r#""|id""#,
        r#""e\u0000""#,
        r#""E""#,
        r#""__proto__""#,
        r#""""#,
        "null",
        "0",
        "true",
        "[]",
        "{}",
        r#"["e"]"#,
        r#""e","kid":"p""#,
        &long,
    ] {
        // Keys that are in no file, and the answer of the injected query.
        for secret in ["", "x"] {
            let header = format!(r#"{{"alg":"HS256","kid":{kid}}}"#);
            let token = Signer::secret(secret).sign(&header, good_claims());
            cases.push(Case::invalid(format!("{header} with {secret:?}"), token));
        }
    }
    for secret in ["secret", DEVELOPMENT_SECRET, &"\0".repeat(32)] {
        let token = Signer::secret(secret).token(good_claims());
        cases.push(Case::invalid(format!("signed with {secret:?}"), token));
    }
    cases
}

/// Made of good ones.
fn altered(target: &Target) -> Vec<Case> {
    let (good, other) = (
        target.good(),
        target.sign(r#"{"sub":"7","exp":9999999999}"#),
    );
    let parts = |token: &str| -> Vec<String> { token.split('.').map(str::to_owned).collect() };
    let (g, o) = (parts(&good), parts(&other));
    let mut cases = Vec::new();
    let mut alter = |what: &str, token: String| cases.push(Case::invalid(what, token));
    alter("another's signature", format!("{}.{}.{}", g[0], g[1], o[2]));
    alter("another's claims", format!("{}.{}.{}", g[0], o[1], g[2]));
    alter(
        "parts in another order",
        format!("{}.{}.{}", g[1], g[0], g[2]),
    );
    alter("the signature first", format!("{}.{}.{}", g[2], g[0], g[1]));
    alter("no signature", format!("{}.{}.", g[0], g[1]));
    alter("two parts", format!("{}.{}", g[0], g[1]));
    alter("no claims", format!("{}..{}", g[0], g[2]));
    alter("no header", format!(".{}.{}", g[1], g[2]));
    alter("a fourth part", format!("{good}.{}", g[2]));
    alter("five parts", format!("{good}.{}.{}", g[1], g[2]));
    alter("twice", format!("{good}.{good}"));
    alter("a dot behind", format!("{good}."));
    alter("a dot before", format!(".{good}"));
    alter("padding", format!("{good}=="));
    alter("more behind", format!("{good}A"));
    alter("a quotation", format!("\"{good}\""));
    alter("a scheme", format!("Bearer {good}"));
    alter("upper case", good.to_uppercase());
    alter("a space within", good.replacen('.', ". ", 1));
    alter("a zero within", good.replacen('.', ".\0", 1));
    alter("a line within", good.replacen('.', ".\n", 1));
    alter("a mark before", format!("\u{feff}{good}"));
    alter("percent signs", good.replace('.', "%2E"));
    for at in [
        1,
        10,
        g[0].len(),
        g[0].len() + 2,
        good.len() / 2,
        good.len() - 1,
    ] {
        alter("cut off behind", good[..at].to_owned());
        alter("cut off before", good[at..].to_owned());
    }
    alter(
        "JSON",
        format!(
            r#"{{"protected":"{}","payload":"{}","signature":"{}"}}"#,
            g[0], g[1], g[2]
        ),
    );
    for nonsense in [
        " ",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
        "null",
        "undefined",
        "[object Object]",
        "42",
        "💥.💥.💥",
        "\u{202e}.\u{0}.\u{fffd}",
        "....................",
        "%00",
        "../../x",
    ] {
        alter("nonsense", nonsense.to_owned());
    }
    alter("many dots", ".".repeat(8_000));
    alter("many letters", "A".repeat(15_000));
    cases
}

/// Signed by one of the keys in a set, and named as none of them, or as another.
pub(super) fn misnamed(target: &Target) -> Vec<Case> {
    let long = format!(r#","kid":"{}""#, "e".repeat(4_000));
    let kids = [
        "",
        r#","kid":"p""#,
        r#","kid":"E""#,
        r#","kid":"e ""#,
        r#","kid":"""#,
        r#","kid":"../e""#,
        r#","kid":"e\u0000""#,
        r#","kid":null"#,
        r#","kid":1"#,
        r#","kid":["e"]"#,
        r#","kid":{"e":1}"#,
        r#","kid":"e","kid":"e""#,
        r#","kid":"p","kid":"e""#,
        r#","KID":"e""#,
        &long,
    ];
    let named = |kid: &&str| Case::invalid(*kid, target.sign_with(kid, good_claims()));
    kids.iter().map(named).collect()
}
