//! The messages that come in over the subscriptions, on all servers, as one stream.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use fred::interfaces::EventInterface;
use fred::prelude::Client;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc};

use super::keys::{Channel, Keys};
use crate::engine::{Kind, MESSAGES_MAX, Message, Messages, Pulse, Question, TopicMessage, Views};
use crate::ids::{MatchId, Revision, UserId};

/// What the doctor asks.
const ASK_CONNECTIONS: &str = "connections";

/// What nodes ask on a topic.
const ASK_WATCHERS: &str = "count-watchers";

/// Puts what arrives into the stream of messages. Clones share the stream.
#[derive(Clone)]
pub(super) struct Listener {
    keys: Keys,
    sender: mpsc::Sender<Message>,
    interrupted: Arc<Interrupted>,
}

/// An interruption that has not been announced yet.
#[derive(Default)]
struct Interrupted {
    partitions: Mutex<BTreeSet<u32>>,
    any: Notify,
}

impl Listener {
    /// Returns it with its stream, which ends with the last clone.
    pub(super) fn new(keys: Keys) -> (Self, Messages) {
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let interrupted = Arc::<Interrupted>::default();
        tokio::spawn(interrupted.clone().announce(sender.downgrade()));
        let listener = Self {
            keys,
            sender,
            interrupted,
        };
        (listener, messages)
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Messages of a server, with these partitions, may have been missed. Several interruptions before the stream has
    /// room are one.
    pub(super) fn interrupt(&self, partitions: impl IntoIterator<Item = u32>) {
        self.interrupted.lock().extend(partitions);
        self.interrupted.any.notify_one();
    }

    /// Forwards what arrives on `client` until nobody reads the stream any more; calls `note` whenever something does. A
    /// reader that falls behind loses the oldest messages, and a new connection has missed some: both interrupt the
    /// `partitions` of the server.
    pub(super) async fn read(
        self,
        client: Client,
        note: impl Fn() + Send,
        partitions: impl Fn() -> Vec<u32> + Send,
    ) {
        let mut arriving = client.message_rx();
        let mut reconnected = client.reconnect_rx();
        loop {
            let message = tokio::select! {
                // Messages of the old connection come before the news of the new one.
                biased;
                arrived = arriving.recv() => match arrived {
                    Ok(arrived) => {
                        note();
                        decode(&self.keys, &arrived)
                    }
                    Err(RecvError::Lagged(lost)) => {
                        tracing::warn!(lost, "pub/sub messages were lost because this node fell behind");
                        self.interrupt(partitions());
                        None
                    }
                    Err(RecvError::Closed) => return,
                },
                event = reconnected.recv() => match event {
                    Ok(_) | Err(RecvError::Lagged(_)) => {
                        self.interrupt(partitions());
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
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        self.partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces interruptions until the stream is closed.
    async fn announce(self: Arc<Self>, sender: mpsc::WeakSender<Message>) {
        loop {
            self.any.notified().await;
            let Some(sender) = sender.upgrade() else {
                return;
            };
            let Ok(room) = sender.reserve().await else {
                return;
            };
            let partitions = std::mem::take(&mut *self.lock());
            room.send(Message::Interrupted(partitions.into_iter().collect()));
        }
    }
}

/// Reads one message; anything foreign on our channels is logged and left out.
fn decode(keys: &Keys, arrived: &fred::types::Message) -> Option<Message> {
    let text = arrived.value.as_bytes_str()?;
    let message = match keys.parse_channel(&arrived.channel)? {
        Channel::Presence(partition) => {
            serde_json::from_str(&text)
                .ok()
                .map(|transition| Message::Presence {
                    partition,
                    transition,
                })
        }
        Channel::Pulse(partition) => serde_json::from_str::<Pulse>(&text)
            .ok()
            .map(|pulse| Message::Pulse { partition, pulse }),
        Channel::Topic(user) => serde_json::from_str::<WireMessage>(&text)
            .ok()
            .and_then(|message| message.decode(user)),
        Channel::Node => decode_own(&text),
    };
    if message.is_none() {
        tracing::warn!(channel = %arrived.channel, "ignored a message that makes no sense on this channel");
    }
    message
}

/// What is said on a node's own channel: a number by the node itself, a question by the doctor, an answer by another
/// node.
fn decode_own(text: &str) -> Option<Message> {
    if let Ok(nonce) = text.parse() {
        return Some(Message::Canary { nonce });
    }
    match serde_json::from_str(text).ok()? {
        OwnMessage::Question { ask, reply } => {
            let known = ask == ASK_CONNECTIONS;
            known.then_some(Message::Asked(Question::Connections { reply }))
        }
        OwnMessage::Watchers { survey, watchers } => Some(Message::Watchers { survey, watchers }),
    }
}

/// What others publish on a node's own channel.
#[derive(Deserialize)]
#[serde(untagged)]
enum OwnMessage {
    Question { ask: String, reply: String },
    Watchers { survey: u64, watchers: u64 },
}

/// The message that asks a node which connections it holds.
pub(super) fn question(reply: &str) -> String {
    serde_json::json!({ "ask": ASK_CONNECTIONS, "reply": reply }).to_string()
}

/// The message that asks on a topic how many watch.
pub(super) fn watchers_question(asker: &str, survey: u64) -> String {
    serde_json::json!({ "kind": ASK_WATCHERS, "asker": asker, "survey": survey }).to_string()
}

/// The message that answers it, on the channel of the node that asked.
pub(super) fn watchers_answer(survey: u64, watchers: u64) -> String {
    serde_json::json!({ "survey": survey, "watchers": watchers }).to_string()
}

/// What scripts publish on a topic, and nodes that ask.
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
    survey: Option<u64>,
}

impl WireMessage {
    fn decode(self, user: UserId) -> Option<Message> {
        if self.kind == ASK_WATCHERS {
            return Some(Message::Asked(Question::Watchers {
                user,
                asker: self.asker?,
                survey: self.survey?,
            }));
        }
        let message = self.about_user()?;
        Some(Message::Topic { user, message })
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
                let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
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

    use super::*;
    use crate::ids::{SAFE_INTEGER_MAX, UserId};

    /// What becomes of a message as the client library hands it over.
    fn heard(channel: &str, value: impl Into<Value>) -> Option<Message> {
        let arrived = fred::types::Message {
            channel: channel.into(),
            value: value.into(),
            kind: MessageKind::SMessage,
            server: Server::new("127.0.0.1", 6379),
        };
        decode(&Keys::new("vigie", 4), &arrived)
    }

    fn understood(text: &str) -> Option<TopicMessage> {
        let message = serde_json::from_str::<WireMessage>(text).ok()?;
        message.about_user()
    }

    #[test]
    fn an_update_keeps_both_views_to_the_letter() {
        let text = r#"{"kind":"profile","epoch":"e","revision":7,"public":null,"full":{"a": 1}}"#;
        match understood(text) {
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
        match understood(r#"{"kind":"event","event":"x","data":null}"#) {
            Some(TopicMessage::Event { data, .. }) => assert_eq!(data.get(), "null"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_node_hears_canaries_and_questions() {
        let canary = decode_own("7");
        assert!(matches!(canary, Some(Message::Canary { nonce: 7 })));
        match decode_own(&question("x1")) {
            Some(Message::Asked(asked)) => {
                let reply = "x1".to_owned();
                assert_eq!(asked, Question::Connections { reply });
            }
            other => panic!("{other:?}"),
        }
        for text in ["", "x", "-1", r#"{"ask":"else","reply":"x"}"#, "{}"] {
            assert!(decode_own(text).is_none(), "{text}");
        }
    }

    #[test]
    fn watchers_are_asked_for_and_told() {
        let user = UserId::try_from(7).expect("a valid id");
        let question = serde_json::from_str::<WireMessage>(&watchers_question("a.1", 3));
        match question.expect("JSON").decode(user) {
            Some(Message::Asked(asked)) => {
                let (asker, survey) = ("a.1".to_owned(), 3);
                let wanted = Question::Watchers {
                    user,
                    asker,
                    survey,
                };
                assert_eq!(asked, wanted);
            }
            other => panic!("{other:?}"),
        }
        let answer = decode_own(&watchers_answer(3, 12));
        assert!(
            matches!(
                answer,
                Some(Message::Watchers {
                    survey: 3,
                    watchers: 12
                })
            ),
            "{answer:?}"
        );
    }

    #[test]
    fn foreign_messages_are_left_out() {
        for text in ["", "1", "{}", r#"{"kind":"else"}"#, r#"{"kind":"profile"}"#] {
            assert!(understood(text).is_none(), "{text}");
        }
    }

    /// JSON that no client of ours would send.
    fn odd() -> impl Strategy<Value = String> {
        let values = "null|true|0|-1|1[.]5|1e9|9007199254740992|18446744073709551616|\"\"|\"x\"|\\[0?\\]|\\{\\}";
        let names = select(vec![
            "kind", "epoch", "revision", "rev", "online", "offline", "public", "full", "event",
            "data", "matchId", "opponent", "beforeMs", "ask", "reply", "asker", "survey",
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
        fn whatever_arrives_is_understood_or_left_out(
            channel in prop_oneof![
                select(vec!["vigie:{3}:user:7", "vigie:{0}:presence", "vigie:node:n.1", "vigie:{0}:user:0", "other"])
                    .prop_map(str::to_owned),
                any::<String>(),
            ],
            text in odd(),
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            number: i64,
        ) {
            let values = [Value::from(text), Value::Bytes(bytes.into()), Value::from(number), Value::Null];
            for value in values {
                let message = heard(&channel, value);
                prop_assert!(message.is_none() || channel.starts_with("vigie:"));
                if let Some(Message::Topic { user, .. }) = message {
                    prop_assert_eq!(user.get(), 7);
                }
            }
        }

        #[test]
        fn an_update_is_read_as_scripts_write_it(
            kind in select(Kind::ALL.to_vec()),
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
                kind.as_str()
            );
            let Some(Message::Topic { message: TopicMessage::Update(read, views), .. }) = heard("vigie:{3}:user:7", text)
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
            match (heard("vigie:{3}:presence", text.to_string()), valid) {
                (Some(Message::Presence { partition: 3, transition }), Some(online)) => {
                    prop_assert_eq!((transition.revision, transition.online), (rev, online));
                }
                (None, None) => {}
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            }
        }
    }
}
