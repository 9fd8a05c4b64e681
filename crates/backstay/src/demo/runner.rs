//! One run: a fresh lab, rows and questions, a fault, what comes of it, healing, and the account.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::document::Run;
use super::journal::{Journal, longest_gap};
use super::observer::{Observation, Observer};
use super::scenario::{Expected, Scenario, Step, Who};
use super::story::Story;
use super::trace::Trace;
use super::verify;
use super::writer::{self, Writers};
use crate::failure::Failure;
use crate::lab::cut::{Link, LinkFault};
use crate::lab::fault::{self, NodeFault};
use crate::lab::state::{Lab, Mode, Options};
use crate::lab::topology::{GROUP, Node, Outsider};
use crate::lab::{interrupt, lifecycle, status, tools};

/// Longest wait for the event logs to tell how a resync ended.
const ACCOUNT_MAX: Duration = Duration::from_secs(1);
/// Rows must have flowed this long before something is broken.
const STEADY: Duration = Duration::from_secs(1);
/// Rows must have flowed this long before a fault counts as overcome.
const RECOVERED: Duration = Duration::from_millis(500);
/// Rows that are no further apart flow.
const FLOW_GAP_MAX: Duration = Duration::from_millis(250);
/// No good reply for this long: service is withheld, not just slow.
const SILENT: Duration = Duration::from_secs(3);
/// Longest wait for the workload's first answer, and for steady rows.
const STEADY_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the expected reaction to a fault.
const REACTION_MAX: Duration = Duration::from_secs(30);
/// Longest wait for service and redundancy after healing.
const REDUNDANT_MAX: Duration = Duration::from_secs(60);

/// What is to be run.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The break.
    pub(super) scenario: &'static Scenario,
    /// The lab.
    pub(super) options: Options,
    /// Rows and power losses follow from it.
    pub(super) seed: u64,
    /// Number of the repeat, from 1.
    pub(super) repeat: u32,
    /// Directory of the lab.
    pub(super) dir: PathBuf,
    /// Leave the lab running.
    pub(super) keep: bool,
}

/// Who played which part when the fault came.
#[derive(Clone, Copy, Debug)]
struct Cast {
    active: Node,
    standby: Node,
}

/// Threads around the cluster.
struct Audience {
    journal: Arc<Journal>,
    writers: Writers,
    observer: Observer,
}

/// The moment of the fault, on both clocks.
#[derive(Clone, Copy, Debug)]
struct Moment {
    instant: Instant,
    wall: Timestamp,
}

/// Runs one break and cleans up after it.
pub(super) fn run(request: &Request, story: &Story<'_>) -> Run {
    let Request {
        scenario,
        options,
        seed,
        repeat,
        ..
    } = request;
    let mut run = Run::begun(scenario, options, *seed, *repeat);
    if let Err(failure) = perform(request, story, &mut run) {
        run.object_failure(&failure);
    }
    run.pass = run.reasons.is_empty();
    let raised = interrupt::begin_cleaning();
    let what = match (raised, request.keep, run.pass) {
        (true, _, _) | (false, false, true) => Leave::Nothing,
        (false, true, _) => Leave::Lab,
        (false, false, false) => Leave::Logs,
    };
    if let Err(failure) = clean_up(request, what) {
        run.object_failure(&failure);
        run.pass = false;
    }
    run.is_interrupted = interrupt::end_cleaning() || raised;
    run.logs = (what != Leave::Nothing).then(|| request.dir.display().to_string());
    run
}

/// What stays of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Nothing,
    /// Files, to see what went wrong.
    Logs,
    /// Everything, up.
    Lab,
}

fn clean_up(request: &Request, leave: Leave) -> Result<(), Failure> {
    match leave {
        Leave::Lab => Ok(()),
        Leave::Nothing => lifecycle::down(&request.dir),
        Leave::Logs => lifecycle::stop(&request.dir),
    }
}

