//! The command line as scripts see it: exit codes, what goes to which stream, and the form of documents.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

#[path = "cli/apart.rs"]
mod apart;
#[path = "cli/disks.rs"]
mod disks;
#[path = "cli/first_sync.rs"]
mod first_sync;

const PAIR: &str = include_str!("pair.toml");

/// A directory that goes away with the test.
struct Scratch(PathBuf);

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Scratch {
    fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("backstay-cli-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("scratch directory");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("file");
        path.display().to_string()
    }

    /// Runs the command with a state directory in here.
    fn run(&self, args: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_backstay"))
            .args(args)
            .env("BACKSTAY_STATE", self.0.join("state"))
            .env_remove("BACKSTAY_SOCKET")
            .env("LANG", "C")
            .env_remove("LC_ALL")
            .stdin(Stdio::null())
            .output()
            .expect("run the command");
        Ran::new(&output)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

struct Ran {
    code: i32,
    out: String,
    talk: String,
}

impl Ran {
    fn new(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            talk: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}\n{}", self.out))
    }
}

#[test]
fn status_without_a_daemon_is_unknown() {
    let scratch = Scratch::new();
    let ran = scratch.run(&["status", "-o", "json"]);
    assert_eq!(ran.code, 5);
    let json = ran.json();
    assert_eq!(json["schema"], "backstay.status/1");
    assert_eq!(json["ready"], false);
    assert_eq!(json["problems"][0]["code"], "BS-001");
    assert_eq!(json["groups"], serde_json::json!([]));
    assert!(
        ran.talk.contains("error: ") && ran.talk.contains("hint: "),
        "{}",
        ran.talk
    );
}

#[test]
fn commands_without_a_daemon_say_what_to_do() {
    let scratch = Scratch::new();
    for args in [
        &["events"][..],
        &["why"],
        &["why", "node-a:1"],
        &["move", "db", "--to", "node-b"],
        &["start", "db"],
        &["stop", "db", "--yes"],
        &["mirror", "status"],
        &["address", "status"],
    ] {
        let ran = scratch.run(args);
        assert!([1, 5].contains(&ran.code), "{args:?}: {}", ran.code);
        assert!(ran.out.is_empty(), "{args:?}: {}", ran.out);
        assert!(
            ran.talk.contains("no daemon answers at"),
            "{args:?}: {}",
            ran.talk
        );
        assert!(ran.talk.contains("hint: "), "{args:?}: {}", ran.talk);
    }
}

#[test]
fn wrong_usage_ends_with_two() {
    let scratch = Scratch::new();
    for args in [
        &["explode"][..],
        &["move"],
        &["status", "--watch=0"],
        &["status", "-o", "xml"],
        &["help", "BS-999"],
        &["help", "explode"],
        &["move", "../etc"],
        &["why", "a b"],
        &["stop", "db", "--reason", "two\nlines"],
    ] {
        let ran = scratch.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.talk);
        assert!(ran.out.is_empty() && !ran.talk.is_empty(), "{args:?}");
    }
}

#[test]
fn every_document_has_a_schema_in_every_form() {
    let scratch = Scratch::new();
    let config = scratch.file("pair.toml", PAIR);
    for args in [
        &["version"][..],
        &["status"],
        &["help", "BS-301"],
        &["help", "codes"],
        &["config", "check", &config],
    ] {
        for form in ["json", "jsonl", "yaml"] {
            let ran = scratch.run(&[args, &["-o", form]].concat());
            let schema = if form == "yaml" {
                "schema: backstay."
            } else {
                "\"schema\""
            };
            assert!(ran.out.contains(schema), "{args:?} {form}: {}", ran.out);
            if form == "jsonl" {
                assert_eq!(ran.out.lines().count(), 1, "{args:?}");
                assert!(ran.json()["schema"].is_string());
            }
        }
    }
}

#[test]
fn pipes_get_no_colours_unless_asked() {
    let scratch = Scratch::new();
    assert!(!scratch.run(&["status"]).out.contains('\x1b'));
    assert!(
        scratch
            .run(&["status", "--color", "always"])
            .out
            .contains('\x1b')
    );
    assert!(scratch.run(&["status", "--ascii"]).out.is_ascii());
}

#[test]
fn every_command_has_help_and_completions_know_it() {
    let scratch = Scratch::new();
    let completions = scratch.run(&["completions", "bash"]).out;
    for command in [
        "status", "events", "why", "move", "init", "run", "lab", "demo", "config",
    ] {
        let ran = scratch.run(&["help", command]);
        assert_eq!(ran.code, 0, "{command}");
        assert!(
            ran.out.contains("Usage: backstay"),
            "{command}: {}",
            ran.out
        );
        assert!(completions.contains(command), "{command}");
    }
    assert!(
        !completions.contains("lab-init"),
        "hidden commands stay hidden"
    );
}

