//! The limit on open files, and so on connections, of this process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Assumed when the system does not say.
const USUAL: usize = 1024;

/// Raises the soft limit on open files to the hard one; returns it. Services and shells often start with 1024.
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
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let limit = raise_limit();
        let now = getrlimit(Resource::RLIMIT_NOFILE).expect("the system has limits");
        assert_eq!(now, (limit as u64, limit as u64));
    }
}
