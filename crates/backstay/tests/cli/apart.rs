//! Disks with their metadata on a device of its own, on real files.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use wire::layout::{BlockFault, BlockKind, Layout, Slot, open};

use super::{PAIR, Ran, Scratch};

const DISK_BYTES: u64 = 32 << 20;
const DEVICE_BYTES: u64 = 4 << 20;

/// A disk that a file system fills to its last block, and a device for its metadata.
struct Apart {
    scratch: Scratch,
    disk: PathBuf,
    device: PathBuf,
}

impl Apart {
    fn new() -> Self {
        let scratch = Scratch::new();
        let (disk, device) = (scratch.0.join("disk"), scratch.0.join("device"));
        let tree = scratch.0.join("tree");
        fs::create_dir(&tree).expect("tree");
        fs::write(tree.join("kept"), vec![0x5A; 300_000]).expect("content");
        sized(&disk, DISK_BYTES);
        sized(&device, DEVICE_BYTES);
        let (tree, path) = (text(&tree), text(&disk));
        tool("mke2fs", &["-q", "-F", "-t", "ext4", "-d", tree, path]);
        Self {
            scratch,
            disk,
            device,
        }
    }

    /// `mirror create` with the device in the configuration.
    fn create(&self, more: &[&str]) -> Ran {
        let device = format!("name = \"pgdata\"\nmetadata = \"{}\"", text(&self.device));
        self.create_with(&device, more)
    }

    fn create_with(&self, name: &str, more: &[&str]) -> Ran {
        let config =
            PAIR.replace("/dev/nvme1n1", text(&self.disk))
                .replacen("name = \"pgdata\"", name, 1);
        let config = self.scratch.file("pair.toml", &config);
        let args = ["mirror", "create", "--config", &config, "--node", "node-a"];
        self.scratch.run(&[&args[..], more].concat())
    }

    /// A command about the pair.
    fn mirror(&self, words: &[&str], more: &[&str]) -> Ran {
        let pair = [text(&self.disk), "--metadata", text(&self.device)];
        self.scratch
            .run(&[&["mirror"], words, &pair, more].concat())
    }

    fn inspect(&self) -> (i32, Value) {
        let ran = self.mirror(&["inspect"], &["-o", "json"]);
        (ran.code, ran.json())
    }
}

fn sized(path: &PathBuf, bytes: u64) {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    file.expect("file").set_len(bytes).expect("size");
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("text")
}

fn tool(program: &str, args: &[&str]) {
    let ran = Command::new(program)
        .args(args)
        .output()
        .expect("it is installed");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program}: {said}");
}

#[test]
fn a_full_disk_becomes_a_replica_and_not_a_byte_of_it_changes() {
    let apart = Apart::new();
    let full = fs::read(&apart.disk).expect("content");
    let refused = apart.create_with("name = \"pgdata\"", &[]);
    assert!(
        refused.code == 1 && refused.talk.contains("`metadata`"),
        "there is no room on the disk: {}",
        refused.talk
    );
    let ran = apart.create(&[]);
    assert_eq!(ran.code, 0, "{}", ran.talk);
    assert!(
        fs::read(&apart.disk).expect("content") == full,
        "it was written to"
    );
    let (code, seen) = apart.inspect();
    assert_eq!((code, &seen["found"]), (0, &json!("replica")), "{seen}");
    let replica = &seen["replica"];
    assert_eq!(replica["data_bytes"], DISK_BYTES);
    assert_eq!(replica["disk"]["disk_bytes"], DISK_BYTES);
    // The way out: as if there were no mirror.
    tool("e2fsck", &["-fn", text(&apart.disk)]);
    let out = apart.scratch.0.join("out");
    tool(
        "debugfs",
        &[
            "-R",
            &format!("dump /kept {}", text(&out)),
            text(&apart.disk),
        ],
    );
    assert_eq!(fs::read(out).expect("the file"), vec![0x5A; 300_000]);
    let again = apart.create(&[]);
    assert!(
        again.code == 1 && again.talk.contains("a replica already"),
        "{}",
        again.talk
    );
}

