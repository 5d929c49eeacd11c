//! Labels of metrics. Each has few values: no user ids, no addresses, no raw paths.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// Implements [`EncodeLabelValue`] by `as_str`.
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
    /// Connected without a token.
    Guest,
    /// Connected with a token.
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

/// The transport with which the session of a connection began. Upgrades from polling are counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// WebSocket from the start.
    WebSocket,
    /// Long polling, perhaps upgraded since.
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

/// Why a connection ended, as the hub sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedBecause {
    /// The client sent DISCONNECT.
    Client,
    /// The hub sent DISCONNECT; the client does not reconnect.
    Hub,
    /// Either side closed the transport; the client reconnects.
    Transport,
    /// The client did not answer a ping.
    PingTimeout,
    /// The client violated the protocol, or the transport failed.
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
    /// The listener was full, and no other connection could be closed instead.
    Full,
    /// The listener was full, and this connection had been without a request for longest.
    MadeRoom,
    /// The address had too many connections without a request.
    PerAddress,
    /// No request arrived in time.
    Handshake,
    /// The client exceeded the inbound rate.
    InboundRate,
    /// The client did not read what the hub wrote.
    Stalled,
    /// The session had no connection left.
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

    /// The value in logs and metrics.
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

/// The new status of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum TransitionStatus {
    Online,
    Offline,
}

impl TransitionStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

label_value!(TransitionStatus);

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
    pub(super) status: TransitionStatus,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CodeLabels {
    pub(super) code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ScriptLabels {
    pub(super) script: &'static str,
}

/// `route` is a template such as `/api/v1/users/{id}`.
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
