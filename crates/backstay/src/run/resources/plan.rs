//! What is fixed about a group's resources on this node: names, places, surroundings.

use crate::config::model::{Address, Config, Filesystem, FrontEnd, Mirror, NodeRole, Resource};
use crate::failure::Failure;
use host::cgroup::Cgroup;
use host::process::Launcher;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use wire::{GroupId, NodeId};

/// Name of the control group that holds the groups' ones.
const CGROUP: &str = "backstay";
/// Name of the control group for monitors and stop commands; no resource is called so.
const COMMANDS: &str = "commands.d";

/// One group as this node sees it. Never changes while the daemon runs.
#[derive(Debug)]
pub(super) struct Plan {
    /// Which.
    pub(super) id: GroupId,
    /// Its name.
    pub(super) name: String,
    /// Its resources, in the order in which they start.
    pub(super) resources: Vec<Resource>,
    /// This node.
    pub(super) me: NodeId,
    /// This node's address on the service network.
    pub(super) service: IpAddr,
    /// Everything that the group's programs start is in or below it. None for a group without programs.
    pub(super) cgroup: Option<Cgroup>,
    /// How programs are started.
    pub(super) launcher: Launcher,
    /// Program and first arguments of a keeper.
    pub(super) keeper: Vec<String>,
    /// The same of a process that freezes.
    pub(super) freezer: Vec<String>,
    environment: Vec<(String, String)>,
    run: PathBuf,
    log: PathBuf,
}

/// The places of a mirror's block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// Where the FUSE file system is mounted.
    pub(super) mount: PathBuf,
    /// The volume as a file, in it.
    pub(super) file: PathBuf,
    /// A link to the block device, for people and scripts. Its path also tells whose a device of the kernel is.
    pub(super) link: PathBuf,
    /// Under which name the keeper holds the FUSE descriptor.
    pub(super) item: String,
}

impl Plan {
    /// The plan of a group on node `me`, which holds its replicas.
    ///
    /// # Errors
    /// When the directories for its files cannot be made, or there is no control group for its programs.
    pub(super) fn new(
        config: &Config,
        me: NodeId,
        id: GroupId,
        state: &Path,
    ) -> Result<Option<Self>, Failure> {
        let (Some(node), Some(group)) = (config.node(me), config.group(id)) else {
            return Ok(None);
        };
        let NodeRole::Data { service, .. } = node.role else {
            return Ok(None);
        };
        let (run, log) = (
            directory(&state.join("run"))?,
            directory(&state.join("log"))?,
        );
        let has_program = group
            .resources
            .iter()
            .any(|r| matches!(r, Resource::Exec(_)));
        let cgroup = match has_program {
            true => Some(cgroup(&group.name, &run)?),
            false => None,
        };
        let addresses: Vec<String> = addresses(&group.resources)
            .map(|(_, address)| address.ip.to_string())
            .collect();
        let environment = [
            ("BACKSTAY_CLUSTER", config.cluster.clone()),
            ("BACKSTAY_GROUP", group.name.clone()),
            ("BACKSTAY_NODE", node.name.clone()),
            ("BACKSTAY_ADDRESS", addresses.join(" ")),
        ];
        Ok(Some(Self {
            id,
            name: group.name.clone(),
            resources: group.resources.clone(),
            me,
            service,
            cgroup,
            launcher: Launcher::this_binary(&[crate::keeper::LAUNCHER]),
            keeper: vec![own_path(), crate::keeper::COMMAND.to_owned()],
            freezer: vec![own_path(), crate::freezer::COMMAND.to_owned()],
            environment: environment
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
            run,
            log,
        }))
    }

    /// The mirrors with their index among the mirrors, in order.
    pub(super) fn mirrors(&self) -> impl DoubleEndedIterator<Item = (u8, &Mirror)> {
        let mirrors: Vec<&Mirror> = self
            .resources
            .iter()
            .filter_map(|resource| match resource {
                Resource::Mirror(mirror) => Some(mirror),
                Resource::Filesystem(_) | Resource::Exec(_) | Resource::Address(_) => None,
            })
            .collect();
        (0..=u8::MAX).zip(mirrors).collect::<Vec<_>>().into_iter()
    }

    /// The file systems, in order.
    pub(super) fn filesystems(&self) -> impl DoubleEndedIterator<Item = &Filesystem> {
        self.resources.iter().filter_map(|resource| match resource {
            Resource::Filesystem(filesystem) => Some(filesystem),
            Resource::Mirror(_) | Resource::Exec(_) | Resource::Address(_) => None,
        })
    }

