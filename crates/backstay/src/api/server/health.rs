//! Answers for load balancers and supervisors: 200 for yes, 503 for no.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use wire::ByteCount;
use wire::control::Role;

use super::Backend;
use super::read::status_of;
use super::reply::{Query, Refusal, json, ok};
use crate::api::fault::FaultKind;
use crate::api::view::{GroupState, MirrorCondition, Snapshot};
use crate::config::units;
use crate::output::Lang;

/// What a health check says.
#[derive(Debug, Serialize)]
struct Health {
    schema: &'static str,
    ok: bool,
    why: String,
}

fn health(good: bool, why: impl Into<String>) -> Response {
    let body = Health {
        schema: "backstay.health/1",
        ok: good,
        why: why.into(),
    };
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(status, "application/json", &body)
}

/// The daemon's API answers.
pub(super) async fn live() -> Response {
    ok(&Health {
        schema: "backstay.health/1",
        ok: true,
        why: "the daemon answers".into(),
    })
}

/// Every group can fail over now.
pub(super) async fn ready(State(backend): State<Backend>) -> Response {
    let status = status_of(&backend, Lang::En);
    let group = status
        .groups
        .iter()
        .find(|group| !group.can_fail_over || group.active.is_none());
    let why = group.and_then(|group| group.why_not.clone());
    health(
        status.ready,
        why.unwrap_or_else(|| "every group can fail over now".into()),
    )
}

/// Parameters of the health checks.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// The group; may be missing when there is only one.
    group: Option<String>,
    /// Most bytes that a standby may lack, such as `16MB`.
    lag: Option<String>,
}

fn group_of<'s>(snapshot: &'s Snapshot, wanted: &Wanted) -> Result<&'s GroupState, Refusal> {
    let Some(name) = &wanted.group else {
        return match snapshot.groups.as_slice() {
            [only] => Ok(only),
            [] | [_, ..] => Err(Refusal::new(
                FaultKind::Malformed,
                "there are several groups: add ?group=NAME",
            )),
        };
    };
    let mut groups = snapshot.names.groups.iter().zip(&snapshot.groups);
    let found = groups
        .find(|(group, _)| group.name == *name)
        .map(|(_, state)| state);
    found.ok_or_else(|| Refusal::new(FaultKind::NotFound, format!("there is no group {name}")))
}

/// This node serves the group.
pub(super) async fn active(
    State(backend): State<Backend>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Refusal> {
    let snapshot = backend.snapshot();
    let group = group_of(&snapshot, &wanted)?;
    let serves = group.role == Role::Active && group.serving == Some(snapshot.me);
    Ok(health(
        serves,
        if serves {
            "this node serves it"
        } else {
            "this node does not serve it"
        },
    ))
}

/// This node holds a replica that could take over and lacks no more than `lag`.
pub(super) async fn standby(
    State(backend): State<Backend>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Refusal> {
    let limit = match wanted.lag.as_deref().map(units::bytes) {
        None => None,
        Some(Ok(limit)) => Some(limit),
        Some(Err(fault)) => {
            let detail = format!("`lag` must be an amount such as 16MB: {}", fault.words());
            return Err(Refusal::new(FaultKind::Malformed, detail));
        }
    };
    let snapshot = backend.snapshot();
    let group = group_of(&snapshot, &wanted)?;
    Ok(match standby_fault(&snapshot, group, limit) {
        None => health(true, "this node is a standby in sync"),
        Some(why) => health(false, why),
    })
}

fn standby_fault(
    snapshot: &Snapshot,
    group: &GroupState,
    limit: Option<ByteCount>,
) -> Option<&'static str> {
    if group.role != Role::Standby {
        return Some("this node is not a standby");
    }
    if !group.in_sync.contains(&snapshot.me) {
        return Some("this node is out of sync");
    }
    if group
        .mirrors
        .iter()
        .any(|mirror| mirror.condition == MirrorCondition::Failed)
    {
        return Some("the disk of this node failed");
    }
    let behind = limit.is_some_and(|limit| group.mirrors.iter().any(|mirror| mirror.lag > limit));
    behind.then_some("this node lacks more than the given lag")
}
