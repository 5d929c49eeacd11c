use super::*;

fn users(ids: &[u64]) -> Vec<UserId> {
    ids.iter()
        .map(|id| UserId::try_from(*id).expect("a valid id"))
        .collect()
}

fn transition(revision: u64, online: &[u64], offline: &[u64]) -> Transition {
    Transition {
        epoch: "a".to_owned(),
        revision,
        online: users(online),
        offline: users(offline),
    }
}

fn position(epoch: &str, revision: u64) -> Position {
    Position {
        epoch: epoch.to_owned(),
        revision,
    }
}

fn replica(revision: u64, online: &[u64]) -> Replica {
    let mut replica = Replica::new(1);
    restore(&mut replica, position("a", revision), &users(online)).expect("a snapshot fits");
    replica
}

fn restore(
    replica: &mut Replica,
    position: Position,
    snapshot: &[UserId],
) -> Option<PresenceChange> {
    let round = replica.expected_snapshot(0).expect("a snapshot is needed");
    replica.restore(0, round, position, snapshot.to_vec())
}

fn change(online: &[u64], offline: &[u64]) -> PresenceChange {
    PresenceChange {
        online: users(online),
        offline: users(offline),
    }
}

#[test]
fn transitions_follow_the_snapshot() {
    let mut replica = replica(7, &[3, 1]);
    assert_eq!(
        replica.apply(0, transition(8, &[2], &[])),
        Applied::Changed(change(&[2], &[]))
    );
    assert_eq!(
        replica.apply(0, transition(9, &[], &[1])),
        Applied::Changed(change(&[], &[1]))
    );
    assert_eq!(replica.encoded().get(), "[2,3]");
}

#[test]
fn transitions_during_the_snapshot_are_applied_once() {
    let mut replica = Replica::new(1);
    assert_eq!(replica.apply(0, transition(7, &[5], &[])), Applied::Waiting);
    assert_eq!(replica.apply(0, transition(8, &[6], &[])), Applied::Waiting);
    assert_eq!(replica.apply(0, transition(9, &[], &[5])), Applied::Waiting);
    let restored = restore(&mut replica, position("a", 7), &users(&[5, 6]));
    assert_eq!(restored, Some(change(&[6], &[])));
    assert!(replica.is_complete(0));
}

#[test]
fn a_snapshot_after_a_gap_yields_only_the_difference() {
    let mut replica = replica(1, &[1, 2]);
    assert_eq!(replica.apply(0, transition(3, &[4], &[])), Applied::Gap);
    assert_eq!(replica.apply(0, transition(4, &[], &[2])), Applied::Waiting);
    assert_eq!(
        replica.encoded().get(),
        "[1,2]",
        "the last known state is shown meanwhile"
    );
    let restored = restore(&mut replica, position("a", 3), &users(&[1, 2, 3, 4]));
    assert_eq!(restored, Some(change(&[3, 4], &[2])));
}

#[test]
fn a_snapshot_older_than_a_gap_is_read_again() {
    let mut replica = Replica::new(1);
    assert_eq!(replica.apply(0, transition(9, &[9], &[])), Applied::Waiting);
    assert_eq!(restore(&mut replica, position("a", 7), &[]), None);
    assert!(!replica.is_complete(0));
    assert_eq!(
        restore(&mut replica, position("a", 9), &users(&[9])),
        Some(change(&[9], &[]))
    );
}

fn in_epoch_b(transition: Transition) -> Transition {
    Transition {
        epoch: "b".to_owned(),
        ..transition
    }
}