    /// The addresses, in order, with their index among the resources.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (usize, &Address)> {
        addresses(&self.resources)
    }

    /// True if the mirror is to be a block device, not only an NBD socket.
    pub(super) fn wants_device(&self, mirror: &Mirror) -> bool {
        match mirror.front_end {
            FrontEnd::Ublk | FrontEnd::Nbd | FrontEnd::FuseLoop => true,
            FrontEnd::NbdSocket => false,
            FrontEnd::Auto => self.filesystems().any(|f| f.mirror == mirror.name),
        }
    }

    /// True if the group has something for a keeper to guard: a device or programs.
    pub(super) fn wants_keeper(&self) -> bool {
        self.cgroup.is_some() || self.mirrors().any(|(_, mirror)| self.wants_device(mirror))
    }

    /// Where the device of a mirror is.
    pub(super) fn places(&self, mirror: &str) -> Places {
        let mount = self.run.join(format!("fuse-{mirror}"));
        Places {
            file: mount.join(host::fuse::FILE_NAME),
            mount,
            link: self.run.join(format!("{mirror}.device")),
            item: format!("fuse {mirror}"),
        }
    }

    /// Where a mirror is served as an NBD export.
    pub(super) fn nbd_socket(&self, mirror: &str) -> PathBuf {
        self.run.join(format!("nbd-{mirror}.sock"))
    }

    /// The keeper's socket.
    pub(super) fn keeper_socket(&self) -> PathBuf {
        self.run.join(format!("keeper-{}.sock", self.name))
    }

    /// Where the keeper writes what it does.
    pub(super) fn keeper_log(&self) -> PathBuf {
        self.log.join(format!("keeper-{}.log", self.name))
    }

    /// What tells of a freeze that is not over.
    pub(super) fn freeze_note(&self) -> PathBuf {
        self.run.join(format!("{}.freeze", self.name))
    }

    /// Where a program's process is written down for the next daemon.
    pub(super) fn process_file(&self, program: &str) -> PathBuf {
        self.run.join(format!("{}-{program}.process", self.name))
    }

    /// Where a program's output goes.
    pub(super) fn program_log(&self, program: &str) -> PathBuf {
        self.log.join(format!("{}-{program}.log", self.name))
    }

    /// What a program finds in its environment.
    pub(super) fn environment(&self, program: &str) -> Vec<(String, String)> {
        let mut environment = self.environment.clone();
        environment.push(("BACKSTAY_RESOURCE".to_owned(), program.to_owned()));
        environment
    }

    /// The control group of one program, made if it is not there.
    pub(super) fn program_cgroup(&self, program: &str) -> Result<Cgroup, Failure> {
        self.sub_cgroup(program)
    }

    /// The control group of monitors and stop commands.
    pub(super) fn command_cgroup(&self) -> Result<Cgroup, Failure> {
        self.sub_cgroup(COMMANDS)
    }

    fn sub_cgroup(&self, name: &str) -> Result<Cgroup, Failure> {
        let failed = || Failure::new(format!("cannot make a control group for {name}"));
        let parent = self.cgroup.as_ref().ok_or_else(failed)?;
        let child = parent.child(name).map_err(|e| failed().from_error(&e))?;
        child.create().map_err(|e| failed().from_error(&e))?;
        Ok(child)
    }
}

fn addresses(resources: &[Resource]) -> impl Iterator<Item = (usize, &Address)> {
    resources
        .iter()
        .enumerate()
        .filter_map(|(index, resource)| match resource {
            Resource::Address(address) => Some((index, address)),
            Resource::Mirror(_) | Resource::Filesystem(_) | Resource::Exec(_) => None,
        })
}

/// Makes a directory, and gives the path that the mount table will show.
fn directory(path: &Path) -> Result<PathBuf, Failure> {
    fs::create_dir_all(path)
        .and_then(|()| path.canonicalize())
        .map_err(|e| Failure::new(format!("cannot make {}", path.display())).cause(e))
}

/// The group's control group: below the daemon's own, which systemd leaves alone when the unit says `Delegate=yes` and
/// `KillMode=process`. If an earlier daemon ran elsewhere and its programs still do, theirs.
fn cgroup(group: &str, run: &Path) -> Result<Cgroup, Failure> {
    let failed = |error: host::cgroup::CgroupError| {
        Failure::new(format!(
            "cannot choose a control group for the programs of group {group}"
        ))
        .from_error(&error)
        .hint("Backstay keeps programs in control groups of version 2 (cgroup2)")
    };
    let note = run.join(format!("{group}.cgroup"));
    if let Ok(text) = fs::read_to_string(&note) {
        let earlier = Cgroup::at(PathBuf::from(text.trim_end()));
        if earlier.exists() && !earlier.is_empty().map_err(failed)? {
            return Ok(earlier);
        }
    }
    let own = Cgroup::own()
        .and_then(|own| own.child(CGROUP)?.child(group))
        .map_err(failed)?;
    fs::write(&note, own.path().as_os_str().as_encoded_bytes())
        .map_err(|e| Failure::new(format!("cannot write {}", note.display())).cause(e))?;
    Ok(own)
}

/// This program: by its path, for those who look at the list of processes, or by what runs if the file was replaced.
fn own_path() -> String {
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    path.map_or_else(
        || "/proc/self/exe".to_owned(),
        |path| path.display().to_string(),
    )
}
