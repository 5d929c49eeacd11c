//! Validation of usernames and URLs of pictures.

use axum::http::uri::Authority;

use super::problem::Problem;

const USERNAME_LEN_MAX: usize = 64;

const AVATAR_LEN_MAX: usize = 2048;

/// Trims a username and checks its length and characters.
pub(super) fn username(text: &str) -> Result<&str, Problem> {
    let name = text.trim();
    let fits = (1..=USERNAME_LEN_MAX).contains(&name.chars().count());
    if fits && !text.contains(char::is_control) {
        return Ok(name);
    }
    Err(Problem::unprocessable(format!(
        "`username`: 1 to {USERNAME_LEN_MAX} characters besides surrounding whitespace, and no control characters"
    )))
}

/// Checks that a URL is safe as the source of a picture: no scheme that runs scripts. An empty URL means no picture.
pub(super) fn avatar_url(url: &str) -> Result<&str, Problem> {
    let fits = url.chars().count() <= AVATAR_LEN_MAX && !url.contains(char::is_control);
    if fits && (is_relative(url) || is_absolute(url)) {
        return Ok(url);
    }
    Err(Problem::unprocessable(format!(
        "the URL of the avatar: https://…, http://…, or a path; at most {AVATAR_LEN_MAX} characters, and no control \
         characters"
    )))
}

/// Whether a URL has neither a scheme (a colon in the first segment) nor a host (two leading slashes; browsers read a
/// backslash as a slash).
fn is_relative(url: &str) -> bool {
    let slash = |character: char| matches!(character, '/' | '\\');
    let has_host = url.starts_with(slash) && url[1..].starts_with(slash);
    let path = url.split(['/', '?', '#']).next().unwrap_or_default();
    !has_host && !path.contains(':')
}

fn is_absolute(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let has_host = host
        .parse()
        .is_ok_and(|at: Authority| !at.host().is_empty());
    let schemes = ["http", "https"];
    has_host
        && schemes
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_characters_and_nothing_invisible_to_terminals() {
        let longest = "ä".repeat(USERNAME_LEN_MAX);
        for name in [
            "a",
            "Ada Lovelace",
            "'; DROP TABLE users; --",
            "李",
            &longest,
        ] {
            assert_eq!(username(name).ok(), Some(name));
        }
        assert_eq!(username(" \u{3000}ada\u{a0}").ok(), Some("ada"));
        let too_long = "ä".repeat(USERNAME_LEN_MAX + 1);
        for name in [
            "", "  ", "\u{3000}", "a\0", "\0", "a\nb", "a\n", "\u{7f}a", "a\u{85}b", &too_long,
        ] {
            assert!(username(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_picture_is_at_a_url_or_a_path() {
        let longest = format!("/{}", "ä".repeat(AVATAR_LEN_MAX - 1));
        for url in [
            "https://example.com/a.png",
            "HTTP://localhost:8080",
            "https://[::1]/a?b#c",
            "",
            "/",
            "a.png",
            "/a.png?size=1",
            "/'; DROP TABLE users; --",
            &longest,
        ] {
            assert_eq!(avatar_url(url).ok(), Some(url));
        }
        let too_long = format!("{longest}ä");
        for url in [
            "//example.com/a.png",
            "/\\example.com/a.png",
            "\\\\example.com",
            "javascript:alert(1)",
            "JavaScript://example.com/%0aalert(1)",
            "data:image/png;base64,AAAA",
            "ftp://example.com/a.png",
            "https:",
            "https://",
            "https:///a.png",
            "https:/example.com",
            "https://exa mple.com",
            " https://example.com",
            "/\ta",
            "/a\0",
            "/a\u{85}",
            &too_long,
        ] {
            assert!(avatar_url(url).is_err(), "{url:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2048)
        })]

        #[test]
        fn a_name_is_what_is_left_of_it(text in "[ \t\u{3000}]{0,2}.{0,70}[ \u{a0}]{0,2}|.*") {
            if let Ok(name) = username(&text) {
                prop_assert_eq!(name, text.trim());
                prop_assert!((1..=USERNAME_LEN_MAX).contains(&name.chars().count()));
                prop_assert!(!text.contains(char::is_control));
                prop_assert_eq!(username(name).ok(), Some(name));
            }
        }

        /// A URL that passes leads to the page's own site or names another, as browsers resolve it.
        #[test]
        fn a_picture_runs_nothing(
            url in prop_oneof![
                "[/\\\\]{0,2}[:?#@. ]?((https?|HtTp|javascript|data|file):?)?([/\\\\:?#@.%0-9a-f;]|://|%0a|\t){0,12}",
                any::<String>(),
            ],
        ) {
            if avatar_url(&url).is_ok() {
                let page = reqwest::Url::parse("https://site.example/users/1").expect("a URL");
                if let Ok(read) = page.join(&url) {
                    let named = url.contains("://");
                    let own = read.host_str() == Some("site.example") && read.scheme() == "https";
                    prop_assert!(own || (named && matches!(read.scheme(), "http" | "https")), "{:?} is {}", url, read);
                }
            }
        }
    }
}