fn perform(request: &Request, story: &Story<'_>, run: &mut Run) -> Result<(), Failure> {
    let mut lab = lifecycle::up(&request.dir, request.options.clone(), true)?;
    let client = lab.outsider(Outsider::Client);
    let workload = request.options.workload;
    writer::prepare(&client, workload, STEADY_MAX)?;
    story.up(&lab);
    run.front_end = front_end(&lab);
    let journal = Arc::new(Journal::create(&lab.dir.join("journal"))?);
    let audience = Audience {
        writers: Writers::start(&client, workload, request.seed, &journal),
        observer: Observer::start(&lab)?,
        journal,
    };
    let played = play(request, &mut lab, &audience.journal, story, run);
    audience.writers.finish();
    let observation = audience.observer.finish();
    judge_observation(&observation, request.scenario, run);
    let rows = audience.journal.rows();
    run.acknowledged = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    let fault = played?;
    let account = verify::account(
        &rows,
        &writer::read_back(&client, workload, STEADY_MAX)?,
        request.seed,
    );
    judge_account(account, lab.options.mode, run);
    judge_outage(longest_gap(&rows, fault.instant), request.scenario, run);
    judge_replicas(verify::differing_blocks(&lab)?, run);
    story.verified(run);
    Ok(())
}

/// Steady state, fault, reaction, healing, redundancy.
fn play(
    request: &Request,
    lab: &mut Lab,
    journal: &Journal,
    story: &Story<'_>,
    run: &mut Run,
) -> Result<Moment, Failure> {
    tools::wait_for("a steady flow of rows", STEADY_MAX, || {
        (journal.flows(STEADY, FLOW_GAP_MAX) && lifecycle::why_not_ready(lab).is_none())
            .then_some(())
    })?;
    let cast = Cast::now(lab)?;
    story.breaking(request.scenario, cast.active.name(), journal.len());
    let fault = Moment {
        instant: Instant::now(),
        wall: Timestamp::now(),
    };
    for step in request.scenario.steps {
        take(*step, cast, request.seed, lab)?;
    }
    await_reaction(request.scenario, cast, fault, lab, journal)?;
    tools::wait_for(
        "the end of the fault",
        request.scenario.lasts + REACTION_MAX,
        || (fault.instant.elapsed() >= request.scenario.lasts).then_some(()),
    )?;
    await_reaction(request.scenario, cast, fault, lab, journal)?;
    let active = status::active_node(lab);
    tell_phases(request, lab, fault, active, run);
    let outage = longest_gap(&journal.rows(), fault.instant);
    story.reacted(request.scenario, active.map(Node::name), outage, run);
    heal(request.scenario, lab)?;
    let healed = Instant::now();
    await_redundancy(lab, journal)?;
    let trace = account(lab, fault);
    run.changed_bytes = trace.changed_bytes();
    run.resync_bytes = trace.resync_bytes();
    story.healed(healed.elapsed(), run);
    Ok(fault)
}

/// The nodes' event logs once they tell the end of every resync, which comes a little after the replicas are in sync. One that was
/// interrupted has no end: then the logs as they are.
fn account(lab: &Lab, fault: Moment) -> Trace {
    let read = || Trace::read(lab, fault.wall);
    let whole = || Some(read()).filter(Trace::tells_every_end);
    tools::wait_for("the end of every resync", ACCOUNT_MAX, whole).unwrap_or_else(|_| read())
}

fn tell_phases(request: &Request, lab: &Lab, fault: Moment, active: Option<Node>, run: &mut Run) {
    let trace = Trace::read(lab, fault.wall);
    run.why = trace.why();
    if let Some(active) = active {
        run.phases = trace.phases(active, request.options.workload);
    }
}

impl Cast {
    fn now(lab: &Lab) -> Result<Self, Failure> {
        let active = status::active_node(lab);
        let found = active.and_then(|active| {
            Some(Self {
                active,
                standby: active.peer()?,
            })
        });
        found.ok_or_else(|| Failure::new("no node of the lab is active"))
    }

    const fn node(self, who: Who) -> Node {
        match who {
            Who::Active => self.active,
            Who::Standby => self.standby,
            Who::Witness => Node::Witness,
        }
    }
}

