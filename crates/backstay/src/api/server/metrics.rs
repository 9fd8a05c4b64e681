//! `/metrics` in the text format of Prometheus: base units, `_total` for counters, one series per state.

use std::fmt::Write;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Backend;
use super::read::status_of;
use crate::api::view::{AddressCondition, GroupView, Service, Status};
use crate::output::Lang;

/// Media type of the text format, version 0.0.4.
const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn metrics(State(backend): State<Backend>) -> Response {
    let status = status_of(&backend, Lang::En);
    let mut text = Metrics::default();
    text.cluster(&status);
    for group in &status.groups {
        text.group(group);
    }
    text.log(backend.log.head(), backend.log.unwritten());
    ([(header::CONTENT_TYPE, MEDIA)], text.finish()).into_response()
}

/// Series by metric, because all series of a metric stand together.
#[derive(Debug, Default)]
struct Metrics {
    families: Vec<Family>,
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    lines: String,
}

impl Metrics {
    fn add(
        &mut self,
        (name, kind, help): (&'static str, &'static str, &'static str),
        labels: &[(&str, &str)],
        value: f64,
    ) {
        let found = self.families.iter().position(|family| family.name == name);
        let index = found.unwrap_or_else(|| {
            self.families.push(Family {
                name,
                kind,
                help,
                lines: String::new(),
            });
            self.families.len() - 1
        });
        let lines = &mut self.families[index].lines;
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{}\"", escape(value)))
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        // Writing to a string does not fail.
        writeln!(lines, "{name}{labels} {value}").ok();
    }

    fn cluster(&mut self, status: &Status) {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        self.add(
            ("backstay_build_info", "gauge", "Version of the daemon."),
            &version,
            1.0,
        );
        let reachable = flag(status.register.reachable);
        self.add(
            (
                "backstay_register_reachable",
                "gauge",
                "A majority answers.",
            ),
            &[],
            reachable,
        );
        let age = status.view_age_ms.unwrap_or_default() / 1e3;
        self.add(
            (
                "backstay_view_age_seconds",
                "gauge",
                "Age of these figures.",
            ),
            &[],
            age,
        );
        for node in &status.nodes {
            let labels = [("node", node.name.as_str())];
            let help = "The node is heard on a heartbeat link.";
            self.add(("backstay_node_up", "gauge", help), &labels, flag(node.up));
            if let Some(ms) = node.rtt_ms {
                let help = "Round trip to the node over the best link.";
                self.add(
                    ("backstay_peer_rtt_seconds", "gauge", help),
                    &labels,
                    ms / 1e3,
                );
            }
        }
        for problem in &status.problems {
            let group = problem.group.as_deref().unwrap_or_default();
            let node = problem.node.as_deref().unwrap_or_default();
            let labels = [
                ("code", problem.code.as_str()),
                ("group", group),
                ("node", node),
            ];
            self.add(
                ("backstay_problem", "gauge", "Problems that last."),
                &labels,
                1.0,
            );
        }
    }

    fn group(&mut self, group: &GroupView) {
        let name = group.name.as_str();
        let labels = [("group", name)];
        let ready = flag(group.can_fail_over);
        let help = "Another node could take over now.";
        self.add(
            ("backstay_group_failover_ready", "gauge", help),
            &labels,
            ready,
        );
        for (state, word) in STATES {
            let labels = [("group", name), ("state", word)];
            let value = flag(group.state == state);
            self.add(
                ("backstay_group_state", "gauge", "How the group is served."),
                &labels,
                value,
            );
        }
        for mirror in &group.mirrors {
            let labels = [("group", name), ("mirror", mirror.name.as_str())];
            let help = "Bytes that may differ between the replicas.";
            let bytes = float(mirror.out_of_sync_bytes);
            self.add(
                ("backstay_mirror_out_of_sync_bytes", "gauge", help),
                &labels,
                bytes,
            );
            let help = "Acknowledged bytes that the standby lacks.";
            self.add(
                ("backstay_mirror_lag_bytes", "gauge", help),
                &labels,
                float(mirror.lag_bytes),
            );
            let help = "Age of the oldest of them.";
            self.add(
                ("backstay_mirror_lag_seconds", "gauge", help),
                &labels,
                mirror.lag_seconds,
            );
            let help = "Bytes that a crash now would add to a resync.";
            self.add(
                ("backstay_mirror_intent_bytes", "gauge", help),
                &labels,
                float(mirror.intent_bytes),
            );
            let help = "Bytes that resyncs have sent from this node.";
            self.add(
                ("backstay_mirror_resync_sent_bytes_total", "counter", help),
                &labels,
                float(mirror.resync_sent_bytes),
            );
            let help = "Writes that waited for the intent log on this node.";
            self.add(
                ("backstay_mirror_cold_writes_total", "counter", help),
                &labels,
                float(mirror.cold_writes),
            );
        }
        for address in &group.addresses {
            let ip = address.ip.to_string();
            let labels = [("group", name), ("ip", ip.as_str())];
            let held = flag(address.state == AddressCondition::Held);
            self.add(
                ("backstay_address_held", "gauge", "This node has it."),
                &labels,
                held,
            );
        }
    }

    fn log(&mut self, head: u64, unwritten: u64) {
        let help = "Events since the log began.";
        self.add(("backstay_events_total", "counter", help), &[], float(head));
        let help = "Events that could not be written to disk.";
        self.add(
            ("backstay_events_unwritten_total", "counter", help),
            &[],
            float(unwritten),
        );
    }

    fn finish(self) -> String {
        let mut text = String::new();
        for Family {
            name,
            kind,
            help,
            lines,
        } in self.families
        {
            write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}").ok();
        }
        text
    }
}

const STATES: [(Service, &str); 5] = [
    (Service::Active, "active"),
    (Service::Changing, "changing"),
    (Service::Frozen, "frozen"),
    (Service::Held, "held"),
    (Service::Down, "down"),
];

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

/// The format has floats only. Halves are exact, and their sum is as exact as a float can be.
fn float(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_become_floats_without_casts() {
        assert!((float(0) - 0.0).abs() < f64::EPSILON);
        assert!((float(5_000_000_000) - 5e9).abs() < 1.0);
    }

    #[test]
    fn labels_are_escaped() {
        let mut metrics = Metrics::default();
        metrics.add(("m", "gauge", "help"), &[("a", "x\"y\\\n")], 1.0);
        let text = metrics.finish();
        assert_eq!(
            text,
            "# HELP m help\n# TYPE m gauge\nm{a=\"x\\\"y\\\\\\n\"} 1\n"
        );
    }
}
