//! Back ends tell that something about a user changed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Internal;
use super::body::{Json, JsonArray, User, checked};
use super::problem::Problem;
use crate::domain::profile::Notification;
use crate::domain::update::Kind;
use crate::domain::{Notified, NotifyError};
use crate::ids::UserId;
use crate::transport::protocol::event_of;

/// A JSON object, kept to the letter.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Box<RawValue>")]
struct Object(Box<RawValue>);

/// A JSON array of objects, kept to the letter.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Box<RawValue>")]
struct Objects(Box<RawValue>);

/// What every client can read: no lone surrogates.
fn readable<T: DeserializeOwned>(json: &RawValue, needed: &str) -> Result<T, String> {
    serde_json::from_str(json.get()).map_err(|error| format!("{needed}: {error}"))
}

impl TryFrom<Box<RawValue>> for Object {
    type Error = String;

    fn try_from(json: Box<RawValue>) -> Result<Self, String> {
        readable::<Map<String, Value>>(&json, "a JSON object is needed here")?;
        Ok(Self(json))
    }
}

impl TryFrom<Box<RawValue>> for Objects {
    type Error = String;

    fn try_from(json: Box<RawValue>) -> Result<Self, String> {
        readable::<Vec<Map<String, Value>>>(&json, "a JSON array of objects is needed here")?;
        Ok(Self(json))
    }
}

/// The fields of a JSON object, each at most once.
struct Fields(BTreeMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;

        impl<'de> Visitor<'de> for Once {
            type Value = Fields;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if fields.insert(name.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("duplicate field `{name}`")));
                    }
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Once)
    }
}

/// `{ user, revision? }`
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileUpdate {
    /// The profile; everybody sees its public fields, friends and the user see all.
    #[schema(value_type = Object)]
    user: Object,
    /// The caller's own revision; without one the hub assigns one.
    #[schema(minimum = 1)]
    revision: Option<u64>,
}

/// `{ stats, revision? }`
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GameStatsUpdate {
    /// The statistics.
    #[schema(value_type = Object)]
    stats: Object,
    /// The caller's own revision; without one the hub assigns one.
    #[schema(minimum = 1)]
    revision: Option<u64>,
}

/// `{ friends, revision? }`
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FriendListUpdate {
    /// `{ userId, username, avatar }` each; friends and the user see them.
    #[schema(value_type = Vec<Object>)]
    friends: Objects,
    /// The caller's own revision; without one the hub assigns one.
    #[schema(minimum = 1)]
    revision: Option<u64>,
}

/// `{ matches, revision? }`
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MatchHistoryUpdate {
    /// `{ matchId, opponent, result, score, playedAt }` each; friends and the user see them.
    #[schema(value_type = Vec<Object>)]
    matches: Objects,
    /// The caller's own revision; without one the hub assigns one.
    #[schema(minimum = 1)]
    revision: Option<u64>,
}

/// What became of an update.
#[derive(Serialize, ToSchema)]
pub(super) struct Published {
    /// The revision that is stored now.
    revision: u64,
    /// How many nodes were listening.
    nodes: u64,
    /// Present where the update was not newer than what is stored, and so changed nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale: Option<bool>,
}

impl From<Notified> for Published {
    fn from(notified: Notified) -> Self {
        Self {
            revision: notified.revision,
            nodes: notified.nodes,
            stale: notified.stale.then_some(true),
        }
    }
}

/// The content of an update, and the revision that the caller gave it.
trait Content {
    const KIND: Kind;

    fn into_parts(self) -> (Box<RawValue>, Option<u64>);

    /// The update as the domain takes it.
    fn about(self, user: UserId) -> Result<Notification, Problem>
    where
        Self: Sized,
    {
        let (content, revision) = self.into_parts();
        Ok(Notification {
            user,
            kind: Self::KIND,
            content: Arc::from(content),
            revision: checked(revision)?,
        })
    }
}

macro_rules! content {
    ($body:ty, $kind:expr, $field:ident) => {
        impl Content for $body {
            const KIND: Kind = $kind;

            fn into_parts(self) -> (Box<RawValue>, Option<u64>) {
                (self.$field.0, self.revision)
            }
        }
    };
}

