//! Disks made for a first sync that copies used blocks only, on real files with a real ext4.

use std::fs::{self, File};
use std::process::Command;

use serde_json::{Value, json};
use wire::layout::{ReplicaState, Slot};
use wire::{NodeId, SessionId};

use super::disks::Disk;
use super::{PAIR, Ran, Scratch};

const MIB: u64 = 1 << 20;
/// What lies in blocks that nobody wrote.
const RUBBISH: u8 = 0xA5;

/// A file full of rubbish.
fn rubbish(bytes: u64) -> Disk {
    let scratch = Scratch::new();
    let path = scratch.0.join("disk");
    let content = vec![RUBBISH; usize::try_from(bytes).expect("small")];
    fs::write(&path, content).expect("file");
    Disk { scratch, path }
}

/// An ext4 of 24 MiB with a file, on a disk of 32 MiB.
fn with_files(features: &[&str]) -> Disk {
    let disk = rubbish(32 * MIB);
    let tree = disk.scratch.0.join("tree");
    fs::create_dir(&tree).expect("tree");
    fs::write(tree.join("kept"), vec![0x5A; 3_000_000]).expect("content");
    fs::write(tree.join("small"), b"as well").expect("content");
    let tree = tree.to_str().expect("text");
    let plain = ["-q", "-F", "-t", "ext4", "-E", "nodiscard", "-d", tree];
    tool(
        "mke2fs",
        &[&plain[..], features, &[disk.name(), "24M"]].concat(),
    );
    disk
}

