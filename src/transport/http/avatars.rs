//! Avatars: a URL, or an image that the hub stores and serves.
//!
//! The content alone decides the media type. The hub trusts neither the uploader nor the database, to which others write,
//! so nobody can have it serve an HTML page.

use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use utoipa::ToSchema;

use super::bearer::Caller;
use super::body::Json;
use super::headers::CROSS_ORIGIN;
use super::problem::Problem;
use super::{Public, me, validation};
use crate::domain::account::Image;
use crate::ids::UserId;
use crate::transport::protocol::KnownUser;

/// In bytes.
const IMAGE_LEN_MAX: usize = 256 * 1024;

/// The URL contains the hash of the image, so its content never changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// `{ url }`
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AvatarUrl {
    url: String,
}

/// Sets the caller's avatar: to a URL sent as `application/json`, or to a PNG, JPEG, GIF or WebP image of at most 256 KiB
/// in the body.
#[utoipa::path(
    put,
    path = "/api/v1/me/avatar",
    request_body = AvatarUrl,
    responses((status = 200, description = "the full account", body = KnownUser)),
)]
pub(super) async fn set(
    State(public): State<Public>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let set = if is_json(request.headers()) {
        let Json(body) = Json::<AvatarUrl>::from_request(request, &public).await?;
        let url = validation::avatar_url(&body.url)?;
        public.hub.set_avatar_url(caller.0, url).await
    } else {
        let image = read_image(request).await?;
        public.hub.set_avatar_image(caller.0, &image).await
    };
    set.map_err(|error| caller.problem(error))?;
    me::own_view(&public, caller).await
}

/// Returns an uploaded avatar, to everybody. The image under one URL never changes.
#[utoipa::path(
    get,
    path = "/api/v1/avatars/{user}/{hash}",
    params(
        ("user" = u64, Path, description = "the user"),
        ("hash" = String, Path, description = "SHA-256 of the image"),
    ),
    responses((status = 200, description = "the image", content_type = "image/*")),
)]
pub(super) async fn show(
    State(public): State<Public>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let nothing = || Problem::not_found("there is no such picture; the user may have another now");
    let (user, hash) = path.ok().and_then(named).ok_or_else(nothing)?;
    let image = public.hub.avatar(user, &hash).await?.ok_or_else(nothing)?;
    let media_type = media_type_of(&image.bytes).ok_or_else(nothing)?;
    let tag = format!("\"{hash}\"");
    let common = [
        (header::CACHE_CONTROL, IMMUTABLE),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; sandbox"),
        ),
        // Pages of other sites show avatars, too.
        CROSS_ORIGIN,
    ];
    if is_known(&headers, &tag) {
        let answer = (StatusCode::NOT_MODIFIED, common, [(header::ETAG, tag)]);
        return Ok(answer.into_response());
    }
    let content_type = (header::CONTENT_TYPE, media_type.to_owned());
    let answer = (common, [content_type, (header::ETAG, tag)], image.bytes);
    Ok(answer.into_response())
}

/// The user and the hash in the path, if both are well-formed.
fn named(Path((user, hash)): Path<(String, String)>) -> Option<(UserId, String)> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_hash = hash.len() == 64 && hash.bytes().all(is_digit);
    let user = user.parse().ok()?;
    is_hash.then_some((user, hash))
}

/// Whether `If-None-Match` contains the tag.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    tags.any(|known| matches!(known.trim(), "*") || known.trim().trim_start_matches("W/") == tag)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next());
    media_type.is_some_and(|name| name.trim().eq_ignore_ascii_case("application/json"))
}

async fn read_image(mut request: Request) -> Result<Image, Problem> {
    DefaultBodyLimit::max(IMAGE_LEN_MAX).apply(&mut request);
    let bytes = Bytes::from_request(request, &()).await;
    let bytes = bytes.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let detail =
                format!("the image has more than {IMAGE_LEN_MAX} bytes; send a smaller one");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        }
        _ => Problem::bad_request("the body could not be read"),
    })?;
    let media_type = media_type_of(&bytes).ok_or_else(|| {
        let detail =
            "the body is no PNG, JPEG, GIF or WebP image; a URL is sent as `application/json`";
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    })?;
    Ok(Image {
        media_type: media_type.to_owned(),
        bytes: bytes.into(),
    })
}

/// Recognises an image by its magic bytes. SVG is not accepted, because it runs scripts.
fn media_type_of(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_how_it_begins() {
        let known: [(&[u8], &str); 5] = [
            (b"\x89PNG\r\n\x1a\n...", "image/png"),
            (b"\xff\xd8\xff\xe0...", "image/jpeg"),
            (b"GIF87a...", "image/gif"),
            (b"GIF89a...", "image/gif"),
            (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
        ];
        for (bytes, media_type) in known {
            assert_eq!(media_type_of(bytes), Some(media_type));
        }
        let others: [&[u8]; 7] = [
            b"",
            b"\x89PNG",
            b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>",
            b"<!doctype html>",
            b" GIF89a",
            b"RIFF\x24\0\0\0WAVE",
            b"BM......",
        ];
        for bytes in others {
            assert_eq!(media_type_of(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_hash_is_64_digits() {
        let path = |user: &str, hash: &str| Path((user.to_owned(), hash.to_owned()));
        let hash = "0123456789abcdef".repeat(4);
        assert!(named(path("7", &hash)).is_some());
        for (user, hash) in [
            ("0", hash.as_str()),
            ("x", &hash),
            ("7", &hash[1..]),
            ("7", &hash.to_uppercase()),
        ] {
            assert!(named(path(user, hash)).is_none(), "{user} {hash}");
        }
    }

    #[test]
    fn what_the_browser_has_is_known_by_its_tag() {
        let known = |value: &'static str| {
            let headers = [(header::IF_NONE_MATCH, HeaderValue::from_static(value))];
            is_known(&HeaderMap::from_iter(headers), "\"a\"")
        };
        assert!(known("\"a\"") && known("\"b\", W/\"a\"") && known("*"));
        assert!(!known("\"b\"") && !known("a") && !known(""));
    }
}
