//! The identifiers of the hub, each its own type so that they cannot be confused.
//!
//! Parsing checks the range once, at the edge; inside the hub every id is valid.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Largest integer that JavaScript represents exactly: 2^53 - 1 (`Number.MAX_SAFE_INTEGER`).
pub(crate) const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

/// An account: an integer from 1 to 2^53 - 1, so that JavaScript reads it without loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(u64);

/// An integer outside the range of [`UserId`].
#[derive(Debug, thiserror::Error)]
#[error("a user id is an integer from 1 to {SAFE_INTEGER_MAX}")]
pub struct InvalidUserId;

impl UserId {
    /// The id as an integer.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for UserId {
    type Error = InvalidUserId;

    fn try_from(id: u64) -> Result<Self, InvalidUserId> {
        match id {
            1..=SAFE_INTEGER_MAX => Ok(Self(id)),
            _ => Err(InvalidUserId),
        }
    }
}

impl std::str::FromStr for UserId {
    type Err = InvalidUserId;

    /// Reads plain decimal digits: no sign, no leading zero, no space.
    fn from_str(text: &str) -> Result<Self, InvalidUserId> {
        if text.starts_with(['0', '+']) {
            return Err(InvalidUserId);
        }
        text.parse::<u64>().map_err(|_| InvalidUserId)?.try_into()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer)?
            .try_into()
            .map_err(de::Error::custom)
    }
}

/// Orders the updates of one kind about one user: 1 to 2^53 - 1, microseconds where the hub assigns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A Socket.IO connection of this node, numbered from 1 in order of arrival and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A connection together with the user it belongs to.
pub(crate) type UserConnection = (UserId, ConnectionId);

/// A match that was found. Unique, even after the engine has lost its data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MatchId(Arc<str>);

impl Serialize for MatchId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl MatchId {
    /// Wraps an id that the engine assigned.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MatchId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One life of a node, from one lease to the next: `<node id>.<random>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Incarnation(Arc<str>);

impl Incarnation {
    /// Draws a new incarnation of the node `node_id`.
    pub fn new(node_id: &str) -> Self {
        Self(format!("{node_id}.{}", random_name()).into())
    }

    /// The id of the node.
    pub fn node_id(&self) -> &str {
        node_of(&self.0)
    }

    /// `<node id>.<random>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The node id in `<node id>.<random>`; node ids may contain dots, random names do not.
pub(crate) fn node_of(incarnation: &str) -> &str {
    incarnation
        .rsplit_once('.')
        .map_or(incarnation, |(node_id, _)| node_id)
}

/// A random name of 13 letters and digits (64 bits).
pub(crate) fn random_name() -> String {
    let mut bits: u64 = rand::random();
    let mut name = String::with_capacity(13);
    for _ in 0..13 {
        let digit = (bits % 32) as u32;
        name.push(char::from_digit(digit, 32).unwrap_or('0'));
        bits /= 32;
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_user_id_is_a_safe_positive_integer() {
        for good in ["1", "42", "9007199254740991"] {
            assert!(good.parse::<UserId>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "0",
            "-1",
            "+1",
            "01",
            "1.0",
            " 1",
            "9007199254740992",
            "1e3",
            "x",
        ] {
            assert!(bad.parse::<UserId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_user_id_in_json_is_a_number_and_nothing_else() {
        assert!(serde_json::from_str::<UserId>("7").is_ok());
        for bad in ["\"7\"", "7.5", "-7", "0", "null", "[7]", "9007199254740992"] {
            assert!(serde_json::from_str::<UserId>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_node_of_an_incarnation_may_contain_dots() {
        let incarnation = Incarnation::new("eu.west-1");
        assert_eq!(incarnation.node_id(), "eu.west-1");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2048)
        })]

        #[test]
        fn the_text_of_a_user_id_is_read_back_and_no_other(id: u64, text in "[+-]?[0-9]{0,20}|.*") {
            let user = UserId::try_from(id).ok();
            prop_assert_eq!(id.to_string().parse().ok(), user);
            prop_assert_eq!(serde_json::from_str(&id.to_string()).ok(), user);
            if let Some(user) = user {
                prop_assert_eq!(serde_json::to_string(&user).ok(), Some(id.to_string()));
            }
            if let Ok(user) = text.parse::<UserId>() {
                prop_assert_eq!(user.to_string(), text);
            }
        }

        #[test]
        fn a_user_id_in_json_is_written_as_plain_digits(json in "-?[0-9]{1,20}([.][0-9]{1,3})?([eE][+-]?[0-9]{1,3})?") {
            let read = serde_json::from_str::<UserId>(&json).ok();
            prop_assert_eq!(read, json.parse().ok());
        }
    }
}