content!(ProfileUpdate, Kind::Profile, user);
content!(GameStatsUpdate, Kind::Stats, stats);
content!(FriendListUpdate, Kind::Friends, friends);
content!(MatchHistoryUpdate, Kind::Matches, matches);

/// Tells every watcher, and the user's own connections, about a changed profile.
#[utoipa::path(
    post,
    path = "/api/v1/users/{id}/profile-update",
    params(("id" = u64, Path, description = "the user")),
    request_body = ProfileUpdate,
    responses(
        (status = 200, description = "stored and published, or stale", body = Published),
        (status = 410, description = "the account was deleted", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn profile_update(
    State(internal): State<Internal>,
    User(user): User,
    Json(body): Json<ProfileUpdate>,
) -> Result<axum::Json<Published>, Problem> {
    notify(&internal, user, body).await
}

/// Tells every watcher, and the user's own connections, about changed game statistics.
#[utoipa::path(
    post,
    path = "/api/v1/users/{id}/game-stats-update",
    params(("id" = u64, Path, description = "the user")),
    request_body = GameStatsUpdate,
    responses(
        (status = 200, description = "stored and published, or stale", body = Published),
        (status = 410, description = "the account was deleted", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn game_stats_update(
    State(internal): State<Internal>,
    User(user): User,
    Json(body): Json<GameStatsUpdate>,
) -> Result<axum::Json<Published>, Problem> {
    notify(&internal, user, body).await
}

/// Tells the user's own connections, and watchers who are friends, about a changed friend list.
#[utoipa::path(
    post,
    path = "/api/v1/users/{id}/friend-list-update",
    params(("id" = u64, Path, description = "the user")),
    request_body = FriendListUpdate,
    responses(
        (status = 200, description = "stored and published, or stale", body = Published),
        (status = 410, description = "the account was deleted", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn friend_list_update(
    State(internal): State<Internal>,
    User(user): User,
    Json(body): Json<FriendListUpdate>,
) -> Result<axum::Json<Published>, Problem> {
    notify(&internal, user, body).await
}

/// Tells the user's own connections, and watchers who are friends, about a changed match history.
#[utoipa::path(
    post,
    path = "/api/v1/users/{id}/match-history-update",
    params(("id" = u64, Path, description = "the user")),
    request_body = MatchHistoryUpdate,
    responses(
        (status = 200, description = "stored and published, or stale", body = Published),
        (status = 410, description = "the account was deleted", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn match_history_update(
    State(internal): State<Internal>,
    User(user): User,
    Json(body): Json<MatchHistoryUpdate>,
) -> Result<axum::Json<Published>, Problem> {
    notify(&internal, user, body).await
}

async fn notify(
    internal: &Internal,
    user: UserId,
    body: impl Content,
) -> Result<axum::Json<Published>, Problem> {
    let mut outcomes = internal.hub.notify(vec![body.about(user)?]).await;
    match outcomes.pop() {
        Some(outcome) => Ok(axum::Json(outcome?.into())),
        None => Err(Problem::bad_request("there is nothing to publish")),
    }
}

/// What became of one item of a batch.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum ItemResult {
    /// Stored and published, or stale.
    Published {
        /// Always 200.
        status: u16,
        /// The revision, and how many nodes were listening.
        #[serde(flatten)]
        published: Published,
    },
    /// Nothing was changed.
    Refused {
        /// As for a single update.
        status: u16,
        /// What is wrong with the item.
        error: String,
    },
}

/// Whether there was anything.
#[derive(Serialize, ToSchema)]
pub(super) struct Forgotten {
    /// Whether an update was stored.
    removed: bool,
}

/// Forgets the last updates about a user, of every kind, as if there had been none. Nobody is told, and whether the
/// account is deleted stays as it is. For what tests and load generators leave behind.
#[utoipa::path(
    delete,
    path = "/api/v1/users/{id}/updates",
    params(("id" = u64, Path, description = "the user")),
    responses((status = 200, description = "nothing is stored any more", body = Forgotten)),
)]
pub(super) async fn forget(
    State(internal): State<Internal>,
    User(user): User,
) -> Result<axum::Json<Forgotten>, Problem> {
    let removed = internal.hub.forget_updates(user).await?;
    Ok(axum::Json(Forgotten { removed }))
}

/// Publishes many updates in one round trip to Redis. A bad item stops no other.
#[utoipa::path(
    post,
    path = "/api/v1/notifications",
    request_body(
        content = Vec<Object>,
        description = "updates, each with `kind` (`profile-update`, `game-stats-update`, `friend-list-update`, \
                       `match-history-update`), `userId`, and the fields of the single update"
    ),
    responses(
        (status = 200, description = "one result for each item, in order", body = Vec<ItemResult>),
    )
)]
pub(super) async fn batch(
    State(internal): State<Internal>,
    JsonArray(items): JsonArray<Box<RawValue>>,
) -> Result<Response, Problem> {
    let (mut results, mut notifications) = (Vec::with_capacity(items.len()), Vec::new());
    for item in &items {
        match read_item(item) {
            Ok(notification) => {
                notifications.push(notification);
                results.push(None);
            }
            Err(problem) => results.push(Some(refused(problem))),
        }
    }
    let mut outcomes = internal.hub.notify(notifications).await;
    if !outcomes.is_empty()
        && outcomes
            .iter()
            .all(|outcome| matches!(outcome, Err(NotifyError::Engine(_))))
    {
        return Err(outcomes
            .swap_remove(0)
            .err()
            .map_or_else(|| Problem::bad_request(""), Problem::from));
    }
    let mut outcomes = outcomes.into_iter();
    let results: Vec<ItemResult> = results
        .into_iter()
        .filter_map(|result| result.or_else(|| outcomes.next().map(item_result)))
        .collect();
    Ok(axum::Json(results).into_response())
}

fn item_result(outcome: Result<Notified, NotifyError>) -> ItemResult {
    match outcome {
        Ok(notified) => ItemResult::Published {
            status: 200,
            published: notified.into(),
        },
        Err(error) => refused(error.into()),
    }
}

fn refused(problem: Problem) -> ItemResult {
    ItemResult::Refused {
        status: problem.status(),
        error: problem.into_detail(),
    }
}

fn read_item(item: &RawValue) -> Result<Notification, Problem> {
    let Fields(mut fields) = super::body::parse(item.get().as_bytes())?;
    let mut take = |name: &str| {
        let field = fields.remove(name);
        field.ok_or_else(|| Problem::bad_request(format!("`{name}` is missing")))
    };
    let kind: String = field("kind", &take("kind")?)?;
    let user: UserId = field("userId", &take("userId")?)?;
    let rest =
        serde_json::to_vec(&fields).map_err(|error| Problem::bad_request(error.to_string()))?;
    let known = |known: &Kind| event_of(*known) == Some(kind.as_str());
    match Kind::ALL.into_iter().find(known) {
        Some(Kind::Profile) => super::body::parse::<ProfileUpdate>(&rest)?.about(user),
        Some(Kind::Stats) => super::body::parse::<GameStatsUpdate>(&rest)?.about(user),
        Some(Kind::Friends) => super::body::parse::<FriendListUpdate>(&rest)?.about(user),
        Some(Kind::Matches) => super::body::parse::<MatchHistoryUpdate>(&rest)?.about(user),
        Some(Kind::Friendships) | None => {
            let known: Vec<_> = Kind::ALL.into_iter().filter_map(event_of).collect();
            let known = known.join(", ");
            Err(Problem::bad_request(format!(
                "`kind`: {kind:?} is none of {known}"
            )))
        }
    }
}

fn field<T: DeserializeOwned>(name: &str, json: &RawValue) -> Result<T, Problem> {
    serde_json::from_str(json.get())
        .map_err(|error| Problem::bad_request(format!("`{name}`: {error}")))
}

#[cfg(test)]
mod tests {
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
}
