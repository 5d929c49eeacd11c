//! Vigie, a Redis-backed, horizontally scalable Socket.IO hub for online game sites.
//!
//! This page is for those who change it. README is for those who use it.
//!
//! # Bird's-eye view
//!
//! Three layers, one direction: **transport → domain → engine**, with the profiles in Postgres beside the engine. Calls
//! go down; facts come back up as values, never as a callback.
//!
//! ```text
//!  browser ──▶ transport::socket ──▶ domain::Hub ──▶ engine ──▶ Redis, or this process
//!  back end ─▶ transport::http ────▶     │
//!                                        │  engine::Message   (what happened, on one stream)
//!  browser ◀── transport::socket ◀────── ┘  domain::delivery  (what to tell, on one stream)
//! ```
//!
//! # Map
//!
//! | under `src/` | owns |
//! |---|---|
//! | `main.rs`, `cli/` | commands, one file each |
//! | `cli/inspect/`, `cli/table.rs` | what is in Redis, one file for each view; tables |
//! | `app.rs` | puts a node together, and takes it apart in reverse |
//! | `app/doctor.rs`, `app/inspect.rs` | examines the data from outside; shows it |
//! | `app/reload.rs` | takes over keys and limits while the node runs |
//! | `settings.rs`, `settings/` | typed settings: load, validate |
//! | `telemetry.rs`, `telemetry/` | logs; every metric's name, and what metrics are told apart by |
//! | `ids.rs`, `clock.rs` | the identifiers, each its own type; the wall clock |
//! | `tls.rs` | whom encrypted connections to Redis and Postgres trust |
//! | `transport/listener.rs`, `listener/stream.rs` | TCP accept; one connection: metered, watched, closed from outside |
//! | `transport/websocket.rs`, `websocket/` | RFC 6455, Engine.IO 4 and Socket.IO 5 for sessions that begin as a WebSocket: handshake, decoder, packets, writer, the session's task |
//! | `transport/server.rs` | HTTP on what a listener accepts |
//! | `transport/limits.rs`, `rate.rs`, `address.rs` | what the other side may use, how fast, and who that is |
//! | `transport/protocol.rs` | the client contract |
//! | `transport/protocol/events.rs`, `codes.rs`, `typescript.rs` | every event and code, declared once; what `vigie types` prints of all |
//! | `transport/protocol/request.rs` | reads what a client asks for, from bytes that nobody vouches for |
//! | `transport/socket/door.rs`, `openings.rs` | who may open a session |
//! | `transport/socket/carrier.rs`, `transports.rs` | one session, as the hub sees it; closing its transport, also when it is idle |
//! | `transport/socket/gate.rs`, `hold.rs` | admits connections; holds a CONNECT that cannot be answered yet |
//! | `transport/socket/websocket.rs` | the namespaces of a WebSocket session, and what becomes of its packets |
//! | `transport/socket/polls.rs` | long polls that are broken off; how much one answer takes |
//! | `transport/socket/head.rs` | what a session keeps of the request that opened it |
//! | `transport/socket/inbox.rs`, `rates.rs` | queues a connection's events, as many as it may send |
//! | `transport/socket/session.rs` | works them off; watches the token expire |
//! | `transport/socket/delivery.rs`, `outlets.rs`, `outlet.rs` | writes what the domain wants told, and keeps what cannot be written yet |
//! | `transport/socket/packet.rs`, `sink.rs` | events encoded once for all recipients; the sink of a connection: its own frames, or the library's queue |
//! | `transport/http/` | routes, one file for each subject |
//! | `transport/http/access.rs`, `loopback.rs`, `audit.rs` | who may use the internal API; who did |
//! | `transport/http/headers.rs` | what every answer says to browsers |
//! | `transport/http/admin/` | the operators' page, from three files beside its routes; one sampler for all who look |
//! | `transport/http/measure.rs` | counts requests by route |
//! | `domain/presence.rs`, `replica.rs` | who is online; snapshot plus transitions |
//! | `domain/topic.rs`, `topic/` | the topics of this node: subscriptions, the state of each, who watches with which view, interest |
//! | `domain/connection.rs` | one connection: admission, watching, end |
//! | `domain/visibility.rs` | which view of a user a viewer gets |
//! | `domain/profile.rs` | updates: both views prepared once, stored and published |
//! | `domain/account.rs`, `account/` | accounts in Postgres: what may be done with one, and telling what changed |
//! | `domain/matchmaking.rs` | who waits for an opponent; making matches, and telling them until every node has shown them |
//! | `domain/token.rs`, `token/` | which tokens are valid, and whose they are; the keys that verify them |
//! | `domain/standing.rs` | whether a valid token is accepted: the account may be deleted, the token revoked |
//! | `domain/node_requests.rs` | answers the doctor, and other nodes: which connections this node holds, how many of them watch |
//! | `domain/watcher_count.rs`, `incidents.rs` | how many watch a user on all nodes; recent events of the cluster, as this node saw them |
//! | `domain/router.rs`, `tasks.rs` | hands each message of the engine to its service; spawns the loops of the services |
//! | `domain/lease.rs`, `heartbeat.rs`, `reaper.rs` | this node's lease; renews it; releases the connections of dead nodes |
//! | `domain/pulse.rs`, `recovery.rs`, `registration.rs`, `audit.rs` | notices silent partitions; reads and registers them again; compares |
//! | `domain/health.rs`, `health/`, `local_node.rs` | whether this node can do its work; its report to the others |
//! | `engine.rs` | what an engine does, as one enum over the two that exist |
//! | `engine/presence.rs`, `profile.rs`, `topic.rs`, `account.rs`, `lease.rs`, `node.rs`, `matchmaking.rs` | the types and calls of each feature |
//! | `engine/message.rs`, `error.rs`, `examination.rs` | the stream back up; why calls fail; which commands are refused |
//! | `engine/memory.rs`, `memory/` | the embedded engine |
//! | `engine/refusal.rs` | why Redis refuses a command, and what an operator can do about it |
//! | `engine/redis.rs`, `redis/` | each feature again, beside its Lua folder; keys (one file spells them all), scripts (typed calls), bus (messages) |
//! | `engine/redis/servers.rs`, `client.rs` | a pair of connections for each Redis server, and which of them serves a slot |
//! | `engine/redis/cluster.rs` | the map of a Redis Cluster, from the views of several of its servers |
//! | `engine/redis/preflight.rs`, `entry.rs`, `engine/refusal.rs` | whether Redis lets the hub do what it needs, and why not |
//! | `engine/redis/preflight.rs`, `entry.rs` | whether a server carries out what the hub needs; whether it lets a client in |
//! | `engine/redis/inspect.rs`, `page.rs` | what operators see of the data; reading in steps |
//! | `engine/redis/doctor.rs`, `doctor/` | compares the data with itself and with the nodes; repairs it |
//! | `profiles.rs`, `profiles/` | Postgres: accounts, friendships, results; migrations; the listener for what changed |
//!
//! # One update, end to end
//!
//! 1. A back end posts to node B; `http/notifications.rs` reads it and calls [`Hub::notify`].
//! 2. `domain/profile.rs` prepares the public view beside the full one, once.
//! 3. `lua/profile/update.lua` compares revisions, stores both views, and publishes them on the user's topic.
//! 4. Node A listens to that topic, because a connection of its own watches the user. `engine/redis/bus.rs` reads the
//!    message, `domain/router.rs` hands it to `domain/topic.rs`.
//! 5. There it is compared with the last update delivered. A newer one is remembered and put into the stream of
//!    deliveries, together with who gets which view, under one lock.
//! 6. `socket/delivery.rs` encodes each view once and writes it to each recipient's outlet: a WebSocket session gets the
//!    ready-made frame at once, or with the others of a burst, straight from here.
//!
//! # Invariants
//!
//! - **State and announcement change together**: in Redis in one script, on a node under one lock. The script that
//!   moves a user publishes the transition; whoever changes what connections know puts the delivery into the stream
//!   while holding the lock. So an answer never contradicts the events before and after it.
//! - **A place in the stream is taken before the lock**: nothing is awaited while a lock is held.
//! - **A refcount is a collection of connection ids.** Registering or releasing twice changes nothing.
//! - **A partition stands alone.** It has loops of its own for subscriptions, snapshots, releases and registrations, so one
//!   that cannot be reached, or falls silent, holds up no other.
//! - **Time is Redis's**: scripts read `TIME`; nodes' clocks only measure durations.
//! - **Every queue is bounded.** Deliveries that wait hold up the reader of messages; its buffer then loses the
//!   oldest, which counts as an interruption, after which everything built from messages is built anew. A connection
//!   whose queue is full is closed at the transport.
//! - **Handlers are there before the client is told that it is connected**, and the topic of a user is received.
//! - **Who sees what is decided under the lock of the topic**: a change of friendships is a message on the topic like
//!   any update, so every watcher has the right view before the next update. Views let fields through, they block none.
//! - **In Postgres, triggers number and note changes**, whoever makes them. A note is deleted only after what it is about
//!   has been published, and only if nothing newer has been noted since.
//! - **Making a match and telling it are two steps.** The queue's hash tag is not the players', so no script sees both the
//!   queue and who is online. A match is given out to be told until every node has confirmed it, or a player is gone.
//! - **A connection has one sink**, chosen at CONNECT: frames that the hub writes itself, or the library's queue. Nothing
//!   overtakes, because neither is used for the other's connections.
//! - **Events of a connection are queued in the order of the wire**, by the session's task or by the library's handler,
//!   and worked off by that connection's task.
//!
//! # Why there are two transports
//!
//! A session that begins as a WebSocket is the hub's own. Its task reads, and whoever has something for the client writes
//! the ready-made frame straight to the TCP connection; while the session is idle it holds no buffer. So a delivery costs
//! little more than the system call, an idle connection takes a few KiB, and a client that does not read is closed by the
//! bound of its own queue.
//!
//! A session that begins by polling is socketioxide's, also after it has moved to a WebSocket. Polls, posts, payloads of
//! several packets and the upgrade in between are a state machine of its own, which the library gets right; few clients
//! need it, so what the library costs does not matter there. Admission, the inbound queue, the connection's task,
//! acknowledgements, the outbound queue and the rates are the same for both.
//!
//! # What is deliberately absent
//!
//! - No broadcast through an adapter between nodes: it costs nodes that do not care, and loses packets in silence.
//!   Rooms are lists of connections in `domain/topic.rs`.
//! - No trait over the engines: there are two, and an enum says so.
//! - No cache of friendships that ends by time: Postgres says who is a friend when a topic is first watched, and the
//!   topic says what changed. While Postgres is away whoever begins to watch is a stranger.
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

/// What the project's own tests, fuzz targets and load generator use besides the public face. It is no part of that face
/// and may change at any time.
#[doc(hidden)]
pub mod internals {
    pub use crate::domain::token::{TokenVerifier, issue as issue_token};
    pub use crate::profiles::{
        Account, Aspect, Batch, Change, ChangeStream, Friendship, Image, NewMatch, Options,
        Outcome, Profiles, ProfilesError,
    };
    pub use crate::telemetry::Metrics;
    pub use crate::transport::protocol::Request;
    pub use crate::transport::websocket::decoder::{Decoder, Event};
    pub use crate::transport::websocket::engine_packet::EnginePacket;
    pub use crate::transport::websocket::frame::Fault;
    pub use crate::transport::websocket::socket_packet::{
        ATTACHMENTS_MAX, Content, SocketPacket, event_name,
    };
}
