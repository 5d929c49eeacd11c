//! Which master of a Redis Cluster serves which hash slot, as several of its servers see it.
//!
//! Pure: `servers` asks, this reads the answers. A server that stood still, or is cut off, has an old view; the
//! epoch of a master's configuration, which the cluster increases with every move and every failover, says which of
//! two views of a slot is the newer one.

use std::fmt;
use std::ops::RangeInclusive;

/// Hash slots of a Redis Cluster.
pub(super) const SLOTS: u16 = 16_384;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    /// The name that its certificate has to be for, where it announces one beside its address.
    pub(super) name: Option<String>,
}

/// The cluster, as one server sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) masters: Vec<MasterView>,
    /// Every server, also those that are no masters.
    pub(super) members: Vec<Address>,
}

/// A master, as a server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MasterView {
    pub(super) address: Address,
    pub(super) config_epoch: u64,
    pub(super) slots: Vec<RangeInclusive<u16>>,
}

/// Where a command is to be sent instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// The slot belongs to another master.
    Moved(Address),
    /// The key has been moved already, its slot has not: this command alone goes there.
    Ask(Address),
    /// Some of the keys have been moved already. The command works once all have.
    TryAgain,
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

impl Address {
    /// Reads `host:port`; a missing host is that of the server that says it.
    fn parse(text: &str, said_by: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self {
            host: if host.is_empty() { said_by } else { host }.to_owned(),
            port: port.parse().ok().filter(|port| *port != 0)?,
            name: None,
        })
    }
}

impl View {
    /// Reads the answer of `CLUSTER NODES`. `asked` is the host that was asked: a server may not know its own.
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

/// Reads `<id> <host:port@bus-port[,name]> <flags> <master> <ping> <pong> <config-epoch> <link> <slot> …`.
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
    // Slots on the move stand in brackets, and are listed with their owner all the same.
    let slots: Vec<_> = words
        .iter()
        .skip(8)
        .filter_map(|word| range(word))
        .collect();
    let is_gone = slots.is_empty() && (flagged("fail") || flagged("fail?"));
    if !flagged("master") || is_gone {
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

/// The master of every slot, by its place in the list of masters; `None` where nobody knows one. The list has every
/// master that some view knows.
pub(super) fn merge(views: &[View]) -> (Vec<Address>, Vec<Option<usize>>) {
    let mut masters: Vec<Address> = Vec::new();
    let mut owners: Vec<Option<(u64, usize)>> = vec![None; usize::from(SLOTS)];
    for master in views.iter().flat_map(|view| &view.masters) {
        let known = masters.iter().position(|known| *known == master.address);
        let place = known.unwrap_or_else(|| {
            masters.push(master.address.clone());
            masters.len() - 1
        });
        for slot in master.slots.iter().cloned().flatten() {
            let owner = &mut owners[usize::from(slot)];
            if owner.is_none_or(|(epoch, _)| epoch < master.config_epoch) {
                *owner = Some((master.config_epoch, place));
            }
        }
    }
    let owners = owners.into_iter();
    (masters, owners.map(|owner| Some(owner?.1)).collect())
}

impl Redirect {
    /// Reads the error of a server that listens on `said_by`; `None` where it is none of these.
    pub(super) fn parse(error: &str, said_by: &str) -> Option<Self> {
        let mut words = error.split_ascii_whitespace();
        let kind = words.next()?;
        let _slot = words.next()?;
        let mut address = || Address::parse(words.next()?, said_by);
        match kind {
            "MOVED" => address().map(Self::Moved),
            "ASK" => address().map(Self::Ask),
            "TRYAGAIN" => Some(Self::TryAgain),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NODES: &str = "\
07c37df 127.0.0.1:30004@31004,host-4 slave e7d1eec 0 1426238317239 4 connected\n\
67ed2db 127.0.0.1:30002@31002,host-2,shard-id=x master - 0 1426238316232 2 connected 5461-10922\n\
292f8b3 [::1]:30003@31003 master,fail - 0 1426238318243 3 disconnected 10923-16383 [93-<-67ed2db]\n\
6ec2392 :30005@31005 myself,master - 0 0 1 connected 0-5459 5460 [5461->-67ed2db]\n\
aaaaaaa :0@0 master,noaddr - 0 0 7 disconnected 12\n\
nonsense\n";

    fn address(host: &str, port: u16) -> Address {
        Address {
            host: host.to_owned(),
            port,
            name: None,
        }
    }

    #[test]
    fn a_view_has_the_masters_with_their_slots() {
        let view = View::parse(NODES, "10.0.0.1");
        let slots: Vec<_> = view
            .masters
            .iter()
            .map(|master| (master.address.to_string(), master.slots.clone()))
            .collect();
        assert_eq!(
            slots,
            [
                ("127.0.0.1:30002".to_owned(), vec![5461..=10922]),
                ("[::1]:30003".to_owned(), vec![10923..=16383]),
                ("10.0.0.1:30005".to_owned(), vec![0..=5459, 5460..=5460]),
            ]
        );
        assert_eq!(view.masters[0].address.name.as_deref(), Some("host-2"));
        assert_eq!(view.members.len(), 4);
    }

    #[test]
    fn the_newer_view_of_a_slot_wins() {
        let view = |masters: &[(&Address, u64, RangeInclusive<u16>)]| View {
            masters: masters
                .iter()
                .map(|(address, config_epoch, slots)| MasterView {
                    address: (*address).clone(),
                    config_epoch: *config_epoch,
                    slots: vec![slots.clone()],
                })
                .collect(),
            members: Vec::new(),
        };
        let (old, new) = (address("a", 1), address("b", 2));
        let stale = view(&[(&old, 1, 0..=9)]);
        let fresh = view(&[(&old, 1, 0..=4), (&new, 2, 5..=9)]);
        for views in [[stale.clone(), fresh.clone()], [fresh, stale]] {
            let (masters, owners) = merge(&views);
            let owner = |slot: usize| owners[slot].map(|place| masters[place].clone());
            assert_eq!(owner(4), Some(old.clone()));
            assert_eq!(owner(5), Some(new.clone()));
            assert_eq!(owner(10), None);
        }
    }

    #[test]
    fn redirects_are_read() {
        let parse = |text| Redirect::parse(text, "10.0.0.1");
        assert_eq!(
            parse("MOVED 3999 127.0.0.1:6381"),
            Some(Redirect::Moved(address("127.0.0.1", 6381)))
        );
        assert_eq!(
            parse("ASK 3999 :6381"),
            Some(Redirect::Ask(address("10.0.0.1", 6381)))
        );
        assert_eq!(parse("TRYAGAIN Multiple keys"), Some(Redirect::TryAgain));
        for other in ["", "MOVED", "ASK 1", "ERR x", "MOVED 1 a:x"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2048)
        })]

        #[test]
        fn any_text_is_read(text in "[a-z0-9:@,\\[\\]\n -]{0,200}|.*") {
            let view = View::parse(&text, "h");
            let (masters, owners) = merge(&[view]);
            prop_assert!(owners.iter().flatten().all(|place| *place < masters.len()));
            let _ = Redirect::parse(&text, "h");
        }
    }
}
