//! `backstay mirror create`: makes a disk a replica by writing the mirror's metadata behind the data.

mod first_sync;
mod metadata;
mod used;

use crate::config::Config;
use crate::config::model::Mirror;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use first_sync::Token;
use host::disk::{Disk, OpenOptions};
use host::ring::Buf;
use metadata::Made;
use std::ops::Range;
use std::path::PathBuf;
use wire::External;
use wire::NodeId;
use wire::layout::{BlockFault, BlockKind, Layout, ReplicaState, Slot, open};
use wire::seed::HEAD_BYTES;
use wire::units::BLOCK_BYTES;

/// What `backstay mirror create` needs to know.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The mirror's name; may be left out if the configuration has only one
    pub name: Option<String>,
    /// Configuration file of the cluster
    #[arg(long, default_value = crate::config::CONFIG_PATH_DEFAULT)]
    pub config: PathBuf,
    /// This node's name; found by the machine's addresses if not given
    #[arg(long)]
    pub node: Option<String>,
    /// Device for the metadata, so that the disk is all data [default: what the configuration says]
    #[arg(long, value_name = "DEVICE")]
    pub metadata: Option<PathBuf>,
    /// The disk's content is of no use: everything is taken from the other node
    #[arg(long)]
    pub empty: bool,
    /// The first sync is to copy used blocks only: zeros what the file system does not use, and prints a token for the other nodes
    #[arg(long, conflicts_with = "empty")]
    pub used_only: bool,
    /// Overwrite the whole volume with zeros, and take only what differs from that from the node that printed TOKEN
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["empty", "used_only"])]
    pub zeroed: Option<Token>,
    /// Go on although the disk holds a file system (with --empty) or anything (with --zeroed), or was a replica before, or the
    /// metadata's device holds something
    #[arg(long)]
    pub overwrite: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before anything is overwritten with zeros
    #[arg(short, long)]
    pub yes: bool,
}

impl Args {
    /// The disk's content goes.
    const fn loses_content(&self) -> bool {
        self.empty || self.zeroed.is_some()
    }
}

/// Whose disk is made a replica of which mirror.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    mirror: &'a Mirror,
    me: NodeId,
    path: &'a PathBuf,
    metadata: Option<&'a PathBuf>,
}

/// Writes the metadata. Data is touched only where `--used-only` and `--zeroed` make zeros.
///
/// # Errors
/// When the disk is missing, in use, too small, or holds something that would be lost.
pub fn run(args: &Args, ui: &Ui) -> Outcome {
    let config = crate::run::load_config(&args.config, ui)?;
    let me = crate::run::find_self(&config, args.node.as_deref())?;
    let mirror = choose(&config, args.name.as_deref())?;
    let path = mirror.disk(me).ok_or_else(|| {
        Failure::new(format!("mirror {} has no disk on this node", mirror.name))
            .cause("it is a witness, or the configuration names no disk for it")
    })?;
    let metadata = metadata_device(args, mirror, me, ui);
    let place = Place {
        mirror,
        me,
        path,
        metadata: metadata.as_ref(),
    };
    match args.zeroed {
        Some(token) => first_sync::zeroed(args, place, token, ui),
        None if args.used_only => first_sync::used_only(args, place, ui),
        None => plain(args, place, ui),
    }
}

fn plain(args: &Args, place: Place<'_>, ui: &Ui) -> Outcome {
    let disk = place.open()?;
    let layout = layout_of(place.mirror, &disk)?;
    refuse_loss(args, place, &disk, &layout)?;
    let made = Made {
        layout,
        state: if args.empty {
            ReplicaState::Blank
        } else {
            ReplicaState::Origin
        },
        pairs: Vec::new(),
        seed: None,
        unused: None,
    };
    if !args.dry_run {
        made.write(&disk).map_err(|e| place.cannot_write(e))?;
    }
    let beside = place.metadata.map_or_else(String::new, |device| {
        format!(", metadata on {}", device.display())
    });
    ui.talk(format_args!(
        "{}: replica of mirror {} {}, {} bytes of data{beside}, {}",
        place.path.display(),
        place.mirror.name,
        if args.dry_run {
            "would be made"
        } else {
            "made"
        },
        layout.data_bytes,
        if args.empty {
            "to be filled by the other node"
        } else {
            "content kept: the mirror starts from it"
        },
    ));
    Ok(Exit::Ready)
}

