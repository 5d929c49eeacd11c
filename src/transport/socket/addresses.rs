//! How many connections each address has on this node.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections by address, up to a limit.
#[derive(Clone)]
pub(super) struct Addresses {
    limit: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// Counts one connection until it is dropped.
pub(super) struct Counted {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    /// At most `limit` connections of one address; 0 sets no limit.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            counts: Arc::default(),
        }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection of `address`; `None` where it has as many as allowed.
    pub(super) fn count(&self, address: IpAddr) -> Option<Counted> {
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if self.limit > 0 && *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Counted {
            addresses: self.clone(),
            address,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_is_counted_until_its_connections_are_gone() {
        let addresses = Addresses::new(2);
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = addresses.count(here);
        let second = addresses.count(here);
        assert!(first.is_some() && second.is_some());
        assert!(addresses.count(here).is_none());
        assert!(addresses.count(IpAddr::V4(Ipv4Addr::BROADCAST)).is_some());
        drop(first);
        assert!(addresses.count(here).is_some());
        drop(second);
        assert!(addresses.counts().is_empty());
    }

    #[test]
    fn zero_sets_no_limit() {
        let addresses = Addresses::new(0);
        let counted: Vec<_> = (0..100)
            .map(|_| addresses.count(Ipv4Addr::LOCALHOST.into()))
            .collect();
        assert!(counted.iter().all(Option::is_some));
    }
}
