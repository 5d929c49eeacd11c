use super::*;

const NOW_MS: u64 = 1_700_000_000_000;

fn accepts(known: &KeyKind, entry: &str, value: &str) -> bool {
    let validator = Validator {
        now_ms: NOW_MS,
        lease_ms: 6_000,
        partition_of: &|user| (user.get() % 2) as u32,
    };
    validator.accepts(known, entry, value)
}

#[test]
fn entries_of_nodes_are_accepted() {
    let user = UserId::try_from(42).expect("a valid id");
    let (now, soon) = ("1700000000000", "1700000060000");
    for (known, entry, value) in [
        (KeyKind::Online(0), "42", ""),
        (KeyKind::Leaving(1), "7", soon),
        (KeyKind::Registrations(0), "42/7", ""),
        (KeyKind::Leases, "eu.west-1.k3v9", "1.70000000006e+12"),
        (KeyKind::Connections(user), "eu_west.k3v9/7", now),
        (KeyKind::Epoch(0), "6561f3c1a0b2", ""),
        (KeyKind::Revision(0), "7", ""),
        (KeyKind::Server(0), "0a1b 0", ""),
        (KeyKind::Server(0), "0a1b 1700000060000", ""),
        (
            KeyKind::Profile(user),
            "profile.revision",
            "9007199254740991",
        ),
        (KeyKind::Profile(user), "stats.at", now),
        (KeyKind::Profile(user), "friends.public", "null"),
        (KeyKind::Profile(user), "matches.full", "[]"),
        (KeyKind::Profile(user), "disconnected", now),
        (KeyKind::Profile(user), "deleted", "x"),
        (KeyKind::Profile(user), "newer.at", "x"),
        (KeyKind::Revoked(user), now, ""),
        (KeyKind::Queue, "42", "-1"),
        (KeyKind::Ratings, "4503599627370497:42", "1500"),
        (KeyKind::Ticket(user), "place", "-1"),
        (KeyKind::Ticket(user), "rating", "-1500"),
        (KeyKind::Ticket(user), "joined", now),
        (KeyKind::Ticket(user), "version", "3"),
        (KeyKind::Ticket(user), "newer", "x"),
        (KeyKind::Playing, "42", "6561f3c1a0b2-1f"),
        (KeyKind::Match, "state", "notified"),
        (KeyKind::Match, "player2", "7"),
        (KeyKind::Match, "rating1", "-1500"),
        (KeyKind::Match, "joined1", now),
        (KeyKind::Match, "node:42@eu.k3v9", "waiting"),
        (KeyKind::Pending, "6561f3c1a0b2-1f", "0"),
        (KeyKind::Timeouts, "42", soon),
        (KeyKind::Count, "12", ""),
        (KeyKind::Scan, "again", "-inf"),
        (KeyKind::Scan, "next", soon),
        (KeyKind::Made, "1700000000", "12"),
    ] {
        assert!(accepts(&known, entry, value), "{known:?} {entry} {value}");
    }
}

#[test]
fn other_entries_are_rejected() {
    let user = UserId::try_from(42).expect("a valid id");
    let (now, far) = ("1700000000000", "9000000000000");
    for (known, entry, value) in [
        (KeyKind::Online(0), "x", ""),
        (KeyKind::Online(0), "042", ""),
        (KeyKind::Online(0), "7", ""),
        (KeyKind::Leaving(0), "7", now),
        (KeyKind::Registrations(0), "42/x", ""),
        (KeyKind::Registrations(0), "42/07", ""),
        (KeyKind::Registrations(0), "7/1", ""),
        (KeyKind::Leases, "x", now),
        (KeyKind::Leases, "a.1", far),
        (KeyKind::Leases, "a.1", "inf"),
        (KeyKind::Connections(user), "x", now),
        (KeyKind::Connections(user), "a/7", now),
        (KeyKind::Connections(user), ".1/7", now),
        (KeyKind::Connections(user), "a b.1/7", now),
        (KeyKind::Connections(user), "a./7", now),
        (KeyKind::Connections(user), "a.1/", now),
        (KeyKind::Connections(user), "a.1/0", now),
        (KeyKind::Connections(user), "a.1/+7", now),
        (KeyKind::Connections(user), "a.1/007", now),
        (KeyKind::Connections(user), "a.1/7", "x"),
        (KeyKind::Connections(user), "a.1/7", "-1"),
        (KeyKind::Connections(user), "a.1/7", far),
        (KeyKind::Epoch(0), "\"", ""),
        (KeyKind::Epoch(0), "", ""),
        (KeyKind::Revision(0), "x", ""),
        (KeyKind::Server(0), "x 0", ""),
        (KeyKind::Server(0), "0a1b 9000000000000", ""),
        (KeyKind::Profile(user), "profile.revision", "x"),
        (KeyKind::Profile(user), "stats.at", far),
        (KeyKind::Profile(user), "friends.public", "{"),
        (KeyKind::Profile(user), "disconnected", far),
        (KeyKind::Revoked(user), "x", ""),
        (KeyKind::Revoked(user), far, ""),
        (KeyKind::Queue, "x", "1"),
        (KeyKind::Ratings, "x", "1500"),
        (KeyKind::Ratings, "1:x", "1500"),
        (KeyKind::Ticket(user), "place", "x"),
        (KeyKind::Ticket(user), "rating", "inf"),
        (KeyKind::Ticket(user), "joined", far),
        (KeyKind::Ticket(user), "version", "x"),
        (KeyKind::Playing, "42", "x"),
        (KeyKind::Match, "state", "x"),
        (KeyKind::Match, "player1", "x"),
        (KeyKind::Match, "rating2", "x"),
        (KeyKind::Match, "joined2", far),
        (KeyKind::Pending, "6561f3c1a0b2-1f", far),
        (KeyKind::Timeouts, "42", far),
        (KeyKind::Count, "x", ""),
        (KeyKind::Scan, "next", "x"),
        (KeyKind::Scan, "next", far),
        (KeyKind::Made, "1700090000", "12"),
        (KeyKind::Made, "1700000000", "x"),
    ] {
        assert!(!accepts(&known, entry, value), "{known:?} {entry} {value}");
    }
}
