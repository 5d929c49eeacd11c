//! Shows what is in Redis, from outside, for people and programs.

use std::sync::Arc;

use super::{StartError, redis_options};
use crate::engine::Engine;
use crate::engine::redis::Redis;
use crate::settings::{EngineKind, Settings};

pub use crate::engine::matchmaking::{QueueStatus, Ticket};

/// The queue of those who wait for an opponent.
#[derive(Clone, Debug)]
pub struct Queue {
    /// How it is.
    pub status: QueueStatus,
    /// The first of those who wait.
    pub first: Vec<Ticket>,
}

/// The queue, with the first `count` of those who wait. `None` where the engine keeps nothing outside its process.
///
/// # Errors
/// When the engine cannot be reached, or the data has another layout.
pub async fn queue(settings: &Settings, count: u32) -> Result<Option<Queue>, StartError> {
    if settings.engine == EngineKind::Memory {
        return Ok(None);
    }
    let redis = Redis::visit(&redis_options(settings)).await?;
    let engine = Engine::Redis(Arc::new(redis));
    Ok(Some(Queue {
        status: engine.queue_status().await?,
        first: engine.first_tickets(count).await?,
    }))
}
