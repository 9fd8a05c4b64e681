//! `backstay mirror rollback`: undoes an unfinished resync of this node's replica, while nobody runs it.

use std::path::PathBuf;

use host::disk::{Disk, OpenError, OpenOptions};
use host::ring::Buf;
use mirror::grow::Step;
use mirror::inspect::{Contents, Found, inspect};
use mirror::way_back::{self, Stuck, UndoFault, WayBack};
use serde::Serialize;
use wire::layout::ReplicaState;
use wire::units::BLOCK_BYTES;
use wire::{ByteCount, ByteRange, NodeId};

use super::apart::mismatch;
use super::status::{instant, line};
use crate::cli::connect::{self, Typed};
use crate::config::model::{Config, Group, Mirror};
use crate::create;
use crate::engine::undo;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Tone, Ui};
use crate::render::amount;
use crate::render::layout::Cell;

/// `backstay mirror rollback`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Mirror whose replica on this node goes back; its daemon is stopped
    mirror: String,
    /// Configuration file of the cluster
    #[arg(long, default_value = crate::config::CONFIG_PATH_DEFAULT)]
    config: PathBuf,
    /// This node's name; found by the machine's addresses if not given
    #[arg(long)]
    node: Option<String>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// The other mirrors of the group that stay as they are, in place of typing them
    #[arg(long, value_name = "MIRRORS")]
    confirm: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    mirror: String,
    node: String,
    device: String,
    log: String,
    /// When the resync began, in seconds since 1970.
    began_unix: u64,
    /// Old content that is written back.
    bytes: u64,
    /// Other mirrors of the group on this node that cannot go back, and why.
    others: Vec<Other>,
    /// False for a dry run.
    done: bool,
}

/// Another mirror of the group on this node, of which the same is not to be undone.
#[derive(Debug, Serialize)]
struct Other {
    mirror: String,
    why: String,
}

/// Whose replica.
struct Place<'a> {
    mirror: &'a Mirror,
    me: NodeId,
    log: PathBuf,
}

pub(super) fn run(args: &Args, ui: &Ui) -> Outcome {
    let config = crate::run::load_config(&args.config, ui)?;
    let me = crate::run::find_self(&config, args.node.as_deref())?;
    let mirror = create::choose(&config, Some(&args.mirror))?;
    let (log, _) = mirror.undo(me).ok_or_else(|| {
        cannot(&args.mirror)
            .cause("the configuration names no `undo` for it on this node")
            .hint("if the daemon had one when the resync ran, name that; else nothing leads back")
    })?;
    let place = Place { mirror, me, log };
    let disk = place.open_disk()?;
    let log = place.open_log()?;
    let way = place.look(&disk, &log)?;
    let mut document = Document {
        schema: "backstay.mirror-rollback/1",
        mirror: mirror.name.clone(),
        node: config
            .node(me)
            .map_or_else(String::new, |node| node.name.clone()),
        device: disk.path().display().to_string(),
        log: place.log.display().to_string(),
        began_unix: way.began_unix,
        bytes: way.bytes().0,
        others: place.others(&config),
        done: false,
    };
    if !args.dry_run {
        let question = format!(
            "take the replica of {} on {} back to what it held when its resync began ({})? {} are written back; \
             what was acknowledged since this node was cut off, and all that the resync brought, is missing in it then",
            document.mirror,
            document.device,
            instant(document.began_unix),
            amount::bytes(ByteCount(document.bytes)),
        );
        alone(args, ui, &document.others)?;
        connect::confirm(ui, &question, args.yes)?;
        go_back(&disk, &log, way).map_err(|error| {
            cannot(&args.mirror)
                .cause(error)
                .hint("it is a mixture as before; the same command does all of it again")
        })?;
        document.done = true;
    }
    ui.document(&document, |ui| table(ui, &document))?;
    Ok(Exit::Ready)
}

