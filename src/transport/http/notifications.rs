//! Back ends publish updates about users: one route for each kind, and one for batches.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use strum::IntoEnumIterator;
use utoipa::ToSchema;

use super::Internal;
use super::body::{Json, JsonArray, PathUser, checked, parse};
use super::problem::Problem;
use crate::domain::profile::Notification;
use crate::domain::update::Kind;
use crate::domain::{Notified, NotifyError};
use crate::ids::UserId;
use crate::transport::protocol::event_of;

/// A JSON object as raw text.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Box<RawValue>")]
struct Object(Box<RawValue>);

/// A JSON array of objects as raw text.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Box<RawValue>")]
struct Objects(Box<RawValue>);

/// Parses the JSON once, so that nothing is published that clients cannot read, such as lone surrogates.
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

/// The outcome of an update.
#[derive(Serialize, ToSchema)]
pub(super) struct Published {
    /// The stored revision.
    revision: u64,
    /// Nodes that were subscribed to the user.
    nodes: u64,
    /// Present if the stored update is as new or newer, so that nothing changed.
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

/// The body of a route's request.
trait UpdateBody: DeserializeOwned {
    const KIND: Kind;

    fn into_parts(self) -> (Box<RawValue>, Option<u64>);

    fn into_notification(self, user: UserId) -> Result<Notification, Problem> {
        let (content, revision) = self.into_parts();
        Ok(Notification {
            user,
            kind: Self::KIND,
            content: Arc::from(content),
            revision: checked(revision)?,
        })
    }
}

/// Declares one route for each kind. They differ in their path and in the name and type of the content.
macro_rules! update_routes {
    ($(
        $(#[$summary:meta])*
        post $path:literal => $handler:ident, $kind:path;
        $(#[$title:meta])*
        $body:ident { $(#[$doc:meta])* $field:ident: $content:ty as $schema:ty }
    )+) => {
        $(
            $(#[$title])*
            #[derive(Deserialize, ToSchema)]
            #[serde(deny_unknown_fields)]
            pub(super) struct $body {
                $(#[$doc])*
                #[schema(value_type = $schema)]
                $field: $content,
                /// The caller's own revision; without one the hub assigns one.
                #[schema(minimum = 1)]
                revision: Option<u64>,
            }

            impl UpdateBody for $body {
                const KIND: Kind = $kind;

                fn into_parts(self) -> (Box<RawValue>, Option<u64>) {
                    (self.$field.0, self.revision)
                }
            }

            $(#[$summary])*
            #[utoipa::path(
                post,
                path = $path,
                params(("id" = u64, Path, description = "the user")),
                request_body = $body,
                responses(
                    (status = 200, description = "stored and published, or stale", body = Published),
                    (status = 410, description = "the account was deleted", body = Problem, content_type = "application/problem+json"),
                )
            )]
            pub(super) async fn $handler(
                State(internal): State<Internal>,
                PathUser(user): PathUser,
                Json(body): Json<$body>,
            ) -> Result<axum::Json<Published>, Problem> {
                publish(&internal, user, body).await
            }
        )+

        /// Reads the fields of a batch item; `None` for a kind that has no route.
        fn read_update(kind: Kind, user: UserId, fields: &[u8]) -> Option<Result<Notification, Problem>> {
            match kind {
                $($kind => Some(parse::<$body>(fields).and_then(|body| body.into_notification(user))),)+
                _ => None,
            }
        }
    };
}

update_routes! {
    /// Publishes a changed profile to every watcher and to the user's own connections.
    post "/api/v1/users/{id}/profile-update" => profile_update, Kind::Profile;
    /// `{ user, revision? }`
    ProfileUpdate {
        /// The profile; everybody sees its public fields, friends and the user see all.
        user: Object as Object
    }

    /// Publishes changed game statistics to every watcher and to the user's own connections.
    post "/api/v1/users/{id}/game-stats-update" => game_stats_update, Kind::Stats;
    /// `{ stats, revision? }`
    GameStatsUpdate {
        /// The statistics.
        stats: Object as Object
    }

    /// Publishes a changed friend list to the user's own connections and to watchers who are friends.
    post "/api/v1/users/{id}/friend-list-update" => friend_list_update, Kind::Friends;
    /// `{ friends, revision? }`
    FriendListUpdate {
        /// `{ userId, username, avatar }` each; friends and the user see them.
        friends: Objects as Vec<Object>
    }

    /// Publishes a changed match history to the user's own connections and to watchers who are friends.
    post "/api/v1/users/{id}/match-history-update" => match_history_update, Kind::Matches;
    /// `{ matches, revision? }`
    MatchHistoryUpdate {
        /// `{ matchId, opponent, result, score, playedAt }` each; friends and the user see them.
        matches: Objects as Vec<Object>
    }
}

async fn publish(
    internal: &Internal,
    user: UserId,
    body: impl UpdateBody,
) -> Result<axum::Json<Published>, Problem> {
    let notification = body.into_notification(user)?;
    match internal.hub.notify(vec![notification]).await.pop() {
        Some(outcome) => Ok(axum::Json(outcome?.into())),
        None => Err(Problem::bad_request("there is nothing to publish")),
    }
}

/// The outcome of one item of a batch.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum ItemResult {
    /// Stored and published, or stale.
    Published {
        /// Always 200.
        status: u16,
        /// As for a single update.
        #[serde(flatten)]
        published: Published,
    },
    /// The item changed nothing.
    Refused {
        /// As for a single update.
        status: u16,
        /// Reason of the refusal.
        error: String,
    },
}

/// The outcome of removing updates.
#[derive(Serialize, ToSchema)]
pub(super) struct Forgotten {
    /// Whether an update was stored.
    removed: bool,
}

/// Removes the stored updates of a user, of every kind, without notifying anybody. The account stays deleted if it was.
/// Meant for the leftovers of tests and load generators.
#[utoipa::path(
    delete,
    path = "/api/v1/users/{id}/updates",
    params(("id" = u64, Path, description = "the user")),
    responses((status = 200, description = "nothing is stored any more", body = Forgotten)),
)]
pub(super) async fn forget(
    State(internal): State<Internal>,
    PathUser(user): PathUser,
) -> Result<axum::Json<Forgotten>, Problem> {
    let removed = internal.hub.forget_updates(user).await?;
    Ok(axum::Json(Forgotten { removed }))
}

/// Publishes many updates in one round trip to Redis: those of the single routes, each with `kind` and `userId`. A bad item
/// does not affect the others.
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
    let Fields(mut fields) = parse(item.get().as_bytes())?;
    let mut take = |name: &str| {
        let field = fields.remove(name);
        field.ok_or_else(|| Problem::bad_request(format!("`{name}` is missing")))
    };
    let kind: String = field("kind", &take("kind")?)?;
    let user: UserId = field("userId", &take("userId")?)?;
    let rest =
        serde_json::to_vec(&fields).map_err(|error| Problem::bad_request(error.to_string()))?;
    let named = Kind::iter().find(|known| event_of(*known) == Some(kind.as_str()));
    named
        .and_then(|kind| read_update(kind, user, &rest))
        .unwrap_or_else(|| {
            let known: Vec<_> = Kind::iter().filter_map(event_of).collect();
            let known = known.join(", ");
            Err(Problem::bad_request(format!(
                "`kind`: {kind:?} is none of {known}"
            )))
        })
}

fn field<T: DeserializeOwned>(name: &str, json: &RawValue) -> Result<T, Problem> {
    serde_json::from_str(json.get())
        .map_err(|error| Problem::bad_request(format!("`{name}`: {error}")))
}

#[cfg(test)]
mod tests;
