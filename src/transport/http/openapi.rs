//! The OpenAPI description of the internal API, generated from the code of the routes.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, ResponseBuilder};

/// Errors that every route with a key may answer, besides those that it declares itself.
const COMMON: [(&str, &str); 4] = [
    ("400", "the request is malformed; nothing was changed"),
    ("401", "the key is missing or wrong"),
    (
        "413",
        "the body is larger than limits.http_body; nothing was changed",
    ),
    (
        "503",
        "Redis cannot be reached, or refuses; the detail says why",
    ),
];

/// Adds the security schemes and the common errors to every route.
pub(super) fn complete(description: &mut OpenApi) {
    let components = description.components.get_or_insert_with(Default::default);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let key = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
    components.add_security_scheme("key", SecurityScheme::ApiKey(key));
    for operation in description.paths.paths.values_mut().flat_map(operations) {
        add_common_errors(operation);
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.post,
        &mut item.put,
        &mut item.delete,
    ]
    .into_iter()
    .flatten()
}

fn add_common_errors(operation: &mut Operation) {
    for (status, what) in COMMON {
        let problem = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name("Problem")))
            .build();
        let response = ResponseBuilder::new()
            .description(what)
            .content("application/problem+json", problem)
            .build();
        operation
            .responses
            .responses
            .entry(status.to_owned())
            .or_insert_with(|| response.into());
    }
}

/// OpenAPI 3 JSON.
static DESCRIPTION: LazyLock<String> =
    LazyLock::new(|| super::describe_internal().to_json().unwrap_or_default());

/// Describes these routes as OpenAPI 3.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    responses((status = 200, description = "the description", content_type = "application/json")),
)]
pub(super) async fn show() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        DESCRIPTION.as_str(),
    )
}
