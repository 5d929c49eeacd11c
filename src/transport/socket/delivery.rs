//! Writes what the domain wants told. Each update is encoded once for each view, whoever gets it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::Sockets;
use super::outlet::{Outlet, Outlets, Packet};
use crate::domain::delivery::{Delivery, DeliveryStream, StatusChange};
use crate::domain::visibility::View;
use crate::engine::{Kind, Views};
use crate::ids::{ConnectionId, UserId};
use crate::transport::protocol::{
    FriendListUpdate, GameStatsUpdate, KickCode, MatchHistoryUpdate, ProfileUpdate, Status,
    UserRequest, UserStatusChange, Watching, event_of, seen, server_event,
};

/// Works off the stream, in order.
pub(super) async fn deliver(sockets: Arc<Sockets>, mut deliveries: DeliveryStream) {
    while let Some(delivery) = deliveries.recv().await {
        write(&sockets.outlets, delivery);
    }
}

fn write(outlets: &Outlets, delivery: Delivery) {
    match delivery {
        Delivery::StatusChanges(changes) => changes
            .iter()
            .for_each(|change| tell_status(outlets, change)),
        Delivery::Update {
            user,
            kind,
            views,
            own,
            watchers,
        } => {
            emit(outlets, &own, update(View::Full, user, kind, &views));
            emit(outlets, &watchers, update(View::Public, user, kind, &views));
        }
        Delivery::Event { event, data, own } => {
            emit(outlets, &own, Packet::new(event, &data_of(&data)))
        }
        Delivery::Disconnect { own } => kick(outlets, &own, KickCode::Kicked),
        Delivery::AccountDeleted {
            user,
            own,
            watchers,
        } => {
            emit(
                outlets,
                &own,
                Some(Packet::bare(server_event::ACCOUNT_DELETED)),
            );
            kick(outlets, &own, KickCode::AccountDeleted);
            let user = UserRequest { user_id: user };
            emit(
                outlets,
                &watchers,
                Packet::new(server_event::PROFILE_DELETED, &user),
            );
        }
        Delivery::OnlineUsers { to, users } => answer(outlets, to, &data_of(&users)),
        Delivery::Watching { to, view, last } => answer(outlets, to, &Watching::new(view, &last)),
    }
}

fn tell_status(outlets: &Outlets, change: &StatusChange) {
    let payload = UserStatusChange {
        user_id: change.user,
        status: Status::of(change.online),
    };
    let Some(packet) = Packet::new(server_event::USER_STATUS_CHANGE, &payload) else {
        return;
    };
    match &change.only_to {
        None => outlets.each(|outlet| outlet.emit(&packet)),
        Some(recipients) => outlets.each_of(recipients, |outlet| outlet.emit(&packet)),
    }
}

/// The event for those with `view`; nothing where they may see nothing of it.
fn update(view: View, user_id: UserId, kind: Kind, views: &Views) -> Option<Packet> {
    let content = seen(view, views)?;
    let revision = views.revision;
    let event = event_of(kind);
    match kind {
        Kind::Profile => Packet::new(
            event,
            &ProfileUpdate {
                user: content,
                revision,
            },
        ),
        Kind::Stats => Packet::new(
            event,
            &GameStatsUpdate {
                user_id,
                stats: content,
                revision,
            },
        ),
        Kind::Friends => Packet::new(
            event,
            &FriendListUpdate {
                user_id,
                friends: content,
                revision,
            },
        ),
        Kind::Matches => Packet::new(
            event,
            &MatchHistoryUpdate {
                user_id,
                matches: content,
                revision,
            },
        ),
    }
}

fn emit(outlets: &Outlets, recipients: &[ConnectionId], packet: Option<Packet>) {
    if let Some(packet) = packet {
        outlets.each_of(recipients, |outlet| outlet.emit(&packet));
    }
}

fn kick(outlets: &Outlets, recipients: &[ConnectionId], code: KickCode) {
    outlets.each_of(recipients, |outlet| outlet.kick(code));
}

fn answer(outlets: &Outlets, to: ConnectionId, answer: &impl Serialize) {
    outlets.each_of(&[to], |outlet: &Outlet| outlet.answer(answer));
}

/// JSON as it is, for serialisers.
fn data_of(data: &Arc<RawValue>) -> &RawValue {
    data
}