#[test]
fn every_shown_command_has_a_manual_page() {
    let scratch = Scratch::new();
    let pages = scratch.0.join("man").display().to_string();
    assert_eq!(scratch.run(&["man", "--out", &pages]).code, 0);
    let names = std::fs::read_dir(&pages).expect("pages").flatten();
    let names: Vec<String> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    for page in ["backstay.1", "backstay-status.1", "backstay-config-check.1"] {
        assert!(names.iter().any(|name| name == page), "{names:?}");
    }
    assert!(
        !names.iter().any(|name| name.contains("launcher")),
        "{names:?}"
    );
    assert!(scratch.run(&["man"]).out.contains(".TH BACKSTAY"));
}

#[test]
fn config_check_names_the_place() {
    let scratch = Scratch::new();
    let good = scratch.file("good.toml", PAIR);
    let ran = scratch.run(&["config", "check", &good]);
    assert_eq!((ran.code, ran.talk.as_str()), (0, ""));
    let bad = scratch.file(
        "bad.toml",
        &PAIR.replacen("zone = \"a\"", "zonne = \"a\"", 1),
    );
    let ran = scratch.run(&["config", "check", &bad]);
    assert_eq!(ran.code, 1);
    assert!(ran.talk.contains("bad.toml:6:1") && ran.talk.contains("did you mean `zone`?"));
    let json = scratch.run(&["config", "check", &bad, "-o", "json"]).json();
    assert_eq!(json["ok"], false);
    assert_eq!(json["problems"][0]["code"], "BS-503");
    assert_eq!(json["problems"][0]["line"], 6);
    assert_eq!(
        scratch.run(&["config", "check", "/nonexistent.toml"]).code,
        1
    );
}

#[test]
fn config_schema_is_draft_07() {
    let json = Scratch::new().run(&["config", "schema"]).json();
    assert_eq!(json["$schema"], "http://json-schema.org/draft-07/schema#");
    assert_eq!(json["additionalProperties"], false);
    assert!(
        json["properties"]["lab"].is_null(),
        "hidden keys stay hidden"
    );
}

#[test]
fn init_makes_a_cluster_once() {
    let scratch = Scratch::new();
    let config = scratch.file("pair.toml", PAIR);
    let out = scratch.0.join("out").display().to_string();
    let all = ["init", "--config", &config, "--out", &out];
    let ran = scratch.run(&[&all[..], &["-o", "json"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.talk);
    assert_eq!(ran.json()["authority_is_new"], true);
    for node in ["node-a", "node-b", "witness"] {
        for file in ["ca.crt", "node.crt", "node.key"] {
            assert!(
                Path::new(&out).join(node).join("pki").join(file).exists(),
                "{node} {file}"
            );
        }
        let ca_key = Path::new(&out).join(node).join("pki/ca.key");
        assert!(
            !ca_key.exists(),
            "the authority's key stays where it was made"
        );
    }
    let key = scratch.0.join("out/node-a/pki/node.key");
    let before = std::fs::read(&key).expect("key");
    let again = scratch.run(&all);
    assert_eq!(again.code, 1);
    assert!(
        again.talk.contains("it was left as it is"),
        "{}",
        again.talk
    );
    assert_eq!(std::fs::read(&key).expect("key"), before);

    let renewed = scratch.run(&[&all[..], &["--renew", "--node", "node-a", "-o", "json"]].concat());
    assert_eq!(renewed.code, 0, "{}", renewed.talk);
    assert_eq!(renewed.json()["authority_is_new"], false);
    assert_ne!(std::fs::read(&key).expect("key"), before);
}

#[test]
fn init_refuses_what_it_cannot_know() {
    let scratch = Scratch::new();
    let config = scratch.file("pair.toml", PAIR);
    let unknown = scratch.run(&["init", "--config", &config, "--node", "node-x"]);
    assert_eq!(unknown.code, 2);
    assert!(
        unknown
            .talk
            .contains("its nodes are node-a, witness, node-b"),
        "{}",
        unknown.talk
    );
    let nobody = scratch.run(&["init", "--config", &config]);
    assert_eq!(nobody.code, 1);
    assert!(nobody.talk.contains("--node NODE"), "{}", nobody.talk);
    assert!(
        !scratch.0.join("state/pki/ca.key").exists(),
        "nothing is made by halves"
    );
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let scratch = Scratch::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_backstay"))
        .args(["completions", "bash"])
        .current_dir(&scratch.0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run the command");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}
