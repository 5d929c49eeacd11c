//! Tokens that are signed as they should be, and say what no token says.

use super::{Case, Target, good_claims};
use crate::harness::now_seconds;

/// Everything that whoever has a key can get wrong.
pub(super) fn cases(target: &Target) -> Vec<Case> {
    let mut cases = times(target);
    cases.extend(users(target));
    cases.extend(structures(target));
    cases.extend(critical(target));
    cases
}

/// Expiries, beginnings and dates of issue.
fn times(target: &Target) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut with = |claims: String, refusal| {
        let token = target.sign(&claims);
        cases.push(Case {
            what: claims,
            refusal,
            token,
        });
    };
    let now = now_seconds();
    with(r#"{"sub":"42"}"#.to_owned(), "invalid_token");
    for exp in [
        r#""9999999999""#,
        r#""never""#,
        r#""NaN""#,
        "null",
        "true",
        "false",
        "[]",
        "[9999999999]",
        "{}",
        "-1",
        "-0.5",
        "-1e308",
        "2e19",
        "1e308",
        "1e309",
        "18446744073709551616",
        "NaN",
        "Infinity",
        "-Infinity",
        "0x7fffffff",
        "09999999999",
        "9999999999.",
        "+9999999999",
        "",
    ] {
        with(format!(r#"{{"sub":"42","exp":{exp}}}"#), "invalid_token");
    }
    for exp in ["0", "1", "1.5", "1e3", &(now - 60).to_string()] {
        with(format!(r#"{{"sub":"42","exp":{exp}}}"#), "token_expired");
    }
    let soon = now + 600;
    for nbf in [
        &(now + 60).to_string(),
        "1e15",
        "-1",
        r#""0""#,
        "true",
        "[]",
        "{}",
    ] {
        let claims = format!(r#"{{"sub":"42","exp":{soon},"nbf":{nbf}}}"#);
        with(claims, "invalid_token");
    }
    let in_ms = format!("{now}000");
    for iat in [
        &(now + 60).to_string(),
        &in_ms,
        "1e308",
        "-1",
        r#""0""#,
        "true",
        "[]",
        "{}",
    ] {
        let claims = format!(r#"{{"sub":"42","exp":{soon},"iat":{iat}}}"#);
        with(claims, "invalid_token");
    }
    cases
}

/// Claims of the user id.
fn users(target: &Target) -> Vec<Case> {
    let soon = now_seconds() + 600;
    let mut cases = Vec::new();
    let mut with = |claims: String| {
        let token = target.sign(&claims);
        cases.push(Case::invalid(claims, token));
    };
    for sub in [
        "0",
        "-1",
        "-0",
        "1.5",
        "42.0",
        "1e3",
        "9007199254740992",
        "18446744073709551615",
        "18446744073709551616",
        "null",
        "true",
        "[]",
        "[42]",
        r#"["42"]"#,
        "{}",
        r#"{"id":42}"#,
        r#""""#,
        r#""0""#,
        r#""-1""#,
        r#""1.5""#,
        r#""042""#,
        r#""+42""#,
        r#"" 42""#,
        r#""42 ""#,
        r#""42\n""#,
        r#""42\u0000""#,
        r#""1e3""#,
        r#""0x2a""#,
        r#""4_2""#,
        r#""४२""#,
        r#""９""#,
        r#""9007199254740992""#,
        r#""99999999999999999999999999""#,
        r#""42; DROP TABLE users""#,
        r#""null""#,
    ] {
        with(format!(r#"{{"sub":{sub},"exp":{soon}}}"#));
    }
    with(format!(r#"{{"exp":{soon}}}"#));
    with(format!(r#"{{"Sub":"42","exp":{soon}}}"#));
    with(format!(r#"{{"__proto__":{{"sub":"42"}},"exp":{soon}}}"#));
    with(format!(
        r#"{{"constructor":{{"prototype":{{"sub":"42"}}}},"exp":{soon}}}"#
    ));
    for twice in [
        r#""sub":"7""#,
        r#""sub":"42""#,
        r#""s\u0075b":"7""#,
        r#""exp":9999999999"#,
        r#""x":1,"x":1"#,
        r#""__proto__":{},"__proto__":{}"#,
    ] {
        with(format!(r#"{{"sub":"42","exp":{soon},{twice}}}"#));
        with(format!(r#"{{{twice},"sub":"42","exp":{soon}}}"#));
    }
    cases
}

/// Tokens whose parts are no objects, no JSON, or no text.
fn structures(target: &Target) -> Vec<Case> {
    let soon = now_seconds() + 600;
    let mut cases = Vec::new();
    let deep = |open: &str, close: &str, depth| {
        let inner = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        format!(r#"{{"sub":"42","exp":{soon},"deep":{inner}}}"#)
    };
    for claims in [
        "",
        "null",
        "42",
        r#""42""#,
        "[]",
        r#"["42",9999999999]"#,
        "{",
        "{}",
        "{}{}",
        r#"{"sub":"42","exp":9999999999}x"#,
        r#"{"sub":"42","exp":9999999999,}"#,
        r#"{'sub':'42','exp':9999999999}"#,
        "\u{feff}{\"sub\":\"42\",\"exp\":9999999999}",
        &deep("[", "]", 500),
        &deep("{\"a\":", "}", 500),
    ] {
        let what = claims.chars().take(60).collect::<String>();
        cases.push(Case::invalid(what, target.sign(claims)));
    }
    for claims in [
        b"{\"sub\":\"42\",\"exp\":9999999999,\"x\":\"\xff\xfe\"}".as_slice(),
        b"{\"sub\":\"42\xc0\x80\",\"exp\":9999999999}",
        b"\x1f\x8b\x08\x00\x00",
        &[0; 100],
    ] {
        cases.push(Case::invalid("bytes", target.sign(claims)));
    }
    for header in ["", "null", "42", "[]", "{", r#"["HS256"]"#, r#"{"alg":"#] {
        let token = target.signer.sign(header, good_claims());
        cases.push(Case::invalid(header, token));
    }
    cases
}

/// Headers that have to be understood.
fn critical(target: &Target) -> Vec<Case> {
    let more = [
        r#","crit":["exp"],"exp":9999999999"#,
        r#","crit":["b64"],"b64":false"#,
        r#","crit":["alg"]"#,
        r#","crit":[]"#,
        r#","crit":["x"]"#,
        r#","crit":"exp""#,
        r#","crit":[1]"#,
        r#","crit":{}"#,
        r#","crit":true"#,
    ];
    let with = |more: &&str| {
        let header = format!("{}{more}", target.header);
        Case::invalid(*more, target.sign_with(&header, good_claims()))
    };
    more.iter().map(with).collect()
}
