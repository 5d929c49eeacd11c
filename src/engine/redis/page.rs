//! Reads collections in steps: few enough members at a time that Redis stays responsive in between.

use fred::types::FromValue;

use super::Redis;
use crate::engine::EngineError;

/// Where reading begins.
pub(super) const BEGINNING: &str = "0";

/// Members that one step asks for: few enough that Redis stays responsive in between.
pub(super) const SCAN_COUNT: u32 = 1000;

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

    /// The members of a set, read in steps. Those that come or go meanwhile may be among them or not.
    pub(super) async fn scan<T>(&self, key: String) -> Result<Vec<T>, EngineError>
    where
        Vec<T>: FromValue,
    {
        let mut members = Vec::new();
        let mut cursor = Some(BEGINNING.to_owned());
        while let Some(at) = cursor {
            let page: Page<T> = self.page("SSCAN", &key, &at, SCAN_COUNT).await?;
            members.extend(page.items);
            cursor = page.next;
        }
        Ok(members)
    }
}
