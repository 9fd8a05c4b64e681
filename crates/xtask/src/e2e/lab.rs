//! A lab for one scenario: up when made, down when dropped.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{World, wait};
use crate::failure::{Context, Failure, Outcome};
use crate::shell;

/// A healthy cluster is in sync again within this time after a heal.
const IN_SYNC_MAX: Duration = Duration::from_secs(60);

/// A lab that is up has a node of every role within this time, also after a pause of the whole machine.
const ROLE_MAX: Duration = Duration::from_secs(15);

/// So many of the last events of every node are printed when a scenario fails: elsewhere its files are out of reach.
const LAST_EVENTS: usize = 12;

/// All nodes that a lab may have.
const NODES: [&str; 4] = ["node-a", "node-b", "node-c", "witness"];

/// A running lab.
#[derive(Debug)]
pub(crate) struct Lab {
    backstay: PathBuf,
    /// The lab's directory.
    pub(crate) dir: PathBuf,
    /// Where its logs are kept if the scenario fails.
    logs: PathBuf,
    down: bool,
}

impl Lab {
    /// `backstay lab up` in a directory of this name, with further arguments.
    pub(crate) fn up(world: &World, name: &str, args: &[&str]) -> Outcome<Self> {
        let dir = world
            .scratch
            .join(format!("backstay-e2e-{}-{name}", std::process::id()));
        let lab = Self {
            backstay: world.backstay.clone(),
            dir,
            logs: world.logs.join(name),
            down: false,
        };
        let _document = lab.command(&["up"], args)?;
        Ok(lab)
    }

    /// `backstay.lab/1` as it is now.
    pub(crate) fn status(&self) -> Outcome<Value> {
        self.command(&["status"], &[])
    }

    /// Breaks a node or a link.
    pub(crate) fn fault(&self, target: &str, fault: &str) -> Outcome {
        println!("lab break {target} {fault}");
        self.command(&["break", target, fault], &[]).map(drop)
    }

    /// Heals a node, a link or `all`.
    pub(crate) fn heal(&self, target: &str) -> Outcome {
        println!("lab heal {target}");
        self.command(&["heal", target], &[]).map(drop)
    }

    /// The node that has this role. A machine that stood still for longer than a lease has no active for a moment: waits for it.
    pub(crate) fn node(&self, role: &str) -> Outcome<Node> {
        let mut refused = None;
        let found = wait::until(&format!("a node is {role}"), ROLE_MAX, || {
            let node = self
                .node_now(role)
                .map_err(|failure| refused = Some(failure));
            node.ok()?
        });
        match (found, refused) {
            (Err(late), Some(refused)) => Err(late.because(refused)),
            (found, _) => found,
        }
    }

    /// The node that has this role at this moment.
    pub(crate) fn node_now(&self, role: &str) -> Outcome<Option<Node>> {
        let status = self.status()?;
        let nodes = status["nodes"].as_array().into_iter().flatten();
        let found = nodes.into_iter().find(|node| node["role"] == role);
        Ok(found.map(|found| {
            let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
            Node {
                name: text("name"),
                netns: text("netns"),
                nbd: text("nbd"),
            }
        }))
    }

    /// Waits until both replicas are in sync, by the word of the node `name`.
    pub(crate) fn wait_in_sync(&self, name: &str) -> Outcome {
        self.wait_in_set(name, 2)
    }

    /// Waits until so many replicas are in the set, by the word of the node `name`.
    pub(crate) fn wait_in_set(&self, name: &str, replicas: usize) -> Outcome {
        let what = format!("{replicas} replicas are in the set");
        wait::until(&what, IN_SYNC_MAX, || {
            let group = self.group(name).ok()?;
            (group["in_sync"].as_array()?.len() == replicas).then_some(())
        })
    }

    /// Waits until the node `name` serves the group, by its own word.
    pub(crate) fn wait_active(&self, name: &str) -> Outcome {
        wait::until(&format!("{name} is active"), IN_SYNC_MAX, || {
            (self.group(name).ok()?["active"] == name).then_some(())
        })
    }

    /// What the daemon of the node `name` says about the lab's one group.
    pub(crate) fn group(&self, name: &str) -> Outcome<Value> {
        Ok(self.ask(name, "status")?["groups"][0].clone())
    }

    /// What the daemon of the node `name` answers to a question to its API.
    pub(crate) fn ask(&self, name: &str, question: &str) -> Outcome<Value> {
        let socket = self.dir.join(name).join("state/run/api.sock");
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--max-time", "5", "--unix-socket"])
            .arg(&socket)
            .arg(format!("http://backstay/api/v1/{question}"));
        parse(&shell::capture(&mut curl)?)
    }

    /// The loop device of the active node's mirror.
    pub(crate) fn device(&self) -> Outcome<String> {
        let status = self.status()?;
        let nodes = status["nodes"].as_array().into_iter().flatten();
        let device = nodes.into_iter().find_map(|node| node["device"].as_str());
        device
            .map(str::to_owned)
            .ok_or_else(|| Failure::new("the lab has no device"))
    }