#[test]
fn create_takes_the_device_from_the_command_line_too() {
    let apart = Apart::new();
    let option = ["--metadata", text(&apart.device)];
    let ran = apart.create_with("name = \"pgdata\"", &option);
    assert_eq!(ran.code, 0, "{}", ran.talk);
    assert!(ran.talk.contains("note: put metadata = "), "{}", ran.talk);
    assert_eq!(apart.inspect().0, 0);
}

#[test]
fn a_device_that_is_too_small_or_in_use_is_refused() {
    let apart = Apart::new();
    File::create(&apart.device)
        .expect("file")
        .set_len(16 << 10)
        .expect("size");
    let ran = apart.create(&[]);
    assert!(
        ran.code == 1 && ran.talk.contains("its metadata needs"),
        "{}",
        ran.talk
    );
    let used = Apart::new();
    tool("mke2fs", &["-q", "-F", "-t", "ext4", text(&used.device)]);
    let ran = used.create(&[]);
    assert!(
        ran.code == 1 && ran.talk.contains("holds a file system (ext4)"),
        "{}",
        ran.talk
    );
    let held = File::open(&apart.device).expect("file");
    held.lock().expect("lock");
    let ran = apart.create(&[]);
    assert!(ran.talk.contains("in use by process"), "{}", ran.talk);
}

#[test]
fn metadata_is_known_by_its_disk() {
    let apart = Apart::new();
    assert_eq!(apart.create(&[]).code, 0);
    // Alone, it tells whose it is.
    let alone = apart
        .scratch
        .run(&["mirror", "inspect", text(&apart.device), "-o", "json"]);
    assert_eq!((alone.code, &alone.json()["found"]), (0, &json!("replica")));
    let people = apart
        .scratch
        .run(&["mirror", "inspect", text(&apart.device)]);
    assert!(people.out.contains("metadata of"), "{}", people.out);
    // Another disk of the same size, and the same one with another size.
    let other = Apart::new();
    let swapped = [
        "mirror",
        "inspect",
        text(&other.disk),
        "--metadata",
        text(&apart.device),
    ];
    let ran = apart.scratch.run(&[&swapped[..], &["-o", "json"]].concat());
    assert_eq!((ran.code, &ran.json()["found"]), (3, &json!("other-disk")));
    let file = apart.scratch.0.join("saved");
    let export = [
        "mirror",
        "export",
        text(&other.disk),
        text(&file),
        "--metadata",
        text(&apart.device),
    ];
    let ran = apart.scratch.run(&export);
    assert!(
        ran.code == 1 && ran.talk.contains("the metadata is of a disk"),
        "{}",
        ran.talk
    );
    let lone = apart
        .scratch
        .run(&["mirror", "export", text(&apart.device), text(&file)]);
    assert!(
        lone.code == 1 && lone.talk.contains("--metadata"),
        "{}",
        lone.talk
    );
    let saved = apart.mirror(&["export"], &[text(&file), "--range", "0:4096"]);
    assert_eq!(saved.code, 0, "{}", saved.talk);
    let content = fs::read(file.with_extension("data")).expect("data");
    assert_eq!(content, fs::read(&apart.disk).expect("disk")[..4096]);
}

#[test]
fn an_enlarged_disk_grows_and_a_copy_is_taken_on_demand() {
    let apart = Apart::new();
    assert_eq!(apart.create(&[]).code, 0);
    sized(&apart.disk, 2 * DISK_BYTES);
    assert_eq!(apart.inspect().1["found"], "other-disk");
    let resize = ["-o", "json", "--yes"];
    let ran = apart.mirror(&["resize"], &resize);
    assert_eq!(
        (ran.code, &ran.json()["resized"]),
        (0, &json!(true)),
        "{}",
        ran.talk
    );
    let (code, seen) = apart.inspect();
    assert_eq!(
        (code, &seen["replica"]["data_bytes"]),
        (0, &json!(2 * DISK_BYTES)),
        "{seen}"
    );
    // The disk is replaced by a copy of it.
    let copy = apart.scratch.0.join("copy");
    fs::copy(&apart.disk, &copy).expect("copy");
    fs::rename(&copy, &apart.disk).expect("replace");
    let ran = apart.mirror(&["resize"], &resize);
    assert!(
        ran.code == 1 && ran.talk.contains("--other-disk"),
        "{}",
        ran.talk
    );
    let ran = apart.mirror(&["resize"], &[&resize[..], &["--other-disk"]].concat());
    assert_eq!(
        (ran.code, &ran.json()["resized"]),
        (0, &json!(true)),
        "{}",
        ran.talk
    );
    assert_eq!(apart.inspect().0, 0);
    let ran = apart.mirror(&["resize"], &resize);
    assert_eq!(ran.json()["resized"], false, "nothing is left to do");
    // A smaller one is never taken.
    sized(&apart.disk, DISK_BYTES);
    let ran = apart.mirror(&["resize"], &[&resize[..], &["--other-disk"]].concat());
    assert!(
        ran.code == 1 && ran.talk.contains("its size back"),
        "{}",
        ran.talk
    );
    // The device grows too, and the metadata moves to its end.
    sized(&apart.disk, 2 * DISK_BYTES);
    sized(&apart.device, 2 * DEVICE_BYTES);
    let ran = apart.mirror(&["resize"], &resize);
    assert_eq!(ran.code, 0, "{}", ran.talk);
    assert_eq!(apart.inspect().0, 0);
}

