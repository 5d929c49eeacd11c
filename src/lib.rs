//! Vigie, a Redis-backed, horizontally scalable Socket.IO hub.

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
