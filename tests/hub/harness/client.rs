//! One Socket.IO socket of the official client, seen from a test.
//!
//! A client keeps everything that happened to it, in the order of the wire: events,
//! acknowledgements, connects, disconnects. `next_…` walks forward among the records of one kind
//! and leaves the others alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::DEADLINE;
use super::bridge::{Bridge, Log};

/// The status in a `user-status-change`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Online,
    Offline,
}

/// One thing that happened to a socket.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The hub accepted the socket, over the named transport.
    Connect { transport: String },
    /// The hub refused it, or could not be reached.
    ConnectError { message: String },
    /// The socket closed.
    Disconnect { reason: String },
    /// The transport moved on, from polling to websocket.
    Upgrade { transport: String },
    /// An event of the hub.
    Event { name: String, args: Vec<Value> },
    /// The hub's answer to an event that the client sent.
    Ack {
        number: u64,
        event: String,
        args: Vec<Value>,
    },
}

impl From<Value> for Record {
    fn from(mut record: Value) -> Self {
        let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
        let (transport, message, reason) = (text("transport"), text("message"), text("reason"));
        let (kind, name) = (text("kind"), text("event"));
        let args = match record["args"].take() {
            Value::Array(args) => args,
            _ => Vec::new(),
        };
        match kind.as_str() {
            "connect" => Self::Connect { transport },
            "connect_error" => Self::ConnectError { message },
            "disconnect" => Self::Disconnect { reason },
            "upgrade" => Self::Upgrade { transport },
            "event" => Self::Event { name, args },
            "ack" => {
                let number = record["ack"].as_u64().unwrap_or_default();
                Self::Ack {
                    number,
                    event: name,
                    args,
                }
            }
            other => panic!("the bridge speaks of {other:?}"),
        }
    }
}

/// A socket; dropping it closes it.
pub struct Client {
    socket: u64,
    bridge: Arc<Bridge>,
    log: Arc<Log>,
    /// How far `next_…` has come, for each kind of record.
    cursors: HashMap<String, usize>,
}

impl Client {
    /// Opens a socket; `open` is what the bridge needs to know beside its number.
    pub fn open(bridge: &Arc<Bridge>, mut open: Value) -> Self {
        let socket = bridge.number();
        open["verb"] = json!("open");
        open["socket"] = json!(socket);
        let log = bridge.log_of(socket);
        bridge.send(&open);
        Self {
            socket,
            bridge: Arc::clone(bridge),
            log,
            cursors: HashMap::new(),
        }
    }

    // ---- saying something

    /// Sends an event that wants no answer.
    pub fn emit(&self, event: &str, payload: Value) {
        self.emit_args(event, vec![payload]);
    }

    /// The same with any number of arguments.
    pub fn emit_args(&self, event: &str, args: Vec<Value>) {
        self.command(json!({ "verb": "emit", "event": event, "args": args }));
    }

    /// Sends an event and returns the answer.
    pub async fn emit_ack(&self, event: &str, payload: Value) -> Value {
        self.emit_args_ack(event, vec![payload]).await
    }

    /// The same with any number of arguments.
    pub async fn emit_args_ack(&self, event: &str, args: Vec<Value>) -> Value {
        let number = self.send_for_ack(event, args);
        self.answer(number).await
    }

    /// Sends an event and returns the number under which [`answer`](Self::answer) finds the answer.
    pub fn send_for_ack(&self, event: &str, args: Vec<Value>) -> u64 {
        let ack = self.bridge.number();
        self.command(json!({ "verb": "emit", "event": event, "args": args, "ack": ack }));
        ack
    }

    /// Sends several events in one burst and returns the numbers of their answers.
    pub fn burst(&self, events: &[(&str, Value)]) -> Vec<u64> {
        let mut numbers = Vec::new();
        let mut emits = Vec::new();
        for (event, payload) in events {
            let ack = self.bridge.number();
            numbers.push(ack);
            emits.push(json!({ "event": event, "args": [payload], "ack": ack }));
        }
        self.command(json!({ "verb": "burst", "emits": emits }));
        numbers
    }

