//! Reads collections in steps: few enough members at a time that Redis stays responsive in between.

use fred::types::FromValue;

use super::Redis;
use crate::engine::EngineError;

/// Where reading begins.
pub(super) const BEGINNING: &str = "0";

/// One step of reading: where the next one begins, and what was read.
pub(super) struct Page<T> {
    pub(super) next: Option<String>,
    pub(super) items: Vec<T>,
}

impl<T> Page<T> {
    pub(super) fn new(next: String, items: Vec<T>) -> Self {
        let next = (next != BEGINNING).then_some(next);
        Self { next, items }
    }
}

impl Redis {
    /// One step of about `count` members through a set (`SSCAN`), a sorted set (`ZSCAN`) or a hash (`HSCAN`); the latter
    /// two tell members and values in turns. Members that come or go meanwhile may be among them or not, or twice.
    pub(super) async fn page<T>(
        &self,
        command: &'static str,
        key: &str,
        cursor: &str,
        count: u32,
    ) -> Result<Page<T>, EngineError>
    where
        Vec<T>: FromValue,
    {
        let words = vec![cursor.to_owned(), "COUNT".to_owned(), count.to_string()];
        let (next, items) = self.servers.call(command, key.to_owned(), words).await?;
        Ok(Page::new(next, items))
    }
}