/// Its bitmap would be in the data of the disk otherwise, and overwritten by that.
#[test]
fn a_disk_made_of_zeros_has_its_metadata_on_the_device_too() {
    let apart = Apart::new();
    let token = apart.create(&["--used-only", "--yes", "-o", "json"]);
    assert_eq!(token.code, 0, "{}", token.talk);
    let token = token.json()["token"].as_str().expect("token").to_owned();
    let other = Apart::new();
    let device = fs::read(&other.device).expect("device");
    let config = PAIR.replace("/dev/sdb", text(&other.disk)).replacen(
        "name = \"pgdata\"",
        &format!("name = \"pgdata\"\nmetadata = \"{}\"", text(&other.device)),
        1,
    );
    let config = other.scratch.file("pair.toml", &config);
    let args = ["mirror", "create", "--config", &config, "--node", "node-b"];
    let more = ["--zeroed", &token, "--overwrite", "--yes"];
    let ran = other.scratch.run(&[&args[..], &more].concat());
    assert_eq!(ran.code, 0, "{}", ran.talk);
    let disk = fs::read(&other.disk).expect("disk");
    assert!(disk.iter().all(|byte| *byte == 0), "metadata in the data");
    assert!(fs::read(&other.device).expect("device") != device);
    let (code, seen) = other.inspect();
    assert_eq!(code, 0);
    assert_eq!(seen["replica"]["data_bytes"], DISK_BYTES);
    assert_eq!(seen["replica"]["metadata"]["marked_bytes"], 0);
}

/// Without the device, or with another one, the disk would be taken for what it was before.
#[test]
fn metadata_that_moves_to_a_device_leaves_no_superblock_behind() {
    let apart = Apart::new();
    fs::write(&apart.disk, []).expect("emptied");
    sized(&apart.disk, DISK_BYTES);
    let ran = apart.create_with("name = \"pgdata\"", &[]);
    assert_eq!(ran.code, 0, "{}", ran.talk);
    let ran = apart.create(&["--overwrite"]);
    assert_eq!(ran.code, 0, "{}", ran.talk);
    let disk = fs::read(&apart.disk).expect("disk");
    for slot in [Slot::A, Slot::B] {
        let at = usize::try_from(Layout::super_offset(DISK_BYTES, slot)).expect("small");
        let found = open(BlockKind::Super, 0, &disk[at..at + 4096]);
        assert_eq!(found, Err(BlockFault::Foreign));
    }
    assert_eq!(apart.inspect().0, 0);
}

/// It may be anything.
#[test]
fn a_metadata_device_that_is_not_empty_is_not_overwritten_unasked() {
    let apart = Apart::new();
    let mut device = vec![0; usize::try_from(DEVICE_BYTES).expect("small")];
    device[70_000] = 1;
    fs::write(&apart.device, &device).expect("content");
    let refused = apart.create(&[]);
    assert!(
        refused.code == 1 && refused.talk.contains("device for its metadata holds"),
        "{}",
        refused.talk
    );
    assert!(fs::read(&apart.device).expect("device") == device);
    assert_eq!(apart.create(&["--overwrite"]).code, 0);
}
