//! Links between the Markdown files of the project.

use crate::{files, read, report, root};

/// Goal: every link within the project leads to a file, and to a heading where it names one.
/// Method: the targets `](…)` that are no URL; headings as GitHub makes anchors of them.
#[test]
fn links_lead_somewhere() {
    let mut findings = Vec::new();
    for file in files("", "md") {
        let text = read(&file);
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
            let path = if path.is_empty() {
                root().join(&file)
            } else {
                root().join(folder).join(path)
            };
            let has_anchor = || {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                text.lines()
                    .any(|line| anchor_of(line).as_deref() == Some(anchor))
            };
            if !path.exists() || !(anchor.is_empty() || has_anchor()) {
                findings.push(format!("{file}: {target}"));
            }
        }
    }
    report("Links lead to files and headings that exist.", &findings);
}

/// The anchor of a heading; `None` for any other line.
fn anchor_of(line: &str) -> Option<String> {
    let title = line
        .strip_prefix('#')?
        .trim_start_matches('#')
        .trim()
        .to_lowercase();
    let kept = title
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
}
