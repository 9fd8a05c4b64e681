//! Disks for a first sync that copies used blocks only.
//!
//! The origin's unused blocks become zeros, the others are marked; the other disks become zeros as a whole. What joins them is a
//! baseline, a random number in the token: the replicas are equal as of it, but for what is marked. A token of another origin,
//! or of an earlier life of this one, names another baseline, and then everything is copied.
//!
//! Each step is durable before the next, and the superblocks come last: a crash leaves no replica, and at worst zeros in blocks
//! that nothing used.

use super::metadata::{self, Made};
use super::used::{Geometry, Unused};
use super::{Args, Place, filesystem, layout_of, refuse_loss};
use crate::cli::connect;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Tone, Ui};
use crate::render::amount;
use crate::render::layout::{Block, Cell};
use host::disk::Disk;
use host::ring::Buf;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use wire::layout::{Layout, Pair, ReplicaState};
use wire::seed::{HEAD_BYTES, Seed};
use wire::units::BLOCK_BYTES;
use wire::{ByteCount, ByteRange, SessionId};

/// Bytes that are made zeros by one request, between two words about how far it is.
const PIECE_BYTES: u64 = 1 << 30;
/// Places that are read again afterwards.
const SAMPLES_MAX: usize = 256;
/// Smallest block of an ext file system.
const BLOCK_MIN: u64 = 1024;
/// Width of the labels.
const LABEL: usize = 14;

/// What the origin's node gives the others: the baseline, and how large the volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    baseline: SessionId,
    data_bytes: u64,
}

impl Token {
    fn body(self) -> String {
        format!("{:016x}-{:x}", self.baseline.0, self.data_bytes)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        write!(f, "{body}-{:08x}", crc32c::crc32c(body.as_bytes()))
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (baseline, rest) = text.split_once('-')?;
            let (data_bytes, _) = rest.split_once('-')?;
            let baseline = SessionId(u64::from_str_radix(baseline, 16).ok()?);
            let data_bytes = u64::from_str_radix(data_bytes, 16).ok()?;
            let token = Self {
                baseline,
                data_bytes,
            };
            (token.to_string() == text).then_some(token)
        };
        parse().ok_or_else(|| {
            "not a token as `backstay mirror create --used-only` prints it".to_owned()
        })
    }
}

/// What was made, or would be.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    device: String,
    mirror: String,
    /// `origin` or `zeros`.
    kind: &'static str,
    data_bytes: u64,
    /// What became zeros.
    zeroed_bytes: u64,
    /// What the first sync copies; none if only the origin's node knows.
    marked_bytes: Option<u64>,
    /// For the other nodes; none for a dry run, and on the other nodes.
    token: Option<String>,
    /// False for a dry run.
    made: bool,
}

/// `--used-only`: the content is kept, and what the file system does not use becomes zeros.
pub(super) fn used_only(args: &Args, place: Place<'_>, ui: &Ui) -> Outcome {
    let disk = place.open()?;
    let layout = layout_of(place.mirror, &disk)?;
    refuse_loss(args, place, &disk, &layout)?;
    let geometry = ext_geometry(place, &disk)?;
    let before = head(place, &disk)?;
    // The tools open it themselves, and some want it alone. Whoever mounts it meanwhile changes its beginning.
    drop(disk);
    ui.talk(format_args!(
        "{}: looking for unused blocks, which takes as long as `e2fsck -f`",
        place.path.display()
    ));
    let unused = Unused::of_ext(place.path, geometry)?;
    let disk = place.open()?;
    if head(place, &disk)? != before || layout_of(place.mirror, &disk)? != layout {
        return Err(place
            .refused("it was used while it was looked at")
            .hint("unmount it, and keep it unmounted until the group runs"));
    }
    let mut document = Document {
        schema: SCHEMA,
        device: place.path.display().to_string(),
        mirror: place.mirror.name.clone(),
        kind: "origin",
        data_bytes: layout.data_bytes,
        zeroed_bytes: unused.bytes(),
        marked_bytes: Some(layout.data_bytes - unused.bytes()),
        token: None,
        made: false,
    };
    if !args.dry_run {
        let (free, used) = (unused.bytes(), layout.data_bytes - unused.bytes());
        let question = format!(
            "overwrite {} of {} that its file system does not use with zeros? the other {} are kept",
            amount::bytes(ByteCount(free)),
            place.path.display(),
            amount::bytes(ByteCount(used)),
        );
        connect::confirm(ui, &question, args.yes)?;
        let token = Token {
            baseline: SessionId(random()),
            data_bytes: layout.data_bytes,
        };
        metadata::blank(&disk).map_err(|e| place.cannot_write(e))?;
        make_zeros(place, &disk, &unused.ranges().collect::<Vec<_>>(), ui)?;
        let made = Made {
            unused: Some(&unused),
            ..seeded(place, &disk, layout, ReplicaState::Origin, token)?
        };
        made.write(&disk).map_err(|e| place.cannot_write(e))?;
        document.token = Some(token.to_string());
        document.made = true;
    }
    ui.document(&document, |ui| table(ui, &document))?;
    Ok(Exit::Ready)
}

