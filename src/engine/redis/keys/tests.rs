use proptest::prelude::*;

use super::*;
use crate::ids::SAFE_INTEGER_MAX;

fn user(id: u64) -> UserId {
    UserId::try_from(id).expect("a valid id")
}

#[test]
fn all_that_concerns_a_user_has_the_hash_tag_of_the_partition() {
    let keys = Keyspace::new("vigie", 4);
    assert_eq!(keys.connections(user(42)), "vigie:{2.1}:conns:42");
    assert_eq!(keys.profile(user(42)), "vigie:{2.1}:profile:42");
    assert_eq!(keys.topic(user(42)), "vigie:{2.1}:user:42");
    assert_eq!(keys.online(2), "vigie:{2.1}:online");
}

#[test]
fn keys_are_read_back() {
    let keys = Keyspace::new("a:b", 4);
    let parsed = |key: String| keys.parse(&key);
    let connections = keys.connections(user(7));
    assert_eq!(parsed(connections), Some(ParsedKey::Connections(user(7))));
    let owed = keys.registrations_of(3, "n.1");
    assert_eq!(
        parsed(owed),
        Some(ParsedKey::Registrations(3, "n.1".to_owned()))
    );
    assert_eq!(
        parsed(keys.node("n.1")),
        Some(ParsedKey::Node("n.1".to_owned()))
    );
    for foreign in [
        "a:b:{2.1}:conns:7",
        "a:b:{3}:node:n.1",
        "a:b:{3.3}:conns:x",
        "c",
    ] {
        assert_eq!(parsed(foreign.to_owned()), None, "{foreign}");
    }
    assert_eq!(parsed(keys.profile(user(7))), None);
    assert_eq!(parsed(keys.reply("x")), None);
}

#[test]
fn channels_are_read_back() {
    let keys = Keyspace::new("a:b", 4);
    let parsed = |channel: String| keys.parse_channel(&channel);
    assert_eq!(parsed(keys.topic(user(7))), Some(Channel::Topic(user(7))));
    assert_eq!(parsed(keys.presence_channel(3)), Some(Channel::Presence(3)));
    assert_eq!(parsed(keys.node("n.1")), Some(Channel::Node));
    assert_eq!(parsed("other:{3.3}:presence".to_owned()), None);
    assert_eq!(parsed("a:b:{3}:presence".to_owned()), None);
    assert_eq!(parsed(keys.online(0)), None);
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(2048)
    })]

    #[test]
    fn a_channel_is_read_back_and_no_other(
        prefix in "[a-z:{}]{1,6}",
        partitions in 1_u32..=64,
        id in 1..=SAFE_INTEGER_MAX,
        foreign in "[a-z:{}]{0,6}(:|node:|\\{[0-9.]{0,4}\\}:(user:|presence|conns:)?)?[0-9a-z:]{0,8}|.*",
    ) {
        let keys = Keyspace::new(&prefix, partitions);
        let user = user(id);
        let partition = (id % u64::from(partitions)) as u32;
        prop_assert_eq!(keys.parse_channel(&keys.topic(user)), Some(Channel::Topic(user)));
        let presence = keys.presence_channel(partition);
        prop_assert_eq!(keys.parse_channel(&presence), Some(Channel::Presence(partition)));
        let pulse = keys.pulse_channel(partition);
        prop_assert_eq!(keys.parse_channel(&pulse), Some(Channel::Pulse(partition)));
        prop_assert_eq!(keys.parse(&keys.connections(user)), Some(ParsedKey::Connections(user)));
        for foreign in [foreign.clone(), format!("{prefix}{foreign}"), format!("{prefix}:{foreign}")] {
            let ending = match keys.parse_channel(&foreign) {
                Some(Channel::Topic(user)) => format!("}}:user:{}", user),
                Some(Channel::Presence(_)) => "}:presence".to_owned(),
                Some(Channel::Pulse(_)) => "}:pulse".to_owned(),
                Some(Channel::Node) | None => String::new(),
            };
            prop_assert!(foreign.ends_with(&ending), "{}", foreign);
            if let Some(ParsedKey::Connections(user)) = keys.parse(&foreign) {
                prop_assert_eq!(keys.connections(user), foreign);
            }
        }
    }
}
