use proptest::prelude::*;

use super::*;
use crate::output::{Format, Ui};

const PAIR: &str = include_str!("../../tests/pair.toml");

fn parse_text(text: &str) -> Result<Config, Diagnostics> {
    parse(vec![Source::new("backstay.toml", text)])
}

/// The pair with one text replaced; the text must be in it.
fn pair_with(from: &str, to: &str) -> Result<Config, Diagnostics> {
    assert!(PAIR.contains(from), "{from}");
    parse_text(&PAIR.replacen(from, to, 1))
}

fn rendered(result: Result<Config, Diagnostics>) -> String {
    result
        .expect_err("the configuration is wrong")
        .render(&Ui::plain(Format::Table, 100))
}

#[test]
fn complete_pair_is_read() {
    let config = parse_text(PAIR).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(config.profile, profile::Profile::Fast);
    assert_eq!(config.ports.heartbeat, 9_944);
    assert!(config.tls && !config.lab.fault_shim);
    let mirror = config.groups[0].mirrors().next().expect("a mirror");
    assert_eq!(mirror.intent_bound.0, 64 << 20);
    // Ids count the witness, which stands between the data nodes.
    let node_b = config.node_id("node-b").expect("node-b");
    assert_eq!(node_b.0, 2);
    assert_eq!(mirror.disk(node_b), Some(&PathBuf::from("/dev/sdb")));
    let model::Resource::Exec(exec) = &config.groups[0].resources[2] else {
        panic!("the third resource is exec");
    };
    assert_eq!((exec.restart, exec.restart_window.as_secs()), (3, 120));
}

#[test]
fn machine_finds_itself_by_an_address() {
    let config = parse_text(PAIR).expect("the pair is right");
    let local = ["127.0.0.1".parse().unwrap(), "10.20.3.11".parse().unwrap()];
    assert_eq!(config.node_with_address(&local), config.node_id("witness"));
    assert_eq!(config.node_with_address(&local[..1]), None);
}

/// The pair with a third data node in the witness's place.
fn trio() -> String {
    let third = "role = \"data\"\nservice = \"10.0.3.11\"\nmirror = \"10.20.3.11\"";
    PAIR.replacen("role = \"witness\"", third, 1).replacen(
        "disk = { ",
        "disk = { witness = \"/dev/sdc\", ",
        1,
    )
}

#[test]
fn three_data_nodes_need_no_witness_and_are_synchronous() {
    let config = parse_text(&trio()).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(config.nodes.iter().filter(|node| node.is_data()).count(), 3);
    let fourth = "\n[[node]]\nname = \"w\"\nrole = \"witness\"\nzone = \"d\"\nheartbeat = [\"10.10.4.11\", \"10.20.4.11\"]\n";
    let said = rendered(parse_text(&(trio() + fourth)));
    assert!(said.contains("has 1 witnesses"), "{said}");
    let mode = "mode = \"async\"\nmax_lag = \"1MiB\"\nmax_lag_seconds = 5\nname = \"pgdata\"";
    let said = rendered(parse_text(&trio().replacen("name = \"pgdata\"", mode, 1)));
    assert!(said.contains("there are three data nodes"), "{said}");
}

#[test]
fn one_disk_path_serves_every_data_node() {
    let each = r#"{ node-a = "/dev/nvme1n1", node-b = "/dev/sdb" }"#;
    let config = pair_with(each, "\"/dev/vdb\"").expect("one path is right");
    let disks = &config.groups[0].mirrors().next().expect("a mirror").disks;
    let ids: Vec<u8> = disks.iter().map(|(id, _)| id.0).collect();
    assert_eq!(ids, [0, 2]);
}

#[test]
fn metadata_may_be_on_a_device_of_its_own() {
    let name = "name = \"pgdata\"";
    let with = |line: &str| pair_with(name, &format!("{name}\n{line}"));
    let read = |line: &str| {
        let config = with(line).unwrap_or_else(|wrong| panic!("{wrong}"));
        let mirror = config.groups[0].mirrors().next().expect("a mirror");
        mirror.metadata.clone()
    };
    let device = || PathBuf::from("/dev/vg/meta");
    let (a, b) = (wire::NodeId(0), wire::NodeId(2));
    assert_eq!(
        read("metadata = \"/dev/vg/meta\""),
        [(a, device()), (b, device())]
    );
    // The other node has it at its disk's end.
    let one = read("metadata = { node-b = \"/dev/vg/meta\" }");
    assert_eq!(one, [(b, device())]);
    let said = rendered(with("metadata = { node-b = \"/dev/sdb\" }"));
    assert!(said.contains("/dev/sdb is `metadata`"), "{said}");
    let said = rendered(with("metadata = { node-c = \"/dev/vg/meta\" }"));
    assert!(said.contains("is given for `node-c`"), "{said}");
}

