//! Commands about disks that no daemon runs, on real files.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use serde_json::{Value, json};
use wire::layout::{
    BlockKind, CONTENT_BYTES, Layout, Pair, ReplicaState, Slot, Superblock, open, seal,
};
use wire::{Epoch, Generation, NodeId, SessionId};

use super::{PAIR, Ran, Scratch};

const DISK_BYTES: u64 = 8 << 20;

/// A file that is made a replica of `pgdata`.
pub(super) struct Disk {
    pub(super) scratch: Scratch,
    pub(super) path: PathBuf,
}

impl Disk {
    /// Made by `mirror create` on a file with this content at its start.
    pub(super) fn made(bytes: u64, content: &[u8]) -> Self {
        let scratch = Scratch::new();
        let path = scratch.0.join("disk");
        let mut file = File::create(&path).expect("file");
        file.write_all(content).expect("content");
        file.set_len(bytes).expect("size");
        drop(file);
        let disk = Self { scratch, path };
        let ran = disk.create(&[]);
        assert_eq!(ran.code, 0, "{}", ran.talk);
        disk
    }

    pub(super) fn create(&self, more: &[&str]) -> Ran {
        let named = PAIR.replace("/dev/nvme1n1", &self.path.display().to_string());
        let config = self.scratch.file("pair.toml", &named);
        let args = ["mirror", "create", "--config", &config, "--node", "node-a"];
        self.scratch.run(&[&args[..], more].concat())
    }

    pub(super) fn run(&self, args: &[&str]) -> Ran {
        self.scratch.run(args)
    }

    pub(super) fn name(&self) -> &str {
        self.path.to_str().expect("text")
    }

    pub(super) fn size(&self) -> u64 {
        fs::metadata(&self.path).expect("size").len()
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut file = File::open(&self.path).expect("file");
        let mut bytes = vec![0; len];
        file.seek(SeekFrom::Start(offset)).expect("seek");
        file.read_exact(&mut bytes).expect("read");
        bytes
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) {
        let mut file = File::options().write(true).open(&self.path).expect("file");
        file.seek(SeekFrom::Start(offset)).expect("seek");
        file.write_all(bytes).expect("write");
    }

    /// The superblock in place A.
    pub(super) fn superblock(&self) -> Superblock {
        let block = self.read(Layout::super_offset(self.size(), Slot::A), 4096);
        let (_, content) = open(BlockKind::Super, 0, &block).expect("a superblock");
        Superblock::parse(&content).expect("of ours")
    }

    pub(super) fn layout(&self) -> Layout {
        let own = self.superblock();
        Layout::with_data(self.size(), own.data_bytes, own.intent_blocks).expect("it fits")
    }

    /// Makes it a replica that served alone: these blocks are marked, these regions hot.
    pub(super) fn has_served(&self, blocks: &[u64], regions: &[u32]) {
        let layout = self.layout();
        let mut own = self.superblock();
        own.state = ReplicaState::Consistent;
        own.mirror = Some(77);
        own.generation = Generation(5);
        own.epoch = Epoch(9);
        own.pairs.push(Pair {
            baseline: Some(SessionId(0xBEEF)),
            ..Pair::new(NodeId(1))
        });
        own.led = true;
        self.write(Layout::super_offset(self.size(), Slot::B), &own.seal(2));
        let mut bits = vec![0; CONTENT_BYTES];
        for block in blocks {
            bits[usize::try_from(block / 8).expect("small")] |= 1 << (block % 8);
        }
        let bitmap = seal(BlockKind::Bitmap, 0, 2, &bits);
        self.write(layout.bitmap_offset(0, Slot::B), &bitmap);
        let names: Vec<u8> = regions
            .iter()
            .flat_map(|region| region.to_le_bytes())
            .collect();
        for place in 0..u64::from(layout.intent_blocks) {
            let names: &[u8] = if place == 0 { &names } else { &[] };
            let block = seal(BlockKind::Intent, place, 2, names);
            self.write(layout.intent_offset(Slot::B) + place * 4096, &block);
        }
    }
}

