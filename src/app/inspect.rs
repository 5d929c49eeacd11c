//! Shows what is in Redis, from outside, for people and programs.

use super::{StartError, redis_options};
use crate::settings::{EngineKind, Settings};

pub use crate::engine::matchmaking::{QueueStatus, Ticket};
pub use crate::engine::redis::inspect::{
    Cursor, Inspector, Nodes, OnlinePage, OnlineUser, Overview, Queue, UserReport,
};
pub use crate::engine::{LiveNode, NodeInfo, RegisteredConnection};

/// Looks at the data of the hub that these settings describe. `None` where the engine keeps nothing outside its process.
///
/// # Errors
/// When the engine cannot be reached, or the data has another layout.
pub async fn open(settings: &Settings) -> Result<Option<Inspector>, StartError> {
    match settings.engine {
        EngineKind::Memory => Ok(None),
        EngineKind::Redis => Ok(Some(Inspector::open(&redis_options(settings)).await?)),
    }
}
