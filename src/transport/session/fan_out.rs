//! The fan-out: writes every delivery of the domain to the connections that it is for. An update is encoded once for each
//! view, however many connections get it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde_json::value::RawValue;

use super::SessionContext;
use super::conflation::Conflated;
use super::encoded_events::{EncodedEvents, Event, encode};
use super::outbound_table::OutboundTable;
use super::sink::{Flush, Outgoing};
use crate::domain::delivery::{Delivery, DeliveryStream, ReplyTo, StatusChange};
use crate::domain::update::{Kind, Views};
use crate::domain::visibility::View;
use crate::ids::{ConnectionId, UserId};
use crate::transport::protocol::{
    FriendListUpdate, GameStatsUpdate, KickCode, MatchFound, MatchHistoryUpdate, ProfileUpdate,
    Status, UserRequest, UserStatusChange, Watching, event_of, seen, server_event,
};

/// Status changes that one write sends to a connection, about 4 KiB.
const CHANGES_MAX: usize = 64;

/// Deliveries that are written together when many wait, so that a connection gets its share in one write.
const BATCH_MAX: usize = 64;

/// Works off the stream in order, until it ends.
pub(crate) async fn fan_out(context: Arc<SessionContext>, deliveries: DeliveryStream) {
    let table = &context.outbound;
    let mut deliveries = Conflated::new(
        deliveries,
        context.limits.clone(),
        context.metrics.conflated.clone(),
    );
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut flush_again = false;
    loop {
        // One batch alone must not fill a queue.
        let batch_max = BATCH_MAX
            .min(context.limits.get().outbound_queue / 4)
            .max(1);
        let next = deliveries.recv_many(&mut batch, batch_max);
        let count = if flush_again {
            table.pause(next).await
        } else {
            tokio::select! {
                count = next => Some(count),
                () = table.backlogged() => None,
            }
        };
        match count {
            Some(0) => return,
            Some(count) => {
                let begun = Instant::now();
                let flush = if count > 1 { Flush::Later } else { Flush::Now };
                write_batch(table, &mut batch, flush).await;
                let pace = table.flush();
                let took = begun.elapsed().as_secs_f64();
                context.metrics.fan_out.observe(took);
                flush_again = table.settle(pace).await;
            }
            None => flush_again = table.settle(table.flush()).await,
        }
    }
}

/// Writes deliveries in their order. Status changes that follow each other are sent together.
async fn write_batch(table: &OutboundTable, batch: &mut Vec<Delivery>, flush: Flush) {
    let mut changes = Vec::new();
    for delivery in batch.drain(..) {
        match delivery {
            Delivery::StatusChanges(more) => changes.extend(more),
            delivery => {
                write_changes(table, &std::mem::take(&mut changes), flush).await;
                write(FanOut { table, flush }, delivery);
            }
        }
    }
    write_changes(table, &changes, flush).await;
}

async fn write_changes(table: &OutboundTable, changes: &[StatusChange], flush: Flush) {
    for changes in changes.chunks(CHANGES_MAX) {
        broadcast_changes(FanOut { table, flush }, changes);
        table.settle(table.flush()).await;
    }
}

/// Everybody gets a change, or the user's watchers only; that is the same for all changes of a hub.
fn broadcast_changes(fan_out: FanOut<'_>, changes: &[StatusChange]) {
    let public = changes.iter().filter(|change| change.only_to.is_none());
    let events: Vec<Event> = public.filter_map(status_event).collect();
    if !events.is_empty() {
        fan_out.send_to_all(EncodedEvents::of(events));
    }
    for change in changes {
        if let Some(watchers) = &change.only_to {
            let events = status_event(change).map(|event| EncodedEvents::of(vec![event]));
            let events = events.map(Outgoing::Events);
            fan_out.send(&watchers.friends, events.as_ref());
            fan_out.send(&watchers.strangers, events.as_ref());
        }
    }
}

