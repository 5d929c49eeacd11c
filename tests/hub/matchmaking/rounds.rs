//! Many rounds at random, after each of which everything has to add up.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::{join, leave, matches_of};
use crate::harness::{Client, Cluster, TRANSPORTS, eventually};

const ROUNDS: usize = 1_000;
/// The number where `transports.rs` runs the test again, within the time limit of all its tests.
const ROUNDS_AGAIN: usize = 300;
const USERS: u64 = 12;

/// The action of a user in a round.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    /// Joins, and wants to play.
    Join,
    /// Joins from both tabs at once.
    JoinTwice,
    /// Joins, and leaves before the answer is there.
    JoinAndLeave,
    /// Joins; the tab that did is closed at once and opened again, and joins once more.
    JoinAndReload,
    /// Joins, and closes both tabs before the answer is there.
    JoinAndGo,
    /// Does nothing; may still wait from before.
    Nothing,
}

impl Act {
    /// How often it may make the user wait, where a match is found in between.
    fn joins(self) -> usize {
        match self {
            Self::Join | Self::JoinAndLeave | Self::JoinAndGo => 1,
            Self::JoinTwice | Self::JoinAndReload => 2,
            Self::Nothing => 0,
        }
    }
}

/// One user with two tabs on different nodes.
struct Player {
    tabs: [Client; 2],
    /// How many matches each tab had been told of when the round began.
    told_before: [usize; 2],
    /// Waits since an earlier round.
    waits: bool,
}

impl Player {
    fn new_matches(&self, tab: usize) -> Vec<(String, u64)> {
        matches_of(&self.tabs[tab]).split_off(self.told_before[tab])
    }

    async fn act(&self, act: Act) {
        let [first, second] = &self.tabs;
        match act {
            Act::Join => drop(join(first).await),
            Act::JoinTwice => drop(tokio::join!(join(first), join(second))),
            Act::JoinAndLeave => {
                first.send_for_ack("join-matchmaking", vec![]);
                leave(first).await;
            }
            Act::JoinAndReload => {
                first.send_for_ack("join-matchmaking", vec![]);
                first.reconnect(1);
                join(first).await;
            }
            Act::JoinAndGo => {
                first.send_for_ack("join-matchmaking", vec![]);
                first.disconnect();
                second.disconnect();
            }
            Act::Nothing => {}
        }
    }
}

