//! Users come and go at a steady rate: what a departure costs Redis and the nodes.

use std::time::Duration;

use super::cluster::Cluster;
use super::crowd::{Crowd, Flow};
use super::plan::Audience;
use super::spent::Spent;
use super::{Bench, BenchError};
use crate::clients::Count;
use crate::remote::Remote;
use crate::report::{Report, Unit, per};

/// Users online at once. With audience everyone each of them gets every event, so the load grows with the product.
const ONLINE: f64 = 200.0;

/// In seconds.
const STAY: (f64, f64) = (0.5, 3.0);

/// Longer than users stay online after their last connection; then as many go offline as come.
const WARM: Duration = Duration::from_secs(2);

/// Adds the figures of `rate` comings and goings a second.
pub(super) async fn measure(
    bench: &Bench,
    cluster: &Cluster,
    rate: u32,
    idle: &Spent,
    report: &mut Report,
) -> Result<(), BenchError> {
    let shape = cluster.shape;
    // With audience watchers the last node has nobody interested.
    let elsewhere = shape.audience == Audience::Watchers && shape.nodes > 1;
    let nodes = shape.nodes - usize::from(elsewhere);
    let target = &cluster.setup.target;
    let messages = async || match elsewhere {
        true => messages_about_users(target, nodes).await,
        false => None,
    };
    let stay = Duration::from_secs_f64((ONLINE / f64::from(rate)).clamp(STAY.0, STAY.1));
    let at_once = (f64::from(rate) * stay.as_secs_f64()) as usize;
    let mut crowd = Crowd::gather(&cluster.setup, nodes, 2 * at_once)?;
    let flow = Flow::begin(rate, stay);
    flow.run_for(&mut crowd, stay + WARM).await?;

    let counters = crowd.counters.clone();
    let counts =
        || [Count::Connected, Count::Closed, Count::Statuses].map(|what| counters.count(what));
    // Reading metrics takes time of the nodes, so it is outside of the measurement.
    let messages_before = messages().await;
    let (before, counted) = (cluster.sample().await?, counts());
    flow.run_for(&mut crowd, bench.amounts.time).await?;
    let (spent, now) = (cluster.since(&before).await?, counts());
    let messages = messages().await.zip(messages_before);
    crowd.disperse().await?;

    let counted: Vec<u64> = now
        .iter()
        .zip(counted)
        .map(|(now, before)| now - before)
        .collect();
    let churned = Churned {
        rate,
        came: counted[0],
        went: counted[1],
        events: counted[2],
        messages: messages.map(|(now, before)| now.saturating_sub(before)),
        spent,
    };
    churned.describe(idle, report)
}

/// Messages about users that a node has received, on channels of presence and on topics.
async fn messages_about_users(target: &Remote, node: usize) -> Option<u64> {
    Some(target.presence_messages(node).await? + target.topic_messages(node).await?)
}

struct Churned {
    rate: u32,
    came: u64,
    went: u64,
    events: u64,
    /// To a node that has nobody interested.
    messages: Option<u64>,
    spent: Spent,
}

impl Churned {
    fn describe(&self, idle: &Spent, report: &mut Report) -> Result<(), BenchError> {
        let (rate, spent) = (self.rate, &self.spent);
        if self.went == 0 {
            return Err(BenchError::Own(format!(
                "of {rate} users a second, nobody left in time"
            )));
        }
        let left = spent.beyond(idle);
        let mut add = |name: &str, label: &str, unit, value: f64| {
            let label = format!("{rate} comings and goings a second: {label}");
            report.add(&format!("churn{rate}_{name}"), &label, unit, value);
        };
        let each = |time| per(time, self.went);
        add(
            "came",
            "users that came",
            Unit::PerSecond,
            spent.per_second(self.came),
        );
        add(
            "went",
            "users that went",
            Unit::PerSecond,
            spent.per_second(self.went),
        );
        add(
            "scripts",
            "script calls",
            Unit::PerSecond,
            spent.per_second(spent.scripts),
        );
        add(
            "commands",
            "commands, those in scripts included",
            Unit::PerSecond,
            spent.per_second(spent.commands),
        );
        add(
            "redis_per_departure",
            "Redis per departure, all its time",
            Unit::Microseconds,
            each(spent.redis),
        );
        let label = "the same without the idle share";
        add(
            "redis_beyond_idle_per_departure",
            label,
            Unit::Microseconds,
            each(left.redis),
        );
        add(
            "redis",
            "Redis, of one core",
            Unit::Percent,
            spent.share(spent.redis),
        );
        let label = "all nodes per departure, without the idle share";
        add(
            "nodes_beyond_idle_per_departure",
            label,
            Unit::Microseconds,
            each(left.nodes),
        );
        add(
            "events_per_departure",
            "events delivered per departure",
            Unit::Count,
            self.events as f64 / self.went as f64,
        );
        if let Some(messages) = self.messages {
            let label = "messages about users to a node that has nobody interested";
            add(
                "elsewhere_messages",
                label,
                Unit::PerSecond,
                spent.per_second(messages),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn churned(went: u64) -> Churned {
        Churned {
            rate: 20,
            came: 200,
            went,
            events: 4_000,
            messages: Some(300),
            spent: Spent {
                elapsed: Duration::from_secs(10),
                redis: Duration::from_millis(100),
                scripts: 600,
                ..Spent::default()
            },
        }
    }

    #[test]
    fn all_time_and_that_beyond_idle_are_divided_by_departures() {
        let idle = Spent {
            elapsed: Duration::from_secs(20),
            redis: Duration::from_millis(120),
            ..Spent::default()
        };
        let mut report = Report::new("scale");
        churned(200)
            .describe(&idle, &mut report)
            .expect("there are departures");
        let figures = report.json();
        assert_eq!(figures["churn20_redis_per_departure_us"], 500.0);
        assert_eq!(figures["churn20_redis_beyond_idle_per_departure_us"], 200.0);
        assert_eq!(figures["churn20_scripts_per_second"], 60.0);
        assert_eq!(figures["churn20_elsewhere_messages_per_second"], 30.0);
        assert_eq!(figures["churn20_events_per_departure"], 20);
    }

    #[test]
    fn without_departures_there_are_no_figures() {
        let idle = Spent::default();
        assert!(
            churned(0)
                .describe(&idle, &mut Report::new("scale"))
                .is_err()
        );
    }
}
