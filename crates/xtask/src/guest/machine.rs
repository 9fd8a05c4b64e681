//! A virtual machine, from power on to its end.
//!
//! Without hardware virtualisation: slow, the same everywhere, and good for function, not for speed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::kernel::Kernel;
use crate::failure::{Context, Failure, Outcome};

const QEMU: &str = "qemu-system-x86_64";
/// What a guest's script prints last, before the exit code.
const MARK: &str = "GUEST-EXIT ";

/// Of a console that nobody followed.
const LAST_LINES: usize = 40;

/// How a guest is made.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) kernel: &'a Kernel,
    /// Where its script is.
    pub(super) dir: &'a Path,
    /// What it runs as root, in words without blanks.
    pub(super) command: &'a [String],
    /// Further arguments for QEMU.
    pub(super) hardware: &'a [String],
    pub(super) memory_mib: u32,
    /// The network namespace of its network, if it has one.
    pub(super) netns: Option<&'a str>,
}

/// A running guest. Dropping it takes its power away.
#[derive(Debug)]
pub(super) struct Machine {
    qemu: Child,
    console: Receiver<String>,
}

impl Machine {
    /// Switches it on.
    pub(super) fn start(name: &str, plan: &Plan<'_>) -> Outcome<Self> {
        let script = plan.dir.join(format!("{name}.sh"));
        fs::write(&script, script_text(plan.command))
            .context(format!("write {}", script.display()))?;
        let mut qemu = match plan.netns {
            Some(netns) => {
                let mut ip = Command::new("ip");
                ip.args(["netns", "exec", netns, QEMU]);
                ip
            }
            None => Command::new(QEMU),
        };
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-M", "q35"])
            .args(["-smp", "2", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-no-reboot", "-serial", "stdio"])
            .arg("-m")
            .arg(format!("{}M", plan.memory_mib))
            .arg("-kernel")
            .arg(&plan.kernel.image)
            .arg("-initrd")
            .arg(&plan.kernel.archive)
            .arg("-append")
            .arg(boot_line(plan.kernel, &script))
            .args([
                "-virtfs",
                "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
            ])
            .args(plan.hardware)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut qemu = qemu
            .spawn()
            .context(format!("start {QEMU}"))
            .map_err(|failure| failure.hint("./test installs the programs that the checks need"))?;
        let (sender, console) = channel();
        if let Some(stdout) = qemu.stdout.take() {
            thread::spawn(move || {
                let lines = BufReader::new(stdout).split(b'\n');
                for line in lines.map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line);
                    if sender.send(line.trim_end_matches('\r').to_owned()).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { qemu, console })
    }

    /// Prints its console until its script ends, or until a line for which `stop` is true.
    pub(super) fn follow(&mut self, limit: Duration, stop: impl Fn(&str) -> bool) -> Outcome<End> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.console.recv_timeout(left) {
                Ok(line) => {
                    if let Some(code) = line.strip_prefix(MARK) {
                        return Ok(End::Script(code.trim().parse().unwrap_or(1)));
                    }
                    println!("{line}");
                    if stop(&line) {
                        return Ok(End::Line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Failure::new("the guest is not done")
                        .because(format!("its time is up after {} s", limit.as_secs())));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new("the guest ended before its work was done")
                        .hint("its last lines say why"));
                }
            }
        }
    }
}

impl Machine {
    /// Prints what its console has said and nobody has read, the last lines of it.
    pub(super) fn drain(&mut self) {
        let lines: Vec<String> = self.console.try_iter().collect();
        for line in lines.iter().rev().take(LAST_LINES).rev() {
            println!("{line}");
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have switched itself off.
        drop(self.qemu.kill());
        drop(self.qemu.wait());
    }
}

/// Why a guest is not followed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its script ended with this code.
    Script(i32),
    /// It said what was waited for.
    Line,
}

fn boot_line(kernel: &Kernel, script: &Path) -> String {
    format!(
        "console=ttyS0 panic=-1 no_timer_check quiet loglevel=1 backstay.modules={} backstay.run={}",
        kernel.modules.display(),
        script.display()
    )
}

fn script_text(command: &[String]) -> String {
    format!(
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root NO_COLOR=1\n\
         exec 2>&1\nip link set lo up\nmodprobe -a fuse loop nf_tables\ncd /\n{}\necho {MARK}$?\n\
         sync\necho o >/proc/sysrq-trigger\nsleep 10\n",
        command.join(" ")
    )
}

/// Where scripts and disks of this run's guests are.
pub(super) fn scratch(cache: &Path) -> Outcome<PathBuf> {
    let dir = cache.join(format!("guest/run-{}", std::process::id()));
    fs::create_dir_all(&dir).context(format!("create {}", dir.display()))?;
    Ok(dir)
}
