//! What plain commands cost the same Redis: the floor below any script.

use std::time::Duration;

use fred::interfaces::PubsubInterface;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::info::RedisUse;
use super::redis::{Redis, command};
use super::{Bench, BenchError};
use crate::report::{Report, Unit, per};

/// As large as the updates.
const VALUE: &str = concat!(
    "0123456789012345678901234567890123456789012345678901234567890123456789",
    "012345678901234567890123456789"
);

/// Commands that are under way at once, as many as updates at full speed.
const MANY: usize = 64;

/// Commands are sent as updates are posted: one after the other, then many at once.
pub(super) async fn measure(bench: &Bench) -> Result<Report, BenchError> {
    let redis = Redis::start(bench.scratch.path(), 1).await?;
    let client = redis.client();
    let listener = redis.connect().await?;
    listener.subscribe("channel").await?;
    let (set, publish) = (
        format!("SET key {VALUE}"),
        format!("PUBLISH channel {VALUE}"),
    );
    let hincrby = async |_| command::<()>(client, "HINCRBY hash field 1").await;
    let set_publish = async |_| {
        tokio::try_join!(command::<()>(client, &set), command::<()>(client, &publish)).map(drop)
    };
    let mut report = Report::new("floor");
    let count = bench.amounts.floor;
    for (end, how, at_once) in [("", "", 1), ("_busy", " of many at once", MANY)] {
        let before = redis.used().await?;
        at_once_of(count, at_once, hincrby).await?;
        let used = (before, redis.used().await?);
        let (name, label) = (format!("hincrby{end}"), format!("HINCRBY{how}"));
        describe(&mut report, (&name, &label), &["hincrby"], &used, count);

        let before = redis.used().await?;
        at_once_of(count, at_once, set_publish).await?;
        let used = (before, redis.used().await?);
        let name = format!("set_publish{end}");
        let label = format!("SET and PUBLISH to one subscriber{how}");
        describe(
            &mut report,
            (&name, &label),
            &["set", "publish"],
            &used,
            count,
        );
    }
    Ok(report)
}

/// Does something `count` times, with so many under way.
async fn at_once_of(
    count: usize,
    at_once: usize,
    work: impl AsyncFn(usize) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    stream::iter(0..count)
        .map(|place| work(place))
        .buffer_unordered(at_once)
        .try_collect()
        .await
}

fn describe(
    report: &mut Report,
    (name, label): (&str, &str),
    commands: &[&str],
    (before, now): &(RedisUse, RedisUse),
    count: usize,
) {
    let each = |time: Duration| per(time, count as u64);
    let all = now.cpu.saturating_sub(before.cpu);
    let inside = now.calls_of(commands).since(before.calls_of(commands)).time;
    report.add(
        &format!("{name}_redis"),
        &format!("{label}: Redis"),
        Unit::Microseconds,
        each(all),
    );
    report.add(
        &format!("{name}_command"),
        &format!("{label}: Redis, in commands alone"),
        Unit::Microseconds,
        each(inside),
    );
}