/// Of several mirrors that belong together one goes back and others do not: a person says that this is meant.
fn alone(args: &Args, ui: &Ui, others: &[Other]) -> Result<(), Failure> {
    if others.is_empty() {
        return Ok(());
    }
    for Other { mirror, why } in others {
        ui.talk(format_args!(
            "{mirror} of the same group stays as it is: {why}"
        ));
    }
    let names: Vec<&str> = others.iter().map(|other| other.mirror.as_str()).collect();
    let names = names.join(" ");
    let question = format!(
        "they may be of another time than {} then, and data that spans them does not fit together; type {names} to go on",
        args.mirror
    );
    let typed = Typed {
        question: &question,
        expected: &names,
        given: args.confirm.as_deref(),
        yes: args.yes,
    };
    connect::confirm_typed(ui, &typed)
}

/// What the metadata of a disk says, if it is whole.
fn replica_on(disk: &Disk) -> Option<Box<Contents>> {
    match inspect(disk.size(), |range| undo::read(disk, Some(range))).replica {
        Found::Replica(contents) => Some(contents),
        Found::Nothing | Found::Shrunk(_) => None,
    }
}

fn cannot(mirror: &str) -> Failure {
    Failure::new(format!("cannot undo the resync of mirror {mirror}"))
}

impl Place<'_> {
    fn cannot(&self) -> Failure {
        cannot(&self.mirror.name)
    }

    fn open_disk(&self) -> Result<Disk, Failure> {
        let path = self.mirror.disk(self.me).ok_or_else(|| {
            self.cannot()
                .cause("it has no disk on this node: the configuration names none")
        })?;
        let options = OpenOptions {
            metadata: self.mirror.metadata(self.me).cloned(),
            ..OpenOptions::default()
        };
        Disk::open(path, &options).map_err(|error| {
            let hint = error.hint();
            self.cannot().from_error(&error).hint(hint)
        })
    }

    fn open_log(&self) -> Result<Disk, Failure> {
        undo::open(&self.log).map_err(|error| {
            let lost = matches!(
                error,
                OpenError::Missing { .. } | OpenError::Geometry { .. }
            );
            let hint = if lost {
                "is what it is on attached and mounted? Without its content nothing leads back"
                    .to_owned()
            } else {
                error.hint()
            };
            self.cannot().from_error(&error).hint(hint)
        })
    }

    /// The other mirrors of its group on this node that do not go back likewise.
    fn others(&self, config: &Config) -> Vec<Other> {
        let mut groups = config.groups.iter();
        let own = |mirror: &Mirror| std::ptr::eq(mirror, self.mirror);
        let group = groups.find(|group| group.mirrors().any(own));
        let others = group.into_iter().flat_map(Group::mirrors);
        others
            .filter(|other| !own(other) && other.disk(self.me).is_some())
            .filter_map(|mirror| {
                let other = Place {
                    mirror,
                    me: self.me,
                    log: PathBuf::new(),
                };
                let why = other.stays()?;
                let mirror = mirror.name.clone();
                Some(Other { mirror, why })
            })
            .collect()
    }

    /// Why it does not go back; none if it has to as well.
    fn stays(&self) -> Option<String> {
        let disk = match self.open_disk() {
            Ok(disk) => disk,
            Err(failure) => return Some(format!("it cannot be looked at ({failure})")),
        };
        let Some(contents) = replica_on(&disk) else {
            return Some("its disk shows no whole replica".to_owned());
        };
        let why = match contents.superblock.state {
            _ if way_back::key(&contents.superblock).is_some() => return None,
            ReplicaState::Inconsistent => "it is a mixture from which nothing leads back",
            ReplicaState::Blank => "it has no data",
            ReplicaState::Origin | ReplicaState::Consistent => {
                "it is whole: its resync ended or was undone, or none began"
            }
        };
        Some(why.to_owned())
    }

    fn look(&self, disk: &Disk, log: &Disk) -> Result<WayBack, Failure> {
        let Some(contents) = replica_on(disk) else {
            return Err(self
                .cannot()
                .cause("its disk shows no whole replica")
                .hint("`backstay mirror inspect` shows what is there"));
        };
        if let Some(why) = mismatch(disk.external().as_ref(), &contents.superblock) {
            return Err(self.cannot().cause(why).hint(
                "if its disk was enlarged since, start the daemon once and stop it again: it writes the new size down",
            ));
        }
        if way_back::key(&contents.superblock).is_none() {
            return Err(self.no_way(&contents));
        }
        let mut of_log = |range: ByteRange| undo::read(log, Some(range));
        let mut of_disk = |range: ByteRange| undo::read(disk, Some(range));
        let way = WayBack::look(contents, log.size(), &mut of_log, &mut of_disk);
        way.map_err(|stuck| self.stuck(stuck))
    }

    fn no_way(&self, contents: &Contents) -> Failure {
        match contents.superblock.state {
            ReplicaState::Inconsistent => self
                .cannot()
                .cause("no log leads back: the resync began without one, or it was declared lost")
                .hint("`backstay events` says why; the other replicas have the data"),
            ReplicaState::Origin | ReplicaState::Blank | ReplicaState::Consistent => self
                .cannot()
                .cause("there is nothing to undo: its data is no mixture")
                .hint("a resync that ended cannot be undone"),
        }
    }

    fn stuck(&self, stuck: Stuck) -> Failure {
        let log = self.log.display();
        match stuck {
            Stuck::NoWay => self
                .cannot()
                .cause("there is nothing to undo")
                .hint("`backstay mirror inspect` shows what it is"),
            Stuck::Doubtful => self
                .cannot()
                .cause("one copy of its superblock is damaged, and may have been the newer one")
                .hint("`backstay mirror inspect` shows both"),
            Stuck::Log(UndoFault::Foreign) => self
                .cannot()
                .cause(format!("{log} is not the log of this resync"))
                .hint("is it the path that the daemon had? Nothing was changed"),
            Stuck::Log(UndoFault::Unreadable) => self
                .cannot()
                .cause(format!("{log}, or the disk, cannot be read"))
                .hint("the kernel log says why; nothing was changed, and the same command looks again"),
            Stuck::Log(UndoFault::Damaged) => self
                .cannot()
                .cause(format!("{log} is damaged: what it lacks was overwritten"))
                .hint("nothing was changed, it is a mixture as before; its data is to be had from another replica or a backup only"),
        }
    }
}

