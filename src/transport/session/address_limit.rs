//! How many connections each address has on this node.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::transport::address::network_of;

/// Counts connections by address; an IPv6 network counts as one address.
#[derive(Clone, Default)]
pub(crate) struct AddressLimit(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// Counts for its address until it is dropped.
pub(crate) struct AddressPermit {
    limit: AddressLimit,
    address: IpAddr,
}

impl AddressLimit {
    /// A permit for one connection; `None` if the address has `max` of them already. A `max` of 0 sets no limit.
    pub(crate) fn acquire(&self, address: IpAddr, max: usize) -> Option<AddressPermit> {
        let address = network_of(address);
        let mut counts = self.0.lock();
        let count = counts.entry(address).or_default();
        if max > 0 && *count >= max {
            return None;
        }
        *count += 1;
        Some(AddressPermit {
            limit: self.clone(),
            address,
        })
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut counts = self.limit.0.lock();
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
    fn an_address_counts_until_its_permits_are_dropped() {
        let limit = AddressLimit::default();
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = limit.acquire(here, 2);
        let second = limit.acquire(here, 2);
        assert!(first.is_some() && second.is_some());
        assert!(limit.acquire(here, 2).is_none());
        assert!(limit.acquire(Ipv4Addr::BROADCAST.into(), 2).is_some());
        drop(first);
        assert!(limit.acquire(here, 2).is_some());
        drop(second);
        assert!(limit.0.lock().is_empty());
    }

    #[test]
    fn zero_sets_no_limit() {
        let limit = AddressLimit::default();
        let permits: Vec<_> = (0..100)
            .map(|_| limit.acquire(Ipv4Addr::LOCALHOST.into(), 0))
            .collect();
        assert!(permits.iter().all(Option::is_some));
    }
}