fn take(step: Step, cast: Cast, seed: u64, lab: &mut Lab) -> Result<(), Failure> {
    match step {
        Step::Node(who, fault) => fault::break_node(lab, cast.node(who), fault, seed),
        Step::CutNetwork(network) => fault::break_link(lab, Link::Network(network), LinkFault::Cut),
        Step::CutNode(who) => {
            fault::break_link(lab, Link::Port(cast.node(who), None), LinkFault::Cut)
        }
        Step::CutPair(one, two) => {
            let link = Link::Pair(cast.node(one), cast.node(two), None);
            fault::break_link(lab, link, LinkFault::Cut)
        }
        Step::AppFails => fault::set_app_fails(lab, true),
        Step::AwaitSolo => tools::wait_for("a record without the standby", REACTION_MAX, || {
            let group = status::group(lab, cast.active)?;
            let in_sync = group["in_sync"].as_array()?;
            (in_sync.len() == 1 && in_sync[0] == cast.active.name()).then_some(())
        }),
    }
}

/// Waits until what is expected of the fault has come.
fn await_reaction(
    scenario: &Scenario,
    cast: Cast,
    fault: Moment,
    lab: &Lab,
    journal: &Journal,
) -> Result<(), Failure> {
    let flows = || journal.flows(RECOVERED, FLOW_GAP_MAX) && fault.instant.elapsed() >= RECOVERED;
    let silent = || journal.last().is_none_or(|last| last.elapsed() >= SILENT);
    let serves = |node| flows() && status::active_node(lab) == Some(node);
    let what = match scenario.expected {
        Expected::Moved => format!("service from {}", cast.standby),
        Expected::Stayed => format!("service from {}", cast.active),
        Expected::Served => "service from one of the nodes".to_owned(),
        Expected::Frozen => "silence".to_owned(),
        Expected::Held => "a hold".to_owned(),
        Expected::Dark => "the end of both nodes".to_owned(),
    };
    tools::wait_for(&what, REACTION_MAX, || {
        let is_there = match scenario.expected {
            Expected::Moved => serves(cast.standby),
            Expected::Stayed => serves(cast.active),
            Expected::Served => serves(cast.active) || serves(cast.standby),
            Expected::Frozen => silent(),
            Expected::Held => silent() && Trace::read(lab, fault.wall).has_hold(),
            Expected::Dark => true,
        };
        is_there.then_some(())
    })
}

fn heal(scenario: &Scenario, lab: &mut Lab) -> Result<(), Failure> {
    fault::heal_all(lab)?;
    if scenario.expected == Expected::Held {
        return start_group(lab);
    }
    Ok(())
}

/// What a person does once the reason for a hold is gone.
fn start_group(lab: &Lab) -> Result<(), Failure> {
    let failed = |cause: String| Failure::new(format!("cannot start group {GROUP}")).cause(cause);
    let exe = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let mut last = String::new();
    tools::wait_for(&format!("start of group {GROUP}"), REACTION_MAX, || {
        lab.data_nodes().find_map(|node| {
            let mut command = Command::new(&exe);
            command.arg("--socket").arg(lab.api_socket(node));
            command.args([
                "start",
                GROUP,
                "--yes",
                "--reason",
                "the demo has healed the workload",
            ]);
            match command.output() {
                Ok(output) if output.status.success() => Some(()),
                Ok(output) => {
                    last = String::from_utf8_lossy(&output.stderr).into_owned();
                    None
                }
                Err(error) => {
                    last = error.to_string();
                    None
                }
            }
        })
    })
    .map_err(|failure| failure.cause(last.trim()))
}

fn await_redundancy(lab: &Lab, journal: &Journal) -> Result<(), Failure> {
    let mut missing = String::new();
    tools::wait_for(
        "service and redundancy after healing",
        REDUNDANT_MAX,
        || {
            missing = match lifecycle::why_not_ready(lab) {
                Some(why) => why,
                None if journal.flows(RECOVERED, FLOW_GAP_MAX) => return Some(()),
                None => "rows do not flow".to_owned(),
            };
            None
        },
    )
    .map_err(|failure| failure.cause(&missing))
}

