use super::*;
use crate::cgroup::fixture::Temporary;
use crate::scratch::Scratch;
use std::path::Path;

/// Not a test by itself: what the launcher is in tests.
#[test]
fn launcher() {
    if std::env::var_os("BACKSTAY_TEST_LAUNCHER").is_some() {
        let _failed = run_launcher();
        std::process::exit(127);
    }
}

fn this_test_binary() -> Launcher {
    Launcher::this_binary(&["--exact", "process::tests::launcher"])
}

fn shell(script: &str) -> Launch {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    Launch {
        command,
        ..Launch::default()
    }
}

/// What the command wrote, without the lines of the test harness that plays the launcher.
fn said(outcome: &Outcome) -> String {
    let text = String::from_utf8_lossy(&outcome.output);
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with("running "))
        .collect()
}

fn run_shell(script: &str) -> Outcome {
    run(&this_test_binary(), &shell(script), Duration::from_secs(20)).unwrap()
}

#[test]
fn a_commands_code_signal_and_output_are_told() {
    let outcome = run_shell("echo out; echo err >&2; exit 3");
    assert_eq!(
        (outcome.ended, said(&outcome).as_str()),
        (Some(Ended::Code(3)), "outerr")
    );
    assert_eq!(run_shell("kill -TERM $$").ended, Some(Ended::Signal(15)));
    assert!(run_shell("exit 0").succeeded());
}

#[test]
fn nothing_is_inherited_but_what_is_given() {
    let mut launch = shell("env | sort | grep -v ^_= | grep -v ^PWD=");
    launch.environment = vec![("BACKSTAY_GROUP".into(), "db".into())];
    let outcome = run(&this_test_binary(), &launch, Duration::from_secs(20)).unwrap();
    let text = said(&outcome);
    assert!(
        text.starts_with("BACKSTAY_GROUP=dbPATH=/usr/local/sbin:"),
        "{text}"
    );
    assert!(
        !text.contains("CARGO") && !text.contains("BACKSTAY_TEST"),
        "{text}"
    );
    let descriptors = said(&run_shell("ls /proc/self/fd | tr '\\n' ' '"));
    // 3 is ls's own, of the directory.
    assert_eq!(descriptors.trim(), "0 1 2 3");
}

#[test]
fn a_command_out_of_time_is_killed_with_its_children() {
    let marker = format!("7{}", std::process::id());
    let script = format!("sleep {marker} & sleep {marker}; echo never");
    let limit = Duration::from_millis(300);
    let outcome = run(&this_test_binary(), &shell(&script), limit).unwrap();
    assert_eq!(outcome.ended, None);
    assert!(outcome.took < Duration::from_secs(2));
    let others = run_shell(&format!(
        "grep -lsz '^{marker}$' /proc/[0-9]*/cmdline; true"
    ));
    assert_eq!(said(&others), "");
}

#[test]
fn much_output_keeps_its_end_and_a_background_process_is_not_waited_for() {
    let outcome = run_shell("seq 1 100000; sleep 5 & echo end");
    assert_eq!(outcome.output.len(), OUTPUT_MAX);
    assert!(outcome.output.ends_with(b"100000\nend\n"));
    assert!(outcome.took < Duration::from_secs(4), "{:?}", outcome.took);
}

#[test]
fn each_reason_not_to_start_is_told() {
    let refused = |launch: &Launch| {
        let limit = Duration::from_secs(20);
        run(&this_test_binary(), launch, limit)
            .unwrap_err()
            .to_string()
    };
    let missing = Launch {
        command: vec!["/no/such/program".into()],
        ..Launch::default()
    };
    let text = refused(&missing);
    assert!(
        text.starts_with("/no/such/program: cannot run it: No such file"),
        "{text}"
    );
    let text = refused(&Launch {
        directory: Some("/no/such".into()),
        ..shell("true")
    });
    assert!(text.contains("cannot change the directory"), "{text}");
    let text = refused(&Launch {
        cgroup: Some("/no/such".into()),
        ..shell("true")
    });
    assert!(text.contains("cannot join the control group"), "{text}");
    assert_eq!(refused(&Launch::default()), "no command is given");
    let long = shell(&"x".repeat(2 * 1024 * 1024));
    assert!(refused(&long).starts_with("command and environment take"));
}

#[test]
fn a_service_runs_in_its_cgroup_as_its_user_and_is_adopted() {
    let dir = Scratch::new("process-service");
    let cgroup = &Temporary::new("service").0;
    let log = dir.path().join("service.log");
    let mut launch = shell("id -u; id -G; pwd; exec sleep 60");
    launch.cgroup = Some(cgroup.path().to_owned());
    launch.directory = Some("/tmp".into());
    launch.user = Some(User::find("12345:54321").unwrap());
    let service = spawn(&this_test_binary(), &launch, Streams::Log(log.clone())).unwrap();
    let pid = service.id().pid;
    assert!(cgroup.processes().unwrap().contains(&pid));
    wait_for_text(&log, "12345\n54321\n/tmp\n");
    assert_eq!(service.try_wait().unwrap(), None);
    assert_eq!(service.wait(Duration::from_millis(20)).unwrap(), None);

    let adopted = Process::adopt(service.id()).unwrap().unwrap();
    let reused = ProcessId {
        started_ticks: service.id().started_ticks + 1,
        ..service.id()
    };
    assert!(Process::adopt(reused).unwrap().is_none());
    assert!(adopted.signal(Signal::TERM).unwrap());
    let ended = service.wait(Duration::from_secs(5)).unwrap();
    assert_eq!(ended, Some(Ended::Signal(15)));
    assert_eq!(
        adopted.wait(Duration::from_secs(5)).unwrap(),
        Some(Ended::Unknown)
    );
    assert!(!adopted.signal(Signal::TERM).unwrap());
    assert!(Process::adopt(service.id()).unwrap().is_none());
    assert!(cgroup.wait_empty(Duration::from_secs(5)).unwrap());
}

fn wait_for_text(path: &Path, text: &str) {
    let started = Instant::now();
    loop {
        let found = fs::read_to_string(path).unwrap();
        if found.ends_with(text) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{found:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
