//! Problems: code, message, action, and where to read more.

use serde::{Deserialize, Serialize};
use wire::control::Obstacle;
use wire::problem::Problem;
use wire::record::Hold;
use wire::{GroupId, NodeId};

use super::catalogue::{Arg, fill};
use super::words::Words;
use crate::output::Lang;

/// A problem as every listing and every JSON document shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemView {
    /// Stable code, such as `BS-301`.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub action: String,
    /// Where to read more: a command.
    pub see: String,
    /// The group that it concerns, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The node that it concerns, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

impl ProblemView {
    /// A problem of the daemon's.
    pub fn new(words: &Words<'_>, problem: &Problem) -> Self {
        let args = arguments(words, problem);
        let mut view = Self::of_code(words.lang, problem.code(), &args);
        view.group = group_of(problem).map(|id| words.names.group(id));
        view.node = node_of(problem).map(|id| words.names.node(id));
        view
    }

    /// A problem by its code, with arguments for its texts.
    pub fn of_code(lang: Lang, code: &str, args: &[Arg<'_>]) -> Self {
        Self {
            code: code.to_owned(),
            message: fill(lang, &format!("problem.{code}"), args),
            action: fill(lang, &format!("action.{code}"), args),
            see: format!("backstay help {code}"),
            group: None,
            node: None,
        }
    }
}

fn arguments(words: &Words<'_>, problem: &Problem) -> Vec<Arg<'static>> {
    let mut args = Vec::new();
    if let Some(node) = node_of(problem) {
        args.push(("node", words.names.node(node)));
    }
    if let Some(group) = group_of(problem) {
        args.push(("group", words.names.group(group)));
    }
    match problem {
        // People count links from 1.
        Problem::LinkSilent { link, .. } => args.push(("link", (u16::from(*link) + 1).to_string())),
        Problem::NoStandby {
            group,
            node,
            obstacle,
        } => {
            args.push(("obstacle", words.obstacle(*obstacle)));
            args.push(("remedy", words.remedy(*group, *node, *obstacle)));
        }
        Problem::Held { by_person, .. } => {
            let hold = if *by_person {
                Hold::Stopped
            } else {
                Hold::FailedEverywhere
            };
            args.push(("why", words.hold(hold)));
        }
        Problem::WrongDisk { group, node, why } => {
            let obstacle = Obstacle::WrongDisk(*why);
            args.push(("obstacle", words.obstacle(obstacle)));
            args.push(("remedy", words.remedy(*group, *node, obstacle)));
        }
        Problem::ResourceFailed { group, resource } => {
            args.push(("resource", words.names.resource(*group, *resource)));
        }
        Problem::NodeSilent { .. }
        | Problem::RegisterUnreachable { .. }
        | Problem::Frozen { .. }
        | Problem::Down { .. }
        | Problem::DiskFailed { .. }
        | Problem::HeldBack { .. }
        | Problem::NoVote { .. } => {}
    }
    args
}

const fn group_of(problem: &Problem) -> Option<GroupId> {
    match problem {
        Problem::RegisterUnreachable { group }
        | Problem::NoStandby { group, .. }
        | Problem::Frozen { group }
        | Problem::Held { group, .. }
        | Problem::Down { group }
        | Problem::ResourceFailed { group, .. }
        | Problem::DiskFailed { group, .. }
        | Problem::WrongDisk { group, .. }
        | Problem::HeldBack { group, .. } => Some(*group),
        Problem::NodeSilent { .. } | Problem::LinkSilent { .. } | Problem::NoVote { .. } => None,
    }
}

const fn node_of(problem: &Problem) -> Option<NodeId> {
    match problem {
        Problem::NodeSilent { node }
        | Problem::LinkSilent { node, .. }
        | Problem::NoStandby { node, .. }
        | Problem::DiskFailed { node, .. }
        | Problem::HeldBack { node, .. }
        | Problem::WrongDisk { node, .. }
        | Problem::NoVote { node } => Some(*node),
        Problem::RegisterUnreachable { .. }
        | Problem::Frozen { .. }
        | Problem::Held { .. }
        | Problem::Down { .. }
        | Problem::ResourceFailed { .. } => None,
    }
}
