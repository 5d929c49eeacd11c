//! Vigie, a Redis-backed, horizontally scalable Socket.IO hub for online game sites.
//!
//! This page is for those who change it. README is for those who use it.
//!
//! # Bird's-eye view
//!
//! Three layers, one direction: **transport → domain → engine**. Calls go down; facts come back up as values,
//! never as a callback.
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
//! | `app.rs` | puts a node together, and takes it apart in reverse |
//! | `app/doctor.rs` | examines the data from outside |
//! | `settings.rs`, `settings/` | typed settings: load, validate |
//! | `telemetry.rs`, `telemetry/` | logs; every metric's name |
//! | `ids.rs` | the identifiers, each its own type |
//! | `transport/listener.rs` | TCP accept; closing one connection |
//! | `transport/protocol.rs` | the client contract; what `vigie types` prints |
//! | `transport/socket/gate.rs` | admits connections |
//! | `transport/socket/inbox.rs` | counts, decodes and queues a connection's events |
//! | `transport/socket/session.rs` | works them off; watches the token expire |
//! | `transport/socket/delivery.rs`, `outlet.rs` | writes what the domain wants told |
//! | `transport/http/` | routes, one file for each subject |
//! | `domain/presence.rs`, `replica.rs` | who is online; snapshot plus transitions |
//! | `domain/topic.rs` | who cares about whom on this node; which topics it listens to; what was last delivered |
//! | `domain/connection.rs` | one connection: admission, watching, end |
//! | `domain/visibility.rs` | which view of a user somebody gets |
//! | `domain/profile.rs` | updates: both views prepared once, stored and published |
//! | `domain/token.rs` | which tokens are valid, and whose they are |
//! | `domain/doctor.rs` | answers the doctor: which connections this node holds |
//! | `domain/lease.rs`, `health.rs` | this node's lease; whether it can do its work |
//! | `engine.rs` | what an engine does, as one enum over the two that exist |
//! | `engine/memory.rs` | the embedded engine |
//! | `engine/redis.rs`, `redis/` | keys (one file spells them all), scripts (typed calls), bus (subscriptions) |
//! | `engine/redis/doctor.rs`, `doctor/` | compares the data with itself and with the nodes; repairs it |
//!
//! # One update, end to end
//!
//! 1. A back end posts to node B; `http/notifications.rs` reads it and calls [`Hub::notify`].
//! 2. `domain/profile.rs` prepares the public view beside the full one, once.
//! 3. `lua/profile/update.lua` compares revisions, stores both views, and publishes them on the user's topic.
//! 4. Node A listens to that topic, because a connection of its own watches the user. `engine/redis/bus.rs` reads the
//!    message, the hub hands it to `domain/topic.rs`.
//! 5. There it is compared with the last update delivered. A newer one is remembered and put into the stream of
//!    deliveries, together with who gets which view, under one lock.
//! 6. `socket/delivery.rs` encodes each view once and writes it to each recipient's outlet.
//!
//! # Invariants
//!
//! - **State and announcement change together**: in Redis in one script, on a node under one lock. The script that
//!   moves a user publishes the transition; whoever changes what connections know puts the delivery into the stream
//!   while holding the lock. So an answer never contradicts the events before and after it.
//! - **A place in the stream is taken before the lock**: nothing is awaited while a lock is held.
//! - **A refcount is a collection of connection ids.** Registering or releasing twice changes nothing.
//! - **Time is Redis's**: scripts read `TIME`; nodes' clocks only measure durations.
//! - **Every queue is bounded.** Deliveries that wait hold up the reader of messages; its buffer then loses the
//!   oldest, which counts as an interruption, after which everything built from messages is built anew. A connection
//!   whose queue is full is closed at the transport.
//! - **Handlers are there before the client is told that it is connected**, and the topic of a user is received.
//! - **Events of a connection are queued where the library calls in order**, and worked off by that connection's task.
//!
//! # What is deliberately absent
//!
//! - No broadcast through an adapter between nodes: it costs nodes that do not care, and loses packets in silence.
//!   Rooms are lists of connections in `domain/topic.rs`.
//! - No trait over the engines: there are two, and an enum says so.
//! - No wall-clock order between nodes, and no node that is special.

pub mod app;
pub mod domain;
pub mod engine;
pub mod ids;
pub mod settings;
pub mod telemetry;
pub mod transport;

pub use app::App;
pub use domain::Hub;
pub use ids::UserId;
pub use settings::Settings;
