//! The map from hash slots to masters of a Redis Cluster, merged from the views of several servers.
//!
//! Pure: `servers` queries, this parses. A suspended or isolated server has an old view. The config epoch of a master,
//! which grows with every move and failover, tells which of two views of a slot is newer.

use std::fmt;
use std::ops::RangeInclusive;

/// Hash slots of a Redis Cluster.
pub(super) const SLOTS: u16 = 16_384;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    /// The host name that its certificate must match, if it announces one beside its address.
    pub(super) name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClusterView {
    pub(super) masters: Vec<MasterView>,
    /// All servers, replicas included.
    pub(super) members: Vec<Address>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MasterView {
    pub(super) address: Address,
    pub(super) config_epoch: u64,
    pub(super) slots: Vec<RangeInclusive<u16>>,
}

/// Where to send a command instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// The slot belongs to another master.
    Moved(u16, Address),
    /// The key has already moved, its slot has not: only this command goes there.
    Ask(Address),
    /// Some of the keys have moved already. The command works once all have.
    TryAgain,
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

impl Address {
    /// Parses `host:port`; a missing host is that of the sender.
    fn parse(text: &str, said_by: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self {
            host: if host.is_empty() { said_by } else { host }.to_owned(),
            port: port.parse().ok().filter(|port| *port != 0)?,
            name: None,
        })
    }
}

impl ClusterView {
    /// Parses the reply to `CLUSTER NODES`. `asked` is the queried host: a server may not know its own.
    pub(super) fn parse(text: &str, asked: &str) -> Self {
        let mut view = Self::default();
        for line in text.lines() {
            let Some((address, master)) = parse_line(line, asked) else {
                continue;
            };
            view.members.push(address);
            view.masters.extend(master);
        }
        view
    }
}

/// Parses `<id> <host:port@bus-port[,name]> <flags> <master> <ping> <pong> <config-epoch> <link> <slot> …`.
fn parse_line(line: &str, asked: &str) -> Option<(Address, Option<MasterView>)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (endpoint, flags) = (words.get(1)?, words.get(2)?);
    let flagged = |flag: &str| flags.split(',').any(|known| known == flag);
    if flagged("noaddr") || flagged("handshake") {
        return None;
    }
    // More fields follow the name, such as the shard's id.
    let mut parts = endpoint.split(',');
    let (endpoint, _bus_port) = parts.next()?.split_once('@')?;
    let name = parts.next().filter(|name| !name.is_empty());
    let address = Address {
        name: name.map(str::to_owned),
        ..Address::parse(endpoint, asked)?
    };
    // Migrating slots appear in brackets, and also among their owner's slots.
    let slots: Vec<_> = words
        .iter()
        .skip(8)
        .filter_map(|word| range(word))
        .collect();
    // A master without slots serves nothing, and may have left the cluster unknowingly. `ASK` announces new ones.
    if !flagged("master") || slots.is_empty() {
        return Some((address, None));
    }
    let master = MasterView {
        address: address.clone(),
        config_epoch: words.get(6)?.parse().ok()?,
        slots,
    };
    Some((address, Some(master)))
}

fn range(word: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < SLOTS).then_some(first..=last)
}

/// All masters known to any view, and for each slot the index of its master; `None` if it has none.
pub(super) fn merge(views: &[ClusterView]) -> (Vec<Address>, Vec<Option<usize>>) {
    let mut masters: Vec<Address> = Vec::new();
    let mut owners: Vec<Option<(u64, usize)>> = vec![None; usize::from(SLOTS)];
    for master in views.iter().flat_map(|view| &view.masters) {
        let known = masters.iter().position(|known| *known == master.address);
        let index = known.unwrap_or_else(|| {
            masters.push(master.address.clone());
            masters.len() - 1
        });
        for slot in master.slots.iter().cloned().flatten() {
            let owner = &mut owners[usize::from(slot)];
            if owner.is_none_or(|(epoch, _)| epoch < master.config_epoch) {
                *owner = Some((master.config_epoch, index));
            }
        }
    }
    let owners = owners.into_iter();
    (masters, owners.map(|owner| Some(owner?.1)).collect())
}

impl Redirect {
    /// Parses an error reply of the server at `said_by`; `None` if it is not a redirect.
    pub(super) fn parse(error: &str, said_by: &str) -> Option<Self> {
        let mut words = error.split_ascii_whitespace();
        let kind = words.next()?;
        let slot = words.next()?.parse();
        let mut address = || Address::parse(words.next()?, said_by);
        match kind {
            "MOVED" => Some(Self::Moved(slot.ok()?, address()?)),
            "ASK" => address().map(Self::Ask),
            "TRYAGAIN" => Some(Self::TryAgain),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