/// Goal: nobody is lost and nobody is doubled, whatever happens while pairs are made.
/// Method: in each of many rounds some join, from one tab or two, leave, reload or go away at once. When the queue is
/// quiet: at most one of those who want to play waits; everybody else was told of one match on both tabs, the same as
/// the opponent named in it, who is no third one's. Who joins twice may be told of two, if the first is found in between.
#[tokio::test]
async fn nobody_is_lost_and_nobody_is_doubled() {
    let seed = std::env::var("ROUNDS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("ROUNDS_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let builder = Cluster::builder().nodes(3).grace("200ms");
    let cluster = builder.without_lookouts().start().await;
    let mut players = BTreeMap::new();
    for user in 1..=USERS {
        let place = user as usize;
        let tabs = [
            cluster.connect(place % 3, user).await,
            cluster.connect((place + 1) % 3, user).await,
        ];
        players.insert(
            user,
            Player {
                tabs,
                told_before: [0, 0],
                waits: false,
            },
        );
    }
    let rounds = std::env::var(TRANSPORTS).map_or(ROUNDS, |_| ROUNDS_AGAIN);
    for round in 0..rounds {
        let acts = draw(&mut rng, &players);
        for player in players.values_mut() {
            player.told_before = [0, 1].map(|tab| matches_of(&player.tabs[tab]).len());
        }
        let acting = acts.iter().map(|(user, act)| players[user].act(*act));
        join_all(acting).await;
        let what = format!("round {round} of seed {seed}, {acts:?}");
        let waiting = settle(&cluster, &players, &acts, &what).await;
        for (user, player) in &mut players {
            player.waits = waiting == Some(*user);
            if acts.get(user) == Some(&Act::JoinAndGo) {
                player.tabs.iter().for_each(Client::connect);
                // An answer, because a registered connection is not enough: a client that has not learned yet that it
                // is connected keeps the next join through a `disconnect`, and sends it when it connects again.
                join_all(player.tabs.iter().map(Client::online)).await;
            }
        }
    }
}

fn draw(rng: &mut StdRng, players: &BTreeMap<u64, Player>) -> BTreeMap<u64, Act> {
    let mut users: Vec<u64> = players.keys().copied().collect();
    users.shuffle(rng);
    users.truncate(rng.random_range(1..=8));
    let act = |user: u64| {
        let act = match rng.random_range(0..100) {
            0..55 => Act::Join,
            55..75 => Act::JoinTwice,
            75..80 => Act::JoinAndReload,
            80..90 => Act::JoinAndLeave,
            90..92 => Act::JoinAndGo,
            _ => Act::Nothing,
        };
        (user, act)
    };
    users.into_iter().map(act).collect()
}

/// Waits until all is quiet, and fails unless it adds up. Returns who still waits.
async fn settle(
    cluster: &Cluster,
    players: &BTreeMap<u64, Player>,
    acts: &BTreeMap<u64, Act>,
    what: &str,
) -> Option<u64> {
    let act_of = |user: u64| acts.get(&user).copied().unwrap_or(Act::Nothing);
    let is_gone = |user: &u64| act_of(*user) == Act::JoinAndGo;
    let gone: Vec<u64> = players.keys().copied().filter(is_gone).collect();
    for user in &gone {
        eventually(&format!("{user} is offline: {what}"), async || {
            let presence = cluster.get(0, &format!("/api/v1/presence/{user}")).await;
            (presence.json["status"] == "offline").then_some(())
        })
        .await;
    }
    let waiting = eventually(&format!("the queue is quiet: {what}"), async || {
        let queued = cluster
            .cli(&["ZRANGE", "vigie:{mm}:queue", "0", "-1"])
            .await;
        let queued: Vec<u64> = queued
            .lines()
            .filter_map(|user| user.parse().ok())
            .collect();
        let queue = super::queue(cluster, 0).await;
        let quiet = queue["pendingMatches"] == 0 && queue["queueLength"] == queued.len();
        let settled = quiet && queued.len() <= 1 && !queued.iter().any(is_gone);
        settled.then(|| queued.first().copied())
    })
    .await;
    // Every announcement precedes this answer.
    let here = players.iter().filter(|(user, _)| !is_gone(user));
    let tabs = here.flat_map(|(_, player)| &player.tabs);
    join_all(tabs.map(Client::online)).await;

    let mut players_of: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for (user, player) in players {
        let act = act_of(*user);
        if is_gone(user) {
            continue;
        }
        let told = [player.new_matches(0), player.new_matches(1)];
        // The tab that is closed at once may be told of a match that nobody sees there.
        let told_on = &told[1];
        if act != Act::JoinAndReload {
            assert_eq!(
                told[0], told[1],
                "both tabs of {user} are told the same: {what}"
            );
        }
        assert!(
            // Whose opponent is gone is sent back, and may be told of another one.
            told_on.len() <= act.joins() + usize::from(player.waits) + gone.len(),
            "{user} joined less often than {told_on:?}: {what}"
        );
        for (id, opponent) in told_on {
            assert_ne!(opponent, user, "{what}");
            players_of
                .entry(id.clone())
                .or_default()
                .extend([*user, *opponent]);
        }
        let wants = match act {
            Act::Join | Act::JoinTwice | Act::JoinAndReload => true,
            Act::Nothing => player.waits,
            Act::JoinAndLeave | Act::JoinAndGo => false,
        };
        let is_served = waiting == Some(*user) || !told_on.is_empty();
        assert!(is_served || !wants, "{user} is lost: {what}");
        let may_wait = wants || act == Act::JoinAndLeave;
        assert!(
            may_wait || told_on.is_empty(),
            "{user} did not ask for {told_on:?}: {what}"
        );
        assert!(
            waiting != Some(*user) || wants,
            "{user} left and waits: {what}"
        );
    }
    for (id, pair) in &players_of {
        assert_eq!(pair.len(), 2, "{id} has {pair:?}: {what}");
        for user in pair.iter().filter(|user| !is_gone(user)) {
            let told = players[user].new_matches(1);
            let told = told.iter().filter(|(known, _)| known == id).count();
            assert_eq!(told, 1, "{user} is told of {id} once: {what}");
        }
    }
    waiting
}
