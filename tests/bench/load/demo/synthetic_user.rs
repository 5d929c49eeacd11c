//! One visitor of the demo: comes as a guest, signs in perhaps, looks around, plays, reloads, loses the connection, leaves.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::time::{Instant, sleep, timeout_at};

use super::client::{Client, ClientError, Heard};
use super::counters::Counted;
use super::scenario::Scene;

/// Connections that a visitor has at most.
pub(super) const TABS_MAX: usize = 2;

/// Profiles that a visitor watches at most.
const WATCHED_MAX: usize = 8;

/// How long things take, in ms.
const ARRIVING: Range<u64> = 0..3_000;
const AS_A_GUEST: Range<u64> = 300..3_000;
const STAYING: Range<u64> = 8_000..60_000;
const BETWEEN_ACTS: Range<u64> = 500..4_000;
const OFFLINE_FOR_A_MOMENT: Range<u64> = 100..1_500;
const AWAY: Range<u64> = 2_000..15_000;

/// How likely a visitor signs in.
const SIGNS_IN: f64 = 0.85;

/// What visitors do, and how often in relation to each other.
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
    /// Watches somebody's profile, and for the newest forgets the oldest.
    Watch,
    /// Waits for an opponent, or no longer.
    Play,
    AskWhoIsOnline,
    OpenOrCloseTab,
    Reload,
    /// Loses the connection, as in a tunnel.
    Drop,
}

/// Lives until everybody is to leave, and then leaves.
pub(super) async fn live(scene: Arc<Scene>, place: usize) {
    let mut visitor = Visitor::new(&scene, place);
    tokio::select! {
        () = visitor.come_and_go() => {}
        () = scene.stopping() => {}
    }
    visitor.leave().await;
}

struct Visitor<'a> {
    scene: &'a Scene,
    place: usize,
    tabs: Vec<Tab>,
    /// Counts the visitor, as a guest or as a user.
    present: Option<Counted>,
    signed_in: bool,
    /// Counts the visitor as waiting for an opponent.
    waiting: Option<Counted>,
    watched: VecDeque<u64>,
}

/// One connection.
struct Tab {
    client: Client,
    _counted: Counted,
}

impl<'a> Visitor<'a> {
    fn new(scene: &'a Scene, place: usize) -> Self {
        Self {
            scene,
            place,
            tabs: Vec::new(),
            present: None,
            signed_in: false,
            waiting: None,
            watched: VecDeque::new(),
        }
    }

    /// Visits, again and again. A visit that fails is over: a node may be on its way out, or away.
    async fn come_and_go(&mut self) {
        sleep(some(ARRIVING)).await;
        loop {
            if self.visit().await.is_err() {
                self.scene.tally.failed.add();
            }
            self.leave().await;
            sleep(some(AWAY)).await;
        }
    }

    async fn visit(&mut self) -> Result<(), ClientError> {
        self.scene.tally.visits.add();
        self.open_tab(Some(self.place)).await?;
        self.present = Some(self.scene.tally.guests.enter());
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

    /// Takes the same page back with a token, as a front end does.
    async fn sign_in(&mut self) -> Result<(), ClientError> {
        self.close_tabs().await;
        self.signed_in = true;
        self.open_tab(Some(self.place)).await?;
        self.present = Some(self.scene.tally.users.enter());
        Ok(())
    }

    async fn act(&mut self) -> Result<(), ClientError> {
        match any_act() {
            Act::Watch => self.watch_somebody().await,
            Act::Play => self.play().await,
            Act::AskWhoIsOnline => self.emit("get-online-users", None).await,
            Act::OpenOrCloseTab => self.open_or_close_tab().await,
            Act::Reload => {
                self.scene.tally.reloads.add();
                self.close_tabs().await;
                self.come_back().await
            }
            Act::Drop => {
                self.scene.tally.drops.add();
                self.tabs.clear();
                sleep(some(OFFLINE_FOR_A_MOMENT)).await;
                self.come_back().await
            }
        }
    }

    async fn watch_somebody(&mut self) -> Result<(), ClientError> {
        let user = self.scene.user(self.scene.anybody());
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

    async fn play(&mut self) -> Result<(), ClientError> {
        if !self.signed_in {
            return Ok(());
        }
        match self.waiting.take() {
            Some(_) => self.emit("leave-matchmaking", None).await,
            None => {
                self.waiting = Some(self.scene.tally.waiting.enter());
                self.emit("join-matchmaking", None).await
            }
        }
    }

    async fn open_or_close_tab(&mut self) -> Result<(), ClientError> {
        match self.tabs.len() < TABS_MAX {
            true => self.open_tab(None).await,
            false => {
                if let Some(tab) = self.tabs.pop() {
                    tab.client.leave().await;
                }
                Ok(())
            }
        }
    }

    /// Comes back to any node, and watches what was watched.
    async fn come_back(&mut self) -> Result<(), ClientError> {
        self.open_tab(None).await?;
        for user in self.watched.clone() {
            self.emit("watch-profile", Some(&named(user))).await?;
        }
        Ok(())
    }

    async fn open_tab(&mut self, node: Option<usize>) -> Result<(), ClientError> {
        let token = match self.signed_in {
            true => Some(self.scene.token(self.scene.user(self.place))?),
            false => None,
        };
        let client = Client::connect(self.scene.node(node), token.as_deref()).await?;
        self.tabs.push(Tab {
            client,
            _counted: self.scene.tally.connections.enter(),
        });
        Ok(())
    }

    async fn close_tabs(&mut self) {
        for tab in self.tabs.drain(..) {
            tab.client.leave().await;
        }
    }

    async fn emit(&mut self, event: &str, payload: Option<&str>) -> Result<(), ClientError> {
        match self.tabs.first_mut() {
            Some(tab) => tab.client.emit(event, payload).await,
            None => Ok(()),
        }
    }

    /// Stays for so long and listens; shorter where the hub closes the last connection.
    async fn stay_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while !self.tabs.is_empty() {
            let hearing = self.tabs.iter_mut().map(|tab| Box::pin(tab.client.hear()));
            let Ok((heard, tab, _)) = timeout_at(end, select_all(hearing)).await else {
                return;
            };
            match heard {
                Ok(Some(heard)) => self.on(heard),
                Ok(None) | Err(_) => {
                    self.scene.tally.closed.add();
                    self.tabs.swap_remove(tab);
                }
            }
        }
    }

    fn on(&mut self, heard: Heard) {
        let tally = &self.scene.tally;
        match heard {
            Heard::Update => tally.received.add(),
            Heard::Refusal => tally.failed.add(),
            Heard::Timeout => self.waiting = None,
            // Every tab is told.
            Heard::Match if self.waiting.take().is_some() => tally.matched.add(),
            Heard::Match | Heard::Status | Heard::Other => {}
        }
    }

    /// Leaves, and nothing of the visit stays.
    async fn leave(&mut self) {
        if self.waiting.take().is_some() {
            // Where the connection is gone the place in the queue goes with the user.
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
