//! The types of single values and how they are read: the same from TOML, which knows numbers and
//! arrays, as from the environment, where everything is text.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{Error as ChoiceError, StrDeserializer};
use serde::de::{self, DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;

/// What stands where a secret would be printed.
const HIDDEN: &str = "***";

/// A secret: printed and serialised as `***`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `presented` is the secret, in a time that does not tell how much of it is right.
    pub fn matches(&self, presented: &str) -> bool {
        self.0.as_bytes().ct_eq(presented.as_bytes()).into()
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

/// Where Redis is; printed and serialised without user and password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct RedisUrl(String);

/// Where Postgres is; printed and serialised without user and password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct PostgresUrl(String);

/// What the URLs of both can do.
macro_rules! url {
    ($url:ident) => {
        impl $url {
            /// Holds `url`, whatever it says.
            pub fn new(url: impl Into<String>) -> Self {
                Self(url.into())
            }

            /// The whole URL, password included.
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

/// Writes a URL with whatever may be secret in it hidden.
fn without_password(url: &str, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some((scheme, rest)) = url.split_once("://") else {
        return formatter.write_str(HIDDEN);
    };
    write!(formatter, "{scheme}://")?;
    let host = match rest.rsplit_once('@') {
        Some((_, host)) => {
            write!(formatter, "{HIDDEN}@")?;
            host
        }
        None => rest,
    };
    // The query may carry a password, too: that of the sentinels, or Postgres's own.
    match host.split_once('?') {
        Some((host, _)) => write!(formatter, "{host}?{HIDDEN}"),
        None => formatter.write_str(host),
    }
}

/// Reads one of an enum's names; the error lists them.
pub(super) fn choice<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let name = String::deserialize(deserializer)?;
    let name: StrDeserializer<'_, ChoiceError> = name.as_str().into_deserializer();
    T::deserialize(name).map_err(de::Error::custom)
}

/// Reads a whole number that fits `N`.
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

/// Reads an array of strings, or one string with commas between the items.
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

    use ipnet::IpNet;
    use serde::{Deserializer, Serializer, de};

    /// Shows each as a network.
    pub(in crate::settings) fn serialize<S: Serializer>(
        networks: &[IpNet],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(networks.iter().map(IpNet::to_string))
    }

    /// Reads an array, or one string with commas between the items.
    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<IpNet>, D::Error> {
        let texts = super::list(deserializer)?;
        texts.iter().map(|text| network::<D>(text)).collect()
    }

    fn network<'de, D: Deserializer<'de>>(text: &str) -> Result<IpNet, D::Error> {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address
            .or_else(|_| text.parse())
            .map_err(|_| de::Error::custom(format!("{text:?} is neither an address nor a network")))
    }
}

/// Sizes in bytes, written `64KiB`.
pub(super) mod size {
    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Units in which a size is shown, largest first.
    const UNITS: [(usize, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];

    /// Shows the size in the largest unit that leaves a whole number.
    pub(in crate::settings) fn serialize<S: Serializer>(
        bytes: &usize,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let unit = UNITS.iter().find(|(size, _)| bytes.is_multiple_of(*size));
        let (size, name) = unit.unwrap_or(&(1, "B"));
        serializer.collect_str(&format_args!("{}{name}", bytes / size))
    }

    /// Reads a number with a unit, or a plain number of bytes.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
    }

    #[test]
    fn a_secret_matches_only_itself() {
        let secret = Secret::new("hunter2");
        assert!(secret.matches("hunter2"));
        for wrong in ["", "hunter", "hunter22", "Hunter2"] {
            assert!(!secret.matches(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_redis_url_is_printed_without_its_passwords() {
        for (url, printed) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("rediss://ada:pa55@db:6380/1", "rediss://***@db:6380/1"),
            ("redis://:p@ss?w@db", "redis://***@db"),
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
}