    /// The answer to the event sent under `number`.
    pub async fn answer(&self, number: u64) -> Value {
        let what = format!("an answer to event number {number}");
        self.find(&what, |record| match record {
            Record::Ack {
                number: n, args, ..
            } if *n == number => Some(args.first().cloned().unwrap_or(Value::Null)),
            _ => None,
        })
        .await
    }

    /// `get-online-users`.
    pub async fn online(&self) -> Vec<u64> {
        let answer = self.emit_args_ack("get-online-users", vec![]).await;
        ids(&answer).unwrap_or_else(|| panic!("get-online-users answered {answer}"))
    }

    /// Asks for a snapshot and walks past everything older: [`next_status`](Self::next_status)
    /// then tells what happened after it.
    pub async fn settle(&mut self) -> Vec<u64> {
        let number = self.send_for_ack("get-online-users", vec![]);
        let is_answer = |record: &Record| {
            matches!(record, Record::Ack { number: n, .. } if *n == number).then_some(())
        };
        let (place, ()) = self.search(0, "a snapshot", is_answer).await;
        self.cursors
            .insert("event user-status-change".to_owned(), place + 1);
        ids(&self.answer(number).await).expect("an array of ids")
    }

    /// `watch-profile`, which must succeed; returns the answer.
    pub async fn watch(&self, user: u64) -> Value {
        let answer = self
            .emit_ack("watch-profile", json!({ "userId": user }))
            .await;
        assert_eq!(answer["ok"], true, "watch-profile {user} answered {answer}");
        answer
    }

    /// `unwatch-profile`, which must succeed.
    pub async fn unwatch(&self, user: u64) {
        let answer = self
            .emit_ack("unwatch-profile", json!({ "userId": user }))
            .await;
        assert_eq!(answer, json!({ "ok": true }));
    }

    // ---- coming and going

    /// `socket.disconnect()`.
    pub fn disconnect(&self) {
        self.command(json!({ "verb": "disconnect" }));
    }

    /// Leaves, and waits until the client says so.
    pub async fn close(&self) {
        let before = self.log.records().len();
        self.disconnect();
        self.find_after(before, "its own disconnect", |record| {
            matches!(record, Record::Disconnect { .. }).then_some(())
        })
        .await;
    }

    /// Watches a user from now on, also after it had to connect again; for steady clients. Nothing is
    /// waited for.
    pub fn follow(&self, user: u64) {
        self.command(json!({ "verb": "follow", "userId": user }));
    }

    /// Takes back [`follow`](Self::follow).
    pub fn unfollow(&self, user: u64) {
        self.command(json!({ "verb": "unfollow", "userId": user }));
    }

    /// `socket.connect()`.
    pub fn connect(&self) {
        self.command(json!({ "verb": "connect" }));
    }

    /// `socket.disconnect().connect()`, so many times in one breath.
    pub fn reconnect(&self, times: u32) {
        self.command(json!({ "verb": "reconnect", "times": times }));
    }

    /// `socket.auth = { token }; socket.disconnect().connect()`.
    pub fn login(&self, token: &str) {
        self.command(json!({ "verb": "login", "token": token }));
    }

    /// Breaks the transport without a word.
    pub fn abort(&self) {
        self.command(json!({ "verb": "abort" }));
    }

    // ---- hearing something

    /// The hub's answer to the last attempt to connect: `Ok`, or the message of the refusal.
    pub async fn next_verdict(&mut self) -> Result<(), String> {
        self.next("verdict", |record| match record {
            Record::Connect { .. } => Some(Ok(())),
            Record::ConnectError { message } => Some(Err(message.clone())),
            _ => None,
        })
        .await
    }