    /// Writes of the node `name` that had to wait until their regions were durable in the intent log.
    pub(crate) fn cold_writes(&self, name: &str) -> Outcome<f64> {
        let count = self.group(name)?["mirrors"][0]["cold_writes"].as_f64();
        count.ok_or_else(|| Failure::new(format!("{name} does not count cold writes")))
    }

    /// Runs a command on the node `name`, in its namespaces.
    pub(crate) fn exec(&self, name: &str, words: &[&str]) -> Outcome {
        let mut exec = Command::new(&self.backstay);
        exec.args(["lab", "exec", "--dir"]).arg(&self.dir);
        shell::run(exec.arg(name).arg("--").args(words))
    }

    /// Bytes that the node `name` has sent, on all its networks.
    pub(crate) fn sent_bytes(&self, name: &str) -> Outcome<u64> {
        let mut exec = Command::new(&self.backstay);
        exec.args(["lab", "exec", "--dir"]).arg(&self.dir);
        let text = shell::capture(exec.args([name, "--", "cat", "/proc/net/dev"]))?;
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let of_networks = lines.filter(|(name, _)| name.trim() != "lo");
        let sent = of_networks.filter_map(|(_, counts)| counts.split_whitespace().nth(8));
        Ok(sent.filter_map(|count| count.parse::<u64>().ok()).sum())
    }

    /// Waits until the node `name` tells of a wrong disk, in these words among others.
    pub(crate) fn wait_wrong_disk(&self, name: &str, words: &str, within: Duration) -> Outcome {
        let told = wait::until(&format!("{name} names the disk"), within, || {
            let status = self.ask(name, "status").ok()?;
            let problems = status["problems"].as_array()?;
            let found = problems.iter().find(|one| one["code"] == "BS-404")?;
            Some(found["message"].as_str()?.to_owned())
        })?;
        println!("{name}: {told}");
        if told.contains(words) {
            return Ok(());
        }
        Err(Failure::new(format!("{name} says: {told}")))
    }

    /// Moves the group from the node `from`, which serves it, to `to`.
    pub(crate) fn move_group(&self, from: &str, to: &str) -> Outcome {
        println!("move db --to {to}");
        let mut moved = Command::new(&self.backstay);
        moved.arg("--state").arg(self.dir.join(from).join("state"));
        shell::run(moved.args(["move", "db", "--to", to, "--wait", "--yes"]))?;
        self.wait_active(to)
    }

    /// Stops the group in an orderly way, by the word of the node `name`.
    pub(crate) fn stop_group(&self, name: &str) -> Outcome {
        let mut stop = Command::new(&self.backstay);
        stop.arg("--state").arg(self.dir.join(name).join("state"));
        shell::run(stop.args(["stop", "db", "--wait", "--yes"]))
    }

    /// Compares the first `bytes` of all backing disks.
    pub(crate) fn compare_disks(&self, bytes: u64) -> Outcome {
        let [first, others @ ..] = NODES.map(|node| self.dir.join(node).join("disk"));
        for other in others.iter().filter(|disk| disk.exists()) {
            let mut cmp = Command::new("cmp");
            cmp.arg(format!("--bytes={bytes}")).arg(&first).arg(other);
            shell::capture(&mut cmp)
                .map_err(|failure| Failure::new("the replicas differ").because(failure))?;
        }
        Ok(())
    }

    /// Takes the lab down and says so when that fails; dropping it, as a failure does, keeps its
    /// logs before.
    pub(crate) fn down(mut self) -> Outcome {
        self.down = true;
        self.command(&["down"], &[]).map(drop)
    }

    /// Copies what tells how a scenario failed; what is not there has nothing to tell.
    fn keep_logs(&self) {
        for node in NODES {
            for (file, name) in [
                ("daemon.log", "daemon.log"),
                ("state/events/events.jsonl", "events.jsonl"),
            ] {
                let to = self.logs.join(node);
                drop(fs::create_dir_all(&to));
                drop(fs::copy(self.dir.join(node).join(file), to.join(name)));
            }
        }
        self.print_last_events();
        eprintln!("logs: {}", self.logs.display());
    }

    fn print_last_events(&self) {
        for node in NODES {
            let kept = self.logs.join(node).join("events.jsonl");
            let text = fs::read_to_string(kept).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(LAST_EVENTS)..] {
                eprintln!("{node}: {line}");
            }
        }
    }

    fn command(&self, words: &[&str], args: &[&str]) -> Outcome<Value> {
        let mut command = Command::new("timeout");
        command
            .arg("180")
            .arg(&self.backstay)
            .arg("lab")
            .args(words)
            .arg("--dir")
            .arg(&self.dir)
            .args(["-o", "json"])
            .args(args);
        let text = shell::capture(&mut command)?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        parse(&text)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.down {
            return;
        }
        self.keep_logs();
        if let Err(failure) = self.command(&["down"], &[]) {
            eprintln!("{failure}");
        }
    }
}

/// What a scenario needs to know of a node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) netns: String,
    /// URI of the mirrored volume; empty for a witness.
    pub(crate) nbd: String,
}

fn parse(text: &str) -> Outcome<Value> {
    serde_json::from_str(text)
        .map_err(std::io::Error::other)
        .context(format!(
            "read `{}` as JSON",
            text.chars().take(80).collect::<String>()
        ))
}
