//! The dashboard and the alerts in `config/` against the metrics that exist.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::metrics;
use crate::{read, report};

const DASHBOARD: &str = "config/grafana-dashboard.json";
const ALERTS: &str = "config/alerts.yml";
const RULE: &str = "What watches the hub asks for metrics and labels that exist.";

/// Metrics that are not the hub's own, with their labels.
const OF_PROMETHEUS: (&str, &[&str]) = ("up", &["job"]);

/// Labels that Prometheus adds to everything it scrapes.
const ADDED: [&str; 2] = ["instance", "job"];

/// Every series that a node shows, with its labels.
fn series() -> BTreeMap<String, BTreeSet<String>> {
    let mut series: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in metrics::page()
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let labels = series.entry(identifier(line).to_owned()).or_default();
        labels.extend(labels_of(line).map(str::to_owned));
    }
    let (name, labels) = OF_PROMETHEUS;
    series.insert(
        name.to_owned(),
        labels.iter().map(|label| (*label).to_owned()).collect(),
    );
    series
}

/// The names of the labels between the braces that follow a name, if any do.
fn labels_of(text: &str) -> impl Iterator<Item = &str> {
    let braces = text[identifier(text).len()..].strip_prefix('{');
    let end = braces.map_or(0, end_of_braces);
    // Values are between quotation marks.
    let unquoted = braces.unwrap_or_default()[..end].split('"').step_by(2);
    let names = unquoted.flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_'));
    names.filter(|name| !name.is_empty())
}

/// Where the braces end that have just begun; a value may have braces of its own, as the template of a route has.
fn end_of_braces(text: &str) -> usize {
    let mut quoted = false;
    let end = text.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == '}' && !quoted
    });
    end.map_or(text.len(), |(at, _)| at)
}

/// Metrics and labels in an expression that do not exist.
fn findings_in(
    place: &str,
    expression: &str,
    series: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let mut findings = Vec::new();
    let mut asked = 0;
    for (at, _) in expression.char_indices() {
        let before = expression[..at].chars().next_back();
        let name = identifier(&expression[at..]);
        let begins = before.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        if !begins || !(name.starts_with("vigie_") || name == OF_PROMETHEUS.0) {
            continue;
        }
        asked += 1;
        let Some(known) = series.get(name) else {
            findings.push(format!("{place}: there is no `{name}`"));
            continue;
        };
        for label in labels_of(&expression[at..]) {
            if !known.contains(label) && !ADDED.contains(&label) {
                findings.push(format!("{place}: `{name}` has no label `{label}`"));
            }
        }
    }
    if asked == 0 {
        findings.push(format!("{place}: asks for no metric: {expression}"));
    }
    findings
}

/// Every value under a key, wherever it is.
fn values_of<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                if name == key {
                    found.push(inner);
                }
                values_of(inner, key, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| values_of(item, key, found)),
        _ => {}
    }
}

/// Goal: the dashboard can be imported anywhere and shows what exists.
/// Method: it is JSON; every expression; every data source is the variable; the rows; each panel says what it is.
#[test]
fn the_dashboard_asks_for_what_exists() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("the dashboard is JSON");
    let series = series();
    let mut findings = Vec::new();
    let mut expressions = Vec::new();
    values_of(&dashboard, "expr", &mut expressions);
    assert!(expressions.len() > 20, "{} expressions", expressions.len());
    for expression in expressions {
        let expression = expression.as_str().expect("an expression is a text");
        findings.extend(findings_in(DASHBOARD, expression, &series));
    }
    let mut sources = Vec::new();
    values_of(&dashboard, "datasource", &mut sources);
    for source in sources {
        if source["uid"] != "${datasource}" {
            findings.push(format!(
                "{DASHBOARD}: a data source is not the variable: {source}"
            ));
        }
    }
    let panels = dashboard["panels"].as_array().expect("panels");
    let rows = panels.iter().filter(|panel| panel["type"] == "row");
    let rows: Vec<&str> = rows.filter_map(|row| row["title"].as_str()).collect();
    assert_eq!(rows, ["Presence", "Delivery", "Redis", "API", "Queue"]);
    let mut ids = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap_or_default();
        if title.is_empty() || !ids.insert(panel["id"].as_u64()) {
            findings.push(format!(
                "{DASHBOARD}: a panel has no title or no number of its own: {panel}"
            ));
        }
        if panel["type"] != "row" && panel["description"].as_str().is_none_or(str::is_empty) {
            findings.push(format!(
                "{DASHBOARD}: \"{title}\" does not say what it shows"
            ));
        }
    }
    report(RULE, &findings);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Alerts {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(rename = "name")]
    _name: String,
    rules: Vec<Alert>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Alert {
    alert: String,
    expr: String,
    #[serde(rename = "for", default)]
    _lasts: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// Goal: each alert can fire, and says what it is about and what to do.
/// Method: it is YAML of Prometheus's shape; every expression; a severity, a summary and a description.
#[test]
fn alerts_ask_for_what_exists_and_say_what_to_do() {
    let alerts: Alerts =
        serde_saphyr::from_str(&read(ALERTS)).expect("alerts of Prometheus's shape");
    let rules: Vec<Alert> = alerts
        .groups
        .into_iter()
        .flat_map(|group| group.rules)
        .collect();
    assert!(rules.len() > 10, "{} alerts", rules.len());
    let series = series();
    let (mut findings, mut names) = (Vec::new(), BTreeSet::new());
    for rule in rules {
        let place = format!("{ALERTS}, {}", rule.alert);
        findings.extend(findings_in(&place, &rule.expr, &series));
        if !["warning", "critical"].contains(&rule.labels["severity"].as_str()) {
            findings.push(format!("{place}: a severity is `warning` or `critical`"));
        }
        for (annotation, length_min) in [("summary", 10), ("description", 80)] {
            if rule
                .annotations
                .get(annotation)
                .is_none_or(|text| text.len() < length_min)
            {
                findings.push(format!("{place}: its {annotation} says little"));
            }
        }
        if !names.insert(rule.alert) {
            findings.push(format!("{place}: there are two of that name"));
        }
    }
    report(RULE, &findings);
}

/// Goal: the rules above see what they are to see. Method: expressions with one fault each.
#[test]
fn faults_in_expressions_are_found() {
    let series = series();
    let found = |expression: &str| findings_in("", expression, &series).len();
    for right in [
        r#"sum by (le) (rate(vigie_http_request_duration_seconds_bucket{route!="/a{id}", instance=~"x"}[5m]))"#,
        r#"up{job="vigie"} == 0 and vigie_nodes > 1"#,
        r#"vigie_connections{kind="guest", transport="polling"}"#,
    ] {
        assert_eq!(found(right), 0, "{right}");
    }
    for wrong in [
        "rate(vigie_deliveries[5m])",
        r#"vigie_connections{sort="guest"}"#,
        r#"vigie_http_requests_total{route="/a{id}", path="x"}"#,
        "histogram_quantile(0.5, vigie_fan_out_duration_seconds)",
        "node_load1 > 3",
    ] {
        assert_eq!(found(wrong), 1, "{wrong}");
    }
}

/// The identifier at the beginning.
fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}
