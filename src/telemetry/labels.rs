//! By what metrics are told apart. Everything here has few values: no user, no address, no path as it was asked for.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// Writes the word of a value, as [`EncodeLabelValue`] asks for.
macro_rules! label_value {
    ($name:ty) => {
        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
                EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }
    };
}

/// Whether a connection belongs to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionKind {
    /// No account.
    Guest,
    /// Signed in.
    User,
}

impl ConnectionKind {
    pub(super) const ALL: [Self; 2] = [Self::Guest, Self::User];

    fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::User => "user",
        }
    }
}

label_value!(ConnectionKind);

/// How the session under a connection began. One that began with polling may have moved to a WebSocket since, which is
/// counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// With a WebSocket, which it keeps.
    WebSocket,
    /// With long polling.
    Polling,
}

impl Transport {
    pub(super) const ALL: [Self; 2] = [Self::WebSocket, Self::Polling];

    fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Polling => "polling",
        }
    }
}

label_value!(Transport);

/// Why a connection ended, as the side of the hub sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedBecause {
    /// Its client said goodbye.
    Client,
    /// The hub said goodbye, for good.
    Hub,
    /// The transport was closed, by either side: clients come back by themselves.
    Transport,
    /// Its client did not answer pings.
    PingTimeout,
    /// What came over the transport could not be understood, or broke it.
    Error,
}

impl EndedBecause {
    pub(super) const ALL: [Self; 5] = [
        Self::Client,
        Self::Hub,
        Self::Transport,
        Self::PingTimeout,
        Self::Error,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Hub => "hub",
            Self::Transport => "transport",
            Self::PingTimeout => "ping_timeout",
            Self::Error => "error",
        }
    }
}

label_value!(EndedBecause);

/// Why the hub closed a TCP connection, or the session over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClosedBecause {
    /// There were as many as allowed, and none that could be closed instead.
    Full,
    /// There were as many as allowed, and it had asked for nothing for longest.
    MadeRoom,
    /// Its address had too many that asked for nothing.
    PerAddress,
    /// It asked for nothing in time.
    Handshake,
    /// It sent more bytes than it may.
    InboundRate,
    /// It did not read what was written.
    Stalled,
    /// It carried no connection any more.
    Idle,
}

impl ClosedBecause {
    pub(super) const ALL: [Self; 7] = [
        Self::Full,
        Self::MadeRoom,
        Self::PerAddress,
        Self::Handshake,
        Self::InboundRate,
        Self::Stalled,
        Self::Idle,
    ];

    /// The word for it in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::MadeRoom => "made_room",
            Self::PerAddress => "per_address",
            Self::Handshake => "handshake",
            Self::InboundRate => "inbound_rate",
            Self::Stalled => "stalled",
            Self::Idle => "idle",
        }
    }
}

label_value!(ClosedBecause);

/// Where a user goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Status {
    Online,
    Offline,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

label_value!(Status);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ConnectionLabels {
    pub(super) kind: ConnectionKind,
    pub(super) transport: Transport,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EndedLabels {
    pub(super) reason: EndedBecause,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ClosedLabels {
    pub(super) reason: ClosedBecause,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StatusLabels {
    pub(super) status: Status,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CodeLabels {
    pub(super) code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ScriptLabels {
    pub(super) script: &'static str,
}

/// A route of either listener, by its template.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RouteLabels {
    pub(super) method: &'static str,
    pub(super) route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AnswerLabels {
    pub(super) method: &'static str,
    pub(super) route: String,
    pub(super) status: u16,
}
