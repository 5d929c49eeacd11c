//! What the hub asks of an engine, as one enum over the two that exist.
//!
//! An engine keeps presence and last updates and carries messages between nodes. Calls go down; what
//! happened comes back up as [`Message`]s on one stream, in the order in which it happened.

/// Calls one method of whichever engine it is.
macro_rules! dispatch {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            Self::Memory(memory) => memory.$method($($argument),*),
            Self::Redis(redis) => redis.$method($($argument),*).await,
        }
    };
}

// Below the macro that they use.
mod account;
mod error;
mod examination;
mod lease;
pub mod matchmaking;
pub mod memory;
mod message;
mod node;
mod presence;
mod profile;
pub mod redis;
mod refusal;
mod topic;

use std::sync::Arc;

use crate::ids::{Incarnation, UserId};

pub use self::account::{AccountStatus, Revoked};
pub use self::error::{Denied, EngineError, OpenError};
pub use self::examination::Examination;
pub(crate) use self::examination::KEEPS_EVERYTHING;
pub use self::lease::Reaped;
pub(crate) use self::message::MESSAGES_MAX;
pub use self::message::{Message, Messages};
pub use self::node::{LiveNode, NodeInfo, NodeRequest};
pub use self::presence::{
    Admission, Expired, Position, Pulse, RegisteredConnection, Registration, Transition,
};
pub use self::profile::{Kind, Published, Stored, Update, Views};
pub use self::refusal::Refusal;
pub use self::topic::TopicMessage;

/// One of the engines. Cloning is cheap: clones share everything.
#[derive(Clone)]
pub enum Engine {
    /// One node, nothing to install.
    Memory(Arc<memory::Memory>),
    /// Any number of nodes on one Redis.
    Redis(Arc<redis::Redis>),
}

impl Engine {
    /// What people call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Redis(_) => "redis",
        }
    }

    /// How many partitions the users are spread over.
    pub fn partitions(&self) -> u32 {
        match self {
            Self::Memory(_) => 1,
            Self::Redis(redis) => redis.partitions(),
        }
    }

    /// The partition of a user.
    pub fn partition_of(&self, user: UserId) -> u32 {
        (user.get() % u64::from(self.partitions())) as u32
    }

    /// Whether an error concerns a part of the engine only, while others answer.
    pub async fn is_partial(&self, error: &EngineError) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(redis) => redis.is_partial(error).await,
        }
    }

    /// Whether the engine has several servers of which some answer, while others do not.
    pub async fn is_partly_there(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(redis) => redis.is_partly_there().await,
        }
    }

    /// Why the engine rejects connections of this node, where that is the reason for its silence.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(redis) => redis.refusal(),
        }
    }

    /// The node's present life.
    pub fn incarnation(&self) -> Incarnation {
        match self {
            Self::Memory(memory) => memory.incarnation(),
            Self::Redis(redis) => redis.incarnation(),
        }
    }
}
