//! Answers of every handler: JSON documents, and problems.

use axum::extract::FromRequestParts;
use axum::extract::rejection::QueryRejection;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::fault::{Fault, FaultKind, PROBLEM_JSON};

/// A request that failed.
#[derive(Debug)]
pub(super) struct Refusal(Box<Fault>);

impl Refusal {
    pub(super) fn new(kind: FaultKind, detail: impl Into<String>) -> Self {
        Self(Box::new(Fault::new(kind, detail)))
    }

    pub(super) fn reason(self, reason: &str) -> Self {
        Self(Box::new(self.0.reason(reason)))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status);
        json(
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            PROBLEM_JSON,
            &*self.0,
        )
    }
}

/// A JSON document with a status.
pub(super) fn json<T: Serialize>(status: StatusCode, media: &'static str, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let media = HeaderValue::from_static(media);
            (status, [(header::CONTENT_TYPE, media)], bytes).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "cannot write an answer");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A JSON document.
pub(super) fn ok<T: Serialize>(body: &T) -> Response {
    json(StatusCode::OK, "application/json", body)
}

pub(super) async fn no_such_path(uri: Uri) -> Refusal {
    Refusal::new(
        FaultKind::NotFound,
        format!("there is no path {}", uri.path()),
    )
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Refusal::new(
        FaultKind::Method,
        format!("{} does not take {method}", uri.path()),
    )
}

/// Parameters of the query; a wrong one is a problem document.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query: Result<_, QueryRejection> =
            axum::extract::Query::<T>::from_request_parts(parts, state).await;
        match query {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Refusal::new(FaultKind::Malformed, rejection.body_text())),
        }
    }
}
