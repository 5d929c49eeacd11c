//! Reads collections in steps small enough that Redis stays responsive.

use fred::types::FromValue;

use super::Redis;
use crate::engine::EngineError;

/// The cursor at which a scan begins.
pub(super) const BEGINNING: &str = "0";

/// Members requested per step: few enough that Redis stays responsive.
pub(super) const SCAN_COUNT: u32 = 1000;

/// The result of one step: the next cursor, if any, and the items.
pub(super) struct ScanPage<T> {
    pub(super) next: Option<String>,
    pub(super) items: Vec<T>,
}

impl<T> ScanPage<T> {
    pub(super) fn new(next: String, items: Vec<T>) -> Self {
        let next = (next != BEGINNING).then_some(next);
        Self { next, items }
    }
}

impl Redis {
    /// One step of about `count` members through a set (`SSCAN`), a sorted set (`ZSCAN`) or a hash (`HSCAN`); the
    /// latter two return members and values alternately. Members that come or go meanwhile may be missing or repeated.
    pub(super) async fn page<T>(
        &self,
        command: &'static str,
        key: &str,
        cursor: &str,
        count: u32,
    ) -> Result<ScanPage<T>, EngineError>
    where
        Vec<T>: FromValue,
    {
        let args = vec![cursor.to_owned(), "COUNT".to_owned(), count.to_string()];
        let (next, items) = self.servers.call(command, key.to_owned(), args).await?;
        Ok(ScanPage::new(next, items))
    }

    /// All members of a set, read in steps. Those that come or go meanwhile may be missing or repeated.
    pub(super) async fn scan<T>(&self, key: String) -> Result<Vec<T>, EngineError>
    where
        Vec<T>: FromValue,
    {
        let mut members = Vec::new();
        let mut cursor = Some(BEGINNING.to_owned());
        while let Some(at) = cursor {
            let page: ScanPage<T> = self.page("SSCAN", &key, &at, SCAN_COUNT).await?;
            members.extend(page.items);
            cursor = page.next;
        }
        Ok(members)
    }
}