#[test]
fn another_epoch_leaves_time_to_register_again() {
    let mut replica = replica(100, &[1, 2, 3]);
    assert_eq!(
        replica.apply(0, in_epoch_b(transition(1, &[2], &[]))),
        Applied::Gap
    );
    let restored = restore(&mut replica, position("b", 1), &users(&[2, 9]));
    assert_eq!(restored, Some(change(&[9], &[])));
    assert_eq!(replica.encoded().get(), "[1,2,3,9]");
    // User 1 registers again, which is no change; user 3 does not.
    let again = replica.apply(0, in_epoch_b(transition(2, &[1], &[])));
    assert_eq!(again, Applied::Changed(change(&[], &[])));
    assert_ne!(replica.unconfirmed_count(0), 0);
    assert_eq!(replica.expire_unconfirmed(0), change(&[], &[3]));
    assert_eq!(replica.unconfirmed_count(0), 0);
}

#[test]
fn after_an_interruption_missing_users_are_unconfirmed() {
    let mut replica = replica(7, &[1, 2]);
    replica.expect_snapshot(0);
    assert_eq!(
        restore(&mut replica, position("a", 9), &users(&[1])),
        Some(change(&[], &[]))
    );
    // An unconfirmed user survives a gap, and is resolved by a transition.
    assert_eq!(replica.apply(0, transition(11, &[], &[])), Applied::Gap);
    assert_eq!(
        restore(&mut replica, position("a", 11), &users(&[1])),
        Some(change(&[], &[]))
    );
    assert_eq!(
        replica.apply(0, transition(12, &[], &[2])),
        Applied::Changed(change(&[], &[2]))
    );
    assert_eq!(replica.expire_unconfirmed(0), change(&[], &[]));
}

#[test]
fn partitions_do_not_touch_each_other() {
    let mut replica = Replica::new(2);
    replica.restore(0, 0, position("a", 1), users(&[2, 4]));
    replica.restore(1, 0, position("a", 1), users(&[1]));
    assert_eq!(replica.apply(0, transition(3, &[], &[])), Applied::Gap);
    assert_eq!(replica.expected_snapshot(0), Some(1));
    assert_eq!(replica.expected_snapshot(1), None);
    let restored = replica.restore(0, 1, position("a", 3), users(&[2]));
    assert_eq!(restored, Some(change(&[], &[4])));
    assert_eq!(replica.encoded().get(), "[1,2]");
}

#[test]
fn a_snapshot_begun_before_an_interruption_does_not_count() {
    let mut replica = Replica::new(1);
    let round = replica.expected_snapshot(0).expect("a snapshot is needed");
    replica.expect_snapshot(0);
    assert_eq!(
        replica.restore(0, round, position("a", 1), users(&[1])),
        None
    );
    assert!(!replica.is_complete(0));
}

#[test]
fn a_pulse_reveals_missed_transitions() {
    let mut replica = Replica::new(2);
    let pulse = |epoch: &str, revision| Pulse {
        epoch: epoch.to_owned(),
        revision,
    };
    assert!(!replica.is_behind(0, &pulse("a", 9)), "a snapshot is read");
    replica.restore(0, 0, position("a", 7), Vec::new());
    assert!(!replica.is_behind(0, &pulse("a", 6)));
    assert!(!replica.is_behind(0, &pulse("a", 7)));
    assert!(replica.is_behind(0, &pulse("a", 8)));
    assert!(replica.is_behind(0, &pulse("b", 1)));
    assert!(!replica.is_behind(1, &pulse("a", 8)));
}

#[test]
fn waiting_for_a_revision_resolves_once_it_is_applied() {
    let mut replica = replica(1, &[]);
    assert!(replica.wait_for(0, 1).is_none());
    let mut waiter = replica.wait_for(0, 2).expect("not reached yet");
    assert!(waiter.try_recv().is_err());
    replica.apply(0, transition(2, &[1], &[]));
    assert!(waiter.try_recv().is_ok());
}

#[test]
fn pages_are_ascending_and_complete() {
    let replica = replica(1, &[5, 1, 3]);
    assert_eq!(replica.page(None, 2), users(&[1, 3]));
    assert_eq!(replica.page(Some(users(&[3])[0]), 2), users(&[5]));
}
