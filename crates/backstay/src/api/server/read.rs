//! What only reads: status, mirrors, addresses, and the description of the API.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::Backend;
use super::reply::{Query, ok};
use crate::api::body::{Addresses, GroupAddress, GroupMirror, Mirrors};
use crate::api::openapi;
use crate::api::view::Status;
use crate::output::Lang;

/// Parameters that every document with texts takes.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Language {
    /// `en` or `ko`.
    lang: Option<String>,
}

impl Language {
    pub(super) fn lang(&self) -> Lang {
        self.lang.as_deref().map_or(Lang::En, Lang::from_locale)
    }
}

pub(super) fn status_of(backend: &Backend, lang: Lang) -> Status {
    backend.snapshot().status(lang, (backend.clock)())
}

pub(super) async fn status(
    State(backend): State<Backend>,
    Query(language): Query<Language>,
) -> Response {
    ok(&status_of(&backend, language.lang()))
}

pub(super) async fn mirrors(State(backend): State<Backend>) -> Response {
    let status = status_of(&backend, Lang::En);
    let mirrors = status.groups.into_iter().flat_map(|group| {
        let (name, in_sync) = (group.name, group.in_sync);
        group.mirrors.into_iter().map(move |mirror| GroupMirror {
            group: name.clone(),
            in_sync: in_sync.clone(),
            mirror,
        })
    });
    ok(&Mirrors {
        schema: "backstay.mirrors/1".into(),
        mirrors: mirrors.collect(),
    })
}

pub(super) async fn addresses(State(backend): State<Backend>) -> Response {
    let status = status_of(&backend, Lang::En);
    let addresses = status.groups.into_iter().flat_map(|group| {
        let name = group.name;
        let with_group = move |address| GroupAddress {
            group: name.clone(),
            address,
        };
        group.addresses.into_iter().map(with_group)
    });
    ok(&Addresses {
        schema: "backstay.addresses/1".into(),
        addresses: addresses.collect(),
    })
}

pub(super) async fn openapi() -> Response {
    ok(&openapi::document())
}
