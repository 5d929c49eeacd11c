//! Divides the open files that the process may have: every TCP connection is one.

use nix::sys::resource::{Resource, getrlimit};

/// Assumed if the system does not return its limit.
const DEFAULT_FILES_MAX: usize = 1024;

/// Files that the node itself needs: connections to Redis (a pair for each master) and to Postgres (at most 100),
/// listeners, the log, epoll instances, files that it reads, and connections that are closed but not dropped yet.
const OWN: usize = 256;

/// TCP connections of the internal listener; back ends and operators are few.
const INTERNAL: usize = 1024;

/// TCP connections of the public listener beyond `limits.connections`: polling clients may have two each, and health
/// checks need some while the node is full.
const BEYOND: usize = 1024;

/// The division of the open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileBudget {
    /// Client connections that the node admits.
    pub connections: usize,
    /// TCP connections of the public listener.
    pub public: usize,
    /// TCP connections of the internal listener.
    pub internal: usize,
}

impl FileBudget {
    /// Divides `files`, with `connections` as the upper limit. Reserves 2,304 files, or half of them if there are few.
    pub(crate) fn of(files: usize, connections: usize) -> Self {
        let own = OWN.min(files / 4);
        let internal = INTERNAL.min(files / 8);
        let beyond = BEYOND.min(files / 8);
        let connections = connections.min(files.saturating_sub(own + internal + beyond));
        Self {
            connections,
            public: connections.saturating_add(beyond),
            internal,
        }
    }
}

/// Open files that the process needs for `connections`.
pub(crate) fn files_for(connections: usize) -> usize {
    connections.saturating_add(OWN + INTERNAL + BEYOND)
}

/// Open files that the process may have (the soft `RLIMIT_NOFILE`).
pub(crate) fn files_max() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(DEFAULT_FILES_MAX, |(soft, _)| {
        usize::try_from(soft).unwrap_or(usize::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_are_enough_files_the_setting_decides() {
        let files = files_for(100_000);
        let budget = FileBudget::of(files, 100_000);
        assert_eq!((budget.connections, budget.public), (100_000, 101_024));
        assert_eq!(FileBudget::of(files - 1, 100_000).connections, 99_999);
        assert_eq!(FileBudget::of(usize::MAX, 7).connections, 7);
    }

    #[test]
    fn all_that_may_be_open_fits_into_the_files() {
        for files in (1..5_000).step_by(7) {
            let budget = FileBudget::of(files, usize::MAX);
            assert!(budget.public + budget.internal + OWN.min(files / 4) <= files);
            assert!(budget.connections >= files / 2, "{files}: {budget:?}");
        }
    }
}
