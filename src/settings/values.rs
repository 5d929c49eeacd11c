//! Types of values, and parsers that accept both TOML, which has numbers and arrays, and the environment, which has only
//! text.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{Error as ChoiceError, StrDeserializer};
use serde::de::{self, DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Replaces secrets in output.
const HIDDEN: &str = "***";

/// A secret: printed and serialised as `***`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The plain text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// URL of Redis; printed and serialised without user and password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct RedisUrl(String);

/// URL of Postgres; printed and serialised without user and password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct PostgresUrl(String);

/// Implements a URL type.
macro_rules! url {
    ($url:ident) => {
        impl $url {
            /// Wraps `url` without checks.
            pub fn new(url: impl Into<String>) -> Self {
                Self(url.into())
            }

            /// The plain URL with its password.
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $url {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                without_password(&self.0, formatter)
            }
        }

        impl fmt::Debug for $url {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                without_password(&self.0, formatter)
            }
        }

        impl Serialize for $url {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

url!(RedisUrl);
url!(PostgresUrl);

impl RedisUrl {
    /// Whether the URL contains a user or a password, of Redis or of the sentinels.
    pub fn carries_secret(&self) -> bool {
        let (user, query) = user_and_query(&self.0);
        user.is_some() || has_password(query)
    }
}

impl PostgresUrl {
    /// Whether the URL contains a password.
    pub fn carries_secret(&self) -> bool {
        let (user, query) = user_and_query(&self.0);
        user.is_some_and(|user| user.contains(':')) || has_password(query)
    }
}

/// The user info and the query of a URL. Handles unescaped passwords.
fn user_and_query(url: &str) -> (Option<&str>, &str) {
    let (user, host) = match url.rsplit_once('@') {
        Some((before, host)) => (Some(before), host),
        None => (None, url),
    };
    let user = user.map(|before| before.split_once("://").map_or(before, |(_, user)| user));
    (user, host.split_once('?').map_or("", |(_, query)| query))
}

/// Whether a query has a password, or an escaped name, which may stand for one.
fn has_password(query: &str) -> bool {
    let names = query.split('&').filter_map(|pair| pair.split('=').next());
    let mut names = names.map(str::to_lowercase);
    names.any(|name| name.contains("pass") || name.contains('%'))
}

/// Writes a URL without its possible secrets.
fn without_password(url: &str, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some((scheme, rest)) = url.split_once("://") else {
        return formatter.write_str(HIDDEN);
    };
    write!(formatter, "{scheme}://")?;
    // The query may contain a password, too: of the sentinels, or of Postgres.
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    // The password contains a question mark, so the host cannot be determined.
    if query.contains('@') {
        return formatter.write_str(HIDDEN);
    }
    match address.rsplit_once('@') {
        Some((_, host)) => write!(formatter, "{HIDDEN}@{host}")?,
        None => formatter.write_str(address)?,
    }
    match query {
        "" => Ok(()),
        _ => write!(formatter, "?{HIDDEN}"),
    }
}

/// Parses a variant of an enum; the error lists all.
pub(super) fn choice<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let name = String::deserialize(deserializer)?;
    let name: StrDeserializer<'_, ChoiceError> = name.as_str().into_deserializer();
    T::deserialize(name).map_err(de::Error::custom)
}

/// Parses an integer that fits `N`.
pub(super) fn number<'de, D, N>(deserializer: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<u64>,
{
    deserializer.deserialize_any(NumberVisitor(PhantomData))
}

struct NumberVisitor<N>(PhantomData<N>);

impl<N: TryFrom<u64>> de::Visitor<'_> for NumberVisitor<N> {
    type Value = N;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<N, E> {
        N::try_from(number).map_err(|_| E::custom(format!("{number} is too large")))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<N, E> {
        let number = u64::try_from(number);
        self.visit_u64(number.map_err(|_| E::custom("it is negative"))?)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<N, E> {
        let number = text.parse();
        self.visit_u64(number.map_err(|_| E::custom(format!("{text:?} is no whole number")))?)
    }
}

/// Parses an array of strings, or one string with commas.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_any(ListVisitor)
}

struct ListVisitor;

impl<'de> de::Visitor<'de> for ListVisitor {
    type Value = Vec<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of strings")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(list)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<String>, E> {
        let items = text.split(',').map(str::trim);
        Ok(items
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect())
    }
}

/// Networks, written `10.0.0.0/8`, and single addresses.
pub(super) mod networks {
    use std::net::IpAddr;

    use ipnet::{IpNet, Ipv4Net};
    use serde::{Deserializer, Serializer, de};

    /// Writes each in CIDR notation.
    pub(in crate::settings) fn serialize<S: Serializer>(
        networks: &[IpNet],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(networks.iter().map(IpNet::to_string))
    }

    /// Parses an array, or one string with commas.
    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<IpNet>, D::Error> {
        let texts = super::list(deserializer)?;
        texts.iter().map(|text| network::<D>(text)).collect()
    }

    /// Converts IPv4-mapped networks to IPv4, because addresses are compared in canonical form.
    fn canonical(network: IpNet) -> IpNet {
        let IpNet::V6(mapped) = network else {
            return network;
        };
        let address = mapped.addr().to_ipv4_mapped();
        let prefix = mapped.prefix_len().checked_sub(96);
        let network = address
            .zip(prefix)
            .map(|(address, prefix)| Ipv4Net::new(address, prefix));
        match network {
            Some(Ok(network)) => IpNet::V4(network),
            Some(Err(_)) | None => IpNet::V6(mapped),
        }
    }

    fn network<'de, D: Deserializer<'de>>(text: &str) -> Result<IpNet, D::Error> {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address
            .or_else(|_| text.parse())
            .map(canonical)
            .map_err(|_| de::Error::custom(format!("{text:?} is neither an address nor a network")))
    }
}

/// Sizes in bytes, written `64KiB`.
pub(super) mod size {
    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Units for output, largest first.
    const UNITS: [(usize, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];

    /// Writes the size in the largest unit that divides it.
    pub(in crate::settings) fn serialize<S: Serializer>(
        bytes: &usize,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let unit = UNITS.iter().find(|(size, _)| bytes.is_multiple_of(*size));
        let (size, name) = unit.unwrap_or(&(1, "B"));
        serializer.collect_str(&format_args!("{}{name}", bytes / size))
    }

    /// Parses a number with a unit, or a number of bytes.
    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<usize, D::Error> {
        let text = String::deserialize(deserializer)?;
        let size: ByteSize = text
            .parse()
            .map_err(|_| de::Error::custom(format!("{text:?} is no size")))?;
        usize::try_from(size.as_u64()).map_err(de::Error::custom)
    }
}

/// Optional times, written `2026-12-01T00:00:00Z`.
pub(super) mod time {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    /// Writes the time in whole seconds.
    pub(in crate::settings) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let shown = time.map(|time| humantime::format_rfc3339_seconds(time).to_string());
        shown.serialize(serializer)
    }

    /// Parses an RFC 3339 time, which must end in `Z`; without a zone people would take it for local time.
    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = humantime::parse_rfc3339(&text);
        let wrong = |_| de::Error::custom(format!("{text:?} is no time in UTC"));
        time.map(Some).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::value::Error;

    use super::*;

    #[test]
    fn secrets_are_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
    }

    #[test]
    fn a_url_with_a_password_is_known() {
        for (url, carries) in [
            ("redis://db:6379/1", false),
            ("rediss-cluster://a:1?node=b:2&node=c:3", false),
            ("redis-sentinel://s1?sentinelServiceName=m", false),
            ("redis://ada@db", true),
            ("redis://:pa55@db", true),
            ("redis://:p@ss?w@db", true),
            (
                "redis-sentinel://s1?sentinelServiceName=m&sentinelPassword=pa55",
                true,
            ),
            ("redis-sentinel://s1?sentinelP%61ssword=pa55", true),
        ] {
            assert_eq!(RedisUrl::new(url).carries_secret(), carries, "{url}");
        }
        for (url, carries) in [
            ("postgres://db/vigie", false),
            ("postgres://vigie@db/vigie?sslmode=require", false),
            ("postgres://vigie:pa55@db/vigie", true),
            ("postgres://db/vigie?user=vigie&password=pa55", true),
        ] {
            assert_eq!(PostgresUrl::new(url).carries_secret(), carries, "{url}");
        }
    }

    #[test]
    fn a_redis_url_is_printed_without_its_passwords() {
        for (url, printed) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("rediss://ada:pa55@db:6380/1", "rediss://***@db:6380/1"),
            ("redis://:p@ss?w@db", "redis://***"),
            (
                "redis-sentinel://s1?sentinelPassword=p@w",
                "redis-sentinel://***",
            ),
            (
                "redis-sentinel://:pw@s1?sentinelPassword=pw2",
                "redis-sentinel://***@s1?***",
            ),
            ("pa55", "***"),
        ] {
            assert_eq!(RedisUrl::new(url).to_string(), printed);
            assert_eq!(format!("{:?}", RedisUrl::new(url)), printed);
        }
    }

    #[derive(Serialize, Deserialize)]
    struct Sized {
        #[serde(with = "size")]
        size: usize,
    }

    impl Sized {
        fn shown(&self) -> String {
            let shown = serde_json::to_value(self).unwrap();
            shown["size"].as_str().unwrap().to_owned()
        }

        fn read(text: &str) -> Option<usize> {
            let sized = serde_json::json!({ "size": text });
            serde_json::from_value::<Self>(sized)
                .ok()
                .map(|sized| sized.size)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2048)
        })]

        #[test]
        fn a_size_is_read_as_it_is_shown(bytes: usize) {
            prop_assert_eq!(Sized::read(&Sized { size: bytes }.shown()), Some(bytes));
            prop_assert_eq!(Sized::read(&bytes.to_string()), Some(bytes));
            prop_assert_eq!(Sized::read(&format!("{bytes}B")), Some(bytes));
        }

        #[test]
        fn a_size_is_a_number_with_a_unit(text in "[0-9.]{0,30} ?([kKMGTPE]i?B?|[a-z]{0,3})|.*") {
            if let Some(bytes) = Sized::read(&text) {
                let begins = |first: char| first.is_ascii_digit() || "+.".contains(first);
                prop_assert!(text.starts_with(begins), "{}", bytes);
            }
        }

        #[test]
        fn a_whole_number_is_read_from_text_and_toml_alike(value: i64, text in "[+-]?[0-9]{0,25}|.*") {
            let from_toml: Result<u32, Error> = number(value.into_deserializer());
            let from_text: Result<u32, Error> = number(value.to_string().as_str().into_deserializer());
            prop_assert_eq!(from_toml.ok(), u32::try_from(value).ok());
            prop_assert_eq!(from_text.ok(), u32::try_from(value).ok());
            let read: Result<u64, Error> = number(text.as_str().into_deserializer());
            prop_assert_eq!(read.ok(), text.parse().ok());
        }

        #[test]
        fn a_list_is_split_at_commas(items in proptest::collection::vec("[^,\\s]{1,10}", 0..6), space in " {0,3}") {
            let text = items.join(&format!("{space},{space},"));
            let read: Result<_, Error> = list(text.as_str().into_deserializer());
            prop_assert_eq!(read, Ok(items));
        }

        #[test]
        fn no_password_is_printed(
            (user, password) in ("[a-z]{0,3}", "[a-zA-Z0-9@?:/#%!]{4,20}"),
            query in "([?][a-z]{1,9}=[ -~]{4,20})?",
        ) {
            let url = format!("redis://{user}:{password}@host.example:1{query}");
            let printed = RedisUrl::new(url).to_string();
            let shown = match (password.contains('?') || query.contains('@'), query.is_empty()) {
                (true, _) => "redis://***",
                (false, true) => "redis://***@host.example:1",
                (false, false) => "redis://***@host.example:1?***",
            };
            prop_assert_eq!(printed, shown);
        }
    }
}