#[test]
fn asynchronous_mirrors_have_a_bound() {
    let name = "name = \"pgdata\"";
    let with = format!("{name}\nmode = \"async\"\nmax_lag = \"16MiB\"\nmax_lag_seconds = 3");
    let config = pair_with(name, &with).unwrap_or_else(|wrong| panic!("{wrong}"));
    let mirror = config.groups[0].mirrors().next().expect("a mirror");
    assert_eq!(mirror.mode, model::Mode::Async);
    assert_eq!(
        (mirror.max_lag.0, mirror.max_lag_time.as_secs()),
        (16 << 20, 3)
    );
}

#[test]
fn the_acknowledge_level_is_a_mirrors_own() {
    let name = "name = \"pgdata\"";
    let level = |config: &Config| config.groups[0].mirrors().next().expect("a mirror").ack;
    let written = pair_with(name, name).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(level(&written), model::Ack::Write);
    let flush = pair_with(name, &format!("{name}\nack = \"flush\""));
    let flush = flush.unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(level(&flush), model::Ack::Flush);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = PAIR
        .replacen("zone = \"a\"", "zonne = \"a\"", 1)
        .replacen("\"10.0.2.11\"", "\"10.0.2.999\"", 1)
        .replacen("restart_window = \"2m\"", "restart_window = 120", 1)
        .replacen("prefix = 32", "prefix = 33", 1)
        .replacen("mirror = \"pgdata\"", "mirror = \"pgdate\"", 1)
        .replacen("profile = \"fast\"", "profile = \"fats\"", 1);
    insta::assert_snapshot!("all_mistakes", rendered(parse_text(&text)));
}

#[test]
fn broken_toml_is_told_with_its_place() {
    insta::assert_snapshot!(
        "broken_toml",
        rendered(pair_with("name = \"db\"", "name = \"db"))
    );
}

/// One mistake each: the text to replace, its replacement, and what the first line must say.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "cluster = \"lab\"",
        "",
        "`cluster` is missing in the configuration [BS-505]",
    ),
    (
        "cluster = \"lab\"",
        "cluster = \"Lab!\"",
        "`cluster` in the configuration is not a name: `Lab!`",
    ),
    (
        "cluster = \"lab\"",
        "cluster = 7",
        "must be a name, but is a whole number [BS-504]",
    ),
    (
        "\"node-b\"\nzone",
        "\"node-a\"\nzone",
        "two nodes are called `node-a` [BS-506]",
    ),
    (
        "\"10.0.2.11\"",
        "\"10.0.1.11\"",
        "nodes `node-a` and `node-b` have the same address 10.0.1.11",
    ),
    (
        "zone = \"c\"",
        "zone = \"b\"",
        "node `witness` is in zone `b`, as node `node-b` is [BS-508]",
    ),
    (
        ", \"10.20.3.11\"]",
        "]",
        "node `witness` has 1 heartbeat links, node `node-a` has 2",
    ),
    (
        "role = \"witness\"",
        "role = \"data\"",
        "`service` is missing in node `witness` [BS-505]",
    ),
    (
        "zone = \"c\"",
        "mirror = \"10.1.1.1\"",
        "is not used: a witness only votes [BS-506]",
    ),
    (
        "node-b = \"/dev/sdb\"",
        "node-c = \"/dev/sdb\"",
        "given for `node-c`, which is no data node",
    ),
    (
        ", node-b = \"/dev/sdb\"",
        "",
        "mirror `pgdata` of group `db` has no disk on node `node-b`",
    ),
    (
        "\"/dev/sdb\"",
        "\"sdb\"",
        "`disk.node-b` in mirror `pgdata` of group `db` must be an absolute",
    ),
    (
        "kind = \"embedded\"",
        "kind = \"s3\"",
        "is `s3`, which is not in this release [BS-509]",
    ),
    (
        "kind = \"exec\"",
        "kind = \"systemd\"",
        "of kind `systemd`, which is not in this release",
    ),
    (
        "kind = \"exec\"",
        "kind = \"exce\"",
        "unknown kind `exce` of resource 3 of group `db`",
    ),
    (
        "kind = \"exec\"\n",
        "",
        "`kind` is missing in resource 3 of group `db`",
    ),
    (
        "prefix = 32\n",
        "",
        "`prefix` is missing in address `10.9.0.10` of group `db`",
    ),
    (
        "\"10.9.0.10\"",
        "\"10.0.1.11\"",
        "is an own address of node `node-a` [BS-508]",
    ),
    (
        "\"10.9.0.10\"",
        "\"10.9.0.10/32\"",
        "is not an address: `10.9.0.10/32`",
    ),
    (
        "[\"/usr/bin/ledger\", \"serve\"]",
        "[]",
        "`start` in exec `ledger` of group `db` is empty",
    ),
    (
        "mount = \"/var/lib/postgresql\"",
        "mount = \"/var/lib/postgresql\"\noptions = \"noatime,nofail\"",
        "mount option `nofail` in filesystem `/var/lib/postgresql` of group `db` does not mount the mirror [BS-506]",
    ),
    (
        "mount = \"/var/lib/postgresql\"",
        "mount = \"/\"",
        "is the root directory [BS-508]",
    ),
    (
        "restart_window = \"2m\"",
        "restart_window = \"2y\"",
        "but is `2y`: the unit is not known",
    ),
    (
        "restart_window = \"2m\"",
        "restart_window = \"1ms\"",
        "must be from 1s to 1d, but is 1ms",
    ),
    (
        "restart_window = \"2m\"",
        "after = [\"x\"]",
        "`after` in exec `ledger` of group `db` is not in",
    ),
    (
        "name = \"pgdata\"",
        "name = \"pgdata\"\nmode = \"async\"\nack = \"flush\"",
        "`ack` in mirror `pgdata` of group `db` is for mode = \"sync\" [BS-506]",
    ),
    (
        "name = \"pgdata\"",
        "name = \"pgdata\"\nmax_lag = \"1MiB\"",
        "`max_lag` in mirror `pgdata` of group `db` is for mode = \"async\" [BS-506]",
    ),
    (
        "[[group]]",
        "[group]",
        "`group` must be a list of tables [BS-504]",
    ),
    (
        "[register]",
        "[ports]\nmirror = 9945\n[register]",
        "ports `control` and `mirror` are both 9945",
    ),
];

