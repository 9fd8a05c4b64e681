//! The demo as a person follows it: live lines while a run goes on, and the table at the end.

use std::time::Duration;

use wire::ByteCount;

use super::document::{Document, PhaseTime, Run};
use super::runner::step_words;
use super::scenario::{Expected, Scenario};
use crate::lab::state::{Lab, Options, word};
use crate::output::{Tone, Ui};
use crate::render::amount;
use crate::render::layout::{Block, Cell};

/// Columns of a bar that stands for the longest phase.
const BAR_COLUMNS: usize = 24;

/// Tells one run, live, on standard error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Story<'a> {
    ui: &'a Ui,
}

impl<'a> Story<'a> {
    /// A story told through `ui`.
    pub(super) const fn new(ui: &'a Ui) -> Self {
        Self { ui }
    }

    /// The first line of a demo.
    pub(super) fn title(&self, options: &Options, runs: usize, seed: u64) {
        let what = format!(
            "pair of nodes and a witness · {} · tls {} · {} · {}",
            word(options.mode),
            word(options.tls),
            word(options.workload),
            word(options.profile),
        );
        let head = self.ui.paint(Tone::Strong, "backstay demo");
        let plural = if runs == 1 { "run" } else { "runs" };
        self.ui.talk(format_args!(
            "{head}  {what}  ({runs} {plural}, seed {seed})"
        ));
    }

    /// The first line of a run.
    pub(super) fn begin(&self, scenario: &Scenario, number: usize, of: usize) {
        let name = self.ui.paint(Tone::Strong, &word(scenario.name));
        self.ui
            .talk(format_args!("\n[{number}/{of}] {name}: {}", scenario.what));
    }

    /// The lab is up and the workload answers.
    pub(super) fn up(&self, lab: &Lab) {
        self.line(Tone::Dim, &format!("lab is up in {}", lab.dir.display()));
    }

    /// The fault comes now.
    pub(super) fn breaking(&self, scenario: &Scenario, active: &str, rows: usize) {
        let steps: Vec<String> = scenario.steps.iter().copied().map(step_words).collect();
        self.line(
            Tone::Warn,
            &format!(
                "{rows} rows acknowledged by {active}; break: {}",
                steps.join(", then ")
            ),
        );
    }

    /// The cluster has reacted; the client has waited for `outage` at most, so far.
    pub(super) fn reacted(
        &self,
        scenario: &Scenario,
        active: Option<&str>,
        outage: Option<Duration>,
        run: &Run,
    ) {
        let waited = outage.map_or(0, |outage| outage.as_millis());
        let what = match (scenario.expected, active) {
            (Expected::Frozen | Expected::Held, _) => "service is withheld, by design".to_owned(),
            (Expected::Dark, _) | (_, None) => "nothing is left that could serve".to_owned(),
            (Expected::Moved | Expected::Stayed | Expected::Served, Some(active)) => {
                format!("{active} serves; the client waited {waited} ms")
            }
        };
        self.line(Tone::Dim, &what);
        if !run.why.is_empty() {
            self.line(Tone::Dim, &format!("why: {}", run.why));
        }
        self.bars(&run.phases);
    }

    fn bars(&self, phases: &[PhaseTime]) {
        let longest = phases.iter().map(|phase| phase.ms).fold(1.0, f64::max);
        for phase in phases {
            let block = if self.ui.ascii { "#" } else { "█" };
            let bar = block.repeat(columns(phase.ms / longest));
            let bar = self.ui.paint(Tone::Warn, &bar);
            self.ui.talk(format_args!(
                "      {:<10} {:>7.1} ms  {bar}",
                phase.name, phase.ms
            ));
        }
    }

    /// Healed, and redundant again.
    pub(super) fn healed(&self, after: Duration, run: &Run) {
        let seconds = after.as_secs_f64();
        let resync = bytes(run.resync_bytes);
        self.line(
            Tone::Dim,
            &format!("healed: redundant again after {seconds:.1} s, {resync} sent"),
        );
    }

    /// Everything was compared.
    pub(super) fn verified(&self, run: &Run) {
        let equal = if run.replicas_equal {
            "replicas equal"
        } else {
            "replicas differ"
        };
        let actives = if run.two_actives {
            "TWO ACTIVES"
        } else {
            "never two actives"
        };
        self.line(
            Tone::Dim,
            &format!(
                "acknowledged {}, found {}, lost {}; {actives} in {} questions; {equal}",
                run.acknowledged, run.found, run.lost, run.observed
            ),
        );
    }

