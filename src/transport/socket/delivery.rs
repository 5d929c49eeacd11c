//! Writes what the domain wants told. Each update is encoded once for each view, whoever gets it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::Sockets;
use super::conflation::Conflated;
use super::outlets::Outlets;
use super::packet::{Event, Packets, encode};
use crate::domain::delivery::{Delivery, DeliveryStream, StatusChange};
use crate::domain::update::{Kind, Views};
use crate::domain::visibility::View;
use crate::ids::{ConnectionId, UserId};
use crate::transport::protocol::{
    FriendListUpdate, GameStatsUpdate, KickCode, MatchFound, MatchHistoryUpdate, ProfileUpdate,
    Status, UserRequest, UserStatusChange, Watching, event_of, seen, server_event,
};

/// Pause in which connections that are behind write some of what waits for them.
const CATCH_BREATH: Duration = Duration::from_millis(1);

/// Changes told by one write to each who hears of them, about 4 KiB.
const CHANGES_MAX: usize = 64;

/// Deliveries that are written together where so many wait, so that a connection gets what is for it in one write.
const BATCH_MAX: usize = 64;

/// Works off the stream, in order. Nobody waits for a connection that does not keep up: it is closed once too much waits
/// for it.
pub(super) async fn deliver(sockets: Arc<Sockets>, deliveries: DeliveryStream) {
    let outlets = &sockets.outlets;
    let mut deliveries = Conflated::new(
        deliveries,
        sockets.limits.clone(),
        sockets.metrics.conflated.clone(),
    );
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut is_behind = false;
    loop {
        // What is written together must not be too much by itself.
        let batch_max = BATCH_MAX
            .min(sockets.limits.get().outbound_queue / 4)
            .max(1);
        let next = deliveries.recv_many(&mut batch, batch_max);
        let count = if is_behind {
            tokio::time::timeout(CATCH_BREATH, next).await.ok()
        } else {
            tokio::select! {
                count = next => Some(count),
                () = outlets.fell_behind() => None,
            }
        };
        match count {
            Some(0) => return,
            Some(count) => {
                let begun = Instant::now();
                outlets.batch(count > 1);
                write_all(outlets, &mut batch);
                outlets.batch(false);
                is_behind = outlets.flush();
                outlets.note_fan_out(begun.elapsed());
            }
            None => is_behind = outlets.flush(),
        }
    }
}

/// Writes deliveries in their order; changes that follow each other together.
fn write_all(outlets: &Outlets, batch: &mut Vec<Delivery>) {
    let mut changes = Vec::new();
    for delivery in batch.drain(..) {
        match delivery {
            Delivery::StatusChanges(more) => changes.extend(more),
            delivery => {
                tell_all(outlets, &std::mem::take(&mut changes));
                write(outlets, delivery);
            }
        }
    }
    tell_all(outlets, &changes);
}

fn write(outlets: &Outlets, delivery: Delivery) {
    match delivery {
        // They are told with those that follow.
        Delivery::StatusChanges(_) => {}
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
            emit(outlets, &own, Packets::new(event, &data_of(&data)).as_ref());
        }
        Delivery::Disconnect { own } => kick(outlets, &own, KickCode::Kicked),
        Delivery::AccountDeleted {
            user,
            own,
            watchers,
        } => {
            let notice = Packets::bare(server_event::ACCOUNT_DELETED);
            emit(outlets, &own, Some(&notice));
            kick(outlets, &own, KickCode::AccountDeleted);
            let user = UserRequest { user_id: user };
            let notice = Packets::new(server_event::PROFILE_DELETED, &user);
            emit(outlets, &watchers.friends, notice.as_ref());
            emit(outlets, &watchers.strangers, notice.as_ref());
        }
        Delivery::MatchFound { id, opponent, own } => {
            let found = MatchFound {
                match_id: id,
                opponent: data_of(&opponent),
            };
            let packets = Packets::new(server_event::MATCH_FOUND, &found);
            emit(outlets, &own, packets.as_ref());
        }
        Delivery::MatchTimeout { own } => {
            let packets = Packets::bare(server_event::MATCH_TIMEOUT);
            emit(outlets, &own, Some(&packets));
        }
        Delivery::Turn { to } => answer(outlets, to, None),
        Delivery::OnlineUsers { to, users } => answer(outlets, to, Some(&users)),
        Delivery::Watching { to, view, last } => {
            answer(outlets, to, encode(&Watching::new(view, &last)).as_ref());
        }
    }
}

fn tell_all(outlets: &Outlets, changes: &[StatusChange]) {
    for changes in changes.chunks(CHANGES_MAX) {
        tell(outlets, changes);
        outlets.flush();
    }
}

/// Who hears of a change, everybody or the user's watchers, is the same for all changes of a hub.
fn tell(outlets: &Outlets, changes: &[StatusChange]) {
    let everybody = changes.iter().filter(|change| change.only_to.is_none());
    let events: Vec<Event> = everybody.filter_map(event_about).collect();
    if !events.is_empty() {
        let packets = Packets::of(events);
        outlets.each(|outlet| outlet.emit_to_all(&packets));
    }
    for change in changes {
        if let Some(watchers) = &change.only_to {
            let packets = event_about(change).map(|event| Packets::of(vec![event]));
            emit(outlets, &watchers.friends, packets.as_ref());
            emit(outlets, &watchers.strangers, packets.as_ref());
        }
    }
}

fn event_about(change: &StatusChange) -> Option<Event> {
    let payload = UserStatusChange {
        user_id: change.user,
        status: Status::of(change.online),
    };
    Event::new(server_event::USER_STATUS_CHANGE, &payload)
}

/// The event for those with `view`; nothing where they may see nothing of it.
fn update(view: View, user_id: UserId, kind: Kind, views: &Views) -> Option<Packets> {
    let content = seen(view, views)?;
    let revision = views.revision;
    let event = event_of(kind)?;
    match kind {
        Kind::Profile => Packets::new(
            event,
            &ProfileUpdate {
                user: content,
                revision,
            },
        ),
        Kind::Stats => Packets::new(
            event,
            &GameStatsUpdate {
                user_id,
                stats: content,
                revision,
            },
        ),
        Kind::Friends => Packets::new(
            event,
            &FriendListUpdate {
                user_id,
                friends: content,
                revision,
            },
        ),
        Kind::Matches => Packets::new(
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

fn emit(outlets: &Outlets, recipients: &[ConnectionId], packets: Option<&Packets>) {
    if let Some(packets) = packets {
        outlets.each_of(recipients, |outlet| outlet.emit(packets));
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
