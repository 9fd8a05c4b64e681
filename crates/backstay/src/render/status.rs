//! The status table. It leads with the question that matters: can it fail over now, and if not, why not?

use std::time::Duration;

use wire::ByteCount;

use super::amount;
use super::catalogue::fill;
use super::layout::{Block, Cell};
use super::problem::ProblemView;
use crate::api::view::{
    AddressCondition, AddressView, GroupView, MirrorCondition, MirrorView, NodeView, ResourceState,
    ResourceView, Service, Status,
};
use crate::exit::Exit;
use crate::output::{Tone, Ui};

/// Columns of the labels.
const LABEL_WIDTH: usize = 11;

/// A picture older than this is pointed out.
const OLD_VIEW_MS: f64 = 2_000.0;

/// The whole table.
pub fn table(ui: &Ui, status: &Status) -> String {
    let mut text = headline(ui, status);
    if !status.problems.is_empty() {
        text.push('\n');
        text.push_str(&problems(ui, &status.problems));
    }
    if !status.nodes.is_empty() {
        text.push('\n');
        text.push_str(&nodes(ui, status));
    }
    for group in &status.groups {
        text.push('\n');
        text.push_str(&self::group(ui, status, group));
    }
    text
}

fn headline(ui: &Ui, status: &Status) -> String {
    let (word, tone) = match status.exit() {
        Exit::Ready => ("READY", Tone::Good),
        Exit::Degraded => ("DEGRADED", Tone::Warn),
        Exit::Down => ("DOWN", Tone::Bad),
        Exit::Unknown | Exit::Error | Exit::Usage => ("UNKNOWN", Tone::Bad),
    };
    let mut block = Block::toned(tone, word);
    block.row([reason(ui, status).into()]);
    let dot = ui.dot();
    let mut about: Vec<String> = status.cluster.iter().cloned().collect();
    about.extend(status.node.iter().map(|node| format!("seen from {node}")));
    if let Some(age) = status.view_age_ms {
        let span = Duration::from_secs_f64((age / 1e3).clamp(0.0, 1e9));
        let old = if age > OLD_VIEW_MS { " (old)" } else { "" };
        about.push(format!("{} ago{old}", amount::time(span)));
    }
    if !about.is_empty() {
        block.row([Cell::toned(Tone::Dim, about.join(dot))]);
    }
    block.draw(ui, LABEL_WIDTH)
}

fn reason(ui: &Ui, status: &Status) -> String {
    let exit = status.exit();
    let Some(group) = status.groups.iter().find(|group| group.exit() == exit) else {
        return fill(ui.lang, "status.unknown", &[]);
    };
    let name = ("group", group.name.clone());
    if exit == Exit::Ready {
        return fill(ui.lang, "status.ready", &[]);
    }
    // A problem of the group says more than its state.
    let problem = status
        .problems
        .iter()
        .find(|one| one.group.as_ref() == Some(&group.name));
    if exit == Exit::Down {
        let plain = || fill(ui.lang, "status.down", &[name]);
        return problem.map_or_else(plain, |one| one.message.clone());
    }
    let why = group.why_not.clone().unwrap_or_default();
    fill(ui.lang, "status.degraded", &[name, ("why", why)])
}

fn problems(ui: &Ui, list: &[ProblemView]) -> String {
    let mut block = Block::new("PROBLEMS");
    for problem in list {
        block.row([
            Cell::toned(Tone::Warn, &problem.code),
            problem.message.as_str().into(),
        ]);
        block.row(["".into(), format!("action: {}", problem.action).into()]);
        block.row([
            "".into(),
            Cell::toned(Tone::Dim, format!("see:    {}", problem.see)),
        ]);
    }
    block.draw(ui, LABEL_WIDTH)
}

fn nodes(ui: &Ui, status: &Status) -> String {
    let mut block = Block::new("NODES");
    for node in &status.nodes {
        let here = status.node.as_ref() == Some(&node.name);
        block.row(node_cells(node, here));
    }
    block.draw(ui, LABEL_WIDTH)
}

fn node_cells(node: &NodeView, here: bool) -> Vec<Cell> {
    let up = if node.up {
        Cell::toned(Tone::Good, "up")
    } else {
        Cell::toned(Tone::Bad, "silent")
    };
    let rtt = match node.rtt_ms {
        _ if here => "this node".to_owned(),
        Some(ms) if node.up => format!("rtt {ms:.1} ms"),
        Some(_) | None => String::new(),
    };
    let role = if node.up { node.role.as_str() } else { "?" };
    // What a silent witness is does not change; what a silent data node does is not known.
    let role = if node.role == "witness" {
        "witness"
    } else {
        role
    };
    vec![
        Cell::toned(Tone::Strong, &node.name),
        role.into(),
        up,
        rtt.into(),
    ]
}

