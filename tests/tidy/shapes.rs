//! Rows about routes, from their OpenAPI description. Bodies and answers are shown by the names of their fields.

use serde_json::Value;

use crate::tables::Row;

/// A row for each route: name, body, answer, meaning.
pub(crate) fn routes(description: &impl serde::Serialize) -> Vec<Row> {
    let description = serde_json::to_value(description).expect("it is JSON");
    let paths = description["paths"].as_object().expect("paths");
    let mut rows = Vec::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().expect("operations") {
            let answers =
                ["200", "204"].map(|status| content(&description, &operation["responses"][status]));
            let meaning =
                ["summary", "description"].map(|part| operation[part].as_str().unwrap_or_default());
            rows.push(vec![
                format!("`{} {path}`", method.to_uppercase()),
                query(operation) + &content(&description, &operation["requestBody"]),
                answers.concat(),
                meaning.join(" ").trim().to_owned(),
            ]);
        }
    }
    rows
}

/// The parameters in the query.
fn query(operation: &Value) -> String {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let names = parameters.filter(|parameter| parameter["in"] == "query");
    let names: Vec<&str> = names
        .filter_map(|parameter| parameter["name"].as_str())
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("`?{}=`", names.join("=&"))
    }
}

/// The fields of a JSON body, or the type of another.
fn content(description: &Value, body: &Value) -> String {
    let Some((media_type, content)) = body["content"]
        .as_object()
        .and_then(|types| types.iter().next())
    else {
        return String::new();
    };
    let shape = match media_type.as_str() {
        "application/json" => shape(description, &content["schema"]),
        _ => String::new(),
    };
    let shape = if shape.is_empty() {
        media_type.clone()
    } else {
        shape
    };
    format!("`{shape}`")
}

/// The names of the fields, `{ … }` where the description has none; empty for what is no object and no list of such.
fn shape(description: &Value, schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = description.pointer(reference.trim_start_matches('#'));
        return shape(description, schema.expect("the reference leads somewhere"));
    }
    if schema["items"].is_object() {
        let item = shape(description, &schema["items"]);
        return if item.is_empty() {
            item
        } else {
            format!("[{item}]")
        };
    }
    let alternatives = schema["oneOf"].as_array().into_iter().flatten();
    let alternatives = alternatives.map(|alternative| shape(description, alternative));
    let alternatives: Vec<String> = alternatives.filter(|shape| !shape.is_empty()).collect();
    if !alternatives.is_empty() {
        return alternatives.join(" or ");
    }
    match fields(description, schema).as_slice() {
        [] if schema["type"] == "object" => "{ … }".to_owned(),
        [] => String::new(),
        fields => format!("{{ {} }}", fields.join(", ")),
    }
}

/// The fields of an object, with those of its parts; `?` marks what may be absent or `null`.
fn fields(description: &Value, schema: &Value) -> Vec<String> {
    let parts = schema["allOf"].as_array().into_iter().flatten();
    let mut fields: Vec<String> = parts
        .flat_map(|part| {
            let part = part["$ref"]
                .as_str()
                .and_then(|reference| description.pointer(reference.trim_start_matches('#')))
                .unwrap_or(part);
            self::fields(description, part)
        })
        .collect();
    let required = schema["required"].as_array();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let is_required =
            required.is_some_and(|names| names.iter().any(|required| required == name));
        let inner = shape(description, field);
        let inner = if inner.is_empty() {
            inner
        } else {
            format!(": {inner}")
        };
        fields.push(format!(
            "{name}{}{inner}",
            if is_required { "" } else { "?" }
        ));
    }
    fields
}
