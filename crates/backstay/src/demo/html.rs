//! `--report FILE.html`: one page that needs nothing else.

use std::fmt::Write as _;
use std::path::Path;

use super::document::{Document, PhaseTime, Run};
use super::scenario::scenario;
use super::story::bytes;
use crate::failure::Failure;
use crate::lab::state::word;

/// Everything that the page looks like.
const STYLE: &str = "
:root{--ink:#1b1f24;--dim:#667080;--line:#d8dee6;--good:#1a7f4b;--bad:#b3261e;--bar:#3d6fb6;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--dim:#98a2b3;--line:#323a45;--good:#4cc38a;--bad:#ff7a70;--bar:#7aa7ea;--paper:#14181d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .2rem} p{color:var(--dim);margin:.2rem 0 1.5rem}
table{border-collapse:collapse;width:100%} th,td{text-align:left;padding:.35rem .7rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;font-size:.85rem;color:var(--dim)} td.n{text-align:right;font-variant-numeric:tabular-nums}
.good{color:var(--good)} .bad{color:var(--bad);font-weight:600} .dim{color:var(--dim)}
.phases{display:flex;gap:1px;height:.7rem;margin-top:.3rem;max-width:24rem} .phases i{background:var(--bar);display:block;min-width:2px}
.phases i:nth-child(even){opacity:.6} small{color:var(--dim)}";

/// Writes the page.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write(document: &Document, path: &Path) -> Result<(), Failure> {
    std::fs::write(path, page(document)).map_err(|error| {
        Failure::new(format!("cannot write the report {}", path.display())).cause(error)
    })
}

fn page(document: &Document) -> String {
    let passed = document.runs.iter().filter(|run| run.pass).count();
    let (class, verdict) = if document.pass {
        ("good", "PASS")
    } else {
        ("bad", "FAIL")
    };
    let rows: String = document.runs.iter().map(row).collect();
    let about = document.runs.first().map(about).unwrap_or_default();
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Backstay demo: {verdict}</title><style>{STYLE}</style>\
         <h1>Backstay demo <span class={class}>{verdict}</span></h1>\
         <p>{passed} of {} runs passed. {about}</p>\
         <table><tr><th>Break<th>Result<th>Outage<th>Promised<th>Where the time went<th>Acknowledged<th>Lost\
         <th>Two actives<th>Replicas<th>Resync</tr>{rows}</table></html>\n",
        document.runs.len(),
    )
}

fn about(run: &Run) -> String {
    format!(
        "Two nodes and a witness, {} mirror, TLS {}, workload {}, profile {}.",
        word(run.mode),
        word(run.tls),
        word(run.workload),
        word(run.profile)
    )
}

fn row(run: &Run) -> String {
    let what = scenario(run.name).map_or("", |scenario| scenario.what);
    let ms = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |ms| format!("{ms} ms"));
    let judged = |good: bool, text: &str| {
        format!(
            "<span class={}>{}</span>",
            if good { "good" } else { "bad" },
            escape(text)
        )
    };
    let mut cells = String::new();
    let _ = write!(
        cells,
        "<td><b>{}</b><br><small>{}</small>",
        word(run.name),
        escape(what)
    );
    let reasons: String = run
        .reasons
        .iter()
        .map(|reason| format!("<br><small>{}</small>", escape(reason)))
        .collect();
    let result = judged(run.pass, if run.pass { "pass" } else { "FAIL" });
    let _ = write!(cells, "<td>{result}{reasons}");
    let _ = write!(
        cells,
        "<td class=n>{}",
        judged(run.within_bound, &ms(run.outage_ms))
    );
    let _ = write!(cells, "<td class=n>{}", ms(run.bound_ms));
    let _ = write!(
        cells,
        "<td>{}<small>{}</small>",
        phases(&run.phases),
        escape(&run.why)
    );
    let _ = write!(cells, "<td class=n>{}", run.acknowledged);
    let _ = write!(
        cells,
        "<td class=n>{}",
        judged(run.lost == 0, &run.lost.to_string())
    );
    let actives = if run.two_actives { "YES" } else { "never" };
    let _ = write!(cells, "<td>{}", judged(!run.two_actives, actives));
    let equal = if run.replicas_equal {
        "equal"
    } else {
        "differ"
    };
    let _ = write!(cells, "<td>{}", judged(run.replicas_equal, equal));
    let _ = write!(cells, "<td class=n>{}", bytes(run.resync_bytes));
    format!("<tr>{cells}</tr>")
}

fn phases(phases: &[PhaseTime]) -> String {
    if phases.is_empty() {
        return String::new();
    }
    let pieces: String = phases
        .iter()
        .map(|phase| {
            format!(
                "<i style=\"flex:{:.1}\" title=\"{} {:.1} ms\"></i>",
                phase.ms, phase.name, phase.ms
            )
        })
        .collect();
    let words: Vec<String> = phases
        .iter()
        .map(|phase| format!("{} {:.0}", phase.name, phase.ms))
        .collect();
    format!(
        "<div class=phases>{pieces}</div><small>{} ms</small><br>",
        words.join(" · ")
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