#[test]
fn each_mistake_is_named() {
    for (from, to, expected) in MISTAKES {
        let text = rendered(pair_with(from, to));
        assert!(
            text.contains(expected),
            "{from} -> {to}\nexpected: {expected}\n{text}"
        );
    }
}

#[test]
fn one_mistake_is_not_told_in_a_flood() {
    for (from, to, _) in MISTAKES {
        let wrong = pair_with(from, to).expect_err("wrong");
        assert!(
            wrong.list().len() <= 3,
            "{from} -> {to}\n{:#?}",
            wrong.list()
        );
    }
}

#[test]
fn a_filesystem_before_its_mirror_is_refused() {
    let mirror = "[[group.resource]]\nkind = \"mirror\"\nname = \"pgdata\"\n\
                  disk = { node-a = \"/dev/nvme1n1\", node-b = \"/dev/sdb\" }\n";
    assert!(PAIR.contains(mirror));
    let text = format!("{}\n{mirror}", PAIR.replacen(mirror, "", 1));
    let told = rendered(parse_text(&text));
    assert!(told.contains("comes before its mirror `pgdata`"), "{told}");
}

#[test]
fn files_of_conf_d_add_up() {
    let (nodes, group) = PAIR.split_once("[[group]]").expect("a group");
    let group = format!("[[group]]{group}");
    let both = vec![
        Source::new("backstay.toml", nodes),
        Source::new("conf.d/db.toml", group),
    ];
    assert_eq!(
        parse(both).expect("both together"),
        parse_text(PAIR).expect("the pair")
    );

    let twice = vec![
        Source::new("a.toml", PAIR),
        Source::new("b.toml", "cluster = \"x\"\n"),
    ];
    let told = rendered(parse(twice));
    assert!(
        told.contains("`cluster` of the configuration is given in two files"),
        "{told}"
    );
    assert!(told.contains("b.toml:1:1"), "{told}");
}

#[test]
fn schema_is_kept() {
    let schema = serde_json::to_string_pretty(&schema::schema()).expect("JSON");
    insta::assert_snapshot!("schema", schema);
}

#[test]
fn every_default_is_readable() {
    // A default that its own shape refuses would silently be nothing.
    let bare = PAIR.replacen("profile = \"fast\"\n", "", 1);
    let config = parse_text(&bare).expect("defaults");
    assert_eq!(config.profile, profile::Profile::Lan);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mutated_text_never_panics(
        at in 0..PAIR.len(), len in 0_usize..40, with in "[ -~\n\u{ac00}]{0,12}",
    ) {
        let mut text = PAIR.to_owned();
        let end = (at + len).min(text.len());
        text.replace_range(at..end, &with);
        if let Err(wrong) = parse_text(&text) {
            prop_assert!(!wrong.list().is_empty());
            prop_assert!(!wrong.render(&Ui::plain(Format::Table, 80)).is_empty());
        }
    }

    #[test]
    fn shuffled_lines_never_panic(seed in proptest::collection::vec(0_usize..60, 0..60)) {
        let lines: Vec<&str> = PAIR.lines().collect();
        let text: Vec<&str> = seed.iter().filter_map(|line| lines.get(*line).copied()).collect();
        if let Err(wrong) = parse_text(&text.join("\n")) {
            prop_assert!(!wrong.render(&Ui::plain(Format::Table, 80)).is_empty());
        }
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,200}") {
        if let Err(wrong) = parse_text(&text) {
            prop_assert!(!wrong.list().is_empty());
        }
    }
}
