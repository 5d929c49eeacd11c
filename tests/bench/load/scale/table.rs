//! The figures of all cells, for people and for programs, beside those of another build.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::plan::Shape;
use crate::report::{Figure, Report};

/// Figures of the table at the top, by the end of their name.
const MAIN: [&str; 12] = [
    "idle_redis_percent",
    "_scripts_per_second",
    "_redis_per_departure_us",
    "update_redis_us",
    "update_script_us",
    "update_busy_redis_us",
    "set_publish_redis_us",
    "set_publish_command_us",
    "set_publish_busy_redis_us",
    "signin_redis_us",
    "signin_script_us",
    "_elsewhere_messages_per_second",
];

/// The figures of one cluster.
pub(super) struct Measured {
    /// `None` for plain commands, which need no node.
    pub(super) shape: Option<Shape>,
    pub(super) now: Report,
    pub(super) before: Option<Report>,
}

impl Measured {
    fn title(&self) -> String {
        self.shape
            .map_or_else(|| "plain commands".to_owned(), |shape| shape.to_string())
    }

    /// The same figure of the other build.
    fn before(&self, figure: &Figure) -> Option<&Figure> {
        let mut figures = self.before.iter().flat_map(Report::figures);
        figures.find(|before| before.name == figure.name)
    }

    fn rows(&self) -> impl Iterator<Item = (&Figure, Option<&Figure>)> {
        self.now
            .figures()
            .map(|figure| (figure, self.before(figure)))
    }
}

/// Markdown: the main figures of all cells, then all figures of each.
pub(super) fn markdown(cells: &[Measured]) -> String {
    let compared = cells.iter().any(|cell| cell.before.is_some());
    let mut text = String::new();
    head(&mut text, "", compared);
    for cell in cells {
        for (figure, before) in cell.rows().filter(|(figure, _)| is_main(&figure.name)) {
            let label = format!("{}: {}", cell.title(), figure.label);
            row(&mut text, &label, figure, before, compared);
        }
    }
    for cell in cells {
        text.push('\n');
        head(&mut text, &cell.title(), compared);
        for (figure, before) in cell.rows() {
            row(&mut text, &figure.label, figure, before, compared);
        }
    }
    text
}

fn is_main(name: &str) -> bool {
    MAIN.iter().any(|end| name.ends_with(end)) && name != "idle_scripts_per_second"
}

fn head(text: &mut String, title: &str, compared: bool) {
    text.push_str(&match compared {
        true => format!("| {title} | before | now | now / before |\n|---|---|---|---|\n"),
        false => format!("| {title} | |\n|---|---|\n"),
    });
}

fn row(text: &mut String, label: &str, now: &Figure, before: Option<&Figure>, compared: bool) {
    let cell = |figure: &Figure| format!("{} {}", significant(figure.value), figure.unit.name());
    let now_text = cell(now);
    let cells = if compared {
        let ratio = before.and_then(|before| ratio(before, now));
        let ratio = ratio.map_or_else(
            || "–".to_owned(),
            |ratio| format!("×{}", significant(ratio)),
        );
        let before = before.map_or_else(|| "–".to_owned(), cell);
        format!("{} | {} | {ratio}", before.trim_end(), now_text.trim_end())
    } else {
        now_text.trim_end().to_owned()
    };
    // A string to write into never fails.
    let _ = writeln!(text, "| {label} | {cells} |");
}

fn ratio(before: &Figure, now: &Figure) -> Option<f64> {
    (before.value > 0.0).then(|| now.value / before.value)
}

/// Three digits, or all before the point.
pub(super) fn significant(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// `[{ "nodes": 4, "partitions": 16, "audience": "everyone", …, "before": { … }, "ratio": { … } }, …]`
pub(super) fn json(cells: &[Measured]) -> Value {
    let cells = cells.iter().map(|cell| {
        let mut object = values(&cell.now);
        if let Some(shape) = cell.shape {
            object.insert("nodes".to_owned(), shape.nodes.into());
            object.insert("partitions".to_owned(), shape.partitions.into());
            object.insert("audience".to_owned(), shape.audience.name().into());
        }
        if let Some(before) = &cell.before {
            object.insert("before".to_owned(), Value::Object(values(before)));
            let ratios = cell
                .rows()
                .filter_map(|(now, before)| Some((now.name.clone(), json!(ratio(before?, now)?))));
            object.insert("ratio".to_owned(), Value::Object(ratios.collect()));
        }
        Value::Object(object)
    });
    cells.collect()
}

fn values(report: &Report) -> Map<String, Value> {
    match report.json() {
        Value::Object(mut object) => {
            object.remove("scenario");
            object
        }
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Audience;
    use super::*;
    use crate::report::Unit;

    fn measured(before: Option<f64>) -> Measured {
        let report = |value: f64| {
            let mut report = Report::new("scale");
            report.add(
                "idle_redis",
                "idle: Redis, of one core",
                Unit::Percent,
                value,
            );
            report.add("topic_redis", "topic: Redis", Unit::Microseconds, 123.4);
            report
        };
        Measured {
            shape: Some(Shape {
                nodes: 16,
                partitions: 64,
                audience: Audience::Everyone,
                masters: 1,
            }),
            now: report(1.0),
            before: before.map(report),
        }
    }

    #[test]
    fn people_see_both_builds_side_by_side() {
        assert_eq!(
            markdown(&[measured(Some(11.0))]),
            "|  | before | now | now / before |\n|---|---|---|---|\n\
             | 16 nodes, 64 partitions: idle: Redis, of one core | 11.0 % | 1.00 % | ×0.09 |\n\n\
             | 16 nodes, 64 partitions | before | now | now / before |\n|---|---|---|---|\n\
             | idle: Redis, of one core | 11.0 % | 1.00 % | ×0.09 |\n\
             | topic: Redis | 123 µs | 123 µs | ×1.00 |\n"
        );
        let alone = markdown(&[measured(None)]);
        assert!(alone.contains("| topic: Redis | 123 µs |\n"), "{alone}");
    }

    #[test]
    fn programs_get_both_and_the_ratio() {
        let cells = json(&[measured(Some(4.0))]);
        let cell = &cells[0];
        assert_eq!(
            (&cell["nodes"], &cell["audience"]),
            (&json!(16), &json!("everyone"))
        );
        assert_eq!(
            (
                &cell["idle_redis_percent"],
                &cell["before"]["idle_redis_percent"]
            ),
            (&json!(1.0), &json!(4.0))
        );
        assert_eq!(cell["ratio"]["idle_redis_percent"], 0.25);
        assert!(json(&[measured(None)])[0].get("before").is_none());
    }
}
