//! Vigie, a Redis-backed, horizontally scalable Socket.IO hub for online game sites.
//!
//! This page is for contributors. README is for users, and leads to the READMEs of the folders.
//!
//! # Bird's-eye view
//!
//! Three layers, one direction: **transport → domain → engine**, with the profiles in Postgres beside the engine. Calls
//! go down; facts come back up as values, never as a callback.
//!
//! ```text
//!  browser ──▶ transport::{websocket, polling} ──▶ session ──▶ domain::Hub ──▶ engine ──▶ Redis, or this process
//!  back end ─▶ transport::http ───────────────────────────────▶     │
//!                                                                   │  engine::Message   (what happened, on one stream)
//!  browser ◀── transport::{websocket, polling} ◀── session ◀─────── ┘  domain::delivery  (whom to send what, on one stream)
//! ```
//!
//! # Map
//!
//! A feature has one name in every layer: `domain/presence.rs`, `engine/presence.rs`, `engine/redis/presence.rs`,
//! `lua/presence/`.
//!
//! | under `src/` | owns |
//! |---|---|
//! | `main.rs`, `cli/` | commands, one file each |
//! | `app.rs`, `app/` | composes a node, stops it in reverse, reloads keys and limits; opens an engine for `doctor` and `inspect` |
//! | `settings.rs`, `settings/` | typed settings: load, validate |
//! | `telemetry.rs`, `telemetry/` | logs; the names and labels of all metrics |
//! | `ids.rs`, `clock.rs`, `tls.rs` | identifiers, each its own type; the wall clock; trusted certificates |
//! | `transport/listener.rs`, `listener/` | TCP: accept, meter, detect stalls, close |
//! | `transport/server.rs` | HTTP/1.1 on what a listener accepts |
//! | `transport/limits.rs`, `rate.rs`, `address.rs`, `depth.rs` | limits that may change, token buckets, client addresses, nesting of JSON |
//! | `transport/protocol.rs`, `protocol/` | the client contract: events, codes, namespaces, requests; what `vigie types` prints |
//! | `transport/socket.rs`, `socket/handshake.rs` | the Socket.IO endpoint: which request opens a session, and on which transport |
//! | `transport/session/admission.rs`, `held_connect.rs` | admits connections; holds a CONNECT that cannot be answered yet |
//! | `transport/session/inbound.rs`, `connection_task.rs`, `ack.rs` | queues a connection's events; works them off; refuses them |
//! | `transport/session/fan_out.rs`, `conflation.rs`, `encoded_events.rs` | sends each delivery to its connections, encoded once; drops outdated updates while that lags |
//! | `transport/session/outbound.rs`, `outbound_table.rs`, `sink.rs` | the outbound side of a connection, and of all; the trait of the two ways out |
//! | `transport/session/engine_session.rs`, `pending_sessions.rs`, `idle_sessions.rs` | an Engine.IO session; sessions that carry no connection yet, or none any more |
//! | `transport/session/rates.rs`, `address_limit.rs` | rate limits of events; connections of an address |
//! | `transport/websocket.rs`, `websocket/` | Engine.IO over WebSocket, our own |
//! | `transport/polling.rs`, `polling/` | Engine.IO over long polling and its upgrades, by socketioxide |
//! | `transport/http.rs`, `http/` | routes, one file for each subject; `access.rs` decides who may use the internal API |
//! | `transport/http/admin/` | the operators' page, and the sampler behind it |
//! | `transport/http/playground.rs`, `playground/`, `document.rs` | the page of development mode; what both pages share |
//! | `domain.rs` | `Hub`, the façade, and the composition of the services |
//! | `domain/presence.rs`, `replica.rs` | who is online: snapshot plus transitions |
//! | `domain/topic.rs`, `topic/` | subscriptions to topics, the state of each, interest of connections |
//! | `domain/connection.rs`, `delivery.rs` | a connection from admission to end; the ordered stream of deliveries to connections |
//! | `domain/profile.rs`, `visibility.rs` | updates, with both views prepared once; which view a viewer gets |
//! | `domain/account.rs`, `account/` | accounts in Postgres, and the feed of their changes |
//! | `domain/matchmaking.rs`, `matchmaking/` | the queue, pairing, announcing matches |
//! | `domain/token.rs`, `token/`, `token_status.rs` | verification of tokens and its keys; revoked tokens and deleted accounts |
//! | `domain/lease.rs`, `heartbeat.rs`, `ownership.rs`, `reaper.rs` | this node's lease; its renewal; which nodes look after a partition; release of the connections of dead ones |
//! | `domain/pulse.rs`, `recovery.rs`, `registration.rs`, `audit.rs` | notices silent partitions; reads them and registers connections again; compares |
//! | `domain/health.rs`, `health/`, `local_node.rs` | readiness and its causes; this node's report to the others |
//! | `domain/node_requests.rs`, `watcher_count.rs`, `cluster_events.rs` | answers to other nodes; watchers of a user on all nodes; recent events of the cluster |
//! | `domain/router.rs`, `tasks.rs` | hands each message of the engine to its service; runs the loops of the services |
//! | `engine.rs`, `engine/*.rs` | one enum over the two engines; the types of each feature |
//! | `engine/memory.rs`, `memory/` | the embedded engine |
//! | `engine/redis.rs`, `redis/` | each feature beside its Lua folder; `keys.rs` spells all keys, `scripts.rs` makes typed calls, `bus.rs` receives messages |
//! | `engine/redis/servers.rs`, `servers/`, `cluster.rs`, `client.rs` | connections to each Redis server; the slot map of a Cluster |
//! | `engine/redis/preflight.rs`, `rejection.rs`, `engine/error_reply.rs` | whether Redis lets the hub do what it needs, and why not |
//! | `engine/redis/inspect.rs`, `doctor.rs`, `doctor/` | shows the data to operators; compares and repairs it |
//! | `profiles.rs`, `profiles/` | Postgres: accounts, friendships, results; migrations; the listener for changes |
//!
//! # One update, end to end
//!
//! 1. A back end posts to node B; `http/notifications.rs` decodes the request and calls [`Hub::notify`].
//! 2. `domain/profile.rs` prepares the public view beside the full one, once.
//! 3. `lua/profile/update.lua` compares revisions, stores both views, and publishes them on the user's topic.
//! 4. Node A listens to that topic, because a connection of its own watches the user. `engine/redis/bus.rs` reads the
//!    message, `domain/router.rs` hands it to `domain/topic.rs`.
//! 5. There it is compared with the last update delivered. A newer one is remembered and put into the stream of
//!    deliveries, together with who gets which view, under one lock.
//! 6. `session/fan_out.rs` encodes each view once and sends it to each recipient's outbound side. For a WebSocket session
//!    it writes the ready-made frame to the TCP connection, at once or together with the others of a burst.
//!
//! # Invariants
//!
//! - **State and announcement change together**: in Redis in one script, on a node under one lock. The script that
//!   moves a user publishes the transition; a service that changes what connections know sends the delivery while it
//!   holds the lock. So an answer never contradicts the events before and after it.
//! - **A slot in the stream is reserved before the lock is taken**: nothing is awaited while a lock is held.
//! - **An answer carries its address**: a `ReplyTo` goes down with the request and comes back in the delivery.
//! - **A refcount is a collection of connection ids.** Registering or releasing twice changes nothing.
//! - **A partition stands alone.** It has loops of its own for subscriptions, snapshots, releases and registrations, so one
//!   that cannot be reached, or falls silent, holds up no other.
//! - **Time is Redis's**: scripts read `TIME`; nodes' clocks only measure durations.
//! - **Every queue is bounded.** Deliveries that wait hold up the reader of messages; its buffer then loses the
//!   oldest, which counts as an interruption, after which everything built from messages is rebuilt. While a client
//!   that reads lags behind, the fan-out waits for it, within a bound for all of them together; a connection
//!   whose queue is full is closed at the transport.
//! - **Handlers are there before the client is told that it is connected**, and the topic of a user is received.
//! - **Who sees what is decided under the lock of the topic**: a change of friendships is a message on the topic like
//!   any update, so every watcher has the right view before the next update. Views let fields through, they block none.
//! - **In Postgres, triggers number and record changes**, whichever program makes them. A record is deleted only after the
//!   change has been published, and only if there is no newer one.
//! - **Making a match and announcing it are two steps.** The queue's hash tag is not the players', so no script sees both
//!   the queue and who is online. A match is announced until every node has confirmed it, or a player is gone.
//! - **A connection has one sink**, chosen at CONNECT: frames that the hub writes itself, or the library's queue.
//! - **Events of a connection are queued in the order of the wire**, by the session's task or by the library's handler,
//!   and worked off by that connection's task.
//!
//! # Why there are two transports
//!
//! A session that begins as a WebSocket is the hub's own. Its task reads; the fan-out writes ready-made frames straight to
//! the TCP connection; while the session is idle it holds no buffer. So a delivery costs little more than the system
//! call, an idle connection takes a few KiB, and a client that does not read is closed by the bound of its own queue.
//!
//! A session that begins by polling is socketioxide's, also after it has moved to a WebSocket. Polls, posts, payloads of
//! several packets and the upgrade in between are a state machine of its own, which the library gets right; few clients
//! need it, so the cost of the library does not matter there. Both share `transport/session`: admission, the inbound
//! queue, the connection's task, acknowledgements, the outbound side and rate limits.
//!
//! # What is deliberately absent
//!
//! - No broadcast through an adapter between nodes: it costs nodes without recipients, and loses packets in silence.
//!   Rooms are lists of connections in `domain/topic.rs`.
//! - No trait over the engines: there are two, and an enum says so.
//! - No cache of friendships that expires: a node reads them from Postgres when a topic is first watched, and the topic
//!   carries every change. While Postgres is away, a new watcher counts as a stranger.
//! - No wall-clock order between nodes, and no node that is special.

