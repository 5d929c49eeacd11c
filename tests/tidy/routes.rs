//! Rows about routes, from their OpenAPI description. Bodies and answers are shown by the names of their fields.

use serde_json::Value;
use vigie::internals::describe_public;

use crate::tables::Row;

/// The public routes, and sockets, which OpenAPI cannot describe.
pub(crate) fn public() -> Vec<Row> {
    let sockets = ["`/socket.io/`", "", "", "Carries sockets."].map(str::to_owned);
    [vec![sockets.to_vec()], rows(&describe_public())].concat()
}

/// A row for each route: name, body, answer, meaning.
pub(crate) fn rows(description: &impl serde::Serialize) -> Vec<Row> {
    let description = serde_json::to_value(description).expect("it is JSON");
    let description = Description(&description);
    let mut rows = Vec::new();
    for (path, operations) in entries(&description.0["paths"]) {
        for (method, operation) in entries(operations) {
            let answers = ["200", "204"].map(|status| &operation["responses"][status]);
            let texts = ["summary", "description"].map(|part| operation[part].as_str());
            rows.push(vec![
                format!("`{} {path}`", method.to_uppercase()),
                query(operation) + &description.content(&operation["requestBody"]),
                answers.map(|answer| description.content(answer)).concat(),
                texts
                    .map(Option::unwrap_or_default)
                    .join(" ")
                    .trim()
                    .to_owned(),
            ]);
        }
    }
    rows
}

/// The parameters in the query.
fn query(operation: &Value) -> String {
    let parameters = items(&operation["parameters"]).filter(|parameter| parameter["in"] == "query");
    let names = parameters.filter_map(|parameter| parameter["name"].as_str());
    match names.collect::<Vec<_>>().as_slice() {
        [] => String::new(),
        names => format!("`?{}=`", names.join("=&")),
    }
}

/// OpenAPI 3 as JSON.
struct Description<'a>(&'a Value);

impl Description<'_> {
    /// The fields of a JSON body, or the type of another.
    fn content(&self, body: &Value) -> String {
        let Some((media_type, content)) = entries(&body["content"]).next() else {
            return String::new();
        };
        match self.shape(&content["schema"]) {
            shape if shape.is_empty() || media_type != "application/json" => {
                format!("`{media_type}`")
            }
            shape => format!("`{shape}`"),
        }
    }

    /// The names of the fields, `{ … }` where the description has none; empty for what is no object and no list of such.
    fn shape(&self, schema: &Value) -> String {
        let schema = self.resolved(schema);
        let alternatives = items(&schema["oneOf"]).map(|alternative| self.shape(alternative));
        let alternatives: Vec<String> = alternatives.filter(|shape| !shape.is_empty()).collect();
        match (self.fields(schema).as_slice(), schema["type"].as_str()) {
            _ if !alternatives.is_empty() => alternatives.join(" or "),
            ([], Some("array")) => match self.shape(&schema["items"]) {
                item if item.is_empty() => item,
                item => format!("[{item}]"),
            },
            ([], Some("object")) => "{ … }".to_owned(),
            ([], _) => String::new(),
            (fields, _) => format!("{{ {} }}", fields.join(", ")),
        }
    }

    /// The fields of an object, with those of its parts; `?` marks what may be absent or `null`.
    fn fields(&self, schema: &Value) -> Vec<String> {
        let parts = items(&schema["allOf"]).flat_map(|part| self.fields(self.resolved(part)));
        let own = entries(&schema["properties"]).map(|(name, field)| {
            let is_required = items(&schema["required"]).any(|required| required == name.as_str());
            let mark = if is_required { "" } else { "?" };
            match self.shape(field) {
                inner if inner.is_empty() => format!("{name}{mark}"),
                inner => format!("{name}{mark}: {inner}"),
            }
        });
        parts.chain(own).collect()
    }

    /// The schema that a reference leads to.
    fn resolved<'s>(&'s self, schema: &'s Value) -> &'s Value {
        let place = schema["$ref"]
            .as_str()
            .map(|reference| reference.trim_start_matches('#'));
        place.map_or(schema, |place| {
            self.0
                .pointer(place)
                .expect("the reference leads somewhere")
        })
    }
}

fn entries(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten()
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}
