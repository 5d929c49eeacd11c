//! Checks and repairs the data of a running hub from outside.

use super::{StartError, redis_options};
use crate::engine::EngineError;
use crate::engine::redis::doctor::{Doctor, Rules};
use crate::settings::{EngineKind, Settings};

pub(crate) use crate::engine::redis::doctor::{Category, DoctorReport, Finding};

/// The findings before and after a repair.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diagnosis {
    /// Findings before the repair; `None` without one.
    pub before: Option<DoctorReport>,
    /// Present findings.
    pub now: DoctorReport,
}

impl Diagnosis {
    /// Number of findings that the repair removed.
    pub(crate) fn repaired(&self) -> usize {
        let before = self.before.iter().flat_map(|report| &report.findings);
        before
            .filter(|finding| !self.now.findings.contains(finding))
            .count()
    }
}

/// Examines the data. With `repair`, repairs what it found and examines again. Returns `None` for an engine that keeps
/// nothing outside its process.
///
/// # Errors
/// When the engine cannot be reached, or the data has another layout.
pub(crate) async fn examine(
    settings: &Settings,
    repair: bool,
) -> Result<Option<Diagnosis>, StartError> {
    if settings.engine == EngineKind::Memory {
        return Ok(None);
    }
    let rules = Rules {
        offline_grace: settings.presence.offline_grace,
        lease: settings.node.lease,
        reply_timeout: settings.redis.command_timeout * 2,
    };
    let doctor = Doctor::open(&redis_options(settings), rules).await?;
    Ok(Some(diagnose(&doctor, repair).await?))
}

async fn diagnose(doctor: &Doctor, repair: bool) -> Result<Diagnosis, EngineError> {
    let found = doctor.examine().await?;
    if !repair || found.is_clean() {
        return Ok(Diagnosis {
            before: None,
            now: found,
        });
    }
    doctor.repair(&found.findings).await?;
    let mut now = doctor.examine().await?;
    let is_new = |finding: &Finding| !found.findings.contains(finding);
    if now.findings.iter().any(is_new) {
        // The first repair uncovered further findings.
        doctor.repair(&now.findings).await?;
        now = doctor.examine().await?;
    }
    Ok(Diagnosis {
        before: Some(found),
        now,
    })
}