fn tool(program: &str, args: &[&str]) -> String {
    let ran = Command::new(program).args(args).output();
    let ran = ran.expect("it is installed");
    let talk = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{program}: {talk}");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// `mirror create` on a node.
fn create(disk: &Disk, node: &str, more: &[&str]) -> Ran {
    let named = PAIR.replace("/dev/nvme1n1", disk.name());
    let config = disk
        .scratch
        .file("pair.toml", &named.replace("/dev/sdb", disk.name()));
    let args = ["mirror", "create", "--config", &config, "--node", node];
    disk.run(&[&args[..], &["-o", "json", "--yes"], more].concat())
}

fn made(disk: &Disk, node: &str, more: &[&str]) -> Value {
    let ran = create(disk, node, more);
    assert_eq!(ran.code, 0, "{}", ran.talk);
    ran.json()
}

/// Refused, with a hint, and not a byte of the disk changed.
fn refused(disk: &Disk, node: &str, more: &[&str], why: &str) {
    let before = fs::read(&disk.path).expect("content");
    let ran = create(disk, node, more);
    assert_ne!(ran.code, 0);
    assert!(ran.talk.contains(why), "{}", ran.talk);
    assert!(fs::read(&disk.path).expect("content") == before);
}

fn inspect(disk: &Disk) -> Value {
    disk.run(&["mirror", "inspect", disk.name(), "-o", "json"])
        .json()
}

/// The blocks that the replica marks.
fn marked(seen: &Value) -> Vec<bool> {
    let metadata = &seen["replica"]["metadata"];
    assert_eq!(metadata["differing_more"], false);
    let blocks = seen["replica"]["data_bytes"].as_u64().expect("size") / 4096;
    let mut marked = vec![false; usize::try_from(blocks).expect("small")];
    for place in metadata["differing"].as_array().expect("places") {
        let [at, len] = [0, 1].map(|n| place[n].as_u64().expect("number") / 4096);
        let run = usize::try_from(at).expect("small")..usize::try_from(at + len).expect("small");
        marked[run].fill(true);
    }
    marked
}

#[test]
fn what_a_file_system_does_not_use_becomes_zeros_and_the_rest_is_marked() {
    for features in [
        &["-b", "4096"][..],
        &["-b", "1024"],
        &["-O", "^has_journal"],
    ] {
        let disk = with_files(features);
        let before = fs::read(&disk.path).expect("content");
        let dry = made(&disk, "node-a", &["--used-only", "--dry-run"]);
        assert_eq!((&dry["made"], &dry["token"]), (&json!(false), &Value::Null));
        assert!(fs::read(&disk.path).expect("content") == before);
        let done = made(&disk, "node-a", &["--used-only"]);
        assert_eq!(done["schema"], "backstay.mirror-create/1");
        let own = disk.superblock();
        assert_eq!((own.state, own.mirror), (ReplicaState::Origin, None));
        assert!(own.seed.is_some());
        assert_eq!(own.pairs.len(), 1);
        assert_eq!(own.pairs[0].node, NodeId(2));
        let seen = inspect(&disk);
        let marked = marked(&seen);
        let after = fs::read(&disk.path).expect("content");
        let blocks = std::iter::zip(before.chunks(4096), after.chunks(4096));
        for (n, ((before, after), marked)) in blocks.zip(&marked).enumerate() {
            let fine = if *marked {
                before == after
            } else {
                after.iter().all(|byte| *byte == 0)
            };
            assert!(fine, "block {n}, marked {marked}");
        }
        let unmarked = u64::try_from(marked.iter().filter(|marked| !**marked).count());
        let unmarked = unmarked.expect("small") * 4096;
        assert_eq!(done["zeroed_bytes"], unmarked);
        assert!(unmarked > 14 * MIB, "only {unmarked} bytes are unused");
        assert_eq!(done["marked_bytes"], own.data_bytes - unmarked);
        tool("e2fsck", &["-fn", disk.name()]);
        let out = disk.scratch.0.join("out");
        let dump = format!("dump /kept {}", out.display());
        tool("debugfs", &["-R", &dump, disk.name()]);
        assert_eq!(fs::read(out).expect("the file"), vec![0x5A; 3_000_000]);
    }
}

#[test]
fn the_other_disk_becomes_zeros_and_names_the_same_baseline() {
    let origin = with_files(&[]);
    let done = made(&origin, "node-a", &["--used-only"]);
    let token = done["token"].as_str().expect("token").to_owned();
    let disk = rubbish(40 * MIB);
    // Nobody knows what it is, so somebody has to say that it may go.
    refused(&disk, "node-b", &["--zeroed", &token], "it holds something");
    let done = made(&disk, "node-b", &["--zeroed", &token, "--overwrite"]);
    assert_eq!(done["zeroed_bytes"], origin.superblock().data_bytes);
    let own = disk.superblock();
    assert_eq!(own.state, ReplicaState::Blank);
    assert_eq!(own.data_bytes, origin.superblock().data_bytes);
    let baseline = origin.superblock().pairs[0].baseline;
    assert!(baseline.is_some_and(|name| name != SessionId(0)));
    assert_eq!(
        (own.pairs[0].node, own.pairs[0].baseline),
        (NodeId(0), baseline)
    );
    let data = disk.read(0, usize::try_from(own.data_bytes).expect("small"));
    assert!(data.iter().all(|byte| *byte == 0));
    assert_eq!(inspect(&disk)["replica"]["metadata"]["marked_bytes"], 0);
    // Made anew, it is another one: a token is good for one origin.
    assert_eq!(create(&origin, "node-a", &["--used-only"]).code, 1);
    made(&origin, "node-a", &["--used-only", "--overwrite"]);
    assert_ne!(origin.superblock().pairs[0].baseline, baseline);
    refused(
        &disk,
        "node-b",
        &["--zeroed", &token],
        "is a replica already",
    );
}

#[test]
fn what_could_lose_something_is_refused() {
    let disk = with_files(&[]);
    let token = made(&disk, "node-a", &["--used-only"])["token"].clone();
    let token = token.as_str().expect("token");
    let small = rubbish(24 * MIB);
    refused(
        &small,
        "node-b",
        &["--zeroed", token],
        "the origin's volume has",
    );
    let wrong = token.replace(&token[..1], if token.starts_with('1') { "2" } else { "1" });
    let ran = create(&small, "node-b", &["--zeroed", &wrong]);
    assert_eq!(ran.code, 2, "{}", ran.talk);
    let other = with_files(&[]);
    refused(
        &other,
        "node-b",
        &["--zeroed", token],
        "--zeroed would replace",
    );
    // Its label looks like one of the fields in which dumpe2fs tells of it.
    let misleading = with_files(&["-L", "\nBlock size:1024"]);
    refused(&misleading, "node-a", &["--used-only"], "dumpe2fs prints");
    refused(
        &small,
        "node-a",
        &["--used-only"],
        "holds no ext2, ext3 or ext4",
    );
    // Blocks of 4 KiB, 1000 of them.
    small.write(0, b"XFSB\0\0\x10\0\0\0\0\0\0\0\x03\xe8");
    refused(
        &small,
        "node-a",
        &["--used-only"],
        "which blocks xfs uses is not known",
    );
    // Mounted when the power went, and with a bitmap that does not know of a file's blocks.
    tool(
        "debugfs",
        &["-w", "-R", "set_super_value state 0", other.name()],
    );
    refused(&other, "node-a", &["--used-only"], "cause: ");
    let other = with_files(&[]);
    let blocks = tool("debugfs", &["-R", "blocks /kept", other.name()]);
    let first = blocks.split_whitespace().next().expect("a block");
    tool(
        "debugfs",
        &["-w", "-R", &format!("freeb {first}"), other.name()],
    );
    refused(
        &other,
        "node-a",
        &["--used-only"],
        "e2fsck finds something wrong",
    );
    let held = File::open(&other.path).expect("file");
    held.lock().expect("lock");
    refused(&other, "node-a", &["--used-only"], "in use by process");
}

#[test]
fn a_disk_that_is_made_anew_shows_nothing_of_its_earlier_life() {
    let disk = Disk::made(8 * MIB, b"");
    disk.has_served(&[1, 40], &[3]);
    let layout = disk.layout();
    assert_eq!(disk.create(&["--overwrite"]).code, 0);
    let own = disk.superblock();
    assert_eq!((own.state, own.mirror), (ReplicaState::Origin, None));
    for slot in [Slot::A, Slot::B] {
        let block = disk.read(wire::layout::Layout::super_offset(disk.size(), slot), 4096);
        let opened = wire::layout::open(wire::layout::BlockKind::Super, 0, &block);
        assert_eq!(opened.map(|(sequence, _)| sequence), Ok(1));
    }
    assert_eq!(disk.layout(), layout);
}
