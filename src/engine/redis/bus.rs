//! Decodes the messages that arrive on the subscriptions of all servers into one stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use fred::interfaces::EventInterface;
use fred::prelude::Client;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, mpsc};

use super::keys::{Channel, Keyspace};
use crate::engine::{
    EngineMessage, MESSAGES_MAX, Messages, NodeRequest, Pulse, TopicMessage, Views,
};
use crate::ids::{MatchId, Revision, UserId};

/// The doctor's request.
const ASK_CONNECTIONS: &str = "connections";

/// A node's request on a topic.
const ASK_WATCHERS: &str = "count-watchers";

/// Forwards arriving messages into the stream; clones share it.
#[derive(Clone)]
pub(super) struct Subscriber {
    keys: Keyspace,
    sender: mpsc::Sender<EngineMessage>,
    interrupted: Arc<Interrupted>,
}

/// Interruptions not announced yet.
#[derive(Default)]
struct Interrupted {
    servers: Mutex<Affected>,
    any: Notify,
}

/// The extent of an interruption.
#[derive(Clone, Default)]
pub(super) struct Affected {
    pub(super) partitions: BTreeSet<u32>,
    /// Whether the list of leases is among it.
    pub(super) leases: bool,
}

impl Subscriber {
    /// Also returns the stream, which ends with the last clone.
    pub(super) fn new(keys: Keyspace) -> (Self, Messages) {
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let interrupted = Arc::<Interrupted>::default();
        tokio::spawn(interrupted.clone().announce(sender.downgrade()));
        let subscriber = Self {
            keys,
            sender,
            interrupted,
        };
        (subscriber, messages)
    }

    pub(super) fn keys(&self) -> &Keyspace {
        &self.keys
    }

    /// Records that messages may have been missed. Interruptions merge until the stream has room.
    pub(super) fn interrupt(&self, affected: Affected) {
        {
            let mut servers = self.interrupted.servers.lock();
            servers.partitions.extend(affected.partitions);
            servers.leases |= affected.leases;
        }
        self.interrupted.any.notify_one();
    }

    /// Forwards messages of `client` until the stream is closed; calls `note` for each. A lagging reader loses the
    /// oldest messages, and a new connection has missed some: both interrupt what the server serves.
    pub(super) fn read(
        self,
        client: &Client,
        note: impl Fn() + Send + 'static,
        affected: impl Fn() -> Affected + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        // Subscribed before the task runs: the client may connect at once.
        let arriving = client.message_rx();
        let reconnected = client.reconnect_rx();
        self.run(arriving, reconnected, note, affected)
    }

    async fn run(
        self,
        mut arriving: broadcast::Receiver<fred::types::Message>,
        mut reconnected: broadcast::Receiver<fred::types::config::Server>,
        note: impl Fn() + Send,
        affected: impl Fn() -> Affected + Send,
    ) {
        loop {
            let message = tokio::select! {
                // Messages of the old connection come before the reconnect event.
                biased;
                arrived = arriving.recv() => match arrived {
                    Ok(arrived) => {
                        note();
                        decode(&self.keys, &arrived)
                    }
                    Err(RecvError::Lagged(lost)) => {
                        tracing::warn!(lost, "pub/sub messages were lost because this node fell behind");
                        self.interrupt(affected());
                        None
                    }
                    Err(RecvError::Closed) => return,
                },
                event = reconnected.recv() => match event {
                    Ok(_) | Err(RecvError::Lagged(_)) => {
                        self.interrupt(affected());
                        None
                    }
                    Err(RecvError::Closed) => return,
                },
            };
            if let Some(message) = message
                && self.sender.send(message).await.is_err()
            {
                return;
            }
        }
    }
}

