//! `backstay mirror verify`.

use std::time::Duration;

use serde::Serialize;
use wire::{ByteCount, ByteRange};

use super::connect;
use super::group::check_reason;
use super::{Global, mirror};
use crate::api::body::{GroupRequestBody, Taken};
use crate::api::view::VerifyView;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::render::amount;

/// Places that are listed; the JSON document has all that the daemon names.
const PLACES_MAX: usize = 10;

/// Options.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Mirror
    mirror: String,
    /// Send what differs to the other replica; the active's content counts
    #[arg(long)]
    repair: bool,
    /// Why, for the event log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait until it is done, at most 1 h or as given
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "1h", value_parser = connect::span)]
    wait: Option<Duration>,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    mirror: String,
    /// Null when nobody waited.
    verify: Option<VerifyView>,
}

pub(super) fn run(args: &Args, global: &Global, ui: &Ui) -> Outcome {
    check_reason(args.reason.as_deref())?;
    let client = connect::client(global)?;
    let before = mirror::find(&client, &args.mirror)?;
    let started = before.mirror.verify.map_or(0, |verify| verify.number);
    let body = GroupRequestBody {
        mirror: Some(args.mirror.clone()),
        repair: Some(args.repair),
        reason: args.reason.clone(),
        ..GroupRequestBody::default()
    };
    let path = format!("/api/v1/groups/{}/verify", connect::segment(&before.group)?);
    client
        .post::<Taken>(&path, &body)
        .map_err(|error| error.failure(&format!("verify mirror {}", args.mirror)))?;
    let Some(limit) = args.wait else {
        ui.talk(format_args!(
            "taken; `backstay mirror status` on the active node shows how far it is"
        ));
        ui.document(&document(args, None), |_| String::new())?;
        return Ok(Exit::Ready);
    };
    let over = |verify: &VerifyView| verify.number > started && !verify.running;
    let found = connect::wait_for(limit, || {
        mirror::find(&client, &args.mirror)
            .ok()?
            .mirror
            .verify
            .filter(over)
    });
    let Some(verify) = found else {
        return Err(
            Failure::new(format!("the verification of {} is not done", args.mirror))
                .cause(format!(
                    "{} are over; it goes on by itself",
                    amount::time(limit)
                ))
                .hint("see `backstay mirror status` on the active node, and `backstay events`")
                .exit(Exit::Unknown),
        );
    };
    let clean = verify.different_bytes == 0 && verify.unreadable_bytes == 0;
    let repaired = verify.repaired_bytes >= verify.different_bytes && args.repair;
    ui.document(&document(args, Some(verify.clone())), |_| table(&verify))?;
    Ok(if clean || repaired {
        Exit::Ready
    } else {
        Exit::Degraded
    })
}

fn document(args: &Args, verify: Option<VerifyView>) -> Document {
    Document {
        schema: "backstay.verify/1",
        mirror: args.mirror.clone(),
        verify,
    }
}

fn table(verify: &VerifyView) -> String {
    let bytes = |count| amount::bytes(ByteCount(count));
    let mut text = format!(
        "compared   {}\ndifferent  {}\nunreadable {}\nrepaired   {}\n",
        bytes(verify.checked_bytes),
        bytes(verify.different_bytes),
        bytes(verify.unreadable_bytes),
        bytes(verify.repaired_bytes),
    );
    let places = verify
        .ranges
        .iter()
        .filter_map(|(at, len)| ByteRange::new(*at, *len));
    for place in places.take(PLACES_MAX) {
        text.push_str(&format!("  {}\n", amount::range(place)));
    }
    if verify.ranges.len() > PLACES_MAX {
        text.push_str(&format!(
            "  and {} more places\n",
            verify.ranges.len() - PLACES_MAX
        ));
    }
    text
}