    /// The reason of the next disconnect.
    pub async fn next_disconnect(&mut self) -> String {
        self.next("disconnect", |record| match record {
            Record::Disconnect { reason } => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    /// The transport that the client has moved to.
    pub async fn next_upgrade(&mut self) -> String {
        self.next("upgrade", |record| match record {
            Record::Upgrade { transport } => Some(transport.clone()),
            _ => None,
        })
        .await
    }

    /// All arguments of the next event called `name`.
    pub async fn next_args(&mut self, name: &str) -> Vec<Value> {
        self.next(&format!("event {name}"), |record| match record {
            Record::Event { name: n, args } if n == name => Some(args.clone()),
            _ => None,
        })
        .await
    }

    /// The payload of the next event called `name`.
    pub async fn next_event(&mut self, name: &str) -> Value {
        let args = self.next_args(name).await;
        assert_eq!(args.len(), 1, "{name} carries one payload: {args:?}");
        args.into_iter().next().unwrap_or_default()
    }

    /// The next transition.
    pub async fn next_status(&mut self) -> (u64, Status) {
        let payload = self.next_event("user-status-change").await;
        status(&payload).unwrap_or_else(|| panic!("user-status-change says {payload}"))
    }

    /// Everything that has happened so far.
    pub fn events_so_far(&self) -> Vec<Record> {
        self.log.records().clone()
    }

    /// The end of it.
    pub fn last_records(&self, count: usize) -> Vec<Record> {
        let records = self.log.records();
        records[records.len().saturating_sub(count)..].to_vec()
    }

    /// Its number, for messages.
    pub fn number(&self) -> u64 {
        self.socket
    }

    /// Whether it is connected, and since when.
    pub fn connected_since(&self) -> Option<Instant> {
        let records = self.log.records();
        let last = records.iter().rposition(|record| {
            matches!(record, Record::Connect { .. } | Record::Disconnect { .. })
        })?;
        matches!(records[last], Record::Connect { .. }).then(|| self.log.time_of(last))
    }

    /// Whether it stays away: the hub has closed it on purpose, or refuses the account.
    pub fn is_closed_for_good(&self) -> bool {
        let records = self.log.records();
        let last = records
            .iter()
            .rfind(|record| !matches!(record, Record::Event { .. }));
        match last {
            Some(Record::Disconnect { reason }) => reason == "io server disconnect",
            Some(Record::ConnectError { message }) => message == "account_deleted",
            _ => false,
        }
    }

    /// Whether it stays away because its token was revoked or its account deleted.
    pub fn is_gone(&self) -> bool {
        let is_revoked = {
            let records = self.log.records();
            let mut others = records
                .iter()
                .rev()
                .filter(|record| !matches!(record, Record::Event { .. }));
            matches!(others.next(), Some(Record::ConnectError { message }) if message == "invalid_token")
        };
        is_revoked || self.is_closed_for_good()
    }

    /// Whether an attempt to connect has come to nothing, whoever ended it; fails the test where one has succeeded.
    pub fn has_failed(&self) -> bool {
        let records = self.log.records();
        let connected = |record: &Record| matches!(record, Record::Connect { .. });
        assert!(!records.iter().any(connected), "{records:?}");
        let failed = |record: &Record| {
            matches!(
                record,
                Record::ConnectError { .. } | Record::Disconnect { .. }
            )
        };
        records.iter().any(failed)
    }

    /// How often `user-status-change` has said this so far.
    pub fn times_said(&self, user: u64, wanted: Status) -> usize {
        let said = self.payloads("user-status-change");
        let said = said.iter().filter_map(status);
        said.filter(|status| *status == (user, wanted)).count()
    }

    /// The payloads of all events called `name` so far.
    pub fn payloads(&self, name: &str) -> Vec<Value> {
        let records = self.log.records();
        let of_that_name = records.iter().filter_map(|record| match record {
            Record::Event { name: n, args } if n == name => Some(args.first()),
            _ => None,
        });
        of_that_name
            .map(|payload| payload.cloned().unwrap_or_default())
            .collect()
    }

    /// The names of the events so far that are among `wanted`, in order.
    pub fn names(&self, wanted: &[&str]) -> Vec<String> {
        let names = self
            .events_so_far()
            .into_iter()
            .filter_map(|record| match record {
                Record::Event { name, .. } => Some(name),
                _ => None,
            });
        names
            .filter(|name| wanted.contains(&name.as_str()))
            .collect()
    }

    /// The online users according to this client: its first snapshot, and every transition since.
    ///
    /// `None` while there is no snapshot. Fails the test where a transition says nothing new: the
    /// contract is that snapshot and events add up, so an event that repeats what the client
    /// knows belongs before the snapshot.
    pub fn roster(&self) -> Option<BTreeSet<u64>> {
        let mut roster: Option<BTreeSet<u64>> = None;
        for record in self.log.records().iter() {
            match (record, &mut roster) {
                (Record::Ack { event, args, .. }, _) if event == "get-online-users" => {
                    let snapshot = args.first().and_then(ids).expect("an array of ids");
                    let sorted: BTreeSet<u64> = snapshot.iter().copied().collect();
                    assert!(sorted.iter().eq(&snapshot), "not ascending: {snapshot:?}");
                    if let Some(known) = &roster {
                        assert_eq!(known, &sorted, "events and a later snapshot disagree");
                    }
                    roster = Some(sorted);
                }
                (Record::Event { name, args }, Some(known)) if name == "user-status-change" => {
                    let (user, status) = args.first().and_then(status).expect("a transition");
                    let new = match status {
                        Status::Online => known.insert(user),
                        Status::Offline => known.remove(&user),
                    };
                    assert!(new, "{user} is {status:?} already");
                }
                // Events in between are lost; the next snapshot starts over.
                (Record::Disconnect { .. }, _) => roster = None,
                _ => {}
            }
        }
        roster
    }

    // ---- how

    fn command(&self, mut command: Value) {
        command["socket"] = json!(self.socket);
        self.bridge.send(&command);
    }

    /// Waits for the next record of a kind, behind the last one that was taken of that kind.
    async fn next<T>(&mut self, kind: &str, pick: impl Fn(&Record) -> Option<T>) -> T {
        let from = self.cursors.get(kind).copied().unwrap_or(0);
        let (place, found) = self.search(from, kind, pick).await;
        self.cursors.insert(kind.to_owned(), place + 1);
        found
    }

    async fn find<T>(&self, what: &str, pick: impl Fn(&Record) -> Option<T>) -> T {
        self.find_after(0, what, pick).await
    }

    async fn find_after<T>(
        &self,
        from: usize,
        what: &str,
        pick: impl Fn(&Record) -> Option<T>,
    ) -> T {
        self.search(from, what, pick).await.1
    }

    async fn search<T>(
        &self,
        from: usize,
        what: &str,
        pick: impl Fn(&Record) -> Option<T>,
    ) -> (usize, T) {
        let mut length = self.log.length();
        let mut looked_at = from;
        let searching = async {
            loop {
                length.borrow_and_update();
                {
                    let records = self.log.records();
                    for (place, record) in records.iter().enumerate().skip(looked_at) {
                        if let Some(found) = pick(record) {
                            return (place, found);
                        }
                    }
                    looked_at = looked_at.max(records.len());
                }
                length
                    .changed()
                    .await
                    .expect("the log outlives its readers");
            }
        };
        let found = tokio::time::timeout(DEADLINE, searching).await;
        found.unwrap_or_else(|_| {
            let seen = self.log.records();
            let tail = &seen[seen.len().saturating_sub(40)..];
            panic!(
                "no {what} within {DEADLINE:?}; the last of {} records: {tail:#?}",
                seen.len()
            )
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A bridge that is gone has closed its sockets already.
        let _ = self
            .bridge
            .try_send(&json!({ "verb": "drop", "socket": self.socket }));
    }
}

fn ids(answer: &Value) -> Option<Vec<u64>> {
    answer.as_array()?.iter().map(Value::as_u64).collect()
}

fn status(payload: &Value) -> Option<(u64, Status)> {
    let status = match payload["status"].as_str()? {
        "online" => Status::Online,
        "offline" => Status::Offline,
        _ => return None,
    };
    Some((payload["userId"].as_u64()?, status))
}
