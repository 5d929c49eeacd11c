//! Everything at once, drawn from a seed: clients that come, go, move and watch; updates; every fault.
//!
//! `CHAOS_SECONDS` says for how long (20 by default), `CHAOS_SEED` from which seed (a new one by default). A
//! failure prints the seed and the last actions. The same seed draws the same actions; how they meet in time is
//! up to the machine.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::fragile;
use super::truth::{Told, Truth};
use crate::harness::{
    Builder, Client, Cluster, Connecting, NODE_KEY, Offline, Servers, eventually,
};

const NODES: usize = 3;

/// Into so many partitions users are spread on one Redis, and on a Redis Cluster of so many masters.
const PARTITIONS: u64 = 2;
const CLUSTER_PARTITIONS: u64 = 6;
const MASTERS: usize = 3;

/// Users whose clients come and go.
const USERS: std::ops::RangeInclusive<u64> = 1..=12;

/// Users with a tab on every node that nobody touches: whatever fails, they never leave.
const ANCHORS: [u64; 2] = [901, 902];

/// The first of the users whose accounts are deleted, one after the other.
const FIRST_MORTAL: u64 = 2_001;

/// Nodes that may fail at the same time: one is left.
const NODES_FAILING_MAX: usize = NODES - 1;

/// Enough for every user to have tabs on several nodes.
const CLIENTS_MAX: usize = 30;

/// The transports that a client opens a session with, and moves on to.
const TRANSPORTS: [&[&str]; 3] = [&["websocket"], &["polling"], &["polling", "websocket"]];

/// Pause between two actions, at most.
const PAUSE_MS_MAX: u64 = 50;

/// Pause between two faults, in ms.
const FAULT_PAUSE_MS: std::ops::Range<u64> = 200..2_500;

/// How long faults go on before everything has to agree.
const ROUND: Duration = Duration::from_secs(8);

/// How long everything may take to agree once all faults are over.
const QUIET: Duration = Duration::from_secs(15);

/// Longer than a lease, a grace and the doubt after an interruption, on Redis's clock: what agrees still does.
const AFTERMATH_MS: u64 = 3_000;

/// How many actions a failure prints.
const ACTIONS_SHOWN: usize = 100;

/// Goal: after any run of faults everything agrees: Redis, every node's replica, every client.
/// Method: rounds of faults, half of them without loss of data, which would also wipe out what went wrong. At the
/// end of each, all faults are healed, the subscriptions are killed once more among updates about half of the
/// users, and what Redis holds, what nodes show, what clients have added up and which revisions they hold is
/// compared with the clients that are connected. Users with a tab on every node are never said to be offline.
#[tokio::test]
async fn after_any_faults_everything_agrees() {
    let seed = from_env("CHAOS_SEED").unwrap_or_else(rand::random);
    let seconds = from_env("CHAOS_SECONDS").unwrap_or(20);
    eprintln!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    let builder = fragile().partitions(PARTITIONS);
    Chaos::start(seed, builder, false).await.run(seconds).await;
}

/// Goal: the same on a Redis Cluster whose slots move, whose replicas take over, and whose masters hang.
/// Method: the same, without loss of data; every master has a replica.
#[tokio::test]
async fn after_any_faults_of_a_cluster_everything_agrees() {
    let seed = from_env("CHAOS_SEED").unwrap_or_else(rand::random);
    let seconds = from_env("CHAOS_SECONDS").unwrap_or(20);
    eprintln!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    let servers = Servers::replicated_cluster(MASTERS, None).await;
    let builder = fragile().partitions(CLUSTER_PARTITIONS).on_servers(servers);
    Chaos::start(seed, builder, true).await.run(seconds).await;
}

fn from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text:?} is no number")),
    )
}

/// The action that undoes a fault.
#[derive(Clone, Copy, Debug)]
enum Heal {
    ResumeNode(usize),
    RestartNode(usize),
    ResumeRedis,
    RestartRedis,
    /// A server of a Redis Cluster.
    ResumeServer(usize),
}

impl Heal {
    fn is_of_a_node(self) -> bool {
        self.node().is_some()
    }

    fn node(self) -> Option<usize> {
        match self {
            Self::ResumeNode(node) | Self::RestartNode(node) => Some(node),
            Self::ResumeRedis | Self::RestartRedis | Self::ResumeServer(_) => None,
        }
    }
}

