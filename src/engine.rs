//! The interface of an engine, as one enum over the two that exist.
//!
//! An engine stores presence and last updates, and carries messages between nodes. Calls go down; events come back up
//! as [`EngineMessage`]s on one stream, in order.

/// Calls one method of the engine in use.
macro_rules! dispatch {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            Self::Memory(memory) => memory.$method($($argument),*),
            Self::Redis(redis) => redis.$method($($argument),*).await,
        }
    };
}

// After the macro that these modules use.
mod account;
mod error;
mod error_reply;
mod examination;
mod lease;
pub(crate) mod matchmaking;
pub(crate) mod memory;
mod message;
mod node;
mod presence;
mod profile;
pub(crate) mod redis;
mod topic;

use std::sync::Arc;

use crate::ids::{Incarnation, UserId};

pub(crate) use self::account::{AccountStatus, Revoked};
pub(crate) use self::error::{Denied, EngineError, OpenError};
pub(crate) use self::error_reply::ErrorReply;
pub(crate) use self::examination::Examination;
pub(crate) use self::examination::NOEVICTION;
pub(crate) use self::lease::Reaped;
pub(crate) use self::message::MESSAGES_MAX;
pub(crate) use self::message::{EngineMessage, Messages};
pub(crate) use self::node::{LiveNode, NodeInfo, NodeRequest};
pub(crate) use self::presence::{
    Admission, Expired, Position, Pulse, RegisteredConnection, Registration, Transition,
};
pub(crate) use self::profile::{Kind, PublishOutcome, Stored, Update, Views};
pub(crate) use self::topic::TopicMessage;

/// One of the engines. Cloning is cheap: clones share everything.
#[derive(Clone)]
pub enum Engine {
    /// A single node, without Redis.
    Memory(Arc<memory::Memory>),
    /// Any number of nodes on one Redis.
    Redis(Arc<redis::Redis>),
}

impl Engine {
    /// `memory` or `redis`, as in the settings.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Redis(_) => "redis",
        }
    }

    /// Number of partitions over which users are spread.
    pub fn partitions(&self) -> u32 {
        match self {
            Self::Memory(_) => 1,
            Self::Redis(redis) => redis.partitions(),
        }
    }

    /// The partition of a user: the id modulo the number of partitions.
    pub fn partition_of(&self, user: UserId) -> u32 {
        (user.get() % u64::from(self.partitions())) as u32
    }

    /// Whether an error concerns only part of the engine, while other servers answer.
    pub async fn is_partial(&self, error: &EngineError) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(redis) => redis.is_partial(error).await,
        }
    }

    /// Whether some of the engine's servers answer and others do not.
    pub async fn is_partly_available(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(redis) => redis.is_partly_available().await,
        }
    }

    /// Why the engine rejects this node's connections, if it does.
    pub fn refusal(&self) -> Option<ErrorReply> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(redis) => redis.refusal(),
        }
    }

    /// The node's current incarnation.
    pub fn incarnation(&self) -> Incarnation {
        match self {
            Self::Memory(memory) => memory.incarnation(),
            Self::Redis(redis) => redis.incarnation(),
        }
    }
}