fn write(fan_out: FanOut<'_>, delivery: Delivery) {
    match delivery {
        // `write_batch` has taken these out.
        Delivery::StatusChanges(_) => {}
        Delivery::Update {
            user,
            kind,
            views,
            own,
            watchers,
        } => {
            let full = update(View::Full, user, kind, &views);
            fan_out.send(&own, full.as_ref());
            fan_out.send(&watchers.friends, full.as_ref());
            let public = update(View::Public, user, kind, &views);
            fan_out.send(&watchers.strangers, public.as_ref());
        }
        Delivery::Disclosure { user, last, to } => {
            for (kind, views) in &last {
                fan_out.send(&to, update(View::Full, user, *kind, views).as_ref());
            }
        }
        Delivery::Event { event, data, own } => fan_out.send(&own, events(event, &*data).as_ref()),
        Delivery::Disconnect { own } => fan_out.kick(&own, KickCode::Kicked),
        Delivery::AccountDeleted {
            user,
            own,
            watchers,
        } => {
            let deleted = EncodedEvents::bare(server_event::ACCOUNT_DELETED);
            fan_out.send(&own, Some(&Outgoing::Events(deleted)));
            fan_out.kick(&own, KickCode::AccountDeleted);
            let user = UserRequest { user_id: user };
            let deleted = events(server_event::PROFILE_DELETED, &user);
            fan_out.send(&watchers.friends, deleted.as_ref());
            fan_out.send(&watchers.strangers, deleted.as_ref());
        }
        Delivery::MatchFound { id, opponent, own } => {
            let found = MatchFound {
                match_id: id,
                opponent: &opponent,
            };
            fan_out.send(&own, events(server_event::MATCH_FOUND, &found).as_ref());
        }
        Delivery::MatchTimeout { own } => {
            let timeout = EncodedEvents::bare(server_event::MATCH_TIMEOUT);
            fan_out.send(&own, Some(&Outgoing::Events(timeout)));
        }
        Delivery::Reply { to, body } => fan_out.reply(to, Some(body)),
        Delivery::OnlineUsers { to, users } => fan_out.reply(to, Some(users)),
        Delivery::Watching { to, view, last } => {
            fan_out.reply(to, encode(&Watching::new(view, &last)));
        }
    }
}

/// One event, to be sent.
fn events<T: Serialize + ?Sized>(
    name: impl Into<Cow<'static, str>>,
    payload: &T,
) -> Option<Outgoing> {
    EncodedEvents::new(name, &payload).map(Outgoing::Events)
}

fn status_event(change: &StatusChange) -> Option<Event> {
    let payload = UserStatusChange {
        user_id: change.user,
        status: Status::of(change.online),
    };
    Event::new(server_event::USER_STATUS_CHANGE, &payload)
}

/// The event for connections with `view`; `None` if they may see nothing of the update.
fn update(view: View, user_id: UserId, kind: Kind, views: &Views) -> Option<Outgoing> {
    let content = seen(view, views)?;
    let revision = views.revision;
    let event = event_of(kind)?;
    match kind {
        Kind::Profile => events(
            event,
            &ProfileUpdate {
                user: content,
                revision,
            },
        ),
        Kind::Stats => events(
            event,
            &GameStatsUpdate {
                user_id,
                stats: content,
                revision,
            },
        ),
        Kind::Friends => events(
            event,
            &FriendListUpdate {
                user_id,
                friends: content,
                revision,
            },
        ),
        Kind::Matches => events(
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

/// Sends to connections of the table.
#[derive(Clone, Copy)]
struct FanOut<'t> {
    table: &'t OutboundTable,
    flush: Flush,
}

impl FanOut<'_> {
    fn send(self, recipients: &[ConnectionId], outgoing: Option<&Outgoing>) {
        if let Some(outgoing) = outgoing {
            self.table
                .for_each_of(recipients, |outbound| outbound.send(outgoing, self.flush));
        }
    }

    fn send_to_all(self, events: EncodedEvents) {
        let outgoing = Outgoing::Events(events);
        self.table
            .for_each(|outbound| outbound.send_to_all(&outgoing, self.flush));
    }

    fn kick(self, recipients: &[ConnectionId], code: KickCode) {
        self.table
            .for_each_of(recipients, |outbound| outbound.kick(code));
    }

    /// Acknowledges an event, if its client waits for that.
    fn reply(self, to: ReplyTo, body: Option<Arc<RawValue>>) {
        if let (Some(id), Some(body)) = (to.ack, body) {
            self.send(&[to.connection], Some(&Outgoing::Ack { id, body }));
        }
    }
}
