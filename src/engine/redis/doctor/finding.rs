//! What can be wrong, and how it is told.

use std::fmt;

use bytes::Bytes;

use super::known::Known;
use crate::ids::{ConnectionId, UserId, node_of};

/// Bytes of an entry that are shown.
const SHOWN_LEN_MAX: usize = 100;

/// Something that is wrong, and with whom. What does not apply is absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Finding {
    /// What is wrong.
    pub problem: Problem,
    /// The partition of the keys concerned.
    pub partition: Option<u32>,
    /// The user.
    pub user: Option<UserId>,
    /// Incarnation of the node.
    pub incarnation: Option<String>,
    /// Number of the connection on that node.
    pub connection: Option<ConnectionId>,
    /// The key that holds something that no node can have written.
    pub key: Option<String>,
    /// Which of its members or fields, or all of a string.
    pub entry: Option<Bytes>,
}

/// What kind of problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Category {
    /// A connection is registered that nobody holds.
    Ghost,
    /// Something is left of an incarnation, or of a connection, that is unknown; or no node can have written it.
    Orphan,
    /// What is said in one place is not what is said in another.
    Drift,
    /// A node with a lease that does not answer.
    SilentNode,
    /// A setting of Redis with which the hub loses data.
    Setting,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Problem {
    /// A registered connection whose node is gone.
    NodeGone,
    /// A registered connection that its node does not hold.
    NodeUnaware,
    /// A registered connection that no node can have registered so.
    UnreadableConnection,
    /// The set of what an incarnation owes, which is gone.
    OwedByUnknown,
    /// A member of a partition's nodes, which is gone.
    UnknownMember,
    /// A connection that is owed and not registered.
    OwedUnregistered,
    /// What an incarnation without a lease tells about itself.
    UnknownNode,
    /// A lease that is over, and was never taken away.
    LeaseOver,
    /// A member, field or text that no node can have written.
    Unreadable,
    /// A key of another type than nodes write.
    WrongType,
    /// Connections, or what a node owes, under a key where no node looks for them.
    Misplaced,
    /// A user who is online without connections, and not leaving.
    OnlineWithoutConnections,
    /// A user who has connections and is not online.
    ConnectedButOffline,
    /// A user who is leaving and has connections.
    LeavingWithConnections,
    /// A user who is leaving and not online.
    LeavingButOffline,
    /// A user whom nobody took offline when it was time.
    Overdue,
    /// A user without connections who is to go offline at a time that is too far ahead.
    LeavingTooLate,
    /// A registered connection that its node does not owe.
    NotOwed,
    /// A node that owes something and is not among the partition's nodes.
    NotListed,
    /// A connection that a node holds and that is not registered.
    NotRegistered,
    /// A user with connections to whose topic no node listens.
    NotHeard,
    /// A node with a lease that does not answer.
    Silent,
    /// Redis drops data when its memory is full.
    Evicting,
}

impl Problem {
    /// What kind of problem it is.
    pub fn category(self) -> Category {
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

    /// The name for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodeGone => "node_gone",
            Self::NodeUnaware => "node_unaware",
            Self::UnreadableConnection => "unreadable_connection",
            Self::OwedByUnknown => "owed_by_unknown",
            Self::UnknownMember => "unknown_member",
            Self::OwedUnregistered => "owed_unregistered",
            Self::UnknownNode => "unknown_node",
            Self::LeaseOver => "lease_over",
            Self::Unreadable => "unreadable",
            Self::WrongType => "wrong_type",
            Self::Misplaced => "misplaced",
            Self::OnlineWithoutConnections => "online_without_connections",
            Self::ConnectedButOffline => "connected_but_offline",
            Self::LeavingWithConnections => "leaving_with_connections",
            Self::LeavingButOffline => "leaving_but_offline",
            Self::Overdue => "overdue",
            Self::LeavingTooLate => "leaving_too_late",
            Self::NotOwed => "not_owed",
            Self::NotListed => "not_listed",
            Self::NotRegistered => "not_registered",
            Self::NotHeard => "not_heard",
            Self::Silent => "silent",
            Self::Evicting => "evicting",
        }
    }
}

impl Finding {
    pub(super) fn of_user(problem: Problem, partition: u32, user: UserId) -> Self {
        Self {
            problem,
            partition: Some(partition),
            user: Some(user),
            incarnation: None,
            connection: None,
            key: None,
            entry: None,
        }
    }

    pub(super) fn of_connection(
        problem: Problem,
        partition: u32,
        (user, connection): (UserId, ConnectionId),
        incarnation: &str,
    ) -> Self {
        Self {
            incarnation: Some(incarnation.to_owned()),
            connection: Some(connection),
            ..Self::of_user(problem, partition, user)
        }
    }

    /// Of the server as a whole.
    pub(super) fn of_server(problem: Problem) -> Self {
        Self {
            problem,
            partition: None,
            user: None,
            incarnation: None,
            connection: None,
            key: None,
            entry: None,
        }
    }

    pub(super) fn of_node(problem: Problem, partition: Option<u32>, incarnation: &str) -> Self {
        Self {
            problem,
            partition,
            user: None,
            incarnation: Some(incarnation.to_owned()),
            connection: None,
            key: None,
            entry: None,
        }
    }