/// `--zeroed`: the whole volume becomes zeros.
pub(super) fn zeroed(args: &Args, place: Place<'_>, token: Token, ui: &Ui) -> Outcome {
    let disk = place.open()?;
    let layout = layout_for(place, &disk, token)?;
    refuse_loss(args, place, &disk, &layout)?;
    let mut document = Document {
        schema: SCHEMA,
        device: place.path.display().to_string(),
        mirror: place.mirror.name.clone(),
        kind: "zeros",
        data_bytes: layout.data_bytes,
        zeroed_bytes: layout.data_bytes,
        marked_bytes: None,
        token: None,
        made: false,
    };
    if !args.dry_run {
        let question = format!(
            "overwrite all of {} ({}) with zeros? what it holds is lost",
            place.path.display(),
            amount::bytes(ByteCount(layout.data_bytes)),
        );
        connect::confirm(ui, &question, args.yes)?;
        metadata::blank(&disk).map_err(|e| place.cannot_write(e))?;
        let all = ByteRange::new(0, layout.data_bytes);
        make_zeros(place, &disk, all.as_slice(), ui)?;
        let made = seeded(place, &disk, layout, ReplicaState::Blank, token)?;
        made.write(&disk).map_err(|e| place.cannot_write(e))?;
        document.made = true;
    }
    ui.document(&document, |ui| table(ui, &document))?;
    Ok(Exit::Ready)
}

const SCHEMA: &str = "backstay.mirror-create/1";

fn random() -> u64 {
    let [low, high] =
        [0, 64].map(|shift| crate::engine::random_id() >> shift & u128::from(u64::MAX));
    u64::try_from(low ^ high).unwrap_or(0)
}

/// Only of ext2, ext3 and ext4 it is known what they use.
fn ext_geometry(place: Place<'_>, disk: &Disk) -> Result<Geometry, Failure> {
    let mut block = Buf::zeroed(4096);
    disk.read_now(0, &mut block)
        .map_err(|e| place.cannot_read(e))?;
    let why = match filesystem(&block) {
        Some(("ext4", bytes)) => {
            // linux/fs/ext4/ext4.h: s_log_block_size is at byte 0x18 of the superblock.
            let size = BLOCK_MIN << block[1024 + 0x18].min(16);
            return Ok(Geometry {
                size,
                count: bytes / size,
            });
        }
        Some((kind, _)) => {
            format!("which blocks {kind} uses is not known here, only of ext2, ext3 and ext4")
        }
        None => {
            "it holds no ext2, ext3 or ext4, and of others it is not known which blocks they use"
                .to_owned()
        }
    };
    Err(place
        .refused(why)
        .hint("leave --used-only out: everything is compared and copied then, and zeros cost next to nothing on the network"))
}

/// The volume is as large as the origin's, whatever the disk has room for.
fn layout_for(place: Place<'_>, disk: &Disk, token: Token) -> Result<Layout, Failure> {
    let blocks = crate::run::intent_blocks(place.mirror.intent_bound);
    if place
        .mirror
        .size
        .is_some_and(|size| size.0 != token.data_bytes)
    {
        return Err(place
            .refused(format!(
                "the token is of a volume of {} bytes, and the configuration gives it another `size`",
                token.data_bytes
            ))
            .hint("use the same configuration on all nodes, and a token made with it"));
    }
    let layout = Layout::with_data(disk.size(), token.data_bytes, blocks);
    let layout = match disk.external() {
        // The metadata is on its device, whatever the disk has room for.
        Some(apart) => layout.and_then(|layout| layout.beside(apart.disk_bytes)),
        None => layout,
    };
    layout.ok_or_else(|| {
        place
            .refused(format!(
                "it has {} bytes, and the origin's volume has {}, beside the metadata",
                disk.size(),
                token.data_bytes
            ))
            .hint("use a larger disk, or make the origin anew with a smaller `size`")
    })
}

fn head(place: Place<'_>, disk: &Disk) -> Result<Seed, Failure> {
    let len = usize::try_from(HEAD_BYTES).unwrap_or(0);
    let mut head = Buf::zeroed(len);
    disk.read_now(0, &mut head)
        .map_err(|e| place.cannot_read(e))?;
    Ok(Seed::of(&head))
}

/// A replica that is equal to all others as of the token, but for what is marked.
fn seeded<'a>(
    place: Place<'_>,
    disk: &Disk,
    layout: Layout,
    state: ReplicaState,
    token: Token,
) -> Result<Made<'a>, Failure> {
    let others = place.mirror.disks.iter().map(|(node, _)| *node);
    let pair = |node| Pair {
        baseline: Some(token.baseline),
        ..Pair::new(node)
    };
    Ok(Made {
        layout,
        state,
        pairs: others.filter(|node| *node != place.me).map(pair).collect(),
        seed: Some(head(place, disk)?),
        unused: None,
    })
}

