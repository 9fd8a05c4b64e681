//! A volume becomes larger under a mounted file system in use; its replicas are equal then, and a node may die on the way.

use std::fs::OpenOptions;
use std::process::{Command, Output};
use std::time::Duration;

use super::World;
use super::lab::Lab;
use super::wait;
use crate::failure::{Context, Failure, Outcome};

/// Size of the volume before, and what every disk gains.
const SIZE: &str = "64M";
const SIZE_BYTES: u64 = 64 << 20;
const GAIN_BYTES: u64 = 40 << 20;
/// The device shows its new size within this time.
const SHOWN_MAX: Duration = Duration::from_secs(10);

/// Grows a pair, and has the standby serve what it gained after the active died.
pub(crate) fn while_served(world: &World) -> Outcome {
    let args = ["--workload", "ledger", "--size", SIZE, "--external"];
    let lab = Lab::up(world, "grown", &args)?;
    let (active, standby) = (lab.node("active")?.name, lab.node("standby")?.name);
    lab.wait_in_sync(&active)?;
    refused(world, &lab, &active, "has room for")?;
    enlarge(&lab, &standby)?;
    refused(world, &lab, &active, &format!("the disk of {active}"))?;
    enlarge(&lab, &active)?;
    done(&resize(world, &lab, &active)?)?;
    shows(&lab, SIZE_BYTES + GAIN_BYTES)?;
    is_as_large(&lab, &[&active, &standby])?;
    // The next daemon takes over a mount of the new size.
    lab.fault(&active, "daemon")?;
    lab.wait_active(&active)?;
    shows(&lab, SIZE_BYTES + GAIN_BYTES)?;
    lab.wait_in_sync(&active)?;
    lab.fault(&active, "kill")?;
    lab.wait_active(&standby)?;
    shows(&lab, SIZE_BYTES + GAIN_BYTES)?;
    lab.heal("all")?;
    lab.wait_in_sync(&standby)?;
    lab.stop_group(&standby)?;
    lab.compare_disks(SIZE_BYTES + GAIN_BYTES)?;
    lab.down()
}

/// One node dies while the gain is cleared: the volume keeps its size, and the same command does it afterwards.
pub(crate) fn while_nodes_die(world: &World) -> Outcome {
    for victim in ["standby", "active"] {
        let args = ["--workload", "ledger", "--size", SIZE, "--external"];
        let lab = Lab::up(world, &format!("grown-{victim}"), &args)?;
        let (active, standby) = (lab.node("active")?.name, lab.node("standby")?.name);
        lab.wait_in_sync(&active)?;
        enlarge(&lab, &standby)?;
        enlarge(&lab, &active)?;
        let victim = lab.node(victim)?.name;
        // Slow enough to be met in the middle.
        lab.fault(&standby, "disk-slow")?;
        let running = command(world, &lab, &active)
            .spawn()
            .context("run backstay mirror resize")?;
        wait::until("the volume is growing", SHOWN_MAX, || {
            let growth = &lab.group(&active).ok()?["mirrors"][0]["growth"];
            (growth["running"] == true).then_some(())
        })?;
        lab.fault(&victim, "kill")?;
        lab.heal("all")?;
        let ended = running.wait_with_output().context("wait for the command")?;
        println!("the command ended with {}", ended.status);
        let serves = lab.node("active")?.name;
        lab.wait_in_sync(&serves)?;
        done(&resize(world, &lab, &serves)?)?;
        is_as_large(&lab, &[&active, &standby])?;
        shows(&lab, SIZE_BYTES + GAIN_BYTES)?;
        lab.stop_group(&serves)?;
        lab.compare_disks(SIZE_BYTES + GAIN_BYTES)?;
        lab.down()?;
    }
    Ok(())
}

fn enlarge(lab: &Lab, node: &str) -> Outcome {
    let disk = lab.dir.join(node).join("disk");
    let file = OpenOptions::new().write(true).open(&disk);
    let file = file.context(format!("open {}", disk.display()))?;
    file.set_len(SIZE_BYTES + GAIN_BYTES)
        .context("enlarge the disk")
}

fn command(world: &World, lab: &Lab, node: &str) -> Command {
    let mut command = Command::new(&world.backstay);
    command.arg("--state").arg(lab.dir.join(node).join("state"));
    command.args(["mirror", "resize", "data", "--yes"]);
    command
}

fn resize(world: &World, lab: &Lab, node: &str) -> Outcome<Output> {
    let output = command(world, lab, node).output();
    output.context("run backstay mirror resize")
}

fn done(output: &Output) -> Outcome {
    if output.status.success() {
        print!("{}", String::from_utf8_lossy(&output.stdout));
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Failure::new("the volume did not grow").because(why))
}

fn refused(world: &World, lab: &Lab, node: &str, words: &str) -> Outcome {
    let output = resize(world, lab, node)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() && said.contains(words) {
        return Ok(());
    }
    Err(Failure::new(format!("it does not say `{words}`")).because(said))
}

/// Every node's replica has the new size, by its own word: that is a moment old.
fn is_as_large(lab: &Lab, nodes: &[&String]) -> Outcome {
    for node in nodes {
        let what = format!("the volume of {node} has its new size");
        wait::until(&what, SHOWN_MAX, || {
            let data = &lab.group(node).ok()?["mirrors"][0]["replica"]["data_bytes"];
            (data.as_u64() == Some(SIZE_BYTES + GAIN_BYTES)).then_some(())
        })?;
    }
    Ok(())
}

/// The device of the active node has this size, as its kernel says.
fn shows(lab: &Lab, bytes: u64) -> Outcome {
    wait::until("the device has its new size", SHOWN_MAX, || {
        let device = lab.device().ok()?;
        let name = device.rsplit('/').next()?;
        let sectors = std::fs::read_to_string(format!("/sys/class/block/{name}/size")).ok()?;
        let sectors: u64 = sectors.trim().parse().ok()?;
        (sectors * 512 == bytes).then_some(())
    })
}
