//! The numbers of the page, live: one sample a second for all who look, and none while nobody does.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::MissedTickBehavior;

use super::super::Internal;
use super::super::problem::Problem;
use super::sample::Sample;
use crate::domain::Hub;
use crate::telemetry::Metrics;

/// Streams that may be open: operators are few.
const STREAMS_MAX: usize = 32;

/// How often a sample is taken.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often something is written where there is no sample for long, so that either side notices when the other is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Proxies are asked to let each sample through at once.
const UNBUFFERED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);

/// The streams of a node. Clones share them.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

struct Shared {
    hub: Hub,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
    /// Where the samples come from, while somebody looks.
    sampler: Mutex<Weak<Samples>>,
}

/// The newest sample as JSON; nothing before the first.
type Samples = watch::Sender<Arc<str>>;

/// Somebody who looks.
struct Viewer {
    samples: watch::Receiver<Arc<str>>,
    _place: OwnedSemaphorePermit,
}

impl Live {
    /// Takes no sample before somebody looks.
    pub fn new(hub: Hub, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared {
            hub,
            metrics,
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
            sampler: Mutex::default(),
        }))
    }

    /// Lets somebody look, if there is room and the node is not stopping.
    fn enter(&self) -> Result<Viewer, Problem> {
        let refused = |why: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, why);
        if self.0.hub.is_draining() {
            return Err(refused("the node is stopping; look at another".to_owned()));
        }
        let place = self.0.places.clone().try_acquire_owned().map_err(|_| {
            refused(format!(
                "{STREAMS_MAX} pages are open on this node; close one, or look at another node"
            ))
        })?;
        let mut sampler = self.0.sampler();
        let samples = sampler.upgrade().unwrap_or_else(|| {
            let samples = Arc::new(Samples::default());
            *sampler = Arc::downgrade(&samples);
            tokio::spawn(keep_sampling(self.0.clone(), samples.clone()));
            samples
        });
        let mut samples = samples.subscribe();
        // The newest is shown at once, if there is one.
        samples.mark_changed();
        Ok(Viewer {
            samples,
            _place: place,
        })
    }
}

impl Shared {
    fn sampler(&self) -> MutexGuard<'_, Weak<Samples>> {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody looks any more. Then whoever comes next begins anew.
    fn is_alone(&self, samples: &Samples) -> bool {
        let mut sampler = self.sampler();
        let alone = samples.receiver_count() == 0;
        if alone {
            *sampler = Weak::new();
        }
        alone
    }
}

/// Takes samples while somebody looks and the node is not stopping. The streams end with it.
async fn keep_sampling(shared: Arc<Shared>, samples: Arc<Samples>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if shared.is_alone(&samples) || shared.hub.is_draining() {
            return;
        }
        let sample = Sample::take(&shared.hub, &shared.metrics).await;
        match serde_json::to_string(&sample) {
            Ok(text) => drop(samples.send_replace(text.into())),
            Err(error) => tracing::warn!(%error, "a sample cannot be written as JSON"),
        }
    }
}

impl Viewer {
    /// The next sample that this viewer has not seen; those in between are left out. `None` at the end.
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

/// Streams what the operators' page shows: a sample each second, as server-sent events named `sample`. It ends when the
/// node stops, or its keys are replaced: whoever has a new one comes again. Without a key for programs and browsers on this machine, as `/metrics` is.
#[utoipa::path(
    get,
    path = "/api/v1/admin/live",
    responses(
        (status = 200, description = "samples without end, each the data of an event", body = Sample, content_type = "text/event-stream"),
        (status = 400, description = "the request has a body", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the node is stopping, or too many look", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::transport::http) async fn show(
    State(internal): State<Internal>,
    request: Request,
) -> Result<Response, Problem> {
    if !request.body().is_end_stream() {
        // Nobody would read it for as long as the stream goes on.
        return Err(Problem::bad_request(
            "send no body; nothing is taken in here",
        ));
    }
    let viewer = internal.live.enter()?;
    let events = stream::unfold(viewer, |mut viewer| async move {
        let sample = viewer.next().await?;
        let event = Event::default().event("sample").data(&*sample);
        Some((Ok::<_, Infallible>(event), viewer))
    });
    let events = events.take_until(Box::pin(internal.keys.replaced()));
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([no_store, UNBUFFERED], events).into_response())
}
