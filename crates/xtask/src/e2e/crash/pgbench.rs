//! pgbench from the lab's client, and what its tables must say after a crash.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::super::lab::{Lab, Node};
use super::super::running::Running;
use super::super::wait;
use crate::failure::{Context, Failure, Outcome};
use crate::shell;

/// The lab's service address, and the workload's port.
const SERVER: [&str; 6] = ["-h", "10.88.0.10", "-p", "7000", "-U", "postgres"];
/// With keepalives: a client whose question the dead server had acknowledged would wait for two hours else.
const DATABASE: &str = "dbname=postgres keepalives_idle=1 keepalives_interval=1 keepalives_count=5";
const CLIENTS: u64 = 4;
/// A server that recovers answers within this time.
const READY_MAX: Duration = Duration::from_secs(60);
const REPORT: &str = "pgbench.log";

#[derive(Debug)]
pub(super) struct Bench {
    /// The client's network namespace.
    netns: String,
}

impl Bench {
    pub(super) fn new(node: &Node) -> Self {
        let prefix = node.netns.trim_end_matches(&node.name);
        Self {
            netns: format!("{prefix}client"),
        }
    }

    fn client(&self, program: &str, seconds: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.netns, "timeout", seconds, program])
            .args(SERVER)
            .env("PGCONNECT_TIMEOUT", "5");
        command
    }

    /// Makes the tables.
    pub(super) fn prepare(&self, _lab: &Lab) -> Outcome {
        let _ready = self.number("select 1")?;
        shell::run(
            self.client("pgbench", "120")
                .args(["-i", "-q", "-s", "2", "postgres"]),
        )
    }

    /// The answer to a question with one number, as soon as the server gives one.
    fn number(&self, question: &str) -> Outcome<u64> {
        wait::until("PostgreSQL answers", READY_MAX, || {
            let mut psql = self.client("psql", "20");
            let text = shell::capture(psql.args(["-At", "-c", question, "postgres"])).ok()?;
            text.trim().parse().ok()
        })
    }

    pub(super) fn history(&self) -> Outcome<u64> {
        self.number("select count(*) from pgbench_history")
    }

    /// Transactions, until the server is gone; `before` of them were there. Returns when the first is, because a pgbench that is
    /// still connecting when its server goes counts nothing.
    pub(super) fn start(&self, lab: &Lab, before: u64) -> Outcome<Running> {
        let report = fs::File::create(lab.dir.join(REPORT)).context("make a report")?;
        let errors = report.try_clone().context("make a report")?;
        let clients = CLIENTS.to_string();
        let mut command = self.client("pgbench", "90");
        command
            .args(["-n", "-c", &clients, "-j", "2", "-T", "60", DATABASE])
            .stdout(report)
            .stderr(errors);
        let running = Running::start(&mut command)?;
        wait::until("transactions run", READY_MAX, || {
            (self.history().ok()? > before).then_some(())
        })?;
        Ok(running)
    }

    /// How many transactions it saw committed.
    pub(super) fn end(&self, lab: &Lab, running: Running) -> Outcome<u64> {
        let _status = running.end()?;
        let report = fs::read_to_string(lab.dir.join(REPORT)).context("read pgbench's report")?;
        counted(&report).ok_or_else(|| {
            Failure::new("pgbench does not say how many transactions it saw").because(report)
        })
    }

    /// How many of `expected` transactions are missing.
    pub(super) fn check(&self, expected: u64) -> Outcome<u64> {
        let found = self.history()?;
        println!("transactions: {expected} were acknowledged, {found} are there");
        if found > expected + CLIENTS {
            return Err(
                Failure::new("there are more transactions than were started")
                    .because(format!("{found} of {expected}")),
            );
        }
        let balanced = "select ((select sum(abalance) from pgbench_accounts) = \
             (select coalesce(sum(delta), 0) from pgbench_history) and \
             (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches) and \
             (select sum(tbalance) from pgbench_tellers) = \
             (select coalesce(sum(delta), 0) from pgbench_history))::int";
        if self.number(balanced)? != 1 {
            return Err(Failure::new("the balances do not add up"));
        }
        Ok(expected.saturating_sub(found))
    }
}

fn counted(report: &str) -> Option<u64> {
    let line = report
        .lines()
        .find_map(|line| line.strip_prefix("number of transactions actually processed: "))?;
    line.split(['/', ' ']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_counted_with_and_without_a_goal() {
        let line = "x\nnumber of transactions actually processed: 812\ny\n";
        assert_eq!(counted(line), Some(812));
        let line = "number of transactions actually processed: 812/1000\n";
        assert_eq!(counted(line), Some(812));
        assert_eq!(counted("aborted"), None);
    }
}
