//! A seeded world of three to five members: a network that loses, doubles, delays and cuts; disks that take time; crashes
//! that lose what was not persisted; pauses; clocks that run up to 1 % fast or slow and start anew with each life.
//!
//! Each member follows a small policy ([`member`]) that does what the node crate does with the register and the lease, often
//! for no good reason. What must hold is in [`checks`].
//!
//! One seed again: `WORLD_SEED=17 cargo test -p cluster --test cluster world`. More seeds: `WORLD_SEEDS=10000`.

mod chance;
mod checks;
mod member;

use chance::Chance;
use checks::Checks;
use member::{Effect, Member, Saved};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use wire::control::Message;
use wire::{Duration, NodeId, Time};

/// Faults happen this long; then everything heals, and service must come back within [`HEALED`].
const FAULTY: u64 = 30_000;
const HEALED: u64 = 15_000;
const MILLI: u64 = 1_000_000;

/// Something that happens at a time of the world (nanoseconds of real time).
#[derive(Debug)]
enum Event {
    Tick(NodeId),
    Deliver {
        from: NodeId,
        to: NodeId,
        message: Message,
    },
    Persisted {
        node: NodeId,
        life: u64,
    },
    Start(NodeId),
    Fault,
    Heal,
}

struct World {
    chance: Chance,
    now: u64,
    order: u64,
    events: BTreeMap<(u64, u64), Event>,
    members: BTreeMap<NodeId, Host>,
    /// Directed cuts.
    cuts: BTreeSet<(NodeId, NodeId)>,
    loss_percent: u64,
    healed: bool,
    checks: Checks,
    log: VecDeque<String>,
}

/// One machine: what survives a crash, and the process that runs on it.
struct Host {
    disk: Saved,
    /// Writes under way, in order, each with the tickets that it covers.
    writes: VecDeque<Saved>,
    life: u64,
    running: Option<Member>,
    paused_until: u64,
    /// Local time = offset + real time × (1 + ppm / 10⁶).
    offset: u64,
    ppm: i64,
    disk_free_at: u64,
}

impl Host {
    fn local(&self, now: u64) -> Time {
        let drift = i64::try_from(now / 1_000_000).unwrap() * self.ppm;
        Time::from_nanos(now.checked_add_signed(drift).unwrap() + self.offset)
    }
}

#[test]
fn no_seed_breaks_the_register_or_the_lease() {
    if let Ok(seed) = std::env::var("WORLD_SEED") {
        let log = run(seed.parse().unwrap());
        println!("{log}");
        return;
    }
    let seeds = std::env::var("WORLD_SEEDS").map_or(40, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        run(seed);
    }
}

