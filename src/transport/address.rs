//! The address of a client: that of the peer, or the one that a trusted proxy names.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The header to which each proxy appends the address of its client.
pub(super) const FORWARDED_FOR: &str = "x-forwarded-for";

/// Prefix length that identifies an IPv6 customer: providers assign each a /64 at least.
const NETWORK_BITS: u32 = 64;

/// Networks of proxies whose `X-Forwarded-For` is trusted.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Trusts every address in `networks`.
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    /// Whether `address` is in a trusted network.
    pub(crate) fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The address of the client: the last entry of `X-Forwarded-For` that is not a trusted proxy, because the client may
    /// have forged earlier entries. If `peer` is not a trusted proxy, it is the client.
    pub(crate) fn client_of(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lists = headers.get_all(FORWARDED_FOR).iter().rev();
        let mut named = lists.flat_map(|list| list.as_bytes().rsplit(|byte| *byte == b','));
        while self.trust(client) {
            match named.next().map(parse) {
                Some(Some(address)) => client = address,
                Some(None) | None => break,
            }
        }
        client
    }
}

/// Accepts `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` and `[2001:db8::1]:80`.
fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let address = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|named| named.ip());
    address
        .or_else(with_port)
        .map(|address| address.to_canonical())
}

/// The unit of limits per address: an IPv4 address, or a /64 of IPv6, all of which one machine may use.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let mask = u128::MAX << (128 - NETWORK_BITS);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(peer: &str, lists: &[&str]) -> String {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().expect("a network"));
        let mut headers = HeaderMap::new();
        for list in lists {
            let value = HeaderValue::from_bytes(list.as_bytes()).expect("a value");
            headers.append(FORWARDED_FOR, value);
        }
        let peer = peer.parse().expect("an address");
        TrustedProxies::new(&networks)
            .client_of(peer, &headers)
            .to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("fd00::1", &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7:1234"]), "198.51.100.7");
    }

    #[test]
    fn what_a_client_makes_up_stands_before_what_proxies_add() {
        let made_up = "1.1.1.1, 198.51.100.7, 10.0.0.9";
        assert_eq!(client("10.0.0.1", &[made_up]), "198.51.100.7");
        let lists = ["1.1.1.1", "198.51.100.7, 10.0.0.9"];
        assert_eq!(client("10.0.0.1", &lists), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["é, 198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn what_cannot_be_read_ends_the_search() {
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        for list in ["", "unknown", "1.1.1.1, x", "1.1.1.1, é", "1.1.1.1,,"] {
            assert_eq!(client("10.0.0.1", &[list]), "10.0.0.1", "{list}");
        }
        assert_eq!(client("10.0.0.1", &["1.1.1.1, x, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let network = |text: &str| network_of(text.parse().expect("an address"));
        assert_eq!(network("2001:db8:1:2:3::4"), network("2001:db8:1:2:ffff::"));
        assert_ne!(network("2001:db8:1:2::"), network("2001:db8:1:3::"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }
}
