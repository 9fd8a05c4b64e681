//! Names of the ids that events and problems carry.

use serde::{Deserialize, Serialize};
use wire::{GroupId, NodeId};

use crate::config::Config;

/// Names of a configuration, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The cluster.
    pub cluster: String,
    /// The node that speaks.
    pub me: String,
    /// Nodes by [`NodeId`].
    pub nodes: Vec<String>,
    /// Groups by [`GroupId`].
    pub groups: Vec<GroupNames>,
}

/// Names of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupNames {
    /// The group.
    pub name: String,
    /// Its resources, in order.
    pub resources: Vec<ResourceName>,
}

/// Name and kind of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceName {
    /// Such as `pgdata`.
    pub name: String,
    /// Such as `mirror`.
    pub kind: String,
}

impl Names {
    /// Names of a configuration, as the node `me` speaks them.
    pub fn of(config: &Config, me: NodeId) -> Self {
        let group = |group: &crate::config::model::Group| GroupNames {
            name: group.name.clone(),
            resources: group
                .resources
                .iter()
                .map(|resource| ResourceName {
                    name: resource.name(),
                    kind: resource.kind().into(),
                })
                .collect(),
        };
        Self {
            cluster: config.cluster.clone(),
            me: config
                .node(me)
                .map(|node| node.name.clone())
                .unwrap_or_default(),
            nodes: config.nodes.iter().map(|node| node.name.clone()).collect(),
            groups: config.groups.iter().map(group).collect(),
        }
    }

    /// A node's name; its number if it has none.
    pub fn node(&self, id: NodeId) -> String {
        self.nodes
            .get(usize::from(id.0))
            .cloned()
            .unwrap_or_else(|| format!("#{}", id.0))
    }

    /// A group's name; its number if it has none.
    pub fn group(&self, id: GroupId) -> String {
        let group = self.groups.get(usize::from(id.0));
        group.map_or_else(|| format!("#{}", id.0), |group| group.name.clone())
    }

    /// A group's mirror, by its number among the mirrors of the group.
    pub fn mirror(&self, group: GroupId, number: u8) -> Option<&str> {
        let group = self.groups.get(usize::from(group.0))?;
        let mut mirrors = group.resources.iter().filter(|r| r.kind == "mirror");
        mirrors.nth(usize::from(number)).map(|r| r.name.as_str())
    }

    /// A resource as a person names it, such as `mirror pgdata`.
    pub fn resource(&self, group: GroupId, index: u8) -> String {
        let group = self.groups.get(usize::from(group.0));
        group
            .and_then(|group| group.resources.get(usize::from(index)))
            .map_or_else(
                || format!("resource #{index}"),
                |resource| format!("{} {}", resource.kind, resource.name),
            )
    }
}
