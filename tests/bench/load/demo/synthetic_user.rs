//! One user of the demo: arrives as a guest, may sign in, watches, plays, reloads, loses the connection, leaves.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::time::{Instant, sleep, timeout_at};

use super::client::{DemoClient, DemoClientError, ServerEvent};
use super::counters::GaugeGuard;
use super::scenario::DemoContext;

/// Connections that a user has at most.
pub(super) const TABS_MAX: usize = 2;

/// Profiles that a user watches at most.
const WATCHED_MAX: usize = 8;

/// How long things take, in ms.
const ARRIVING: Range<u64> = 0..3_000;
const AS_A_GUEST: Range<u64> = 300..3_000;
const STAYING: Range<u64> = 8_000..60_000;
const BETWEEN_ACTS: Range<u64> = 500..4_000;
const OFFLINE_FOR_A_MOMENT: Range<u64> = 100..1_500;
const AWAY: Range<u64> = 2_000..15_000;

/// How likely a user signs in.
const SIGNS_IN: f64 = 0.85;

/// Actions and their relative frequency.
const ACTS: [(Act, u32); 6] = [
    (Act::Watch, 40),
    (Act::Play, 20),
    (Act::AskWhoIsOnline, 10),
    (Act::OpenOrCloseTab, 12),
    (Act::Reload, 12),
    (Act::Drop, 6),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Watches another profile, and drops the oldest watch beyond the limit.
    Watch,
    /// Joins or leaves matchmaking.
    Play,
    AskWhoIsOnline,
    OpenOrCloseTab,
    Reload,
    /// Loses the connection, as in a tunnel.
    Drop,
}

/// Runs until the demo stops, then leaves.
pub(super) async fn live(context: Arc<DemoContext>, place: usize) {
    let mut user = SyntheticUser::new(&context, place);
    tokio::select! {
        () = user.come_and_go() => {}
        () = context.stopping() => {}
    }
    user.leave().await;
}

struct SyntheticUser<'a> {
    context: &'a DemoContext,
    place: usize,
    tabs: Vec<Tab>,
    /// Guard of `guests` or `users`.
    present: Option<GaugeGuard>,
    signed_in: bool,
    /// Guard of `waiting`.
    waiting: Option<GaugeGuard>,
    watched: VecDeque<u64>,
}

/// One connection.
struct Tab {
    client: DemoClient,
    _counted: GaugeGuard,
}

impl<'a> SyntheticUser<'a> {
    fn new(context: &'a DemoContext, place: usize) -> Self {
        Self {
            context,
            place,
            tabs: Vec::new(),
            present: None,
            signed_in: false,
            waiting: None,
            watched: VecDeque::new(),
        }
    }

    /// Visits repeatedly. A failed visit ends: the node may be draining or away.
    async fn come_and_go(&mut self) {
        sleep(some(ARRIVING)).await;
        loop {
            if self.visit().await.is_err() {
                self.context.counters.failed.add();
            }
            self.leave().await;
            sleep(some(AWAY)).await;
        }
    }

    async fn visit(&mut self) -> Result<(), DemoClientError> {
        self.context.counters.visits.add();
        self.open_tab(Some(self.place)).await?;
        self.present = Some(self.context.counters.guests.enter());
        self.stay_for(some(AS_A_GUEST)).await;
        if rand::random_bool(SIGNS_IN) {
            self.sign_in().await?;
        }
        let end = Instant::now() + some(STAYING);
        while Instant::now() < end {
            self.stay_for(some(BETWEEN_ACTS)).await;
            if self.tabs.is_empty() {
                // Closed by the hub: a front end comes back by itself.
                self.come_back().await?;
            }
            self.act().await?;
        }
        Ok(())
    }

    /// Reconnects with a token, as a front end does.
    async fn sign_in(&mut self) -> Result<(), DemoClientError> {
        self.close_tabs().await;
        self.signed_in = true;
        self.open_tab(Some(self.place)).await?;
        self.present = Some(self.context.counters.users.enter());
        Ok(())
    }

    async fn act(&mut self) -> Result<(), DemoClientError> {
        match any_act() {
            Act::Watch => self.watch_somebody().await,
            Act::Play => self.play().await,
            Act::AskWhoIsOnline => self.emit("get-online-users", None).await,
            Act::OpenOrCloseTab => self.open_or_close_tab().await,
            Act::Reload => {
                self.context.counters.reloads.add();
                self.close_tabs().await;
                self.come_back().await
            }
            Act::Drop => {
                self.context.counters.drops.add();
                self.tabs.clear();
                sleep(some(OFFLINE_FOR_A_MOMENT)).await;
                self.come_back().await
            }
        }
    }

