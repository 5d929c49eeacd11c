//! The tasks of the domain: every loop is spawned here, under a name.

use tokio::task::JoinSet;

/// The running loops. They end when this is dropped.
#[derive(Default)]
pub struct Tasks {
    set: JoinSet<()>,
}

impl Tasks {
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.set.spawn(async move {
            let _report = PanicReport(name);
            task.await;
        });
    }

    /// Ends all tasks, and returns once they have ended.
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
