//! Writes what the domain wants told. Each update is encoded once for each view, whoever gets it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::mpsc::error::TryRecvError;

use super::Sockets;
use super::outlet::{Backlog, Outlets, Packet, encode};
use crate::domain::delivery::{Delivery, DeliveryStream, StatusChange};
use crate::domain::visibility::View;
use crate::engine::{Kind, Views};
use crate::ids::{ConnectionId, UserId};
use crate::transport::protocol::{
    FriendListUpdate, GameStatsUpdate, KickCode, MatchFound, MatchHistoryUpdate, ProfileUpdate,
    Status, UserRequest, UserStatusChange, Watching, event_of, seen, server_event,
};

/// Pause in which connections that are behind write some of what waits for them.
const CATCH_BREATH: Duration = Duration::from_millis(1);

/// Changes written in a row before connections that fell behind are looked at.
const CHANGES_MAX: usize = 64;

/// Works off the stream, in order. While a connection is far behind it goes slowly: one that keeps up catches
/// up, one that does not is soon so far behind that it is closed.
pub(super) async fn deliver(sockets: Arc<Sockets>, mut deliveries: DeliveryStream) {
    let outlets = &sockets.outlets;
    loop {
        let delivery = match outlets.flush() {
            Backlog::None => tokio::select! {
                delivery = deliveries.recv() => delivery,
                () = outlets.fell_behind() => continue,
            },
            Backlog::Some => match tokio::time::timeout(CATCH_BREATH, deliveries.recv()).await {
                Ok(delivery) => delivery,
                Err(_) => continue,
            },
            Backlog::Pressing => {
                tokio::time::sleep(CATCH_BREATH).await;
                match deliveries.try_recv() {
                    Ok(delivery) => Some(delivery),
                    Err(TryRecvError::Empty) => continue,
                    Err(TryRecvError::Disconnected) => None,
                }
            }
        };
        match delivery {
            Some(delivery) => write(outlets, delivery).await,
            None => return,
        }
    }
}

async fn write(outlets: &Outlets, delivery: Delivery) {
    match delivery {
        Delivery::StatusChanges(changes) => tell_all(outlets, &changes).await,
        Delivery::Update {
            user,
            kind,
            views,
            own,
            watchers,
        } => {
            let full = update(View::Full, user, kind, &views);
            emit(outlets, &own, full.as_ref());
            emit(outlets, &watchers.friends, full.as_ref());
            let public = update(View::Public, user, kind, &views);
            emit(outlets, &watchers.strangers, public.as_ref());
        }
        Delivery::Disclosure { user, last, to } => {
            for (kind, views) in &last {
                emit(
                    outlets,
                    &to,
                    update(View::Full, user, *kind, views).as_ref(),
                );
            }
        }
        Delivery::Event { event, data, own } => {
            emit(outlets, &own, Packet::new(event, &data_of(&data)).as_ref());
        }
        Delivery::Disconnect { own } => kick(outlets, &own, KickCode::Kicked),
        Delivery::AccountDeleted {
            user,
            own,
            watchers,
        } => {
            let notice = Packet::bare(server_event::ACCOUNT_DELETED);
            emit(outlets, &own, Some(&notice));
            kick(outlets, &own, KickCode::AccountDeleted);
            let user = UserRequest { user_id: user };
            let notice = Packet::new(server_event::PROFILE_DELETED, &user);
            emit(outlets, &watchers.friends, notice.as_ref());
            emit(outlets, &watchers.strangers, notice.as_ref());
        }
        Delivery::MatchFound { id, opponent, own } => {
            let found = MatchFound {
                match_id: id,
                opponent: data_of(&opponent),
            };
            let packet = Packet::new(server_event::MATCH_FOUND, &found);
            emit(outlets, &own, packet.as_ref());
        }
        Delivery::MatchTimeout { own } => {
            let packet = Packet::bare(server_event::MATCH_TIMEOUT);
            emit(outlets, &own, Some(&packet));
        }
        Delivery::Turn { to } => answer(outlets, to, None),
        Delivery::OnlineUsers { to, users } => answer(outlets, to, Some(&users)),
        Delivery::Watching { to, view, last } => {
            answer(outlets, to, encode(&Watching::new(view, &last)).as_ref());
        }
    }
}

async fn tell_all(outlets: &Outlets, changes: &[StatusChange]) {
    for changes in changes.chunks(CHANGES_MAX) {
        for change in changes {
            tell_status(outlets, change);
        }
        if outlets.flush() == Backlog::Pressing {
            tokio::time::sleep(CATCH_BREATH).await;
        }
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
        None => outlets.each(|outlet| outlet.emit_to_all(&packet)),
        Some(watchers) => {
            emit(outlets, &watchers.friends, Some(&packet));
            emit(outlets, &watchers.strangers, Some(&packet));
        }
    }
}

/// The event for those with `view`; nothing where they may see nothing of it.
fn update(view: View, user_id: UserId, kind: Kind, views: &Views) -> Option<Packet> {
    let content = seen(view, views)?;
    let revision = views.revision;
    let event = event_of(kind)?;
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
        Kind::Friendships => None,
    }
}

fn emit(outlets: &Outlets, recipients: &[ConnectionId], packet: Option<&Packet>) {
    if let Some(packet) = packet {
        outlets.each_of(recipients, |outlet| outlet.emit(packet));
    }
}

fn kick(outlets: &Outlets, recipients: &[ConnectionId], code: KickCode) {
    outlets.each_of(recipients, |outlet| outlet.kick(code));
}

fn answer(outlets: &Outlets, to: ConnectionId, answer: Option<&Arc<RawValue>>) {
    outlets.each_of(&[to], |outlet| outlet.answer_oldest(answer));
}

/// JSON as it is, for serialisers.
fn data_of(data: &Arc<RawValue>) -> &RawValue {
    data
}
