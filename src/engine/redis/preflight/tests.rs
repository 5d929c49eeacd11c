use super::*;

#[test]
fn old_servers_are_named() {
    let redis =
        |version: &str| format!("# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\n");
    let valkey = |version: &str| {
        format!(
            "{}server_name:valkey\r\nvalkey_version:{version}\r\n",
            redis("7.2.4")
        )
    };
    for (info, found) in [
        (redis("6.2.14"), Some("Redis 6.2.14")),
        (redis("5.0"), Some("Redis 5.0")),
        (redis("7.0.0"), None),
        (redis("7.0.15"), None),
        (redis("8.2.1"), None),
        (redis("10.0.0"), None),
        (redis("255.255.255"), None),
        (valkey("7.1.9"), Some("Valkey 7.1.9")),
        (valkey("7.2.5"), None),
        (valkey("8.0.1"), None),
        (redis("unstable"), None),
        ("# Server\r\n".to_owned(), None),
    ] {
        assert_eq!(too_old(&info).as_deref(), found, "{info}");
    }
}

fn grant(refused: &[(&str, &str)]) -> Option<String> {
    let refusal = |(command, reply): &(&str, &str)| {
        (
            (*command).to_owned(),
            ErrorReply::read(reply).expect("a reply"),
        )
    };
    let refusals = refused.iter().map(refusal).collect();
    denied(&refusals, "vigie", "v:*").map(|denied| denied.grant)
}

#[test]
fn missing_permissions_come_with_the_command_that_grants_them() {
    let in_script = "ERR The user executing the script can't run this command or subcommand";
    let channel =
        "ERR The user executing the script can't publish to the channel mentioned in the command";
    let keys = "NOPERM this user has no permissions to access one of the keys used as arguments";
    assert_eq!(grant(&[]), None);
    assert_eq!(grant(&[("SET", "OOM command not allowed")]), None);
    assert_eq!(
        grant(&[
            ("HSET", in_script),
            ("SPUBLISH", channel),
            ("SSUBSCRIBE", channel)
        ])
        .as_deref(),
        Some("ACL SETUSER vigie +hset &v:*")
    );
    let all = format!("ACL SETUSER vigie ~v:* &v:* {RIGHTS}");
    assert_eq!(grant(&[("EVAL", keys)]), Some(all));
}
