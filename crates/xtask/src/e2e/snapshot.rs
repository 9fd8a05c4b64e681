//! A snapshot's freeze: what it keeps still, and that it never lasts longer than it may.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use super::World;
use super::lab::Lab;
use super::running::Running;
use super::wait;
use crate::failure::{Context, Failure, Outcome};
use crate::shell;

/// The volume.
const SIZE: &str = "64M";
const SIZE_BYTES: u64 = 64 << 20;
/// The lab's mirror.
const MIRROR: &str = "data";
/// A file system that may run again does so within this time.
const THAWED_MAX: Duration = Duration::from_secs(20);
/// Seconds of a command that is not to end by itself; nobody else sleeps so long.
const LONG: &str = "4242";

/// Writes are under way all the time, in the active node's file system.
pub(crate) fn stands_still(world: &World) -> Outcome {
    let args = ["--workload", "ledger", "--size", SIZE];
    let lab = Lab::up(world, "snapshot", &args)?;
    let active = lab.node("active")?.name;
    lab.wait_in_sync(&active)?;
    let case = Case {
        world,
        lab: &lab,
        copy: lab.dir.join("copy"),
        marker: lab.dir.join("marker"),
    };
    let writer = case.writer(&active)?;
    case.copy_is_whole(&active)?;
    case.codes_are_passed_on(&active)?;
    case.standby_refuses(&active)?;
    case.time_is_kept(&active)?;
    case.somebody_elses_thaw_is_noticed(&active)?;
    case.killed_freezer_thaws(&active)?;
    case.killed_asker_thaws(&active)?;
    case.killed_daemon_thaws(&active)?;
    case.killed_daemon_and_freezer_thaw(&active)?;
    // It would keep the file system from being unmounted.
    drop(writer);
    case.moved_group_thaws(&active)?;
    lab.down()
}

struct Case<'a> {
    world: &'a World,
    lab: &'a Lab,
    copy: PathBuf,
    /// Made by a command once it runs.
    marker: PathBuf,
}