fn inspect(disk: &Disk) -> (i32, Value) {
    let ran = disk.run(&["mirror", "inspect", disk.name(), "-o", "json"]);
    (ran.code, ran.json())
}

#[test]
fn a_disk_without_a_daemon_is_looked_at_and_not_changed() {
    let disk = Disk::made(DISK_BYTES, b"");
    disk.has_served(&[0, 1, 2, 100], &[3]);
    let before = fs::read(&disk.path).expect("content");
    let (code, seen) = inspect(&disk);
    assert_eq!(code, 0, "{seen}");
    assert_eq!(seen["schema"], "backstay.mirror-inspect/1");
    assert_eq!(seen["found"], "replica");
    assert_eq!(seen["superblocks"][1]["state"], "whole");
    let replica = &seen["replica"];
    assert_eq!(replica["state"], "consistent");
    assert_eq!(
        (&replica["generation"], &replica["epoch"]),
        (&json!(5), &json!(9))
    );
    let other = json!({"node": 1, "baseline": "000000000000beef", "offered": null});
    assert_eq!(replica["others"], json!([other]));
    let metadata = &replica["metadata"];
    assert_eq!(metadata["slot"], "B");
    assert_eq!(metadata["marked_bytes"], 4 * 4096);
    let places = json!([[0, 3 * 4096], [3 * 65_536, 65_536], [100 * 4096, 4096]]);
    assert_eq!(metadata["differing"], places);
    assert_eq!(metadata["intent"], json!([[3 * 65_536, 65_536]]));
    let people = disk.run(&["mirror", "inspect", disk.name()]);
    assert!(people.out.contains("may differ"), "{}", people.out);
    assert_eq!(fs::read(&disk.path).expect("content"), before);
}

#[test]
fn nothing_is_refused_a_look() {
    let disk = Disk::made(DISK_BYTES, b"");
    disk.has_served(&[7], &[]);
    let layout = disk.layout();
    for slot in [Slot::A, Slot::B] {
        disk.write(layout.bitmap_offset(0, slot) + 100, b"rot");
    }
    let (code, seen) = inspect(&disk);
    assert_eq!((code, &seen["found"]), (3, &json!("damaged")));
    let metadata = &seen["replica"]["metadata"];
    assert_eq!(metadata["bitmap_lost_blocks"], 1);
    assert_eq!(metadata["marked_bytes"], layout.data_bytes);
    disk.write(disk.size() - 8192, &[0; 8192]);
    let (code, seen) = inspect(&disk);
    assert_eq!((code, &seen["found"]), (1, &json!("none")));
    assert_eq!(seen["superblocks"][0]["state"], "foreign");
    let empty = disk.scratch.file("empty", "");
    let ran = disk.run(&["mirror", "inspect", &empty]);
    assert_eq!(ran.code, 1, "{}", ran.talk);
    let ran = disk.run(&["mirror", "inspect", "/no/such/disk"]);
    assert!(ran.talk.contains("does not exist") && ran.talk.contains("hint: "));
}

#[test]
fn who_has_the_disk_is_named() {
    let disk = Disk::made(DISK_BYTES, b"");
    let held = File::open(&disk.path).expect("file");
    held.lock().expect("lock");
    let (code, seen) = inspect(&disk);
    assert_eq!(code, 0, "{seen}");
    let user = seen["in_use_by"].as_str().unwrap_or_default();
    assert!(user.contains(&std::process::id().to_string()), "{user}");
}

/// A disk that served alone, with content everywhere that its marks name, and where to export to.
fn loser() -> (Disk, Vec<u8>, String) {
    let byte = |at: u32| u8::try_from(at / 512 % 251).expect("small");
    let content: Vec<u8> = (0..64 * 4096_u32).map(byte).collect();
    let disk = Disk::made(DISK_BYTES, &content);
    disk.has_served(&[1, 2, 40], &[3]);
    let file = disk.scratch.0.join("loser").display().to_string();
    (disk, content, file)
}

fn places() -> Value {
    json!([[4096, 8192], [40 * 4096, 4096], [3 * 65_536, 65_536]])
}

