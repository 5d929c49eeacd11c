//! How many connections each address has on this node.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::transport::address::network_of;

/// Counts connections by address, those of one IPv6 network as one.
#[derive(Clone, Default)]
pub(super) struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// Counts one connection until it is dropped.
pub(super) struct Counted {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection of `address`; `None` where there are `limit` of it already. 0 sets no limit.
    pub(super) fn count(&self, address: IpAddr, limit: usize) -> Option<Counted> {
        let address = network_of(address);
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if limit > 0 && *count >= limit {
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
        let addresses = Addresses::default();
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = addresses.count(here, 2);
        let second = addresses.count(here, 2);
        assert!(first.is_some() && second.is_some());
        assert!(addresses.count(here, 2).is_none());
        assert!(addresses.count(Ipv4Addr::BROADCAST.into(), 2).is_some());
        drop(first);
        assert!(addresses.count(here, 2).is_some());
        drop(second);
        assert!(addresses.counts().is_empty());
    }

    #[test]
    fn zero_sets_no_limit() {
        let addresses = Addresses::default();
        let counted: Vec<_> = (0..100)
            .map(|_| addresses.count(Ipv4Addr::LOCALHOST.into(), 0))
            .collect();
        assert!(counted.iter().all(Option::is_some));
    }
}