fn judge_observation(observation: &Observation, scenario: &Scenario, run: &mut Run) {
    run.observed = observation.questions();
    let holders = observation.holders();
    run.failovers = u64::try_from(holders.len().saturating_sub(1)).unwrap_or(u64::MAX);
    if let Some(overlap) = observation.two_actives() {
        run.two_actives = true;
        let (one, two) = overlap.channels;
        run.object(format!(
            "two nodes were active at the same time, for {} ms at least, seen by {one:?} and {two:?}",
            overlap.lasted.as_millis()
        ));
    }
    // A workload that fails everywhere is tried once on each node, and started by a person afterwards.
    let allowed = if scenario.expected == Expected::Held {
        2
    } else {
        1
    };
    if run.failovers > allowed {
        run.object(format!(
            "the service moved {} times for one fault",
            run.failovers
        ));
    }
    if scenario.expected == Expected::Stayed && run.failovers > 0 {
        run.object("the service moved although it had no reason to");
    }
}

/// What the lab's asynchronous mirror may lack, in time of the history; see `lab::config`.
const MAX_LAG: Duration = Duration::from_secs(5);

/// `lost` are acknowledged rows that are gone. With an asynchronous mirror a failover may cut off the end of the history, no
/// longer than the bound: then it is one piece.
fn judge_lost(account: verify::Account, mode: Mode, run: &mut Run) {
    let bounded = account.cut_off.is_some_and(|time| time <= MAX_LAG);
    match mode {
        Mode::Sync => run.object(format!("{} acknowledged rows are lost", account.lost)),
        Mode::Async if bounded => {}
        Mode::Async => run.object(format!(
            "{} acknowledged rows are lost, and they are not the last {} s of a history",
            account.lost,
            MAX_LAG.as_secs()
        )),
    }
}

fn judge_account(account: verify::Account, mode: Mode, run: &mut Run) {
    run.acknowledged = account.acknowledged;
    run.found = account.found;
    run.lost = account.lost;
    if account.lost > 0 {
        judge_lost(account, mode, run);
    }
    if account.foreign > 0 {
        run.object(format!(
            "{} rows were read that nobody wrote",
            account.foreign
        ));
    }
    if account.acknowledged == 0 {
        run.object("no row was acknowledged");
    }
}

fn judge_outage(gap: Option<Duration>, scenario: &Scenario, run: &mut Run) {
    if scenario.is_withheld() {
        run.within_bound = true;
        return;
    }
    run.outage_ms = gap.map(|gap| u64::try_from(gap.as_millis()).unwrap_or(u64::MAX));
    match (run.outage_ms, run.bound_ms) {
        (None, _) => run.object("no row was acknowledged after the fault"),
        (Some(outage), Some(bound)) => run.within_bound = outage <= bound,
        (Some(_), None) => run.within_bound = true,
    }
}

fn judge_replicas(differing: u64, run: &mut Run) {
    run.replicas_equal = differing == 0;
    if differing > 0 {
        run.object(format!(
            "the replicas differ in {differing} blocks of 4 KiB"
        ));
    }
}

/// How a step reads in the story.
pub(super) fn step_words(step: Step) -> String {
    let who = |who| match who {
        Who::Active => "the active",
        Who::Standby => "the standby",
        Who::Witness => "the witness",
    };
    match step {
        Step::Node(node, NodeFault::Power) => format!("take the power of {}", who(node)),
        Step::Node(node, fault) => format!("{} {}", crate::lab::state::word(fault), who(node)),
        Step::CutNetwork(network) => format!("cut {network}"),
        Step::CutNode(node) => format!("cut {} from everybody", who(node)),
        Step::CutPair(one, two) => format!("cut {} from {}", who(one), who(two)),
        Step::AppFails => "let the workload fail at every start".to_owned(),
        Step::AwaitSolo => "wait until the active counts itself alone".to_owned(),
    }
}
/// How the service reaches the volume, by the active's word.
fn front_end(lab: &Lab) -> String {
    let group = status::active_node(lab).and_then(|active| status::group(lab, active));
    group
        .and_then(|group| Some(group["mirrors"][0]["front_end"].as_str()?.to_owned()))
        .unwrap_or_default()
}