    async fn watch_somebody(&mut self) -> Result<(), DemoClientError> {
        let user = self.context.user(self.context.anybody());
        if self.watched.contains(&user) {
            return Ok(());
        }
        if self.watched.len() == WATCHED_MAX
            && let Some(oldest) = self.watched.pop_front()
        {
            self.emit("unwatch-profile", Some(&named(oldest))).await?;
        }
        self.watched.push_back(user);
        self.emit("watch-profile", Some(&named(user))).await
    }

    async fn play(&mut self) -> Result<(), DemoClientError> {
        if !self.signed_in {
            return Ok(());
        }
        match self.waiting.take() {
            Some(_) => self.emit("leave-matchmaking", None).await,
            None => {
                self.waiting = Some(self.context.counters.waiting.enter());
                self.emit("join-matchmaking", None).await
            }
        }
    }

    async fn open_or_close_tab(&mut self) -> Result<(), DemoClientError> {
        if self.tabs.len() < TABS_MAX {
            return self.open_tab(None).await;
        }
        if let Some(tab) = self.tabs.pop() {
            tab.client.leave().await;
        }
        Ok(())
    }

    /// Reconnects to a random node and restores the watches.
    async fn come_back(&mut self) -> Result<(), DemoClientError> {
        self.open_tab(None).await?;
        for user in self.watched.clone() {
            self.emit("watch-profile", Some(&named(user))).await?;
        }
        Ok(())
    }

    async fn open_tab(&mut self, node: Option<usize>) -> Result<(), DemoClientError> {
        let token = if self.signed_in {
            Some(self.context.token(self.context.user(self.place))?)
        } else {
            None
        };
        let client = DemoClient::connect(self.context.node(node), token.as_deref()).await?;
        self.tabs.push(Tab {
            client,
            _counted: self.context.counters.connections.enter(),
        });
        Ok(())
    }

    async fn close_tabs(&mut self) {
        for tab in self.tabs.drain(..) {
            tab.client.leave().await;
        }
    }

    async fn emit(&mut self, event: &str, payload: Option<&str>) -> Result<(), DemoClientError> {
        match self.tabs.first_mut() {
            Some(tab) => tab.client.emit(event, payload).await,
            None => Ok(()),
        }
    }

    /// Reads events for `time`, or until the hub closes the last connection.
    async fn stay_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while !self.tabs.is_empty() {
            let hearing = self
                .tabs
                .iter_mut()
                .map(|tab| Box::pin(tab.client.next_event()));
            let Ok((event, tab, _)) = timeout_at(end, select_all(hearing)).await else {
                return;
            };
            match event {
                Ok(Some(event)) => self.on(event),
                Ok(None) | Err(_) => {
                    self.context.counters.closed.add();
                    self.tabs.swap_remove(tab);
                }
            }
        }
    }

    fn on(&mut self, event: ServerEvent) {
        let counters = &self.context.counters;
        match event {
            ServerEvent::Update => counters.received.add(),
            ServerEvent::Refusal => counters.failed.add(),
            ServerEvent::Timeout => self.waiting = None,
            // Every tab receives it.
            ServerEvent::Match if self.waiting.take().is_some() => counters.matched.add(),
            ServerEvent::Match | ServerEvent::Status | ServerEvent::Other => {}
        }
    }

    /// Leaves and resets the visit.
    async fn leave(&mut self) {
        if self.waiting.take().is_some() {
            // Without a connection, the ticket ends with the user.
            let _ = self.emit("leave-matchmaking", None).await;
        }
        self.close_tabs().await;
        self.present = None;
        self.signed_in = false;
        self.watched.clear();
    }
}

fn named(user: u64) -> String {
    format!(r#"{{"userId":{user}}}"#)
}

fn some(ms: Range<u64>) -> Duration {
    Duration::from_millis(rand::random_range(ms))
}

fn any_act() -> Act {
    let all = ACTS.iter().map(|(_, often)| often).sum();
    let mut drawn = rand::random_range(0..all);
    for (act, often) in ACTS {
        match drawn.checked_sub(often) {
            Some(rest) => drawn = rest,
            None => return act,
        }
    }
    Act::Watch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_done_sometimes() {
        let drawn: Vec<Act> = (0..10_000).map(|_| any_act()).collect();
        for (act, _) in ACTS {
            assert!(drawn.contains(&act), "{act:?}");
        }
    }
}