pub(crate) mod app;
pub mod cli;
pub(crate) mod clock;
pub(crate) mod domain;
pub(crate) mod engine;
pub(crate) mod ids;
pub(crate) mod profiles;
pub mod settings;
pub(crate) mod telemetry;
pub(crate) mod tls;
pub(crate) mod transport;

pub use app::App;
pub use domain::Hub;
pub use ids::UserId;
pub use settings::Settings;

/// For the project's own tests, fuzz targets and load generator. It is no part of the public face and may change at any
/// time.
#[doc(hidden)]
pub mod internals {
    pub use crate::app::token_options;
    pub use crate::cli::command;
    pub use crate::domain::token::{TokenOptions, TokenVerifier, issue as issue_token};
    pub use crate::engine::redis::{hash_tags, script_text};
    pub use crate::profiles::{
        Account, AccountChange, ChangeBatch, ChangeStream, Friendship, GameResult, Image, NewMatch,
        Part, PostgresOptions, Profiles, ProfilesError,
    };
    pub use crate::telemetry::{LOG_FIELDS, Metrics};
    pub use crate::transport::http::{describe_internal, describe_public};
    pub use crate::transport::protocol::{
        ConnectErrorCode, ErrorCode, EventDeclaration, KickCode, Request, TypeDeclaration,
        client_events, server_events,
    };
    pub use crate::transport::websocket::decoder::{Decoder, Received};
    pub use crate::transport::websocket::engine_packet::EnginePacket;
    pub use crate::transport::websocket::frame::Fault;
    pub use crate::transport::websocket::socket_packet::{
        ATTACHMENTS_MAX, Content, SocketPacket, event_name,
    };
}