/// A client and what it is there for.
pub struct Actor {
    pub client: Client,
    pub user: Option<u64>,
    pub node: usize,
    pub followed: BTreeSet<u64>,
}

/// Connections of a user that a node was asked to close, for good.
struct Farewell {
    user: u64,
    route: &'static str,
    asked_at: Instant,
    /// Whether a node has answered that it is done; nobody knows until then.
    done: bool,
}

struct Chaos {
    cluster: Cluster,
    rng: StdRng,
    actors: Vec<Actor>,
    anchors: Vec<Actor>,
    heals: Vec<(Instant, Heal)>,
    next_fault: Instant,
    /// Whether Redis may lose its data in this round.
    wipes: bool,
    is_cluster: bool,
    telling: JoinSet<Option<Told>>,
    told: Vec<Told>,
    /// Whose account is the next to be deleted.
    mortal: u64,
    parting: JoinSet<Option<(u64, Instant)>>,
    /// Those of this round.
    farewells: Vec<Farewell>,
    /// The last field: what it says comes after the nodes' logs, at the end, where it is read.
    actions: Actions,
}

/// The actions so far; a failure shows the last ones.
struct Actions {
    seed: u64,
    begun: Instant,
    done: Vec<String>,
}

impl Chaos {
    async fn start(seed: u64, builder: Builder, is_cluster: bool) -> Self {
        let cluster = builder.nodes(NODES).without_lookouts().start().await;
        let mut chaos = Self {
            cluster,
            rng: StdRng::seed_from_u64(seed),
            actors: Vec::new(),
            anchors: Vec::new(),
            heals: Vec::new(),
            next_fault: Instant::now(),
            wipes: false,
            is_cluster,
            telling: JoinSet::new(),
            told: Vec::new(),
            mortal: FIRST_MORTAL,
            parting: JoinSet::new(),
            farewells: Vec::new(),
            actions: Actions {
                seed,
                begun: Instant::now(),
                done: Vec::new(),
            },
        };
        for user in ANCHORS {
            for node in 0..NODES {
                let anchor = chaos.actor(Some(user), node);
                anchor.client.follow(ANCHORS[0]);
                chaos.anchors.push(Actor {
                    followed: BTreeSet::from([ANCHORS[0]]),
                    ..anchor
                });
            }
        }
        chaos.wait_for_anchors().await;
        chaos
    }

    fn actor(&mut self, user: Option<u64>, node: usize) -> Actor {
        let connecting = user.map_or_else(Connecting::guest, Connecting::user);
        let transports = TRANSPORTS[self.rng.random_range(0..TRANSPORTS.len())];
        let connecting = connecting.transports(transports);
        Actor {
            client: self.cluster.open(node, connecting.steady()),
            user,
            node,
            followed: BTreeSet::new(),
        }
    }

    async fn wait_for_anchors(&self) {
        let all: Vec<usize> = (0..NODES).collect();
        eventually("the anchors are connected", async || {
            self.anchors_are_connected_to(&all).then_some(())
        })
        .await;
    }

    fn anchors_are_connected_to(&self, nodes: &[usize]) -> bool {
        let anchors = self.anchors.iter();
        let mut there = anchors.filter(|anchor| nodes.contains(&anchor.node));
        there.all(|anchor| !anchor.is_away())
    }

    fn note(&mut self, action: String) {
        let at = self.actions.begun.elapsed().as_millis();
        self.actions.done.push(format!("{at:>7} ms  {action}"));
    }

    async fn run(mut self, seconds: u64) {
        while self.actions.begun.elapsed() < Duration::from_secs(seconds) {
            self.round().await;
        }
    }

