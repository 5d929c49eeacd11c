//! Live figures for the operators' page: one sample a second for all viewers, and none without viewers.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::MissedTickBehavior;

use super::super::Internal;
use super::super::problem::Problem;
use super::sample::Sample;
use crate::domain::Hub;
use crate::telemetry::Metrics;

/// Open streams; operators are few.
const STREAMS_MAX: usize = 32;

const INTERVAL: Duration = Duration::from_secs(1);

/// Interval of keep-alive comments in a stream without samples, so that both sides notice a lost connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Asks proxies to forward each sample at once.
const UNBUFFERED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);

/// The live samples of a node. Clones share them.
#[derive(Clone)]
pub struct Live(Arc<LiveState>);

struct LiveState {
    hub: Hub,
    metrics: Arc<Metrics>,
    permits: Arc<Semaphore>,
    /// The samples of the running sampler, if there is one.
    sampler: Mutex<Weak<Samples>>,
}

/// The newest sample as JSON; empty before the first.
type Samples = watch::Sender<Arc<str>>;

/// A viewer's end of the samples.
struct Subscription {
    samples: watch::Receiver<Arc<str>>,
    _permit: OwnedSemaphorePermit,
}

impl Live {
    /// Starts no sampler before there is a viewer.
    pub fn new(hub: Hub, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(LiveState {
            hub,
            metrics,
            permits: Arc::new(Semaphore::new(STREAMS_MAX)),
            sampler: Mutex::default(),
        }))
    }

    /// Adds a viewer, unless the node is stopping or has too many.
    fn subscribe(&self) -> Result<Subscription, Problem> {
        let refused = |why: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, why);
        if self.0.hub.is_draining() {
            return Err(refused("the node is stopping; look at another".to_owned()));
        }
        let permit = self.0.permits.clone().try_acquire_owned().map_err(|_| {
            refused(format!(
                "{STREAMS_MAX} pages are open on this node; close one, or look at another node"
            ))
        })?;
        let mut sampler = self.0.sampler.lock();
        let samples = sampler.upgrade().unwrap_or_else(|| {
            let samples = Arc::new(Samples::default());
            *sampler = Arc::downgrade(&samples);
            tokio::spawn(run_sampler(self.0.clone(), samples.clone()));
            samples
        });
        let mut samples = samples.subscribe();
        // Show the newest sample at once.
        samples.mark_changed();
        Ok(Subscription {
            samples,
            _permit: permit,
        })
    }
}

impl LiveState {
    /// Detaches the sampler if it has no viewers left; the next viewer then starts another.
    fn detach_unused(&self, samples: &Samples) -> bool {
        let mut sampler = self.sampler.lock();
        let is_unused = samples.receiver_count() == 0;
        if is_unused {
            *sampler = Weak::new();
        }
        is_unused
    }
}

/// Takes samples until there are no viewers, or the node is stopping; the latter ends all streams.
async fn run_sampler(shared: Arc<LiveState>, samples: Arc<Samples>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if shared.detach_unused(&samples) || shared.hub.is_draining() {
            return;
        }
        let sample = Sample::take(&shared.hub, &shared.metrics).await;
        match serde_json::to_string(&sample) {
            Ok(text) => drop(samples.send_replace(text.into())),
            Err(error) => tracing::warn!(%error, "a sample cannot be written as JSON"),
        }
    }
}

impl Subscription {
    /// The newest sample that the viewer has not seen; skips older ones. `None` when the sampler has ended.
    async fn next(&mut self) -> Option<Arc<str>> {
        loop {
            self.samples.changed().await.ok()?;
            let sample = self.samples.borrow_and_update().clone();
            if !sample.is_empty() {
                return Some(sample);
            }
        }
    }
}

/// Streams the figures of the operators' page: one sample a second, as server-sent events named `sample`. The stream ends
/// when the node stops or its keys are replaced. Programs and browsers on this machine need no key, as for `/metrics`.
#[utoipa::path(
    get,
    path = "/api/v1/admin/live",
    responses(
        (status = 200, description = "an endless stream of samples, each the data of an event", body = Sample, content_type = "text/event-stream"),
        (status = 400, description = "the request has a body", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the node is stopping, or has too many viewers", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::transport::http) async fn show(
    State(internal): State<Internal>,
    request: Request,
) -> Result<Response, Problem> {
    if !request.body().is_end_stream() {
        // The stream would leave it unread.
        return Err(Problem::bad_request("this route takes no body"));
    }
    let subscription = internal.live.subscribe()?;
    let events = stream::unfold(subscription, |mut subscription| async move {
        let sample = subscription.next().await?;
        let event = Event::default().event("sample").data(&*sample);
        Some((Ok::<_, Infallible>(event), subscription))
    });
    let events = events.take_until(Box::pin(internal.keys.replaced()));
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([no_store, UNBUFFERED], events).into_response())
}