impl Interrupted {
    /// Announces interruptions until the stream is closed.
    async fn announce(self: Arc<Self>, sender: mpsc::WeakSender<EngineMessage>) {
        loop {
            self.any.notified().await;
            let Some(sender) = sender.upgrade() else {
                return;
            };
            let Ok(room) = sender.reserve().await else {
                return;
            };
            let Affected { partitions, leases } = std::mem::take(&mut *self.servers.lock());
            room.send(EngineMessage::Interrupted {
                partitions: partitions.into_iter().collect(),
                leases,
            });
        }
    }
}

/// Decodes one message; invalid ones are logged and dropped.
fn decode(keys: &Keyspace, arrived: &fred::types::Message) -> Option<EngineMessage> {
    let text = arrived.value.as_bytes_str()?;
    let message = match keys.parse_channel(&arrived.channel)? {
        Channel::Presence(partition) => {
            serde_json::from_str(&text)
                .ok()
                .map(|transition| EngineMessage::Presence {
                    partition,
                    transition,
                })
        }
        Channel::Pulse(partition) => serde_json::from_str::<Pulse>(&text)
            .ok()
            .map(|pulse| EngineMessage::Pulse { partition, pulse }),
        Channel::Topic(user) => serde_json::from_str::<WireMessage>(&text)
            .ok()
            .and_then(|message| message.decode(user)),
        Channel::Node => decode_own(&text),
    };
    if message.is_none() {
        tracing::warn!(channel = %arrived.channel, "dropped an invalid message");
    }
    message
}

/// Decodes a message on a node's own channel: a canary's number, a request, or a reply.
fn decode_own(text: &str) -> Option<EngineMessage> {
    if let Ok(nonce) = text.parse() {
        return Some(EngineMessage::Canary { nonce });
    }
    match serde_json::from_str(text).ok()? {
        OwnMessage::NodeRequest { ask, reply } => {
            let known = ask == ASK_CONNECTIONS;
            known.then_some(EngineMessage::Request(NodeRequest::Connections { reply }))
        }
        OwnMessage::Watchers { count_id, watchers } => {
            Some(EngineMessage::WatcherCount { count_id, watchers })
        }
    }
}

/// Messages of other processes on a node's own channel.
#[derive(Deserialize)]
#[serde(untagged)]
enum OwnMessage {
    NodeRequest { ask: String, reply: String },
    Watchers { count_id: u64, watchers: u64 },
}

/// The message that requests a connection report.
pub(super) fn connections_request(reply: &str) -> String {
    serde_json::json!({ "ask": ASK_CONNECTIONS, "reply": reply }).to_string()
}

/// The message that requests, on a topic, the number of watchers.
pub(super) fn watchers_request(asker: &str, count_id: u64) -> String {
    serde_json::json!({ "kind": ASK_WATCHERS, "asker": asker, "count_id": count_id }).to_string()
}

/// The reply, on the requesting node's channel.
pub(super) fn watchers_reply(count_id: u64, watchers: u64) -> String {
    serde_json::json!({ "count_id": count_id, "watchers": watchers }).to_string()
}

/// Messages of scripts and nodes on a topic.
#[derive(Deserialize)]
struct WireMessage {
    kind: String,
    epoch: Option<String>,
    revision: Option<Revision>,
    public: Option<Box<RawValue>>,
    full: Option<Box<RawValue>>,
    event: Option<String>,
    data: Option<Box<RawValue>>,
    #[serde(rename = "matchId")]
    match_id: Option<String>,
    opponent: Option<Box<RawValue>>,
    #[serde(rename = "beforeMs")]
    before_ms: Option<u64>,
    asker: Option<String>,
    count_id: Option<u64>,
}

impl WireMessage {
    fn decode(self, user: UserId) -> Option<EngineMessage> {
        if self.kind == ASK_WATCHERS {
            return Some(EngineMessage::Request(NodeRequest::Watchers {
                user,
                asker: self.asker?,
                count_id: self.count_id?,
            }));
        }
        let message = self.about_user()?;
        Some(EngineMessage::Topic { user, message })
    }

