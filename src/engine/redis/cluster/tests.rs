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
    let view = ClusterView::parse(NODES, "10.0.0.1");
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
    let view = |masters: &[(&Address, u64, RangeInclusive<u16>)]| ClusterView {
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
        let owner = |slot: usize| owners[slot].map(|index| masters[index].clone());
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
        Some(Redirect::Moved(3999, address("127.0.0.1", 6381)))
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
        let view = ClusterView::parse(&text, "h");
        let (masters, owners) = merge(&[view]);
        prop_assert!(owners.iter().flatten().all(|index| *index < masters.len()));
        let _ = Redirect::parse(&text, "h");
    }
}