/// Makes these places read as zeros, and reads some of them.
fn make_zeros(place: Place<'_>, disk: &Disk, ranges: &[ByteRange], ui: &Ui) -> Result<(), Failure> {
    let total: u64 = ranges.iter().map(|range| range.len()).sum();
    let (mut done, mut told) = (0, 0);
    for range in ranges {
        let mut at = range.offset();
        while at < range.end() {
            let len = (range.end() - at).min(PIECE_BYTES);
            disk.zero_now(at, len).map_err(|e| place.cannot_write(e))?;
            at += len;
            done += len;
            if done - told > total / 10 && done < total {
                told = done;
                ui.talk(format_args!(
                    "zeros: {} of {}",
                    amount::bytes(ByteCount(done)),
                    amount::bytes(ByteCount(total))
                ));
            }
        }
    }
    disk.sync_now().map_err(|e| place.cannot_write(e))?;
    samples(ranges).try_for_each(|at| is_zero(place, disk, at))
}

/// Places spread evenly over the ranges, so that no disk is trusted by its word alone.
fn samples(ranges: &[ByteRange]) -> impl Iterator<Item = u64> + '_ {
    let total: u64 = ranges.iter().map(|range| range.len()).sum();
    let samples = u64::try_from(SAMPLES_MAX).unwrap_or(1);
    let step = (total / samples).max(BLOCK_BYTES) / BLOCK_BYTES * BLOCK_BYTES;
    let mut before: u64 = 0;
    ranges.iter().flat_map(move |range| {
        // The first multiple of `step` in the range, counted over all ranges.
        let first = before.div_ceil(step) * step - before;
        before += range.len();
        let count = range.len().saturating_sub(first).div_ceil(step);
        (0..count).map(move |n| range.offset() + first + n * step)
    })
}

fn is_zero(place: Place<'_>, disk: &Disk, at: u64) -> Result<(), Failure> {
    let mut block = Buf::zeroed(4096);
    block.fill(0xFF);
    disk.read_now(at, &mut block)
        .map_err(|e| place.cannot_read(e))?;
    if block.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    Err(place
        .refused(format!(
            "byte {at} was overwritten with zeros and does not read as zeros"
        ))
        .hint("the disk does not keep what it is told: replace it"))
}

fn table(ui: &Ui, document: &Document) -> String {
    let bytes = |count| format!("{} ({count} bytes)", amount::bytes(ByteCount(count)));
    let (made, zeros) = if document.made {
        ("replica made", "zeros now")
    } else {
        ("would make", "would be zeros")
    };
    let mut text = line(
        ui,
        made,
        format!("{} of mirror {}", document.device, document.mirror),
    );
    text += &line(ui, "volume", bytes(document.data_bytes));
    text += &line(ui, zeros, bytes(document.zeroed_bytes));
    if let Some(marked) = document.marked_bytes {
        text += &line(ui, "to be copied", bytes(marked));
    }
    if let Some(token) = &document.token {
        text += &line(ui, "token", token.as_str());
        let command = format!(
            "on the other nodes: backstay mirror create {} --zeroed {token}",
            document.mirror
        );
        text += &line(ui, "next", command);
    }
    text
}

fn line(ui: &Ui, label: &str, value: impl Into<Cell>) -> String {
    let mut block = Block::toned(Tone::Dim, label);
    block.row([value.into()]);
    block.draw(ui, LABEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_with_a_mistake_in_it_is_refused() {
        let token = Token {
            baseline: SessionId(0x00AB_CDEF_0123_4567),
            data_bytes: 32 << 20,
        };
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(token));
        for at in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'7' { b'8' } else { b'7' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert!(wrong.parse::<Token>().is_err(), "{wrong}");
        }
        assert!("".parse::<Token>().is_err() && text[1..].parse::<Token>().is_err());
        assert!(text.to_uppercase().parse::<Token>().is_err());
    }

    #[test]
    fn samples_are_spread_over_all_ranges_and_inside_of_them() {
        let ranges: Vec<ByteRange> = [(4096, 4096), (1 << 20, 64 << 20), (1 << 30, 8192)]
            .into_iter()
            .filter_map(|(at, len)| ByteRange::new(at, len))
            .collect();
        let places: Vec<u64> = samples(&ranges).collect();
        assert!(
            (SAMPLES_MAX..=SAMPLES_MAX + 2).contains(&places.len()),
            "{}",
            places.len()
        );
        assert_eq!(places[0], 4096);
        for at in &places {
            let inside = |range: &ByteRange| range.offset() <= *at && at + 4096 <= range.end();
            assert!(ranges.iter().any(inside), "{at}");
        }
        assert!(samples(&[]).next().is_none());
    }
}
