//! Recognises requests of programs on this machine, which need no key.
//!
//! A loopback address alone proves nothing: browsers and proxies on this machine relay requests of others, such as a page
//! of another site, a host name that resolves to loopback (DNS rebinding), or any client of the proxy.

use std::net::{IpAddr, SocketAddr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Uri, header};

/// Values of `Sec-Fetch-Site` for requests of the user or of the same page; all others come from another site.
const OWN_SITE: [&str; 2] = ["none", "same-origin"];

/// Headers that proxies add, besides `x-forwarded-*`.
const OF_PROXIES: [&str; 3] = ["forwarded", "via", "x-real-ip"];

/// Whether a request comes from a program on this machine, or from a page that this node served to it.
pub(super) fn is_local(peer: SocketAddr, uri: &Uri, headers: &HeaderMap) -> bool {
    serves_own_page(peer, uri, headers) && !is_of_another_site(headers)
}

/// Whether the requests of a page served to this request will count as local, even if another site linked to the page.
pub(super) fn serves_own_page(peer: SocketAddr, uri: &Uri, headers: &HeaderMap) -> bool {
    peer.ip().to_canonical().is_loopback()
        && asks_for_this_machine(uri, headers)
        && !is_forwarded(headers)
}

/// Whether the host that the request names is loopback. Excludes DNS rebinding.
fn asks_for_this_machine(uri: &Uri, headers: &HeaderMap) -> bool {
    let in_uri = uri.authority().map(|authority| authority.as_str());
    host(headers).is_some_and(is_loopback) && in_uri.is_none_or(is_loopback)
}

/// The `Host` header, if there is exactly one.
fn host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    }
}

/// Whether a host, with or without a port, is `localhost` or a loopback address.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host().trim_matches(['[', ']']);
    let address = name.parse::<IpAddr>();
    let is_address = address.is_ok_and(|address| address.to_canonical().is_loopback());
    let has_user = host.contains('@');
    !has_user && (is_address || name.eq_ignore_ascii_case("localhost"))
}

fn is_of_another_site(headers: &HeaderMap) -> bool {
    let own = |origin: &HeaderValue| {
        let origin = origin.to_str().ok();
        let host_of = origin.and_then(|origin| origin.strip_prefix("http://"));
        host_of.is_some() && host_of == host(headers)
    };
    let mut sites = headers.get_all("sec-fetch-site").iter();
    let mut origins = headers.get_all(header::ORIGIN).iter();
    sites.any(|site| !OWN_SITE.iter().any(|own| site == own)) || !origins.all(own)
}

fn is_forwarded(headers: &HeaderMap) -> bool {
    let mut names = headers.keys().map(|name| name.as_str());
    names.any(|name| OF_PROXIES.contains(&name) || name.starts_with("x-forwarded-"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    const HERE: ([u8; 4], u16) = ([127, 0, 0, 1], 50_000);

    /// Whether a request from loopback with these headers is local.
    fn passes(pairs: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let value = HeaderValue::from_str(value).expect("a header value");
            headers.append(HeaderName::from_static(name), value);
        }
        is_local(HERE.into(), &Uri::from_static("/metrics"), &headers)
    }

    #[test]
    fn this_machine_is_asked_for_by_a_name_of_its_own() {
        for host in [
            "localhost",
            "LocalHost:8182",
            "127.0.0.1",
            "127.0.0.1:8182",
            "127.8.9.1:1",
            "[::1]",
            "[::1]:8182",
            "[::ffff:127.0.0.1]:8182",
        ] {
            assert!(passes(&[("host", host)]), "{host}");
        }
        for host in [
            "",
            ":8182",
            "evil.example",
            "localhost.evil.example",
            "evil.localhost",
            "localhost.",
            "127.0.0.1.evil.example",
            "127.1",
            "2130706433",
            "0.0.0.0:8182",
            "10.0.0.1",
            "::1",
            "[::1",
            "[::2]:1",
            "localhost:1:2",
            "a@localhost",
        ] {
            assert!(!passes(&[("host", host)]), "{host}");
        }
        assert!(!passes(&[]), "nothing is asked for");
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert!(!passes(&twice), "it is not clear what is asked for");
    }

    #[test]
    fn who_asks_through_the_uri_is_held_to_it() {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost"))]);
        let passes = |uri| is_local(HERE.into(), &Uri::from_static(uri), &headers);
        assert!(passes("http://127.0.0.1:8182/metrics"));
        assert!(!passes("http://evil.example/metrics"));
    }

    #[test]
    fn only_who_is_on_this_machine_is() {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost"))]);
        let passes = |peer: &str| {
            let peer = peer.parse().expect("an address");
            is_local(peer, &Uri::from_static("/metrics"), &headers)
        };
        for peer in [
            "127.0.0.1:1",
            "127.0.0.2:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(passes(peer), "{peer}");
        }
        for peer in ["10.0.0.1:1", "[fe80::1]:1", "[::ffff:10.0.0.1]:1"] {
            assert!(!passes(peer), "{peer}");
        }
    }

    #[test]
    fn pages_of_other_sites_do_not_pass() {
        let from = |name, value| passes(&[("host", "localhost:8182"), (name, value)]);
        assert!(from("origin", "http://localhost:8182"));
        assert!(from("sec-fetch-site", "none") && from("sec-fetch-site", "same-origin"));
        for origin in [
            "http://localhost:3000",
            "http://localhost",
            "http://127.0.0.1:8182",
            "https://localhost:8182",
            "https://evil.example",
            "null",
            "",
        ] {
            assert!(!from("origin", origin), "{origin}");
        }
        for site in ["cross-site", "same-site", "SAME-ORIGIN", "else", ""] {
            assert!(!from("sec-fetch-site", site), "{site}");
        }
        let one_of_two = [
            ("host", "localhost:8182"),
            ("origin", "http://localhost:8182"),
            ("origin", "https://evil.example"),
        ];
        assert!(!passes(&one_of_two));
    }

    #[test]
    fn what_a_proxy_forwards_does_not_pass() {
        for name in [
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "forwarded",
            "x-real-ip",
            "via",
        ] {
            assert!(
                !passes(&[("host", "localhost"), (name, "127.0.0.1")]),
                "{name}"
            );
        }
    }
}