/// Each step is durable before the next.
fn go_back(disk: &Disk, log: &Disk, way: WayBack) -> std::io::Result<()> {
    let replica = way.contents().superblock.replica;
    for (range, places) in way.pieces() {
        let mut old = Vec::new();
        for at in places {
            let block = ByteRange::new(at, BLOCK_BYTES).and_then(|range| undo::read(log, range));
            old.extend(block.ok_or_else(|| std::io::Error::other("the log cannot be read"))?);
        }
        disk.put_now(range.offset(), &Buf::copy_of(&old).freeze())?;
    }
    disk.sync_now()?;
    for step in way.finish() {
        match step {
            Step::Write { offset, bytes } => {
                disk.write_now(offset, &Buf::copy_of(&bytes).freeze())?;
            }
            Step::Zero(range) => {
                disk.zero_now(range.offset(), range.len())?;
                disk.sync_now()?;
            }
        }
    }
    // Otherwise the next start of the daemon gives its space back.
    undo::clear(log, replica).ok();
    Ok(())
}

fn table(ui: &Ui, document: &Document) -> String {
    let bytes = amount::bytes(ByteCount(document.bytes));
    let mut text = line(ui, "mirror", Cell::toned(Tone::Strong, &document.mirror));
    text += &line(ui, "disk", document.device.as_str());
    text += &line(ui, "resync began", instant(document.began_unix));
    for Other { mirror, why } in &document.others {
        text += &line(ui, "stays", format!("{mirror}: {why}"));
    }
    if document.done {
        text += &line(ui, "written back", bytes);
        let next = "start the daemon: it follows again, or `backstay mirror promote` if the active is gone for good";
        return text + &line(ui, "next", next);
    }
    text + &line(ui, "to be written", bytes)
}