impl Place<'_> {
    /// The disk, for this process alone.
    fn open(&self) -> Result<Disk, Failure> {
        let options = OpenOptions {
            metadata: self.metadata.cloned(),
            ..OpenOptions::default()
        };
        Disk::open(self.path, &options).map_err(|e| {
            let hint = e.hint();
            Failure::new(format!(
                "cannot use {} for mirror {}",
                self.path.display(),
                self.mirror.name
            ))
            .from_error(&e)
            .hint(hint)
        })
    }

    fn refused(&self, why: impl std::fmt::Display) -> Failure {
        Failure::new(format!(
            "{} is not made a replica of mirror {}",
            self.path.display(),
            self.mirror.name
        ))
        .cause(why)
    }

    fn cannot_write(&self, error: std::io::Error) -> Failure {
        Failure::new(format!("cannot write to {}", self.path.display())).cause(error)
    }

    fn cannot_read(&self, error: std::io::Error) -> Failure {
        Failure::new(format!("cannot read {}", self.path.display())).cause(error)
    }
}

pub(crate) fn choose<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Mirror, Failure> {
    let mirrors: Vec<&Mirror> = config.groups.iter().flat_map(|g| g.mirrors()).collect();
    let names = || {
        mirrors
            .iter()
            .map(|m| m.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (name, mirrors.as_slice()) {
        (None, [only]) => Ok(only),
        (None, []) => Err(Failure::new("the configuration has no mirror")
            .hint("add a resource of kind \"mirror\"")),
        (None, _) => {
            Err(Failure::new("which mirror?").cause(format!("the configuration has {}", names())))
        }
        (Some(name), _) => mirrors
            .iter()
            .find(|m| m.name == name)
            .copied()
            .ok_or_else(|| {
                Failure::new(format!("there is no mirror {name}"))
                    .cause(format!("the configuration has {}", names()))
            }),
    }
}

/// Where the metadata goes, if not to the disk's end.
fn metadata_device(args: &Args, mirror: &Mirror, me: NodeId, ui: &Ui) -> Option<PathBuf> {
    let configured = mirror.metadata(me);
    let Some(asked) = &args.metadata else {
        return configured.cloned();
    };
    if configured != Some(asked) {
        let (name, device) = (&mirror.name, asked.display());
        ui.talk(format_args!(
            "note: put metadata = \"{device}\" of mirror {name} into the configuration before the node is started"
        ));
    }
    Some(asked.clone())
}

fn layout_of(mirror: &Mirror, disk: &Disk) -> Result<Layout, Failure> {
    let blocks = crate::run::intent_blocks(mirror.intent_bound);
    if let Some(apart) = disk.external() {
        return layout_apart(mirror, disk, &apart, blocks);
    }
    let made = match mirror.size {
        Some(size) => Layout::with_data(disk.size(), size.0, blocks),
        None => Layout::for_disk(disk.size(), blocks),
    };
    made.ok_or_else(|| {
        let wanted = mirror.size.map_or_else(
            || {
                format!(
                    "at least {} bytes of data and the metadata",
                    Layout::DATA_MIN
                )
            },
            |size| {
                format!(
                    "{} bytes of data, a multiple of {BLOCK_BYTES}, and the metadata",
                    size.0
                )
            },
        );
        Failure::new(format!(
            "{} is too small for mirror {}",
            disk.path().display(),
            mirror.name
        ))
        .cause(format!("it has {} bytes; needed are {wanted}", disk.size()))
        .hint("use a larger disk, or a smaller `size` on all nodes")
    })
}

/// All of the disk is data, unless a smaller `size` is configured.
fn layout_apart(
    mirror: &Mirror,
    disk: &Disk,
    apart: &External,
    blocks: u32,
) -> Result<Layout, Failure> {
    let room = apart.disk_bytes;
    let wanted = mirror.size.map_or(room, |size| size.0);
    let made = Layout::with_data(disk.size(), wanted, blocks);
    if let Some(layout) = made.and_then(|layout| layout.beside(room)) {
        return Ok(layout);
    }
    let refused = || Failure::new(format!("mirror {} does not fit", mirror.name));
    let Some(needed) = Layout::with_data(u64::MAX / 2, wanted, blocks).filter(|_| wanted <= room)
    else {
        return Err(refused()
            .cause(format!(
                "{} has {room} bytes; needed are {} or more of data, in multiples of {BLOCK_BYTES}",
                disk.path().display(),
                wanted.max(Layout::DATA_MIN)
            ))
            .hint("use a larger disk, or a smaller `size` on all nodes"));
    };
    let device = disk.size() - room;
    Err(refused()
        .cause(format!(
            "its metadata needs {} bytes, and the device for it has {device}",
            needed.metadata_bytes()
        ))
        .hint("use a larger device for the metadata, or a smaller `intent_bound`"))
}

/// Refuses to destroy a replica, or a file system by `--empty` or `--zeroed`, or one that reaches into the metadata's place.
fn refuse_loss(args: &Args, place: Place<'_>, disk: &Disk, layout: &Layout) -> Result<(), Failure> {
    let failed = |e| place.cannot_read(e);
    let refused = |why: String| place.refused(why);
    let mut block = Buf::zeroed(4096);
    let begins = disk.external().map(|apart| apart.disk_bytes);
    for end in [Some(disk.size()), begins].into_iter().flatten() {
        for slot in [Slot::A, Slot::B] {
            let at = Layout::super_offset(end, slot);
            disk.read_now(at, &mut block).map_err(failed)?;
            let foreign = matches!(open(BlockKind::Super, 0, &block), Err(BlockFault::Foreign));
            if !foreign && !args.overwrite {
                return Err(refused("it is a replica already".into())
                    .hint("`backstay mirror inspect` shows it; --overwrite makes it anew, and what only it holds is lost"));
            }
        }
    }
    if let (Some(begins), false) = (begins, args.overwrite)
        && let Some(what) = content(place, disk, begins..disk.size())?
    {
        return Err(refused(format!("the device for its metadata holds {what}"))
            .hint("give another device, or add --overwrite to lose it"));
    }
    if args.zeroed.is_some()
        && !args.overwrite
        && let Some(what) = content(place, disk, 0..layout.data_bytes)?
    {
        return Err(
            refused(format!("it holds {what}, which --zeroed would replace"))
                .hint("leave --zeroed out to keep it, or add --overwrite to lose it"),
        );
    }
    disk.read_now(0, &mut block).map_err(failed)?;
    let Some((kind, bytes)) = filesystem(&block) else {
        return Ok(());
    };
    if args.loses_content() && !args.overwrite {
        return Err(refused(format!(
            "it holds a file system ({kind}), which --empty would replace"
        ))
        .hint("leave --empty out to keep it, or add --overwrite to lose it"));
    }
    if !args.loses_content() && bytes > layout.data_bytes {
        return Err(refused(format!(
            "its file system ({kind}) has {bytes} bytes, and only {} are left before the metadata",
            layout.data_bytes
        ))
        .hint("shrink the file system, make the disk larger, or give the metadata a device of its own with `metadata`"));
    }
    Ok(())
}

/// What is at the beginning of this part, in words; none if that is all zeros.
fn content(place: Place<'_>, disk: &Disk, part: Range<u64>) -> Result<Option<String>, Failure> {
    let len = (part.end - part.start).min(HEAD_BYTES) / BLOCK_BYTES * BLOCK_BYTES;
    let mut head = Buf::zeroed(usize::try_from(len).unwrap_or(0));
    disk.read_now(part.start, &mut head)
        .map_err(|e| place.cannot_read(e))?;
    if head.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    Ok(Some(filesystem(&head).map_or_else(
        || format!("something: its first {} KiB are not zeros", len >> 10),
        |(kind, _)| format!("a file system ({kind})"),
    )))
}

/// Kind and size in bytes of the file system that starts in this block.
pub(crate) fn filesystem(block: &[u8]) -> Option<(&'static str, u64)> {
    let le32 = |at: usize| {
        block
            .get(at..at + 4)?
            .try_into()
            .ok()
            .map(u32::from_le_bytes)
    };
    let be32 = |at: usize| {
        block
            .get(at..at + 4)?
            .try_into()
            .ok()
            .map(u32::from_be_bytes)
    };
    // linux/fs/ext4/ext4.h: the superblock is at byte 1024; s_magic at 0x38, s_blocks_count_lo at 4, s_log_block_size at 0x18.
    if block.get(1024 + 0x38..1024 + 0x3a) == Some(&[0x53, 0xef]) {
        let blocks = u64::from(le32(1024 + 4)?) | u64::from(le32(1024 + 0x150)?) << 32;
        return Some(("ext4", blocks.checked_shl(10 + le32(1024 + 0x18)?.min(16))?));
    }
    // linux/fs/xfs/libxfs/xfs_format.h: sb_magicnum, sb_blocksize, sb_dblocks, big-endian.
    if block.get(..4) == Some(b"XFSB") {
        let blocks = u64::from(be32(8)?) << 32 | u64::from(be32(12)?);
        return Some(("xfs", blocks.saturating_mul(u64::from(be32(4)?))));
    }
    None
}
