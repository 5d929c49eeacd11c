//! Named tasks: the loops of the domain, and of the node around it.

use tokio::task::JoinSet;

/// Running tasks. Dropping this aborts them.
#[derive(Default)]
pub struct Tasks {
    set: JoinSet<()>,
}

impl Tasks {
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.set.spawn(async move {
            let _report = PanicReport(name);
            task.await;
        });
    }

    /// Aborts all tasks, and returns once they have ended.
    pub async fn stop(mut self) {
        self.set.shutdown().await;
    }
}

/// Logs which task panicked: nothing else joins the tasks while the node runs.
struct PanicReport(&'static str);

impl Drop for PanicReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.0, "a task of the hub panicked");
        }
    }
}