    fn about_user(self) -> Option<TopicMessage> {
        match self.kind.as_str() {
            "event" => Some(TopicMessage::Event {
                event: self.event?,
                data: self.data.map_or_else(null, Arc::from),
            }),
            "disconnect" => Some(TopicMessage::Disconnect { before_ms: None }),
            "account-deleted" => Some(TopicMessage::AccountDeleted),
            "match-found" => Some(TopicMessage::MatchFound {
                id: MatchId::new(&self.match_id?),
                opponent: Arc::from(self.opponent?),
            }),
            "match-timeout" => Some(TopicMessage::MatchTimeout {
                before_ms: self.before_ms?,
            }),
            "match-left" => Some(TopicMessage::MatchLeft),
            kind => {
                let kind = kind.parse().ok()?;
                let views = Views {
                    epoch: self.epoch?,
                    revision: self.revision?,
                    public: self.public.map(Arc::from),
                    full: Arc::from(self.full?),
                };
                Some(TopicMessage::Update(kind, views))
            }
        }
    }
}

fn null() -> Arc<RawValue> {
    Arc::from(RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use fred::types::config::Server;
    use fred::types::{MessageKind, Value};
    use proptest::prelude::*;
    use proptest::sample::select;
    use strum::IntoEnumIterator;

    use super::*;
    use crate::engine::Kind;
    use crate::ids::{SAFE_INTEGER_MAX, UserId};

    /// Decodes a message as the client library delivers it.
    fn decoded(channel: &str, value: impl Into<Value>) -> Option<EngineMessage> {
        let arrived = fred::types::Message {
            channel: channel.into(),
            value: value.into(),
            kind: MessageKind::SMessage,
            server: Server::new("127.0.0.1", 6379),
        };
        decode(&Keyspace::new("vigie", 4), &arrived)
    }

    fn topic_message(text: &str) -> Option<TopicMessage> {
        let message = serde_json::from_str::<WireMessage>(text).ok()?;
        message.about_user()
    }

    #[test]
    fn an_update_keeps_both_views_to_the_letter() {
        let text = r#"{"kind":"profile","epoch":"e","revision":7,"public":null,"full":{"a": 1}}"#;
        match topic_message(text) {
            Some(TopicMessage::Update(Kind::Profile, views)) => {
                assert_eq!(views.revision, Revision(7));
                assert!(views.public.is_none());
                assert_eq!(views.full.get(), r#"{"a": 1}"#);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_event_without_data_carries_null() {
        match topic_message(r#"{"kind":"event","event":"x","data":null}"#) {
            Some(TopicMessage::Event { data, .. }) => assert_eq!(data.get(), "null"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_node_decodes_canaries_and_requests() {
        let canary = decode_own("7");
        assert!(matches!(canary, Some(EngineMessage::Canary { nonce: 7 })));
        match decode_own(&connections_request("x1")) {
            Some(EngineMessage::Request(asked)) => {
                let reply = "x1".to_owned();
                assert_eq!(asked, NodeRequest::Connections { reply });
            }
            other => panic!("{other:?}"),
        }
        for text in ["", "x", "-1", r#"{"ask":"else","reply":"x"}"#, "{}"] {
            assert!(decode_own(text).is_none(), "{text}");
        }
    }

    #[test]
    fn watcher_counts_are_requested_and_replied() {
        let user = UserId::try_from(7).expect("a valid id");
        let question = serde_json::from_str::<WireMessage>(&watchers_request("a.1", 3));
        match question.expect("JSON").decode(user) {
            Some(EngineMessage::Request(asked)) => {
                let (asker, count_id) = ("a.1".to_owned(), 3);
                let wanted = NodeRequest::Watchers {
                    user,
                    asker,
                    count_id,
                };
                assert_eq!(asked, wanted);
            }
            other => panic!("{other:?}"),
        }
        let answer = decode_own(&watchers_reply(3, 12));
        assert!(
            matches!(
                answer,
                Some(EngineMessage::WatcherCount {
                    count_id: 3,
                    watchers: 12
                })
            ),
            "{answer:?}"
        );
    }

    #[test]
    fn foreign_messages_are_dropped() {
        for text in ["", "1", "{}", r#"{"kind":"else"}"#, r#"{"kind":"profile"}"#] {
            assert!(topic_message(text).is_none(), "{text}");
        }
    }

    /// JSON that no script would publish.
    fn odd() -> impl Strategy<Value = String> {
        let values = "null|true|0|-1|1[.]5|1e9|9007199254740992|18446744073709551616|\"\"|\"x\"|\\[0?\\]|\\{\\}";
        let names = select(vec![
            "kind", "epoch", "revision", "rev", "online", "offline", "public", "full", "event",
            "data", "matchId", "opponent", "beforeMs", "ask", "reply", "asker", "count_id",
            "watchers",
        ]);
        let kinds = "profile|stats|friends|matches|friendships|event|disconnect|match-found|match-timeout|count-watchers|x";
        let fields = proptest::collection::vec((names, values), 0..8);
        let object = (kinds, fields).prop_map(|(kind, fields)| {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("\"{name}\":{value}"))
                .collect();
            format!("{{\"kind\":\"{kind}\",{}}}", fields.join(","))
        });
        prop_oneof![3 => object, 1 => any::<String>(), 1 => "[\\[\\]{}\",:0-9a-z-]{0,30}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2048)
        })]

        #[test]
        fn any_message_is_decoded_or_dropped(
            channel in prop_oneof![
                select(vec!["vigie:{3.3}:user:7", "vigie:{0.1}:presence", "vigie:node:n.1", "vigie:{0.1}:user:0", "other"])
                    .prop_map(str::to_owned),
                any::<String>(),
            ],
            text in odd(),
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            number: i64,
        ) {
            let values = [Value::from(text), Value::Bytes(bytes.into()), Value::from(number), Value::Null];
            for value in values {
                let message = decoded(&channel, value);
                prop_assert!(message.is_none() || channel.starts_with("vigie:"));
                if let Some(EngineMessage::Topic { user, .. }) = message {
                    prop_assert_eq!(user.get(), 7);
                }
            }
        }

        #[test]
        fn an_update_is_read_as_scripts_write_it(
            kind in select(Kind::iter().collect::<Vec<_>>()),
            revision in 1..=SAFE_INTEGER_MAX,
            epoch: String,
            name: String,
            public in any::<bool>(),
        ) {
            let full = format!("{{{}:  1.0}}", serde_json::Value::from(name));
            let view = if public { full.as_str() } else { "null" };
            let epoch = serde_json::Value::from(epoch);
            let text = format!(
                r#"{{"kind":"{}","epoch":{epoch},"revision":{revision},"public":{view},"full":{full}}}"#,
                kind.into_str()
            );
            let Some(EngineMessage::Topic { message: TopicMessage::Update(read, views), .. }) = decoded("vigie:{3.3}:user:7", text)
            else {
                return Err(TestCaseError::fail("it is an update"));
            };
            prop_assert_eq!((read, views.revision.0), (kind, revision));
            prop_assert_eq!(serde_json::Value::from(views.epoch.as_str()), epoch);
            prop_assert_eq!(views.full.get(), &full);
            prop_assert_eq!(views.public.as_deref().map(RawValue::get), public.then_some(full.as_str()));
        }

        #[test]
        fn a_transition_is_read_as_scripts_write_it(
            rev: u64,
            online in proptest::collection::vec(0..=SAFE_INTEGER_MAX + 1, 0..4),
        ) {
            let text = serde_json::json!({ "epoch": "e", "rev": rev, "online": online, "offline": [] });
            let valid: Option<Vec<_>> = online.iter().map(|id| UserId::try_from(*id).ok()).collect();
            match (decoded("vigie:{3.3}:presence", text.to_string()), valid) {
                (Some(EngineMessage::Presence { partition: 3, transition }), Some(online)) => {
                    prop_assert_eq!((transition.revision, transition.online), (rev, online));
                }
                (None, None) => {}
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            }
        }
    }
}
