//! The figures of a run, as a table or as a JSON object.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Number, Value};

use super::clients::Latencies;
use super::usage::Used;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Count,
    PerSecond,
    /// Of processor time.
    Microseconds,
    Milliseconds,
    /// Of one core.
    Percent,
    Kibibytes,
    Bytes,
    Ratio,
}

impl Unit {
    fn digits(self) -> usize {
        match self {
            Self::Count | Self::PerSecond | Self::Bytes => 0,
            Self::Microseconds | Self::Milliseconds | Self::Percent | Self::Ratio => 2,
            Self::Kibibytes => 1,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Count | Self::Ratio => "",
            Self::PerSecond => "/s",
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::Percent => "%",
            Self::Kibibytes => "KiB",
            Self::Bytes => "B",
        }
    }

    /// Suffix of the names in JSON.
    fn suffix(self) -> &'static str {
        match self {
            Self::Count | Self::Ratio => "",
            Self::PerSecond => "_per_second",
            Self::Microseconds => "_us",
            Self::Milliseconds => "_ms",
            Self::Percent => "_percent",
            Self::Kibibytes => "_kib",
            Self::Bytes => "_bytes",
        }
    }
}

pub(super) struct Figure {
    /// In JSON: it ends with the unit.
    pub(super) name: String,
    pub(super) label: String,
    pub(super) unit: Unit,
    pub(super) value: f64,
}

/// Figures in display order.
pub(super) struct Report {
    scenario: &'static str,
    figures: Vec<Figure>,
}

impl Report {
    pub(super) fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            figures: Vec::new(),
        }
    }

    /// Adds a figure, if there is one. Its name in JSON is `name` and the unit: `latency_p50_ms`.
    pub(super) fn add(
        &mut self,
        name: &str,
        label: &str,
        unit: Unit,
        value: impl Into<Option<f64>>,
    ) {
        if let Some(value) = value.into() {
            self.figures.push(Figure {
                name: format!("{name}{}", unit.suffix()),
                label: label.to_owned(),
                unit,
                value,
            });
        }
    }

    pub(super) fn count(&mut self, name: &str, label: &str, count: u64) {
        self.add(name, label, Unit::Count, count as f64);
    }

    pub(super) fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.figures.iter()
    }

    /// The figure of this name in JSON.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        let mut figures = self.figures();
        figures
            .find(|figure| figure.name == name)
            .map(|figure| figure.value)
    }

    /// Adds the processor time per `thing`: of the nodes, of Redis, and of the load itself.
    pub(super) fn cost(&mut self, used: &Used, (count, thing): (u64, &str)) {
        let each = |time: Duration| per(time, count);
        let unit = Unit::Microseconds;
        self.add(
            &format!("cpu_per_{thing}"),
            &format!("processor time of the nodes per {thing}"),
            unit,
            used.all_nodes().map(each),
        );
        let system = used.all_nodes().filter(|time| !time.is_zero());
        self.add(
            &format!("{thing}_cpu_system"),
            "of which in the kernel",
            Unit::Percent,
            system.map(|time| 100.0 * (used.system.as_secs_f64() / time.as_secs_f64()).min(1.0)),
        );
        self.redis(used, (count, thing));
        self.add(
            &format!("load_cpu_per_{thing}"),
            &format!("processor time of this load per {thing}"),
            unit,
            each(used.load),
        );
    }

    pub(super) fn redis(&mut self, used: &Used, (count, thing): (u64, &str)) {
        self.add(
            &format!("redis_cpu_per_{thing}"),
            &format!("processor time of Redis per {thing}"),
            Unit::Microseconds,
            used.redis.map(|time| per(time, count)),
        );
    }

    pub(super) fn latencies(&mut self, name: &str, label: &str, latencies: &Latencies) {
        if latencies.len() == 0 {
            return;
        }
        for (quantile, short, long) in [
            (0.5, "p50", "median"),
            (0.99, "p99", "99 %"),
            (1.0, "max", "longest"),
        ] {
            self.add(
                &format!("{name}_{short}"),
                &format!("{label}, {long}"),
                Unit::Milliseconds,
                latencies.quantile_us(quantile) as f64 / 1000.0,
            );
        }
    }

    pub(super) fn table(&self) -> String {
        let texts: Vec<(String, &Figure)> = self
            .figures
            .iter()
            .map(|figure| (format!("{:.*}", figure.unit.digits(), figure.value), figure))
            .collect();
        let wide = |width: fn(&(String, &Figure)) -> usize| texts.iter().map(width).max();
        let labels = wide(|(_, figure)| figure.label.chars().count()).unwrap_or(0);
        let values = wide(|(value, _)| value.len()).unwrap_or(0);
        let mut table = format!("{}\n", self.scenario);
        for (value, figure) in &texts {
            let line = format!(
                "  {:<labels$}  {value:>values$} {}",
                figure.label,
                figure.unit.name()
            );
            // A string to write into never fails.
            let _ = writeln!(table, "{}", line.trim_end());
        }
        table
    }

    /// `{"scenario": "fanout", "deliveries": 4000, …}`
    pub(super) fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("scenario".to_owned(), self.scenario.into());
        for figure in &self.figures {
            let value = match figure.unit {
                Unit::Count => Some(Number::from(figure.value as u64)),
                _ => Number::from_f64(figure.value),
            };
            object.insert(
                figure.name.clone(),
                value.map_or(Value::Null, Value::Number),
            );
        }
        Value::Object(object)
    }
}

/// Time per item, in µs.
pub(super) fn per(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new("fanout");
        report.count("deliveries", "deliveries", 4000);
        let used = Used {
            nodes: vec![Duration::from_millis(8), Duration::from_millis(12)],
            system: Duration::from_millis(15),
            load: Duration::from_millis(4),
            ..Used::default()
        };
        report.cost(&used, (4000, "delivery"));
        report
    }

    #[test]
    fn people_get_a_table() {
        assert_eq!(
            report().table(),
            "fanout\n\
             \x20 deliveries                                 4000\n\
             \x20 processor time of the nodes per delivery   5.00 µs\n\
             \x20 of which in the kernel                    75.00 %\n\
             \x20 processor time of this load per delivery   1.00 µs\n"
        );
    }

    #[test]
    fn programs_get_an_object() {
        let object = report().json();
        assert_eq!(object["scenario"], "fanout");
        assert_eq!(object["deliveries"], 4000);
        assert_eq!(object["cpu_per_delivery_us"], 5.0);
        assert_eq!(object["load_cpu_per_delivery_us"], 1.0);
        // Without `--redis-pid` there is no figure about Redis.
        assert!(object.get("redis_cpu_per_delivery_us").is_none());
    }
}