#[test]
fn the_losers_blocks_are_saved_once() {
    let (disk, _, file) = loser();
    let export = ["mirror", "export", disk.name(), &file, "-o", "json"];
    let dry = disk.run(&[&export[..], &["--dry-run"]].concat());
    assert_eq!(dry.code, 0, "{}", dry.talk);
    assert_eq!(dry.json()["saved"], false);
    assert!(!disk.scratch.0.join("loser.data").exists());
    let ran = disk.run(&export);
    assert_eq!(ran.code, 0, "{}", ran.talk);
    assert_eq!(ran.json()["ranges"], places());
    let again = disk.run(&export);
    assert_eq!(again.code, 1, "a file was replaced");
    assert!(again.talk.contains("hint: "), "{}", again.talk);
}

#[test]
fn what_was_saved_is_read_and_applied() {
    let (disk, content, file) = loser();
    assert_eq!(disk.run(&["mirror", "export", disk.name(), &file]).code, 0);
    let ran = disk.run(&["mirror", "extract", &file, "-o", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.talk);
    let seen = ran.json();
    assert_eq!(
        (&seen["epoch"], &seen["generation"]),
        (&json!(9), &json!(5))
    );
    assert_eq!(seen["ranges"], places());
    let plain = disk.run(&[
        "mirror",
        "extract",
        &file,
        "--range",
        "6KiB:1024",
        "--to",
        "-",
    ]);
    assert_eq!(plain.out, String::from_utf8_lossy(&content[6144..7168]));
    let ran = disk.run(&["mirror", "extract", &file, "--range", "0:8192"]);
    assert_eq!(ran.code, 2, "the first block was not saved: {}", ran.out);

    let image = disk.scratch.0.join("image").display().to_string();
    let ran = disk.run(&["mirror", "extract", &file, "--to", &image]);
    assert_eq!(ran.code, 0, "{}", ran.talk);
    let image = fs::read(image).expect("image");
    assert_eq!(
        u64::try_from(image.len()).ok(),
        Some(disk.layout().data_bytes)
    );
    assert_eq!(image[4096..3 * 4096], content[4096..3 * 4096]);
    assert_eq!(image[..4096], [0; 4096]);

    let winner = disk.scratch.0.join("winner").display().to_string();
    fs::write(&winner, vec![7; 128 << 10]).expect("winner");
    let onto = ["mirror", "extract", &file, "--onto", &winner, "--yes"];
    assert_eq!(disk.run(&onto).code, 1, "it is too short for region 3");
    fs::write(&winner, vec![7; 512 << 10]).expect("winner");
    assert_eq!(disk.run(&onto).code, 0);
    let winner = fs::read(&winner).expect("winner");
    assert_eq!(winner[40 * 4096..41 * 4096], content[40 * 4096..41 * 4096]);
    assert_eq!(winner[..4096], [7; 4096]);
}

#[test]
fn parts_of_a_volume_are_saved_in_whole_blocks_and_once() {
    let disk = Disk::made(DISK_BYTES, &[5; 8192]);
    let file = disk.scratch.0.join("part");
    let file = file.to_str().expect("text");
    let base = ["mirror", "export", disk.name(), file, "-o", "json"];
    let ranges = [
        "--range",
        "4097:10",
        "--range",
        "0:4098",
        "--range",
        "1MiB:4KiB",
    ];
    let ran = disk.run(&[&base[..], &ranges].concat());
    assert_eq!(
        ran.json()["ranges"],
        json!([[0, 8192], [1 << 20, 4096]]),
        "{}",
        ran.talk
    );
    let beyond = disk.run(&["mirror", "export", disk.name(), file, "--range", "1TiB:1"]);
    assert_eq!(beyond.code, 2, "{}", beyond.talk);
}

#[test]
fn a_disk_in_use_is_not_exported_from() {
    let disk = Disk::made(DISK_BYTES, b"");
    let held = File::open(&disk.path).expect("file");
    held.lock().expect("lock");
    let ran = disk.run(&["mirror", "export", disk.name(), "/nowhere/at/all"]);
    assert_eq!(ran.code, 1);
    assert!(ran.talk.contains("in use by process"), "{}", ran.talk);
}

#[test]
fn an_enlarged_disk_makes_a_larger_volume_and_forgets_nothing() {
    let disk = Disk::made(DISK_BYTES, &vec![9; 1 << 20]);
    disk.has_served(&[1, 40], &[3]);
    let resize = ["mirror", "resize", disk.name(), "-o", "json", "--yes"];
    let ran = disk.run(&resize);
    assert_eq!(
        (ran.code, &ran.json()["resized"]),
        (0, &json!(false)),
        "{}",
        ran.talk
    );
    let before = disk.layout().data_bytes;
    let file = File::options().write(true).open(&disk.path).expect("file");
    file.set_len(DISK_BYTES + 8192).expect("a little larger");
    let little = disk.run(&resize);
    assert!(
        little.talk.contains("hint:  enlarge the disk to "),
        "{}",
        little.talk
    );
    file.set_len(3 * DISK_BYTES).expect("larger");
    drop(file);
    let (code, seen) = inspect(&disk);
    assert_eq!(
        (code, &seen["found"]),
        (1, &json!("none")),
        "its end moved away"
    );
    let dry = disk.run(&[&resize[..], &["--dry-run"]].concat());
    assert_eq!(dry.json()["resized"], false, "{}", dry.talk);
    let ran = disk.run(&resize);
    assert_eq!(ran.code, 0, "{}", ran.talk);
    let (_, seen) = inspect(&disk);
    let metadata = &seen["replica"]["metadata"];
    let after = disk.layout().data_bytes;
    assert!(after > before + 2 * (DISK_BYTES - (1 << 20)), "{after}");
    assert_eq!(seen["replica"]["generation"], 5);
    assert_eq!(metadata["intent"], json!([[3 * 65_536, 65_536]]));
    let gained = json!([before, after - before]);
    let places = json!([
        [4096, 4096],
        [40 * 4096, 4096],
        [3 * 65_536, 65_536],
        gained
    ]);
    assert_eq!(metadata["differing"], places);
    assert_eq!(disk.read(0, 1 << 20), vec![9; 1 << 20]);
    assert_eq!(disk.run(&resize).json()["resized"], false, "again");
}

#[test]
fn a_file_system_is_kept_and_read_without_us() {
    let scratch = Scratch::new();
    let path = scratch.0.join("disk");
    let file = File::create(&path).expect("file");
    // mke2fs puts these files in: nothing has to be mounted.
    let tree = scratch.0.join("tree");
    fs::create_dir(&tree).expect("tree");
    fs::write(tree.join("kept"), vec![0x5A; 300_000]).expect("content");
    file.set_len(32 << 20).expect("size");
    drop(file);
    let run = |program: &str, args: &[&str]| {
        let ran = std::process::Command::new(program)
            .args(args)
            .output()
            .expect("it is installed");
        assert!(
            ran.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    let (disk, tree) = (path.to_str().expect("text"), tree.to_str().expect("text"));
    run(
        "mke2fs",
        &["-q", "-F", "-t", "ext4", "-d", tree, disk, "24M"],
    );
    let disk = Disk {
        scratch,
        path: path.clone(),
    };
    let full = disk.read(0, 24 << 20);
    assert_eq!(disk.create(&[]).code, 0);
    assert_eq!(disk.read(0, 24 << 20), full, "not a byte of it changed");
    assert_eq!(disk.superblock().state, ReplicaState::Origin);
    run("e2fsck", &["-fn", disk.name()]);
    let out = disk.scratch.0.join("out");
    let dump = format!("dump /kept {}", out.display());
    run("debugfs", &["-R", &dump, disk.name()]);
    assert_eq!(fs::read(out).expect("the file"), vec![0x5A; 300_000]);
    // One that reaches into the metadata's place, and one that --empty would lose, are refused.
    run("mke2fs", &["-q", "-F", "-t", "ext4", disk.name(), "32M"]);
    let refused = disk.create(&["--overwrite"]);
    assert!(
        refused.code == 1 && refused.talk.contains("shrink the file system"),
        "{}",
        refused.talk
    );
}