fn run(seed: u64) -> String {
    let mut world = World::new(seed);
    let fault = world.run();
    let log: Vec<String> = world.log.into_iter().collect();
    if let Some(fault) = fault {
        panic!(
            "{fault}\n{}\nagain: WORLD_SEED={seed} cargo test -p cluster --test cluster world",
            log.join("\n")
        );
    }
    format!("{}\n{}", log.join("\n"), world.checks.summary())
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let size = if chance.one_in(3) { 5 } else { 3 };
        let nodes: BTreeSet<NodeId> = (0..size).map(NodeId).collect();
        let mut world = Self {
            now: MILLI,
            order: 0,
            events: BTreeMap::new(),
            members: BTreeMap::new(),
            cuts: BTreeSet::new(),
            loss_percent: chance.below(10),
            healed: false,
            checks: Checks::new(nodes.len()),
            log: VecDeque::new(),
            chance,
        };
        for node in nodes {
            let host = Host {
                disk: Saved::default(),
                writes: VecDeque::new(),
                life: 0,
                running: None,
                paused_until: 0,
                offset: 0,
                ppm: 0,
                disk_free_at: 0,
            };
            world.members.insert(node, host);
            world.at(0, Event::Start(node));
        }
        world.at(100 * MILLI, Event::Fault);
        world.at(FAULTY * MILLI, Event::Heal);
        world
    }

    /// Answers with what was broken.
    fn run(&mut self) -> Option<String> {
        while let Some(((time, _), event)) = self.events.pop_first() {
            if time > (FAULTY + HEALED) * MILLI {
                break;
            }
            self.now = time;
            self.step(event);
            if let Some(fault) = self.check() {
                return Some(fault);
            }
        }
        let serving = self.serving();
        (serving.len() != 1).then(|| format!("after healing {serving:?} serve, not one"))
    }

    fn at(&mut self, after: u64, event: Event) {
        self.order += 1;
        self.events.insert((self.now + after, self.order), event);
    }

    fn note(&mut self, text: &str) {
        if self.log.len() == 120 {
            self.log.pop_front();
        }
        let millis = self.now / 1_000;
        self.log.push_back(format!(
            "{:>9}.{:03} {text}",
            millis / 1_000,
            millis % 1_000
        ));
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Tick(node) => self.on_tick(node),
            Event::Deliver { from, to, message } => {
                self.note(&format!("{from:?}->{to:?} {message:?}"));
                self.with(to, |member, now, chance| {
                    member.on_message(now, from, message, chance)
                });
            }
            Event::Persisted { node, life } => self.on_persisted(node, life),
            Event::Start(node) => self.on_start(node),
            Event::Fault => self.on_fault(),
            Event::Heal => self.on_heal(),
        }
    }

    /// Lets a member that runs do something, and carries out what it wants.
    fn with(&mut self, node: NodeId, act: impl FnOnce(&mut Member, Time, &mut Chance)) {
        let host = self.members.get_mut(&node).unwrap();
        let local = host.local(self.now);
        if host.paused_until > self.now {
            return;
        }
        let Some(member) = &mut host.running else {
            return;
        };
        act(member, local, &mut self.chance);
        let effects = member.drain();
        for effect in effects {
            self.carry_out(node, effect);
        }
    }

    fn carry_out(&mut self, node: NodeId, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.post(node, to, message),
            Effect::Write(saved) => self.write(node, saved),
            Effect::Said(outcome) => {
                self.note(&format!("{node:?} {outcome:?}"));
                self.checks.on_outcome(node, &outcome);
            }
            Effect::Asked(what) => {
                self.note(&format!("{node:?} asks {what}"));
                self.checks.on_asked(node, &what);
            }
        }
    }

    fn post(&mut self, from: NodeId, to: NodeId, message: Message) {
        let copies = 1 + u64::from(self.chance.one_in(20));
        for _ in 0..copies {
            let lost =
                self.cuts.contains(&(from, to)) || self.chance.below(100) < self.loss_percent;
            let slow = !self.healed && self.chance.one_in(50);
            let delay = if slow { 800 * MILLI } else { 5 * MILLI };
            let delay = MILLI / 10 + self.chance.below(delay);
            if !lost {
                self.at(
                    delay,
                    Event::Deliver {
                        from,
                        to,
                        message: message.clone(),
                    },
                );
            }
        }
    }

    fn write(&mut self, node: NodeId, saved: Saved) {
        let slow = self.chance.one_in(30);
        let takes = MILLI / 5 + self.chance.below(if slow { 60 * MILLI } else { 3 * MILLI });
        let host = self.members.get_mut(&node).unwrap();
        host.writes.push_back(saved);
        host.disk_free_at = host.disk_free_at.max(self.now) + takes;
        let (after, life) = (host.disk_free_at - self.now, host.life);
        self.at(after, Event::Persisted { node, life });
    }

    fn on_persisted(&mut self, node: NodeId, life: u64) {
        let host = self.members.get_mut(&node).unwrap();
        if host.life != life {
            return;
        }
        let Some(saved) = host.writes.pop_front() else {
            return;
        };
        host.disk = saved.clone();
        self.checks.on_persisted(node, &saved.group.acceptor);
        if host.paused_until > self.now {
            // The answer of the disk waits for the process.
            let after = host.paused_until - self.now;
            host.writes.push_front(saved);
            self.at(after, Event::Persisted { node, life });
            return;
        }
        self.with(node, |member, now, chance| {
            member.on_persisted(now, &saved, chance)
        });
    }

    fn on_start(&mut self, node: NodeId) {
        let everyone: BTreeSet<NodeId> = self.members.keys().copied().collect();
        let host = self.members.get_mut(&node).unwrap();
        host.life += 1;
        host.offset = self.chance.below(1_000_000 * MILLI);
        host.ppm = i64::try_from(self.chance.below(20_001)).unwrap() - 10_000;
        host.disk_free_at = self.now;
        let seed = self.chance.next();
        let now = host.local(self.now);
        let mut member = Member::new(node, everyone, host.disk.clone(), seed, now);
        member.calm = self.healed;
        host.running = Some(member);
        self.note(&format!("{node:?} starts"));
        self.with(node, Member::on_tick);
        self.at(10 * MILLI, Event::Tick(node));
    }

    fn on_tick(&mut self, node: NodeId) {
        if self.members[&node].running.is_none() {
            return;
        }
        self.with(node, Member::on_tick);
        let after = 5 * MILLI + self.chance.below(10 * MILLI);
        self.at(after, Event::Tick(node));
    }

    fn on_fault(&mut self) {
        if self.healed {
            return;
        }
        let nodes: Vec<NodeId> = self.members.keys().copied().collect();
        let node = *self.chance.pick(&nodes);
        match self.chance.below(8) {
            0 | 1 => self.crash(node),
            2 => {
                let until = self.now + self.chance.below(3_000 * MILLI);
                self.members.get_mut(&node).unwrap().paused_until = until;
                self.note(&format!("{node:?} is paused"));
            }
            3 | 4 => {
                let other = *self.chance.pick(&nodes);
                self.cuts.insert((node, other));
                if !self.chance.one_in(3) {
                    self.cuts.insert((other, node));
                }
                self.note(&format!("cut {node:?} {other:?}"));
            }
            5 => {
                for other in nodes {
                    self.cuts.insert((node, other));
                    self.cuts.insert((other, node));
                }
                self.note(&format!("{node:?} is isolated"));
            }
            _ => self.cuts.clear(),
        }
        let after = self.chance.below(2_000 * MILLI);
        self.at(after, Event::Fault);
    }

    /// The process ends. Writes under way may have reached the disk, in order.
    fn crash(&mut self, node: NodeId) {
        let host = self.members.get_mut(&node).unwrap();
        if host.running.take().is_none() {
            return;
        }
        while let Some(saved) = host.writes.pop_front() {
            if self.chance.one_in(2) {
                host.writes.clear();
                break;
            }
            self.checks.on_persisted(node, &saved.group.acceptor);
            host.disk = saved;
        }
        host.life += 1;
        host.paused_until = 0;
        self.note(&format!("{node:?} crashes"));
        let down = if self.chance.one_in(3) { 5_000 } else { 300 };
        let after = self.chance.below(down * MILLI);
        self.at(after, Event::Start(node));
    }

    fn on_heal(&mut self) {
        self.healed = true;
        self.cuts.clear();
        self.loss_percent = 0;
        for host in self.members.values_mut() {
            host.paused_until = host.paused_until.min(self.now);
            if let Some(member) = &mut host.running {
                member.calm = true;
            }
        }
        self.note("everything heals");
    }

    fn serving(&self) -> Vec<NodeId> {
        self.members
            .iter()
            .filter(|(_, host)| {
                let local = host.local(self.now);
                host.running
                    .as_ref()
                    .is_some_and(|member| member.serves(local))
            })
            .map(|(node, _)| *node)
            .collect()
    }

    fn check(&mut self) -> Option<String> {
        let serving = self.serving();
        let mut fault = self.checks.fault();
        if serving.len() > 1 {
            fault = Some(format!("{serving:?} serve at the same time"));
        }
        if let [node] = serving[..]
            && let Some(member) = &self.members[&node].running
        {
            fault = fault.or_else(|| self.checks.serving(node, member));
            self.checks.served += 1;
        }
        let mut text = fault?;
        let _ = write!(text, " (at {} ms)", self.now / MILLI);
        Some(text)
    }
}

/// The term of leases in the world.
const TERM: Duration = Duration::from_millis(1_000);
