//! How many files, and so connections, a process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What is assumed where the system does not tell.
const USUAL: usize = 1024;

/// Raises the limit on open files as far as the process may by itself; returns what it is then. Services and shells
/// often begin with 1024, for programs of another time.
pub(super) fn raise_limit() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return USUAL;
    };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let limit = if raised { hard } else { soft };
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let limit = raise_limit();
        let now = getrlimit(Resource::RLIMIT_NOFILE).expect("the system tells");
        assert_eq!(now, (limit as u64, limit as u64));
    }
}
