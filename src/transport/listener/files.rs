//! How many connections fit into the files that this process may have open: each is one.

use nix::sys::resource::{Resource, getrlimit};

/// What is assumed where the system does not tell.
const USUAL: usize = 1024;

/// Files that a node needs for itself: connections to Redis (a pair for each master) and to Postgres (at most 100), its
/// listeners, its log, what its threads wait on, files that it reads; and connections that are closed and not gone yet.
const OWN: usize = 256;

/// TCP connections of the internal listener: of back ends and operators, who are few.
const INTERNAL: usize = 1024;

/// TCP connections of the public listener beyond the limit on connections: of clients that poll, which may have two each,
/// and of those who ask how the node is while it is full.
const BEYOND: usize = 1024;

/// How the files are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Socket.IO connections that the node takes.
    pub connections: usize,
    /// TCP connections of the public listener.
    pub public: usize,
    /// TCP connections of the internal listener.
    pub internal: usize,
}

impl Room {
    /// Divides `files`; `connections` are wanted. What is kept back is 2,304 files, or half of them where there are few.
    pub fn of(files: usize, connections: usize) -> Self {
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

/// How many files must be allowed for so many connections.
pub fn files_for(connections: usize) -> usize {
    connections.saturating_add(OWN + INTERNAL + BEYOND)
}

/// How many files this process may have open.
pub fn files_max() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(USUAL, |(soft, _)| {
        usize::try_from(soft).unwrap_or(usize::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_are_enough_files_the_setting_decides() {
        let files = files_for(100_000);
        let room = Room::of(files, 100_000);
        assert_eq!((room.connections, room.public), (100_000, 101_024));
        assert_eq!(Room::of(files - 1, 100_000).connections, 99_999);
        assert_eq!(Room::of(usize::MAX, 7).connections, 7);
    }

    #[test]
    fn all_that_may_be_open_fits_into_the_files() {
        for files in (1..5_000).step_by(7) {
            let room = Room::of(files, usize::MAX);
            assert!(room.public + room.internal + OWN.min(files / 4) <= files);
            assert!(room.connections >= files / 2, "{files}: {room:?}");
        }
    }
}
