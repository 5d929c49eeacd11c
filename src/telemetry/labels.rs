//! Labels of metrics. Each has few values: no user ids, no addresses, no raw paths.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use strum::{EnumIter, IntoStaticStr};

/// Implements [`EncodeLabelValue`] by its name.
macro_rules! label_value {
    ($name:ty) => {
        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
                EncodeLabelValue::encode(&self.into_str(), encoder)
            }
        }
    };
}

/// Whether a connection belongs to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, EnumIter)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum ConnectionKind {
    /// Connected without a token.
    Guest,
    /// Connected with a token.
    User,
}

label_value!(ConnectionKind);

/// The transport with which the session of a connection began. Upgrades from polling are counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, EnumIter)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Transport {
    /// WebSocket from the start.
    #[strum(serialize = "websocket")]
    WebSocket,
    /// Long polling, perhaps upgraded since.
    Polling,
}

label_value!(Transport);

/// Why a connection ended, as the hub sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, EnumIter)]
#[strum(serialize_all = "snake_case", const_into_str)]
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

label_value!(EndedBecause);

/// Why the hub closed a TCP connection, or the session over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, EnumIter)]
#[strum(serialize_all = "snake_case", const_into_str)]
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

label_value!(ClosedBecause);

/// The new status of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(super) enum TransitionStatus {
    Online,
    Offline,
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
