//! Reads requests, and refuses bad ones in the words of the API.

use super::error::ApiError;
use super::state::Shared;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use segue_core::trace::Traceparent;
use serde::de::DeserializeOwned;

/// Most bytes of a request's body.
pub const BODY_MAX: usize = 16 << 20;

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Shared> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|error| too_large(&error))?;
        // An absent body is an empty object: what has defaults needs none.
        let bytes = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
        serde_json::from_slice(&bytes).map(Json).map_err(|error| {
            ApiError::invalid(format!("the body cannot be understood: {error}")).status(400)
        })
    }
}

fn too_large(error: &BytesRejection) -> ApiError {
    ApiError::invalid(format!("the body could not be read (at most {BODY_MAX} bytes): {error}"))
        .status(413)
}

/// The parameters behind the question mark.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Shared> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ApiError> {
        Query::try_from_uri(&parts.uri).map(|Query(params)| Params(params)).map_err(|error| {
            ApiError::invalid(format!("the parameters cannot be understood: {error}")).status(400)
        })
    }
}

/// Longest idempotency key in bytes.
const KEY_MAX: usize = 200;

/// The `Idempotency-Key` header, if there is one.
#[derive(Debug)]
pub struct IdempotencyKey(pub Option<String>);

impl FromRequestParts<Shared> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get("idempotency-key") else {
            return Ok(IdempotencyKey(None));
        };
        let text = value.to_str().unwrap_or_default().trim();
        if text.is_empty() || text.len() > KEY_MAX {
            return Err(ApiError::invalid(format!(
                "an idempotency key is 1 to {KEY_MAX} visible ASCII characters"
            )));
        }
        Ok(IdempotencyKey(Some(text.to_owned())))
    }
}

/// The `traceparent` header, if there is one.
#[derive(Debug)]
pub struct Trace(pub Option<Traceparent>);

impl FromRequestParts<Shared> for Trace {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all("traceparent").iter();
        let Some(value) = values.next() else { return Ok(Trace(None)) };
        if values.next().is_some() {
            return Err(ApiError::invalid("there are several `traceparent` headers: send one"));
        }
        let text = String::from_utf8_lossy(value.as_bytes());
        let read = text.trim().parse();
        read.map(|trace| Trace(Some(trace))).map_err(|wrong: String| {
            ApiError::invalid(format!("the header `traceparent`: {wrong}"))
        })
    }
}

/// A switch behind the question mark: `1` or `true` is on.
pub fn flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    match text.as_str() {
        "1" | "true" | "" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(serde::de::Error::custom(format!("`{text}` is not 0 or 1"))),
    }
}
