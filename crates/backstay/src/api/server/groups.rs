//! What a person asks of a group.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::{mpsc, oneshot};
use wire::control::{GroupRequest, RequestFault};
use wire::units::BLOCK_BYTES;
use wire::{ByteCount, Epoch, GroupId, NodeId};

use super::reply::{Refusal, json};
use super::{Backend, Request};
use crate::api::body::{GroupRequestBody, OFF, REASON_BYTES_MAX, Taken};
use crate::api::fault::FaultKind;
use crate::api::view::Snapshot;
use crate::output::Lang;
use crate::render::words::Words;

/// The run loop answers at once; a request that takes longer is stuck behind a hanging disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn ask(
    State(backend): State<Backend>,
    Path((group, action)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let snapshot = backend.snapshot();
    let id = group_id(&snapshot, &group)?;
    let body = parse(body)?;
    let what = request(&snapshot, id, &action, &body)?;
    let reason = body.reason.unwrap_or_default();
    tracing::info!(group, action, reason, "asked over the API");
    let (answer, answered) = oneshot::channel();
    let request = Request {
        group: id,
        what,
        reason,
        answer,
    };
    backend
        .requests
        .try_send(request)
        .map_err(|error| busy(&error))?;
    match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
        Ok(Ok(Ok(()))) => {
            let taken = Taken {
                schema: "backstay.request/1".into(),
                taken: true,
            };
            Ok(json(StatusCode::ACCEPTED, "application/json", &taken))
        }
        Ok(Ok(Err(fault))) => Err(refused(&snapshot, fault)),
        Ok(Err(_)) => Err(Refusal::new(FaultKind::Busy, "the daemon is ending")),
        Err(_) => Err(Refusal::new(
            FaultKind::Timeout,
            "the run loop did not answer in time",
        )),
    }
}

fn busy(error: &mpsc::error::TrySendError<Request>) -> Refusal {
    let detail = match error {
        mpsc::error::TrySendError::Full(_) => "too many requests wait already",
        mpsc::error::TrySendError::Closed(_) => "the daemon is ending",
    };
    Refusal::new(FaultKind::Busy, detail)
}

fn group_id(snapshot: &Snapshot, name: &str) -> Result<GroupId, Refusal> {
    let mut ids = (0..=u8::MAX).map(GroupId).zip(&snapshot.names.groups);
    let found = ids.find(|(_, group)| group.name == name).map(|(id, _)| id);
    found.ok_or_else(|| Refusal::new(FaultKind::NotFound, format!("there is no group {name}")))
}

fn parse(body: Result<Bytes, BytesRejection>) -> Result<GroupRequestBody, Refusal> {
    let bytes = body.map_err(|rejection| {
        let too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
        let kind = if too_large {
            FaultKind::TooLarge
        } else {
            FaultKind::Malformed
        };
        Refusal::new(kind, rejection.body_text())
    })?;
    if bytes.is_empty() {
        return Ok(GroupRequestBody::default());
    }
    let body: GroupRequestBody = serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::new(FaultKind::Malformed, format!("the body: {error}")))?;
    let reason = body.reason.as_deref().unwrap_or_default();
    if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        let detail = format!("`reason` must be one line of at most {REASON_BYTES_MAX} bytes");
        return Err(Refusal::new(FaultKind::Malformed, detail));
    }
    Ok(body)
}

/// The size that a volume is to have.
fn whole_blocks(size: Option<u64>) -> Result<Option<ByteCount>, Refusal> {
    if size.is_some_and(|size| size == 0 || !size.is_multiple_of(BLOCK_BYTES)) {
        let detail = format!("`size` must be a multiple of {BLOCK_BYTES}");
        return Err(Refusal::new(FaultKind::Malformed, detail));
    }
    Ok(size.map(ByteCount))
}

fn request(
    snapshot: &Snapshot,
    group: GroupId,
    action: &str,
    body: &GroupRequestBody,
) -> Result<GroupRequest, Refusal> {
    only_its_own_keys(action, body)?;
    match action {
        "start" => Ok(GroupRequest::Start),
        "stop" => Ok(GroupRequest::Stop),
        "move" => {
            let to = body.to.as_deref().map(|name| data_node(snapshot, name));
            Ok(GroupRequest::Move(to.transpose()?))
        }
        "verify" => Ok(GroupRequest::Verify {
            mirror: mirror(snapshot, group, body)?,
            repair: body.repair.unwrap_or_default(),
        }),
        "grow" => Ok(GroupRequest::Grow {
            mirror: mirror(snapshot, group, body)?,
            data: whole_blocks(body.size)?,
        }),
        "demote" => demotion(snapshot, group, body),
        "promote" => promotion(snapshot, group, body),
        "resync" => {
            let node = body.node.as_deref().map(|name| data_node(snapshot, name));
            Ok(GroupRequest::Resync {
                mirror: mirror(snapshot, group, body)?,
                node: node.transpose()?,
                full: body.full.unwrap_or_default(),
            })
        }
        _ => Err(Refusal::new(
            FaultKind::NotFound,
            format!("groups do not take `{action}`"),
        )),
    }
}

