//! `backstay mirror create`: makes a disk a replica by writing the mirror's metadata behind the data.

use crate::config::Config;
use crate::config::model::Mirror;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use host::disk::{Disk, OpenOptions};
use host::ring::Buf;
use std::path::PathBuf;
use wire::layout::{BlockFault, BlockKind, Layout, ReplicaState, Slot, Superblock, open, seal};
use wire::units::BLOCK_BYTES;
use wire::version::Features;
use wire::{Epoch, External, Generation, NodeId};

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
    /// Go on although the disk holds a file system (with --empty) or was a replica before, or the metadata's device holds something
    #[arg(long)]
    pub overwrite: bool,
}

/// Bytes of metadata that are written at once.
const CHUNK_BLOCKS: usize = 256;

/// Writes the metadata. The disk's data is never touched.
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
    let options = OpenOptions {
        metadata: metadata_device(args, mirror, me, ui),
        ..OpenOptions::default()
    };
    let disk = Disk::open(path, &options).map_err(|e| {
        let hint = e.hint();
        Failure::new(format!(
            "cannot use {} for mirror {}",
            path.display(),
            mirror.name
        ))
        .from_error(&e)
        .hint(hint)
    })?;
    let layout = layout_of(mirror, &disk)?;
    refuse_loss(args, mirror, &disk, &layout)?;
    write(&disk, &layout, args.empty).map_err(|e| {
        let place = options.metadata.as_ref().unwrap_or(path);
        Failure::new(format!("cannot write to {}", place.display())).cause(e)
    })?;
    let beside = options.metadata.map_or_else(String::new, |device| {
        format!(", metadata on {}", device.display())
    });
    ui.talk(format_args!(
        "{}: replica of mirror {} made, {} bytes of data{beside}, {}",
        path.display(),
        mirror.name,
        layout.data_bytes,
        if args.empty {
            "to be filled by the other node"
        } else {
            "content kept: the mirror starts from it"
        },
    ));
    Ok(Exit::Ready)
}

fn choose<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Mirror, Failure> {
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

/// Refuses to destroy a replica, or a file system by `--empty`, or one that reaches into the metadata's place.
fn refuse_loss(args: &Args, mirror: &Mirror, disk: &Disk, layout: &Layout) -> Result<(), Failure> {
    let failed =
        |e: std::io::Error| Failure::new(format!("cannot read {}", disk.path().display())).cause(e);
    let refused = |why: String| {
        Failure::new(format!(
            "{} is not made a replica of mirror {}",
            disk.path().display(),
            mirror.name
        ))
        .cause(why)
    };
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
    if let Some(begins) = begins {
        disk.read_now(begins, &mut block).map_err(failed)?;
        if let (Some((kind, _)), false) = (filesystem(&block), args.overwrite) {
            return Err(refused(format!(
                "the device for its metadata holds a file system ({kind})"
            ))
            .hint("give another device, or add --overwrite to lose it"));
        }
    }
    disk.read_now(0, &mut block).map_err(failed)?;
    let Some((kind, bytes)) = filesystem(&block) else {
        return Ok(());
    };
    if args.empty && !args.overwrite {
        return Err(refused(format!(
            "it holds a file system ({kind}), which --empty would replace"
        ))
        .hint("leave --empty out to keep it, or add --overwrite to lose it"));
    }
    if !args.empty && bytes > layout.data_bytes {
        return Err(refused(format!(
            "its file system ({kind}) has {bytes} bytes, and only {} are left before the metadata",
            layout.data_bytes
        ))
        .hint("shrink the file system, make the disk larger, or give the metadata a device of its own with `metadata`"));
    }
    Ok(())
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

/// Bitmap and intent log first, the superblocks last: a crash before leaves no replica.
fn write(disk: &Disk, layout: &Layout, empty: bool) -> std::io::Result<()> {
    let mut blocks: Vec<(u64, [u8; 4096])> = Vec::new();
    for index in 0..layout.bitmap_blocks {
        for slot in [Slot::A, Slot::B] {
            let block = seal(
                BlockKind::Bitmap,
                index,
                1,
                &[0; wire::layout::CONTENT_BYTES],
            );
            blocks.push((layout.bitmap_offset(index, slot), block));
        }
        if blocks.len() >= CHUNK_BLOCKS {
            write_run(disk, &mut blocks)?;
        }
    }
    for slot in [Slot::B, Slot::A] {
        for index in 0..u64::from(layout.intent_blocks) {
            let offset = layout.intent_offset(slot) + index * BLOCK_BYTES;
            blocks.push((offset, seal(BlockKind::Intent, index, 1, &[])));
        }
    }
    write_run(disk, &mut blocks)?;
    let superblock = Superblock {
        features: Features::OURS,
        mirror: None,
        replica: crate::engine::random_id(),
        data_bytes: layout.data_bytes,
        intent_blocks: layout.intent_blocks,
        generation: Generation(0),
        epoch: Epoch(0),
        state: if empty {
            ReplicaState::Blank
        } else {
            ReplicaState::Origin
        },
        boot: 0,
        led: false,
        pairs: Vec::new(),
        source: None,
        external: disk.external(),
    };
    for slot in [Slot::B, Slot::A] {
        let block = superblock.seal(1);
        disk.write_now(
            Layout::super_offset(disk.size(), slot),
            &Buf::copy_of(&block).freeze(),
        )?;
    }
    Ok(())
}

/// Writes blocks that follow each other as one.
fn write_run(disk: &Disk, blocks: &mut Vec<(u64, [u8; 4096])>) -> std::io::Result<()> {
    let mut run: Vec<u8> = Vec::new();
    let mut start = 0;
    for (offset, block) in blocks.drain(..) {
        let follows = !run.is_empty() && start + u64::try_from(run.len()).unwrap_or(0) == offset;
        if !follows {
            flush_run(disk, start, &run)?;
            run.clear();
            start = offset;
        }
        run.extend_from_slice(&block);
    }
    flush_run(disk, start, &run)
}

fn flush_run(disk: &Disk, start: u64, run: &[u8]) -> std::io::Result<()> {
    if run.is_empty() {
        return Ok(());
    }
    disk.write_now(start, &Buf::copy_of(run).freeze())
}
