use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::ids::SAFE_INTEGER_MAX;

fn read(item: &str) -> Result<Notification, String> {
    let item = RawValue::from_string(item.to_owned()).expect("valid JSON");
    read_item(&item).map_err(Problem::into_detail)
}

#[test]
fn an_item_is_a_single_update_with_kind_and_user() {
    let item = read(r#"{"kind":"profile-update","userId":7,"user":{"a": 1},"revision":3}"#)
        .expect("it is");
    assert_eq!(item.user.get(), 7);
    assert_eq!(item.content.get(), r#"{"a": 1}"#);
    assert_eq!(item.revision.map(|revision| revision.0), Some(3));
}

#[test]
fn a_bad_item_says_what_is_wrong_with_it() {
    for (item, expected) in [
        ("1", "the body: invalid type"),
        ("{}", "`kind` is missing"),
        (r#"{"kind":"profile-update"}"#, "`userId` is missing"),
        (r#"{"kind":1,"userId":1}"#, "`kind`: invalid type"),
        (
            r#"{"kind":"else","userId":1}"#,
            "`kind`: \"else\" is none of profile-update",
        ),
        (
            r#"{"kind":"profile-update","userId":"1","user":{}}"#,
            "`userId`: invalid type",
        ),
        (
            r#"{"kind":"profile-update","userId":0,"user":{}}"#,
            "`userId`: a user id is an integer",
        ),
        (
            r#"{"kind":"profile-update","userId":1,"user":[]}"#,
            "`user`: a JSON object",
        ),
        (
            r#"{"kind":"profile-update","userId":1}"#,
            "the body: missing field `user`",
        ),
        (
            r#"{"kind":"profile-update","userId":1,"user":{},"revision":0}"#,
            "`revision`: an integer",
        ),
        (
            r#"{"kind":"friend-list-update","userId":1,"friends":[1]}"#,
            "`friends`: a JSON array of objects",
        ),
    ] {
        let error = read(item).expect_err(item);
        assert!(error.starts_with(expected), "{item}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(2048)
    })]

    #[test]
    fn an_item_is_read_to_the_letter(
        kind in select(vec![Kind::Profile, Kind::Stats, Kind::Friends, Kind::Matches]),
        id in 1..=SAFE_INTEGER_MAX,
        revision in proptest::option::of(1..=SAFE_INTEGER_MAX),
        name: String,
        value in select(vec!["1.0", "-0", "1e2", "12345678901234567890123", "{}", "[[]]", "\"\\u0041\"", "null"]),
    ) {
        let object = format!("{{{}:  {value}}}", Value::from(name));
        let (field, content) = match kind {
            Kind::Profile => ("user", object),
            Kind::Stats => ("stats", object),
            Kind::Friends => ("friends", format!("[{object},{object}]")),
            Kind::Matches | Kind::Friendships => ("matches", format!("[{object}]")),
        };
        let called = event_of(kind).expect("somebody is told");
        let revised = revision.map(|revision| format!(",\"revision\":{revision}")).unwrap_or_default();
        let item = format!("{{\"{field}\":{content},\"userId\":{id},\"kind\":\"{called}\"{revised}}}");
        let notification = read(&item).map_err(TestCaseError::fail)?;
        prop_assert_eq!(notification.user.get(), id);
        prop_assert_eq!(notification.kind, kind);
        prop_assert_eq!(notification.revision.map(|revision| revision.0), revision);
        prop_assert_eq!(notification.content.get(), content);
    }

    #[test]
    fn an_item_is_an_update_or_refused(
        fields in proptest::collection::vec(
            (
                select(vec!["kind", "userId", "user", "stats", "friends", "revision", "__proto__"]),
                select(vec![
                    "\"profile-update\"", "\"friendships\"", "7", "0", "7.0", "9007199254740992", "{}", "[]",
                    "[{}]", "null",
                ]),
            ),
            0..5,
        ),
    ) {
        let object: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        match read(&format!("{{{}}}", object.join(","))) {
            Ok(_) => {
                let mut names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
                names.sort_unstable();
                names.retain(|name| *name != "revision");
                prop_assert_eq!(names, ["kind", "user", "userId"]);
                let has = |field| fields.contains(&field);
                prop_assert!(has(("kind", "\"profile-update\"")));
                prop_assert!(has(("userId", "7")));
                let content = ("user", "{}");
                prop_assert!(has(content));
            }
            Err(detail) => prop_assert!(!detail.is_empty()),
        }
    }
}