fn group(ui: &Ui, status: &Status, group: &GroupView) -> String {
    let mut block = Block::new("GROUP");
    let (state, tone) = match (group.state, &group.active) {
        (Service::Active, Some(node)) => (format!("active on {node}"), Tone::Good),
        (Service::Active, None) => ("active".into(), Tone::Good),
        (Service::Changing, _) => ("changing".into(), Tone::Warn),
        (Service::Frozen, _) => ("frozen".into(), Tone::Bad),
        (Service::Held, _) => ("held".into(), Tone::Bad),
        (Service::Down, _) => ("down".into(), Tone::Bad),
    };
    block.row([
        Cell::toned(Tone::Strong, &group.name),
        Cell::toned(tone, state),
        failover(ui, status, group),
    ]);
    let mut text = block.draw(ui, LABEL_WIDTH);
    let mut block = Block::new("");
    for resource in &group.resources {
        block.row(resource_cells(ui, group, resource));
    }
    text.push_str(&block.draw(ui, LABEL_WIDTH));
    text
}

fn failover(ui: &Ui, status: &Status, group: &GroupView) -> Cell {
    let dot = ui.dot();
    let epoch = group
        .epoch
        .map(|epoch| format!("{dot}epoch {epoch}"))
        .unwrap_or_default();
    if group.state == Service::Held {
        // Nothing runs that could fail over.
        let hint = format!("`backstay start {}` starts it{epoch}", group.name);
        return hint.into();
    }
    if let Some(why) = group.why_not.as_ref().filter(|_| !group.can_fail_over) {
        return format!("cannot fail over: {why}{epoch}").into();
    }
    let standby =
        |node: &&NodeView| node.role == "standby" && node.up && group.in_sync.contains(&node.name);
    let to = status.nodes.iter().find(standby);
    let to = to
        .map(|node| format!(" to {}", node.name))
        .unwrap_or_default();
    format!("can fail over{to}{epoch}").into()
}

fn resource_cells(ui: &Ui, group: &GroupView, resource: &ResourceView) -> Vec<Cell> {
    let dot = ui.dot();
    let detail = match resource.kind.as_str() {
        "mirror" => group
            .mirrors
            .iter()
            .find(|one| one.name == resource.name)
            .map(|m| mirror(m, dot)),
        "address" => {
            let address = group
                .addresses
                .iter()
                .find(|one| one.ip.to_string() == resource.name);
            address.map(|one| self::address(one, dot))
        }
        _ => None,
    };
    vec![
        Cell::toned(Tone::Dim, &resource.kind),
        resource.name.as_str().into(),
        state_cell(resource.state),
        detail.unwrap_or_default().into(),
    ]
}

fn state_cell(state: ResourceState) -> Cell {
    match state {
        ResourceState::Running => Cell::toned(Tone::Good, "running"),
        ResourceState::Starting => Cell::toned(Tone::Warn, "starting"),
        ResourceState::Stopping => Cell::toned(Tone::Warn, "stopping"),
        ResourceState::Failed => Cell::toned(Tone::Bad, "failed"),
        ResourceState::Stopped => Cell::toned(Tone::Bad, "stopped"),
        ResourceState::Elsewhere => Cell::toned(Tone::Dim, "elsewhere"),
    }
}

/// How a mirror stands, in words.
pub const fn mirror_words(condition: MirrorCondition) -> &'static str {
    match condition {
        MirrorCondition::InSync => "in sync",
        MirrorCondition::Resyncing => "resyncing",
        MirrorCondition::Reconciling => "reconciling",
        MirrorCondition::Alone => "alone",
        MirrorCondition::Disconnected => "disconnected",
        MirrorCondition::Failed => "disk failed",
        MirrorCondition::Detached => "not attached here",
    }
}

/// How an address stands, in words.
pub const fn address_words(condition: AddressCondition) -> &'static str {
    match condition {
        AddressCondition::Held => "held",
        AddressCondition::Gated => "gated, no lease",
        AddressCondition::Elsewhere => "elsewhere",
        AddressCondition::Released => "released",
        AddressCondition::Failed => "failed",
    }
}

fn mirror(mirror: &MirrorView, dot: &str) -> String {
    let mut parts = vec![mirror_words(mirror.state).to_owned()];
    if mirror.lag_bytes > 0 || mirror.lag_seconds > 0.0 {
        let lag = amount::bytes(ByteCount(mirror.lag_bytes));
        parts.push(format!("lag {lag}, {:.1} s", mirror.lag_seconds));
    }
    if mirror.out_of_sync_bytes > 0 {
        parts.push(format!(
            "{} differ",
            amount::bytes(ByteCount(mirror.out_of_sync_bytes))
        ));
    }
    parts.extend(mirror.front_end.clone());
    parts.join(dot)
}

fn address(address: &AddressView, dot: &str) -> String {
    let holder = address.holder.as_ref().map(|node| format!("on {node}"));
    let state = (address.state != AddressCondition::Elsewhere)
        .then(|| address_words(address.state).to_owned());
    let parts: Vec<String> = state
        .into_iter()
        .chain(holder)
        .chain([address.driver.clone()])
        .collect();
    parts.join(dot)
}