impl Case<'_> {
    /// Something that always writes, as long as the node's file system is there.
    fn writer(&self, node: &str) -> Outcome<Running> {
        let log = self.lab.dir.join("mnt/log");
        let script = format!(
            "while :; do date >> {0} && sync {0}; sleep 0.02; done 2>/dev/null",
            log.display()
        );
        let mut exec = Command::new(&self.world.backstay);
        exec.args(["lab", "exec", "--dir"]).arg(&self.lab.dir);
        Running::start(exec.args([node, "--", "sh", "-c", &script]))
    }

    fn snapshot(&self, node: &str, options: &[&str], script: &str) -> Command {
        let mut command = Command::new(&self.world.backstay);
        command
            .arg("--state")
            .arg(self.lab.dir.join(node).join("state"))
            .args(["mirror", "snapshot", MIRROR])
            .args(options)
            .args(["--", "sh", "-c", script]);
        command
    }

    fn run(&self, node: &str, options: &[&str], script: &str) -> Outcome<ExitStatus> {
        let mut command = self.snapshot(node, options, script);
        println!("$ {}", shell::describe(&command));
        command.status().context("run the snapshot")
    }

    /// One that waits for ever in its command, once that runs.
    fn waiting(&self, node: &str) -> Outcome<Running> {
        drop(fs::remove_file(&self.marker));
        let script = format!("touch {}; exec sleep {LONG}", self.marker.display());
        let waiting = Running::start(&mut self.snapshot(node, &[], &script))?;
        wait::until("the command runs", THAWED_MAX, || {
            self.marker.exists().then_some(())
        })?;
        Ok(waiting)
    }

    /// A write ends: within a moment, or when the file system runs again.
    fn writes(&self, node: &str, what: &str) -> Outcome {
        let file = self.lab.dir.join("mnt/probe").display().to_string();
        let script = format!("echo x > {file} && sync {file}");
        let begun = Instant::now();
        let limit = THAWED_MAX.as_secs().to_string();
        self.lab
            .exec(
                node,
                &["timeout", "-s", "KILL", &limit, "sh", "-c", &script],
            )
            .map_err(|failure| {
                Failure::new(format!("it stays frozen after {what}")).because(failure)
            })?;
        println!(
            "after {what}: written within {} ms",
            begun.elapsed().as_millis()
        );
        Ok(())
    }

    /// What is copied meanwhile needs no recovery, and is not changed by anything.
    fn copy_is_whole(&self, node: &str) -> Outcome {
        let (copy, size) = (self.copy.display(), SIZE_BYTES);
        let script = format!(
            "set -e; test -n \"$BACKSTAY_EPOCH\" -a \"$BACKSTAY_MIRROR\" = {MIRROR}; test -d \"$BACKSTAY_MOUNT\"; \
             head -c {size} \"$BACKSTAY_DISK\" > {copy}; sleep 1; cmp -n {size} \"$BACKSTAY_DISK\" {copy}"
        );
        let ended = self.run(node, &[], &script)?;
        if !ended.success() {
            return Err(Failure::new("the disk changed while it stood still").because(ended));
        }
        shell::run(Command::new("e2fsck").arg("-fn").arg(&self.copy))?;
        let mut dump = Command::new("dumpe2fs");
        let told = shell::capture(dump.arg("-h").arg(&self.copy))?;
        if told.contains("needs_recovery") {
            return Err(Failure::new("the copy's journal is not empty"));
        }
        self.writes(node, "a snapshot")
    }

    fn codes_are_passed_on(&self, node: &str) -> Outcome {
        let code = self.run(node, &[], "exit 7")?.code();
        if code != Some(7) {
            return Err(Failure::new(format!("the command's 7 became {code:?}")));
        }
        self.writes(node, "a failed command")
    }

    fn standby_refuses(&self, active: &str) -> Outcome {
        let standby = self.lab.node("standby")?.name;
        let ended = self.run(&standby, &[], "true")?;
        if ended.success() || standby == active {
            return Err(Failure::new(
                "a standby took a snapshot as if it were active",
            ));
        }
        Ok(())
    }

    fn time_is_kept(&self, node: &str) -> Outcome {
        let begun = Instant::now();
        let script = format!("exec sleep {LONG}");
        let ended = self.run(node, &["--timeout", "1s"], &script)?;
        let took = begun.elapsed();
        if ended.code() != Some(1) || took > THAWED_MAX {
            return Err(
                Failure::new("the time limit was not kept").because(format!("{ended}, {took:?}"))
            );
        }
        self.writes(node, "the time limit")
    }

    /// The asker is killed without a word: the command ends with it, and the file system runs.
    fn killed_asker_thaws(&self, node: &str) -> Outcome {
        let waiting = self.waiting(node)?;
        drop(waiting);
        self.writes(node, "the asker's death")?;
        none_is_left()?;
        let group = self.lab.group(node)?;
        if group["active"] != *node {
            return Err(Failure::new("the group moved because of a snapshot"));
        }
        Ok(())
    }

    /// What was written in between is in no snapshot: whatever the command says, it is not good.
    fn somebody_elses_thaw_is_noticed(&self, node: &str) -> Outcome {
        let waiting = self.marker.display();
        let script = format!("touch {waiting}; while test -e {waiting}; do sleep 0.05; done");
        let mut command = self.snapshot(node, &[], &script);
        let taking = std::thread::spawn(move || command.status());
        wait::until("the command runs", THAWED_MAX, || {
            self.marker.exists().then_some(())
        })?;
        let mount = self.lab.dir.join("mnt").display().to_string();
        let thawed = self.lab.exec(node, &["fsfreeze", "--unfreeze", &mount]);
        fs::remove_file(&self.marker).context("let the command end")?;
        let ended = taking.join().map_err(|_| Failure::new("no snapshot"))?;
        thawed?;
        let ended = ended.context("take the snapshot")?;
        if ended.code() != Some(1) {
            return Err(Failure::new("somebody else's thaw was not noticed").because(ended));
        }
        self.writes(node, "somebody else's thaw")
    }

    /// The process that holds the freeze.
    fn freezer(&self) -> Outcome<String> {
        let pattern = format!("freezer --mount {}", self.lab.dir.display());
        let pid = shell::capture(Command::new("pgrep").args(["-f", &pattern]))?;
        Ok(pid.trim().to_owned())
    }

    /// Another one thaws.
    fn killed_freezer_thaws(&self, node: &str) -> Outcome {
        let waiting = self.waiting(node)?;
        signal("-KILL", &self.freezer()?)?;
        self.writes(node, "the freezer's death")?;
        drop(waiting);
        none_is_left()
    }

    /// The note tells the successor.
    fn killed_daemon_and_freezer_thaw(&self, node: &str) -> Outcome {
        let waiting = self.waiting(node)?;
        // Else it would thaw, or the daemon would.
        let freezer = self.freezer()?;
        signal("-STOP", &freezer)?;
        self.lab.fault(node, "daemon")?;
        signal("-KILL", &freezer)?;
        self.writes(node, "the death of freezer and daemon")?;
        drop(waiting);
        self.lab.wait_active(node)?;
        self.lab.wait_in_sync(node)
    }

    /// The freezer thaws; the command ends with an error.
    fn killed_daemon_thaws(&self, node: &str) -> Outcome {
        let waiting = self.waiting(node)?;
        self.lab.fault(node, "daemon")?;
        self.writes(node, "the daemon's death")?;
        drop(waiting);
        self.lab.wait_active(node)?;
        self.lab.wait_in_sync(node)
    }

    /// A freeze never outlives the role.
    fn moved_group_thaws(&self, node: &str) -> Outcome {
        let standby = self.lab.node("standby")?.name;
        let waiting = self.waiting(node)?;
        let mut moving = Command::new(&self.world.backstay);
        moving
            .arg("--state")
            .arg(self.lab.dir.join(node).join("state"));
        shell::run(moving.args(["move", "db", "--wait=30s", "--yes"]))?;
        self.lab.wait_active(&standby)?;
        drop(waiting);
        self.writes(&standby, "a move")?;
        none_is_left()
    }
}

fn signal(which: &str, pid: &str) -> Outcome {
    shell::run(Command::new("kill").args([which, pid]))
}

/// No process of a command is left.
fn none_is_left() -> Outcome {
    let mut pgrep = Command::new("pgrep");
    match shell::capture(pgrep.args(["-x", "-f", &format!("sleep {LONG}")])) {
        Ok(pids) => Err(Failure::new("a command was left").because(pids)),
        Err(_) => Ok(()),
    }
}
