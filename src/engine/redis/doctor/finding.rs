//! The kinds of finding, and their descriptions.

use std::fmt;

use bytes::Bytes;

use super::key_kind::KeyKind;
use crate::ids::{ConnectionId, UserConnection, UserId, node_of};

/// Bytes of an entry shown.
const SHOWN_LEN_MAX: usize = 100;

/// A problem and its subject; fields that do not apply are `None`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The kind of problem.
    pub kind: FindingKind,
    /// The partition concerned.
    pub partition: Option<u32>,
    /// The user concerned.
    pub user: Option<UserId>,
    /// The incarnation of the node concerned.
    pub incarnation: Option<String>,
    /// The connection's number on that node.
    pub connection: Option<ConnectionId>,
    /// The key with an invalid content.
    pub key: Option<String>,
    /// The invalid member or field, or the whole string.
    pub entry: Option<Bytes>,
}

/// The category of the problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Category {
    /// A registered connection that no node holds.
    Ghost,
    /// A leftover of an unknown incarnation or connection, or data that no node can have written.
    Orphan,
    /// Two places that contradict each other.
    Drift,
    /// A node with a lease that does not reply.
    SilentNode,
    /// A setting of Redis that loses data.
    Setting,
}

/// The kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(crate) enum FindingKind {
    /// A registered connection whose node is gone.
    NodeGone,
    /// A registered connection that its node does not hold.
    NodeUnaware,
    /// A registered connection in a form that no node writes.
    UnreadableConnection,
    /// Registrations of an incarnation that is gone.
    OwedByUnknown,
    /// A node listed in a partition that is gone.
    UnknownMember,
    /// A connection among a node's registrations that its user does not have.
    OwedUnregistered,
    /// The report of an incarnation without a lease.
    UnknownNode,
    /// An expired lease that no node removed.
    LeaseOver,
    /// A member, field or string that no node can have written.
    Unreadable,
    /// A key of another type than nodes write.
    WrongType,
    /// Connections or registrations under a key that no node reads.
    Misplaced,
    /// A user who is online without connections, and not leaving.
    OnlineWithoutConnections,
    /// A user who has connections and is not online.
    ConnectedButOffline,
    /// A user who is leaving and has connections.
    LeavingWithConnections,
    /// A user who is leaving and not online.
    LeavingButOffline,
    /// A user whom no node took offline in time.
    Overdue,
    /// A user without connections who is due to go offline too late.
    LeavingTooLate,
    /// A registered connection that is not among its node's registrations.
    NotOwed,
    /// A node with registrations that is not listed in the partition.
    NotListed,
    /// A connection that a node holds but that is not registered.
    NotRegistered,
    /// A user with connections to whose topic no node is subscribed.
    NotHeard,
    /// A node with a lease that does not reply.
    Silent,
    /// Redis evicts data when its memory is full.
    Evicting,
}

impl FindingKind {
    /// The category of the problem.
    pub(crate) fn category(self) -> Category {
        match self {
            Self::NodeGone | Self::NodeUnaware | Self::UnreadableConnection => Category::Ghost,
            Self::OwedByUnknown
            | Self::UnknownMember
            | Self::OwedUnregistered
            | Self::UnknownNode
            | Self::LeaseOver
            | Self::Unreadable
            | Self::WrongType
            | Self::Misplaced => Category::Orphan,
            Self::OnlineWithoutConnections
            | Self::ConnectedButOffline
            | Self::LeavingWithConnections
            | Self::LeavingButOffline
            | Self::Overdue
            | Self::LeavingTooLate
            | Self::NotOwed
            | Self::NotListed
            | Self::NotRegistered
            | Self::NotHeard => Category::Drift,
            Self::Silent => Category::SilentNode,
            Self::Evicting => Category::Setting,
        }
    }
}

impl Finding {
    pub(super) fn of_user(kind: FindingKind, partition: u32, user: UserId) -> Self {
        Self {
            kind,
            partition: Some(partition),
            user: Some(user),
            incarnation: None,
            connection: None,
            key: None,
            entry: None,
        }
    }

    pub(super) fn of_connection(
        kind: FindingKind,
        partition: u32,
        (user, connection): UserConnection,
        incarnation: &str,
    ) -> Self {
        Self {
            incarnation: Some(incarnation.to_owned()),
            connection: Some(connection),
            ..Self::of_user(kind, partition, user)
        }
    }

    pub(super) fn of_server(kind: FindingKind) -> Self {
        Self {
            kind,
            partition: None,
            user: None,
            incarnation: None,
            connection: None,
            key: None,
            entry: None,
        }
    }

    pub(super) fn of_node(kind: FindingKind, partition: Option<u32>, incarnation: &str) -> Self {
        Self {
            kind,
            partition,
            user: None,
            incarnation: Some(incarnation.to_owned()),
            connection: None,
            key: None,
            entry: None,
        }
    }

    pub(super) fn of_key(kind: FindingKind, key: &str, known: &KeyKind) -> Self {
        let (partition, user) = known.owner();
        Self {
            kind,
            partition,
            user,
            incarnation: None,
            connection: None,
            key: Some(key.to_owned()),
            entry: None,
        }
    }

    pub(super) fn of_entry(key: &str, known: &KeyKind, entry: Bytes) -> Self {
        let kind = match known {
            KeyKind::Connections(_) => FindingKind::UnreadableConnection,
            _ => FindingKind::Unreadable,
        };
        Self {
            entry: Some(entry),
            ..Self::of_key(kind, key, known)
        }
    }

    /// The incarnation, user and connection of a registration.
    pub(super) fn registration(&self) -> Option<(&str, UserId, ConnectionId)> {
        Some((self.incarnation.as_deref()?, self.user?, self.connection?))
    }