/// A key that belongs to another request is a mistake, not an extra.
fn only_its_own_keys(action: &str, body: &GroupRequestBody) -> Result<(), Refusal> {
    let keys = [
        ("to", body.to.is_some(), &["move"][..]),
        (
            "mirror",
            body.mirror.is_some(),
            &["verify", "resync", "grow", "demote", "promote"],
        ),
        ("size", body.size.is_some(), &["grow"]),
        ("repair", body.repair.is_some(), &["verify"]),
        ("full", body.full.is_some(), &["resync"]),
        (
            "node",
            body.node.is_some(),
            &["resync", "demote", "promote"],
        ),
        ("bytes", body.bytes.is_some(), &["demote"]),
        ("epoch", body.epoch.is_some(), &["demote", "promote"]),
        ("confirm", body.confirm.is_some(), &["demote", "promote"]),
    ];
    let foreign = |(_, given, takers): &(&str, bool, &[&str])| *given && !takers.contains(&action);
    match keys.into_iter().find(foreign) {
        Some((key, ..)) => {
            let detail = format!("`{action}` does not take `{key}`");
            Err(Refusal::new(FaultKind::Malformed, detail))
        }
        None => Ok(()),
    }
}

/// Lets writes go: only what the person was shown, and with the mirror's name typed.
fn demotion(
    snapshot: &Snapshot,
    group: GroupId,
    body: &GroupRequestBody,
) -> Result<GroupRequest, Refusal> {
    let number = mirror(snapshot, group, body)?;
    if body.confirm != body.mirror {
        let detail = "`confirm` must be the mirror's name";
        return Err(Refusal::new(FaultKind::Malformed, detail));
    }
    let Some(bytes) = body.bytes else {
        let detail =
            "`demote` needs `bytes`: what the node holds back, as `GET /api/v1/mirrors` shows it";
        return Err(Refusal::new(FaultKind::Malformed, detail));
    };
    let node = body.node.as_deref().map(|name| data_node(snapshot, name));
    Ok(GroupRequest::Demote {
        mirror: number,
        node: node.transpose()?.unwrap_or(snapshot.me),
        bytes: ByteCount(bytes),
        epoch: epoch(body)?,
    })
}

/// The record that the person was shown.
fn epoch(body: &GroupRequestBody) -> Result<Epoch, Refusal> {
    let detail = "`epoch` is missing: the group's, as `GET /api/v1/status` shows it";
    let missing = || Refusal::new(FaultKind::Malformed, detail);
    body.epoch.map(Epoch).ok_or_else(missing)
}

/// A forced promotion: the person typed which node is off.
fn promotion(
    snapshot: &Snapshot,
    group: GroupId,
    body: &GroupRequestBody,
) -> Result<GroupRequest, Refusal> {
    mirror(snapshot, group, body)?;
    let malformed = |detail: &str| Refusal::new(FaultKind::Malformed, detail);
    let Some(node) = body.node.as_deref() else {
        return Err(malformed("`node` is missing"));
    };
    let typed = body.confirm.as_deref().unwrap_or_default();
    let Some(off) = typed.strip_suffix(OFF) else {
        return Err(malformed("`confirm` must be `NODE is off`"));
    };
    Ok(GroupRequest::Promote {
        node: data_node(snapshot, node)?,
        off: data_node(snapshot, off)?,
        epoch: epoch(body)?,
    })
}

fn mirror(snapshot: &Snapshot, group: GroupId, body: &GroupRequestBody) -> Result<u8, Refusal> {
    let Some(name) = body.mirror.as_deref() else {
        return Err(Refusal::new(FaultKind::Malformed, "`mirror` is missing"));
    };
    let mut numbers = 0..=u8::MAX;
    let found = numbers.find(|number| snapshot.names.mirror(group, *number) == Some(name));
    found.ok_or_else(|| {
        let detail = format!("the group has no mirror {name}");
        Refusal::new(FaultKind::NotFound, detail)
    })
}

fn data_node(snapshot: &Snapshot, name: &str) -> Result<NodeId, Refusal> {
    let nodes = snapshot.names.nodes.iter().zip(&snapshot.nodes);
    let mut nodes = (0..=NodeId::MAX.0).map(NodeId).zip(nodes);
    match nodes.find(|(_, (known, _))| *known == name) {
        Some((_, (_, node))) if node.witness => {
            let detail = format!("{name} is a witness and holds no data");
            Err(Refusal::new(FaultKind::Malformed, detail))
        }
        Some((id, _)) => Ok(id),
        None => Err(Refusal::new(
            FaultKind::NotFound,
            format!("there is no node {name}"),
        )),
    }
}

fn refused(snapshot: &Snapshot, fault: RequestFault) -> Refusal {
    let words = Words {
        lang: Lang::En,
        names: &snapshot.names,
    };
    let reason = match fault {
        RequestFault::NoActive => "no-active",
        RequestFault::Target(..) => "target",
        RequestFault::NoTarget => "no-target",
        RequestFault::Busy => "busy",
        RequestFault::Already => "already",
        RequestFault::Unclear => "unclear",
        RequestFault::Silent(_) => "silent",
        RequestFault::Alive(_) => "alive",
        RequestFault::OtherActive(_) => "other-active",
        RequestFault::NoMajority => "no-majority",
        RequestFault::LeaseRunning => "lease-running",
        RequestFault::Promotable(_) => "promotable",
        RequestFault::NameOne => "name-one",
        RequestFault::NotHeldBack(_) => "not-held-back",
        RequestFault::OtherHeldBack(..) => "other-held-back",
        RequestFault::Better(_) => "better",
        RequestFault::AskThere(_) => "ask-there",
        RequestFault::OtherRecord => "other-record",
    };
    Refusal::new(FaultKind::Refused, words.fault(fault)).reason(reason)
}