    async fn round(&mut self) {
        self.wipes = !self.is_cluster && self.rng.random_bool(0.5);
        self.note(format!("a round; data is lost: {}", self.wipes));
        let begun = Instant::now();
        while begun.elapsed() < ROUND {
            self.act().await;
            let pause = self.rng.random_range(0..=PAUSE_MS_MAX);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.heal_everything().await;
        self.strike().await;
        self.agrees_for_good().await;
        self.refuses_the_deleted().await;
        self.farewells.clear();
    }

    // ---- what clients and back ends do

    async fn act(&mut self) {
        self.heal_what_is_due().await;
        if Instant::now() >= self.next_fault {
            self.fail().await;
            let pause = self.rng.random_range(FAULT_PAUSE_MS);
            self.next_fault = Instant::now() + Duration::from_millis(pause);
        }
        while let Some(told) = self.telling.try_join_next() {
            self.told.extend(told.expect("telling does not panic"));
        }
        self.part_from_the_closed();
        match self.rng.random_range(0..100) {
            0..1 => self.part("account-deleted"),
            1..2 => self.part("disconnect"),
            2..14 => self.come(),
            14..20 => self.reload(),
            20..26 => self.go_elsewhere(),
            26..30 => self.break_off(),
            30..38 => self.leave(),
            38..54 => self.follow(),
            54..60 => self.unfollow(),
            _ => self.tell(),
        }
    }

    fn any_user(&mut self) -> u64 {
        self.rng.random_range(USERS)
    }

    fn any_node(&mut self) -> usize {
        self.rng.random_range(0..NODES)
    }

    fn any_actor(&mut self) -> Option<usize> {
        let count = self.actors.len();
        (count > 0).then(|| self.rng.random_range(0..count))
    }

    fn come(&mut self) {
        if self.actors.len() >= CLIENTS_MAX {
            return self.leave();
        }
        let user = match self.rng.random_range(0..10) {
            0..2 => None,
            2..4 => Some(self.mortal),
            _ => Some(self.any_user()),
        };
        let node = self.any_node();
        self.note(format!("{user:?} comes to node {node}"));
        let actor = self.actor(user, node);
        self.actors.push(actor);
    }

    fn reload(&mut self) {
        if let Some(at) = self.any_actor() {
            self.note(format!("{} reloads", self.actors[at]));
            self.actors[at].client.reconnect(1);
        }
    }

    fn go_elsewhere(&mut self) {
        if let Some(at) = self.any_actor() {
            let node = self.any_node();
            self.note(format!("{} goes to node {node}", self.actors[at]));
            let user = self.actors[at].user;
            let mut actor = self.actor(user, node);
            actor.followed = self.actors[at].followed.clone();
            for user in &actor.followed {
                actor.client.follow(*user);
            }
            self.actors[at] = actor;
        }
    }

    fn break_off(&mut self) {
        if let Some(at) = self.any_actor() {
            self.note(format!("{} loses its transport", self.actors[at]));
            self.actors[at].client.abort();
        }
    }

    fn leave(&mut self) {
        if let Some(at) = self.any_actor() {
            self.note(format!("{} leaves", self.actors[at]));
            self.actors.swap_remove(at);
        }
    }

    fn follow(&mut self) {
        let user = self.any_user();
        if let Some(at) = self.any_actor()
            && self.actors[at].followed.insert(user)
        {
            self.note(format!("{} watches {user}", self.actors[at]));
            self.actors[at].client.follow(user);
        }
    }

    fn unfollow(&mut self) {
        if let Some(at) = self.any_actor()
            && let Some(user) = self.actors[at].followed.pop_first()
        {
            self.note(format!("{} watches {user} no more", self.actors[at]));
            self.actors[at].client.unfollow(user);
        }
    }

    fn tell(&mut self) {
        let user = match self.rng.random_bool(0.1) {
            true => ANCHORS[0],
            false => self.any_user(),
        };
        let (node, is_profile) = (self.any_node(), self.rng.random_bool(0.7));
        if self.cluster.running().contains(&node) {
            self.tell_of(user, node, if is_profile { "profile" } else { "stats" });
        }
    }

    fn tell_of(&mut self, user: u64, node: usize, kind: &'static str) {
        let (route, body) = match kind {
            "profile" => {
                let profile =
                    crate::harness::profile(user, &format!("v{}", self.actions.done.len()));
                ("profile-update", json!({ "user": profile }))
            }
            _ => {
                let stats = json!({ "wins": self.actions.done.len() });
                ("game-stats-update", json!({ "stats": stats }))
            }
        };
        self.note(format!("node {node} is told of {user}'s {kind}"));
        let path = format!("/api/v1/users/{user}/{route}");
        let request = self.cluster.request(node, reqwest::Method::POST, &path);
        let request = request
            .bearer_auth(NODE_KEY)
            .json(&body)
            .timeout(crate::harness::DEADLINE);
        let asked_at = Instant::now();
        self.telling.spawn(async move {
            // A node that is killed or stands still does not answer; nobody knows then.
            let answer = request.send().await.ok()?;
            let taken = answer.status() == 200;
            let answer: Value = answer.json().await.ok()?;
            let revision = answer["revision"].as_u64().filter(|_| taken)?;
            Some(Told {
                user,
                kind,
                revision,
                asked_at,
            })
        });
    }

    /// Has the connections of a user closed for good, by deleting the account or without.
    fn part(&mut self, route: &'static str) {
        let node = self.any_node();
        if !self.cluster.running().contains(&node) {
            return;
        }
        let user = match route {
            "disconnect" => self.any_user(),
            _ => {
                self.mortal += 1;
                self.mortal - 1
            }
        };
        self.note(format!("node {node} is told {route} of {user}"));
        let path = format!("/api/v1/users/{user}/{route}");
        let request = self.cluster.request(node, reqwest::Method::POST, &path);
        let request = request.bearer_auth(NODE_KEY).json(&json!({}));
        let request = request.timeout(crate::harness::DEADLINE);
        let asked_at = Instant::now();
        let done = false;
        self.farewells.push(Farewell {
            user,
            route,
            asked_at,
            done,
        });
        self.parting.spawn(async move {
            let answer = request.send().await.ok()?;
            (answer.status() == 200).then_some((user, asked_at))
        });
    }

    /// Forgets the clients that the hub has closed for good, as it was asked to: in this round, or, where an account
    /// was deleted, ever. A deletion that was forgotten with the data may come back with a node that knew of it.
    fn part_from_the_closed(&mut self) {
        let mut asked: BTreeSet<u64> = self
            .farewells
            .iter()
            .map(|farewell| farewell.user)
            .collect();
        asked.extend(FIRST_MORTAL..self.mortal);
        self.actors.retain(|actor| {
            let asked = actor.user.is_some_and(|user| asked.contains(&user));
            !(asked && actor.client.is_closed_for_good())
        });
    }

    /// The connections that should have been closed and were not.
    fn undead(&self) -> Vec<String> {
        let mut undead = Vec::new();
        // A wiped Redis may have lost requests to close connections.
        let done = |farewell: &&Farewell| farewell.done && !self.wipes;
        for farewell in self.farewells.iter().filter(done) {
            for actor in &self.actors {
                let since = actor.client.connected_since();
                let was_there = since.is_some_and(|since| since < farewell.asked_at);
                let is_deleted = farewell.route == "account-deleted" && since.is_some();
                if actor.user == Some(farewell.user) && (was_there || is_deleted) {
                    undead.push(format!("{actor} is still there after {}", farewell.route));
                }
            }
        }
        undead
    }

    /// Whose account was deleted, and not forgotten with the data, is refused.
    async fn refuses_the_deleted(&self) {
        let is_deleted =
            |farewell: &&Farewell| farewell.done && farewell.route == "account-deleted";
        for farewell in self
            .farewells
            .iter()
            .filter(is_deleted)
            .filter(|_| !self.wipes)
        {
            let connecting = Connecting::user(farewell.user);
            assert_eq!(self.cluster.refusal(0, connecting).await, "account_deleted");
        }
    }

    // ---- faults

    async fn fail(&mut self) {
        let redis_is_up = !self.heals.iter().any(|(_, heal)| !heal.is_of_a_node());
        let up = self.nodes_that_are_up();
        match self.rng.random_range(0..10) {
            // Anchors have a tab left on another node.
            0..4 if up.len() > NODES - NODES_FAILING_MAX && self.anchors_are_connected_to(&up) => {
                let at = self.rng.random_range(0..up.len());
                self.fail_node(up[at]);
            }
            4..10 if redis_is_up && self.is_cluster => self.fail_cluster().await,
            4..10 if redis_is_up => self.fail_redis().await,
            _ => {}
        }
    }

    fn nodes_that_are_up(&self) -> Vec<usize> {
        let failing = |node| self.heals.iter().any(|(_, heal)| heal.node() == Some(node));
        (0..NODES).filter(|node| !failing(*node)).collect()
    }

    fn fail_node(&mut self, node: usize) {
        let within = match self.rng.random_range(0..3) {
            0 => {
                self.note(format!("node {node} is killed"));
                self.cluster.kill(node);
                return self.heal_after(0..3_000, Heal::RestartNode(node));
            }
            1 => 50..900,
            _ => 1_800..4_000,
        };
        self.note(format!("node {node} stands still"));
        self.cluster.pause(node);
        self.heal_after(within, Heal::ResumeNode(node));
    }

    async fn fail_redis(&mut self) {
        let command: &[&str] = match self.rng.random_range(0..12) {
            0..2 if self.wipes => {
                self.note("Redis is killed".to_owned());
                self.cluster.redis().kill();
                return self.heal_after(0..2_000, Heal::RestartRedis);
            }
            2..4 if self.wipes => &["FLUSHALL"],
            4..6 => {
                self.note("Redis stands still".to_owned());
                self.cluster.redis().pause();
                return self.heal_after(100..4_000, Heal::ResumeRedis);
            }
            6..8 => &["CLIENT", "KILL", "TYPE", "normal"],
            _ => &["CLIENT", "KILL", "TYPE", "pubsub"],
        };
        self.note(command.join(" "));
        self.cluster.cli(command).await;
    }

    async fn fail_cluster(&mut self) {
        let draw = self.rng.random_range(0..12);
        let place = self.rng.random_range(0..2 * MASTERS);
        let partition = self.rng.random_range(0..CLUSTER_PARTITIONS);
        let servers = self.cluster.servers();
        let is_master = servers.all()[place].role().await == "master";
        match draw {
            0..4 if is_master => {
                let slot = servers.slot(&self.cluster.tag(partition)).await;
                self.note(format!("slot {slot} moves to server {place}"));
                let servers = self.cluster.servers();
                servers.move_slot(slot, place, async {}).await;
            }
            4..7 if !is_master => {
                self.note(format!("server {place} takes over"));
                self.cluster.servers().fail_over_to(place).await;
            }
            7..9 => {
                self.note(format!("server {place} stands still"));
                let servers = self.cluster.servers();
                // Somebody has to be there to be asked.
                servers.ask((place + 1) % (2 * MASTERS));
                servers.all()[place].pause();
                self.heal_after(100..5_000, Heal::ResumeServer(place));
            }
            draw => {
                let kind = if draw < 10 { "normal" } else { "pubsub" };
                self.note(format!("connections to server {place} are killed: {kind}"));
                let kill = ["CLIENT", "KILL", "TYPE", kind];
                self.cluster.servers().all()[place].cli(&kill).await;
            }
        }
    }

    fn heal_after(&mut self, within_ms: std::ops::Range<u64>, heal: Heal) {
        let pause = self.rng.random_range(within_ms);
        self.heals
            .push((Instant::now() + Duration::from_millis(pause), heal));
    }

    async fn heal_what_is_due(&mut self) {
        let now = Instant::now();
        let redis_is_up = !self.heals.iter().any(|(_, heal)| !heal.is_of_a_node());
        // A node cannot start without Redis, and need not.
        let can = |heal: Heal| redis_is_up || !matches!(heal, Heal::RestartNode(_));
        let due = |(at, heal): &(Instant, Heal)| *at <= now && can(*heal);
        let (due, later) = std::mem::take(&mut self.heals).into_iter().partition(due);
        self.heals = later;
        let due: Vec<(Instant, Heal)> = due;
        for (_, heal) in due {
            self.heal(heal).await;
        }
    }

    async fn heal(&mut self, heal: Heal) {
        self.note(format!("{heal:?}"));
        match heal {
            Heal::ResumeNode(node) => self.cluster.resume(node),
            Heal::RestartNode(node) => self.cluster.start_again(node).await,
            Heal::ResumeRedis => self.cluster.redis().resume(),
            Heal::RestartRedis => self.cluster.redis().start_again().await,
            Heal::ResumeServer(place) => {
                let servers = self.cluster.servers();
                servers.all()[place].resume();
                servers.wait_until_everything_is_replicated().await;
            }
        }
    }

    // ---- what has to be true afterwards

    async fn heal_everything(&mut self) {
        let mut heals = std::mem::take(&mut self.heals);
        heals.sort_by_key(|(_, heal)| heal.is_of_a_node());
        for (_, heal) in heals {
            self.heal(heal).await;
        }
        self.hear_answers().await;
        self.note("all is healed".to_owned());
        let begun = Instant::now();
        loop {
            self.part_from_the_closed();
            let Some(away) = self.everybody().find(|actor| actor.is_away()) else {
                return;
            };
            if begun.elapsed() >= 2 * QUIET {
                let records = away.client.last_records(20);
                self.fail_with(&format!("{away} is not connected again: {records:#?}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn hear_answers(&mut self) {
        while let Some(told) = self.telling.join_next().await {
            self.told.extend(told.expect("telling does not panic"));
        }
        while let Some(done) = self.parting.join_next().await {
            if let Some(done) = done.expect("parting does not panic") {
                let mut farewells = self.farewells.iter_mut();
                let farewell = farewells.find(|known| (known.user, known.asked_at) == done);
                farewell.expect("is of this round").done = true;
            }
        }
    }

    fn everybody(&self) -> impl Iterator<Item = &Actor> {
        self.anchors.iter().chain(&self.actors)
    }

    /// Waits for agreement, and that it lasts until every node has renewed its lease for long enough.
    async fn agrees_for_good(&mut self) {
        let begun = Instant::now();
        loop {
            self.part_from_the_closed();
            let differences = self.differences().await;
            if differences.is_empty() {
                break;
            }
            if begun.elapsed() >= QUIET {
                let shown = differences.join("\n");
                self.fail_with(&format!("after {QUIET:?} of quiet:\n{shown}"));
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let until = self
            .leases_end()
            .await
            .last()
            .map_or(0, |last| last + AFTERMATH_MS);
        let differences = eventually("every lease is renewed for long enough", async || {
            let differences = self.differences().await;
            let ends = self.leases_end().await;
            let is_over = ends.first().is_some_and(|first| *first > until);
            (is_over || !differences.is_empty()).then_some(differences)
        })
        .await;
        if !differences.is_empty() {
            self.fail_with(&format!("it did not last:\n{}", differences.join("\n")));
        }
    }

    /// Fails, and says why at the end of everything that a failure prints, too.
    fn fail_with(&mut self, why: &str) -> ! {
        self.note(why.to_owned());
        panic!("{why}");
    }

    /// When the leases end, in ms on Redis's clock, ascending.
    async fn leases_end(&self) -> Vec<u64> {
        let command = ["ZRANGE", "vigie:nodes", "0", "-1", "WITHSCORES"];
        let answer = self.cluster.cli(&command).await;
        let scores = answer.lines().skip(1).step_by(2);
        scores
            .map(|end| end.parse().expect("a time in ms"))
            .collect()
    }

    async fn differences(&self) -> Vec<String> {
        let actors: Vec<&Actor> = self.everybody().collect();
        let truth = Truth::of(&actors, &self.told);
        let mut differences = truth.differences(&self.cluster).await;
        differences.extend(self.undead());
        for actor in &actors {
            for user in ANCHORS {
                if actor.client.times_said(user, Offline) > 0 {
                    differences.push(format!("{actor} was told that {user} went offline"));
                }
            }
        }
        differences
    }

    /// The last word about half of the users, while subscriptions are away: who misses it keeps something old.
    async fn strike(&mut self) {
        self.note("subscriptions are killed among updates".to_owned());
        for user in USERS.chain(ANCHORS) {
            if self.rng.random_bool(0.5) {
                continue;
            }
            if self.rng.random_bool(0.5) {
                for server in self.cluster.servers().all() {
                    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
                }
            }
            let node = self.any_node();
            self.tell_of(user, node, "profile");
        }
        self.hear_answers().await;
    }
}

impl Actor {
    fn is_away(&self) -> bool {
        self.client.connected_since().is_none()
    }
}

impl std::fmt::Display for Actor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = self.client.number();
        match self.user {
            Some(user) => write!(formatter, "client {number} of {user} on node {}", self.node),
            None => write!(formatter, "guest {number} on node {}", self.node),
        }
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let from = self.done.len().saturating_sub(ACTIONS_SHOWN);
            eprintln!("---- the last actions\n{}", self.done[from..].join("\n"));
            eprintln!("---- again: CHAOS_SEED={}", self.seed);
        }
    }
}