    /// The last lines of a run; `again` repeats it.
    pub(super) fn end(&self, run: &Run, again: &str) {
        let (tone, word) = if run.pass {
            (Tone::Good, "PASS")
        } else {
            (Tone::Bad, "FAIL")
        };
        self.line(tone, &format!("{word}  {}", outage_words(run)));
        for reason in &run.reasons {
            self.line(Tone::Bad, reason);
        }
        if !run.pass {
            let logs = run.logs.as_deref().unwrap_or("-");
            self.line(Tone::Dim, &format!("logs:  {logs}"));
            self.line(Tone::Dim, &format!("again: {again}"));
        }
    }

    fn line(&self, tone: Tone, text: &str) {
        self.ui
            .talk(format_args!("    {}", self.ui.paint(tone, text)));
    }
}

/// Columns of a bar for a share from 0 to 1, at least one.
fn columns(share: f64) -> usize {
    (1..BAR_COLUMNS)
        .rev()
        .find(|columns| {
            let of_bar = f64::from(u32::try_from(*columns).unwrap_or(1));
            of_bar / f64::from(u32::try_from(BAR_COLUMNS).unwrap_or(1)) <= share
        })
        .unwrap_or(1)
}

fn outage_words(run: &Run) -> String {
    match (run.outage_ms, run.bound_ms) {
        (None, _) if run.pass => "withheld by design, resumed after healing".to_owned(),
        (None, _) => "outage not measured".to_owned(),
        (Some(outage), None) => format!("outage {outage} ms"),
        (Some(outage), Some(bound)) if run.within_bound => {
            format!("outage {outage} ms (promised: {bound} ms)")
        }
        (Some(outage), Some(bound)) => format!("outage {outage} ms, promised were {bound} ms"),
    }
}

/// A number of bytes for people.
pub(super) fn bytes(count: u64) -> String {
    amount::bytes(ByteCount(count))
}

/// Heads of the table's columns.
const HEADS: [&str; 9] = [
    "BREAK",
    "RESULT",
    "OUTAGE",
    "PROMISED",
    "ROWS",
    "LOST",
    "TWO ACTIVES",
    "REPLICAS",
    "RESYNC",
];

/// The table at the end.
pub(super) fn table(document: &Document, ui: &Ui) -> String {
    let mut block = Block::new("");
    block.row(HEADS.map(|head| Cell::toned(Tone::Dim, head)));
    for run in &document.runs {
        block.row(row(run));
    }
    let passed = document.runs.iter().filter(|run| run.pass).count();
    let late = document.runs.iter().filter(|run| !run.within_bound).count();
    let tone = if document.pass { Tone::Good } else { Tone::Bad };
    let verdict = ui.paint(tone, if document.pass { "PASS" } else { "FAIL" });
    let of = document.runs.len();
    let mut text = format!(
        "{}{verdict}  {passed} of {of} runs passed",
        block.draw(ui, 0)
    );
    if late > 0 {
        text.push_str(&format!(", {late} took longer than promised"));
    }
    text
}

fn row(run: &Run) -> [Cell; 9] {
    let ms = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    let judged = |good: bool, yes: &str, no: &str| {
        Cell::toned(
            if good { Tone::Good } else { Tone::Bad },
            if good { yes } else { no },
        )
    };
    let outage = ms(run.outage_ms);
    [
        Cell::toned(Tone::Strong, word(run.name)),
        judged(run.pass, "pass", "FAIL"),
        judged(run.within_bound, &outage, &format!("{outage} !")),
        ms(run.bound_ms).into(),
        run.acknowledged.to_string().into(),
        judged(run.lost == 0, "0", &run.lost.to_string()),
        judged(!run.two_actives, "never", "YES"),
        judged(run.replicas_equal, "equal", "differ"),
        bytes(run.resync_bytes).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fit_their_column() {
        assert_eq!(columns(0.0), 1);
        assert_eq!(columns(0.5), BAR_COLUMNS / 2);
        assert!(columns(1.0) <= BAR_COLUMNS);
    }
}