    pub(super) fn of_key(problem: Problem, key: &str, known: &Known) -> Self {
        let (partition, user) = known.whose();
        Self {
            problem,
            partition,
            user,
            incarnation: None,
            connection: None,
            key: Some(key.to_owned()),
            entry: None,
        }
    }

    pub(super) fn of_entry(key: &str, known: &Known, entry: Bytes) -> Self {
        let problem = match known {
            Known::Connections(_) => Problem::UnreadableConnection,
            _ => Problem::Unreadable,
        };
        Self {
            entry: Some(entry),
            ..Self::of_key(problem, key, known)
        }
    }

    /// The incarnation and the connection of a user on it.
    pub(super) fn registration(&self) -> Option<(&str, UserId, ConnectionId)> {
        Some((self.incarnation.as_deref()?, self.user?, self.connection?))
    }

    /// What makes it the same finding later: a ghost stays one if its node is gone by then.
    pub(super) fn identity(mut self) -> Self {
        if self.problem == Problem::NodeUnaware {
            self.problem = Problem::NodeGone;
        }
        self
    }

    /// What no node can have written, and the key that holds it.
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

/// In words, for people.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(partition) = self.partition.filter(|_| self.key.is_none()) {
            write!(f, "partition {partition}: ")?;
        }
        let (user, node) = (self.user(), self.node());
        let key = self.key.as_deref().unwrap_or_default();
        match self.problem {
            Problem::NodeGone => write!(
                f,
                "{} is registered, but its {node} is gone",
                self.connection()
            ),
            Problem::NodeUnaware => {
                write!(
                    f,
                    "{} is registered, but {node} does not hold it",
                    self.connection()
                )
            }
            Problem::UnreadableConnection => write!(
                f,
                "{} keeps {user} online, and no node can have written it",
                self.entry()
            ),
            Problem::Unreadable => {
                write!(f, "{}: no node can have written it", self.entry())
            }
            Problem::WrongType => write!(f, "{key} is of another type than nodes write"),
            Problem::Misplaced => write!(f, "{key} is where no node looks for it"),
            Problem::OwedByUnknown => write!(f, "{node} is gone, and a set says what it owes"),
            Problem::UnknownMember => {
                write!(f, "{node} is gone, and still among the partition's nodes")
            }
            Problem::OwedUnregistered => {
                write!(
                    f,
                    "{node} owes {}, which is not registered",
                    self.connection()
                )
            }
            Problem::UnknownNode => write!(f, "{node} tells about itself and has no lease"),
            Problem::LeaseOver => write!(
                f,
                "the lease of {node} is over, it does not answer, and nobody took the lease away"
            ),
            Problem::OnlineWithoutConnections => write!(
                f,
                "{user} is online without connections, and not about to go offline"
            ),
            Problem::ConnectedButOffline => write!(f, "{user} has connections and is not online"),
            Problem::LeavingWithConnections => {
                write!(f, "{user} has connections and is about to go offline")
            }
            Problem::LeavingButOffline => {
                write!(f, "{user} is about to go offline and not online")
            }
            Problem::Overdue => write!(f, "{user} should have gone offline, and no node did it"),
            Problem::LeavingTooLate => {
                write!(f, "{user} has no connections and goes offline too late")
            }
            Problem::NotHeard => write!(
                f,
                "{user} has connections, and no node listens to the user's topic; the node subscribes again within some \
                 seconds, or its log says why it cannot"
            ),
            Problem::NotOwed => write!(
                f,
                "{} is registered, but not among what {node} owes",
                self.connection()
            ),
            Problem::NotListed => {
                write!(
                    f,
                    "{node} owes something and is not among the partition's nodes"
                )
            }
            Problem::NotRegistered => write!(
                f,
                "{node} holds {}, which is not registered; the node does that itself at its next audit (node.audit)",
                self.connection()
            ),
            Problem::Silent => write!(
                f,
                "{node} has a lease and does not answer; what it holds could not be compared"
            ),
            Problem::Evicting => write!(
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
    fn findings_are_told_in_words() {
        let ghost = Finding::of_connection(
            Problem::NodeGone,
            2,
            (user(), ConnectionId(7)),
            "eu.west.x1",
        );
        assert_eq!(
            ghost.to_string(),
            "partition 2: connection 7 of user 42 is registered, but its node eu.west (eu.west.x1) is gone"
        );
        let key = "vigie:{0}:conns:42";
        let known = Known::Connections(user());
        let garbage = Finding::of_entry(key, &known, Bytes::from_static(b"x\"\xff"));
        assert_eq!(
            garbage.to_string(),
            "\"x\\\"\u{fffd}\" in vigie:{0}:conns:42 keeps user 42 online, and no node can have written it"
        );
        let silent = Finding::of_node(Problem::Silent, None, "a.x1");
        assert!(silent.to_string().starts_with("node a (a.x1) has a lease"));
    }

    #[test]
    fn a_ghost_stays_the_same_when_its_node_goes() {
        let ghost = |problem| {
            Finding::of_connection(problem, 0, (user(), ConnectionId(7)), "a.1").identity()
        };
        assert_eq!(ghost(Problem::NodeGone), ghost(Problem::NodeUnaware));
        assert_ne!(ghost(Problem::NodeGone), ghost(Problem::NotOwed));
    }
}
