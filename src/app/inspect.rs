//! Opens the data in Redis for inspection from outside.

use super::{StartError, redis_options};
use crate::settings::{EngineKind, Settings};

pub(crate) use crate::engine::matchmaking::{QueueStats, Ticket};
pub(crate) use crate::engine::redis::inspect::{
    Cursor, Inspector, NodeList, OnlinePage, OnlineUser, Overview, QueueReport, UserReport,
};
pub(crate) use crate::engine::{LiveNode, NodeInfo, RegisteredConnection};

/// Opens the data of the hub that these settings describe. Returns `None` for an engine that keeps nothing outside its
/// process.
///
/// # Errors
/// When the engine cannot be reached, or the data has another layout.
pub(crate) async fn open(settings: &Settings) -> Result<Option<Inspector>, StartError> {
    match settings.engine {
        EngineKind::Memory => Ok(None),
        EngineKind::Redis => Ok(Some(Inspector::open(&redis_options(settings)).await?)),
    }
}