    /// Normalizes a finding for comparison: a ghost stays the same when its node dies in between.
    pub(super) fn identity(mut self) -> Self {
        if self.kind == FindingKind::NodeUnaware {
            self.kind = FindingKind::NodeGone;
        }
        self
    }

    /// The invalid entry and its key.
    fn entry(&self) -> String {
        let key = self.key.as_deref().unwrap_or_default();
        let entry = self.entry.as_deref().unwrap_or_default();
        let shown = String::from_utf8_lossy(&entry[..entry.len().min(SHOWN_LEN_MAX)]);
        format!("{shown:?} in {key}")
    }

    fn user(&self) -> String {
        self.user
            .map_or_else(String::new, |user| format!("user {user}"))
    }

    fn connection(&self) -> String {
        let connection = self.connection.map_or(0, |connection| connection.0);
        format!("connection {connection} of {}", self.user())
    }

    fn node(&self) -> String {
        let incarnation = self.incarnation.as_deref().unwrap_or_default();
        format!("node {} ({incarnation})", node_of(incarnation))
    }
}

/// The description for operators.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(partition) = self.partition.filter(|_| self.key.is_none()) {
            write!(f, "partition {partition}: ")?;
        }
        let (user, node) = (self.user(), self.node());
        let key = self.key.as_deref().unwrap_or_default();
        match self.kind {
            FindingKind::NodeGone => write!(
                f,
                "{} is registered, but its {node} is gone",
                self.connection()
            ),
            FindingKind::NodeUnaware => {
                write!(
                    f,
                    "{} is registered, but {node} does not hold it",
                    self.connection()
                )
            }
            FindingKind::UnreadableConnection => write!(
                f,
                "{} keeps {user} online, and no node can have written it",
                self.entry()
            ),
            FindingKind::Unreadable => {
                write!(f, "{}: no node can have written it", self.entry())
            }
            FindingKind::WrongType => write!(f, "{key} is of another type than nodes write"),
            FindingKind::Misplaced => write!(f, "{key} is where no node looks for it"),
            FindingKind::OwedByUnknown => write!(f, "{node} is gone, but still has registrations"),
            FindingKind::UnknownMember => {
                write!(
                    f,
                    "{node} is gone, but still listed among the partition's nodes"
                )
            }
            FindingKind::OwedUnregistered => {
                write!(
                    f,
                    "{node} has a registration of {}, which its user does not have",
                    self.connection()
                )
            }
            FindingKind::UnknownNode => write!(f, "{node} has a report but no lease"),
            FindingKind::LeaseOver => write!(
                f,
                "the lease of {node} has expired, the node does not reply, and no node has removed the lease"
            ),
            FindingKind::OnlineWithoutConnections => write!(
                f,
                "{user} is online without connections, and not about to go offline"
            ),
            FindingKind::ConnectedButOffline => {
                write!(f, "{user} has connections and is not online")
            }
            FindingKind::LeavingWithConnections => {
                write!(f, "{user} has connections and is about to go offline")
            }
            FindingKind::LeavingButOffline => {
                write!(f, "{user} is about to go offline and not online")
            }
            FindingKind::Overdue => {
                write!(f, "{user} should have gone offline, and no node did it")
            }
            FindingKind::LeavingTooLate => {
                write!(f, "{user} has no connections and goes offline too late")
            }
            FindingKind::NotHeard => write!(
                f,
                "{user} has connections, but no node is subscribed to the user's topic; the node subscribes again within \
                 seconds, or its log says why it cannot"
            ),
            FindingKind::NotOwed => write!(
                f,
                "{} is registered, but not among the registrations of {node}",
                self.connection()
            ),
            FindingKind::NotListed => {
                write!(
                    f,
                    "{node} has registrations, but is not listed among the partition's nodes"
                )
            }
            FindingKind::NotRegistered => write!(
                f,
                "{node} holds {}, which is not registered; the node does that itself at its next audit (node.audit)",
                self.connection()
            ),
            FindingKind::Silent => write!(
                f,
                "{node} has a lease but does not reply; its connections could not be compared"
            ),
            FindingKind::Evicting => write!(
                f,
                "redis drops presence, profiles and revocations when its memory is full; set maxmemory-policy noeviction"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> UserId {
        UserId::try_from(42).expect("a valid id")
    }

    #[test]
    fn findings_are_described() {
        let ghost = Finding::of_connection(
            FindingKind::NodeGone,
            2,
            (user(), ConnectionId(7)),
            "eu.west.x1",
        );
        assert_eq!(
            ghost.to_string(),
            "partition 2: connection 7 of user 42 is registered, but its node eu.west (eu.west.x1) is gone"
        );
        let key = "vigie:{0}:conns:42";
        let known = KeyKind::Connections(user());
        let garbage = Finding::of_entry(key, &known, Bytes::from_static(b"x\"\xff"));
        assert_eq!(
            garbage.to_string(),
            "\"x\\\"\u{fffd}\" in vigie:{0}:conns:42 keeps user 42 online, and no node can have written it"
        );
        let silent = Finding::of_node(FindingKind::Silent, None, "a.x1");
        assert!(silent.to_string().starts_with("node a (a.x1) has a lease"));
    }

    #[test]
    fn a_ghost_stays_the_same_when_its_node_goes() {
        let ghost =
            |kind| Finding::of_connection(kind, 0, (user(), ConnectionId(7)), "a.1").identity();
        assert_eq!(
            ghost(FindingKind::NodeGone),
            ghost(FindingKind::NodeUnaware)
        );
        assert_ne!(ghost(FindingKind::NodeGone), ghost(FindingKind::NotOwed));
    }
}
