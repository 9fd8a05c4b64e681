//! The world's node: a register that never fails, and the rules R1 to R9 obeyed.

use super::*;

/// G4: a mixture is not promoted, whatever the record says.
fn is_whole(machine: &Machine) -> bool {
    machine.superblock.get().state == ReplicaState::Consistent
}

impl Control {
    pub(super) fn new(apart: Option<BTreeSet<NodeId>>) -> Self {
        Self {
            epoch: Epoch(1),
            activated: Epoch(1),
            active: A,
            in_sync: BTreeSet::from([A]),
            required: BTreeSet::from([A]),
            serving: false,
            joining: BTreeSet::new(),
            heir: B,
            moving: false,
            handed_over: false,
            fencing: None,
            lost: BTreeSet::new(),
            apart: apart.unwrap_or_default(),
            cut_off: BTreeSet::new(),
        }
    }

    fn are_apart(&self, one: NodeId, other: NodeId) -> bool {
        self.apart.contains(&one) || self.apart.contains(&other)
    }
}

impl World {
    pub(super) fn on_report(&mut self, node: NodeId, report: Report) {
        let is_active = self.control.active == node;
        match report {
            Report::Attached { .. } => self.assign(node),
            Report::Serving { epoch } if is_active && epoch >= self.control.activated => {
                self.control.serving = true;
                let layout = self.machine(node).unwrap().layout;
                let data = self.node(node).disk.bytes(0, layout.data_bytes);
                if self.small.is_some() {
                    self.model.told(layout.data_bytes);
                }
                self.model.serving(&data);
            }
            Report::PeerLost { node, .. } | Report::PeerBehind { node, .. } if is_active => {
                self.control.lost.insert(node);
            }
            Report::PeerSynced { node: peer, .. } if is_active => {
                if self.control.are_apart(node, peer) {
                    self.check_cleared(node, peer);
                }
                self.join(peer);
            }
            Report::PeerWithin { node, .. } if is_active => self.join(node),
            Report::Grown { data } if is_active => self.model.told(data.0),
            Report::PeerBack { node, .. } if is_active => {
                self.control.lost.remove(&node);
                if self.control.joining.remove(&node) {
                    self.control.cut_off.remove(&node);
                    self.control.epoch = self.control.epoch.next();
                    self.control.in_sync.insert(node);
                    self.set();
                }
            }
            Report::Fenced if self.control.fencing == Some(node) => self.promote(node),
            Report::Drained if is_active && self.control.moving => {
                self.control.moving = false;
                self.control.serving = false;
                let to = self.heir();
                if self.control.in_sync.contains(&to) && self.is_up(to) {
                    self.control.fencing = Some(to);
                    self.control.handed_over = true;
                    self.command(to, Command::Fence);
                } else {
                    self.assign(node);
                }
            }
            Report::Closed if !is_active => self.assign(node),
            Report::AttachFailed { .. }
            | Report::Fenced
            | Report::Serving { .. }
            | Report::PeerLost { .. }
            | Report::PeerBack { .. }
            | Report::PeerBehind { .. }
            | Report::PeerWithin { .. }
            | Report::PutAside { .. }
            | Report::HeldBack { .. }
            | Report::LetGo(_)
            | Report::CannotFollow { .. }
            | Report::ResyncStarted { .. }
            | Report::PeerSynced { .. }
            | Report::Following { .. }
            | Report::LocalFailed { .. }
            | Report::UndoLost { .. }
            | Report::Unreadable { .. }
            | Report::Verified { .. }
            | Report::Grown { .. }
            | Report::NotGrown { .. }
            | Report::Drained
            | Report::Closed => {}
        }
    }

    fn join(&mut self, node: NodeId) {
        self.control.joining.insert(node);
        self.control.lost.remove(&node);
        self.set();
    }

    /// Tells a node what it is by the record. Resuming takes a barrier (R6): a newer epoch.
    pub(super) fn assign(&mut self, node: NodeId) {
        if self.control.fencing.is_some() && self.control.active == node {
            return;
        }
        let active = self.control.active;
        if node != active {
            let epoch = self.control.epoch;
            let cut_off = self.control.cut_off.contains(&node);
            let follow = Command::Follow {
                epoch,
                active,
                cut_off,
            };
            return self.command(node, follow);
        }
        self.control.epoch = self.control.epoch.next();
        self.control.required.clone_from(&self.control.in_sync);
        self.control.joining.clear();
        self.control.handed_over = false;
        self.activate(node);
    }

    fn activate(&mut self, node: NodeId) {
        // A new active, or a restarted one, takes an asynchronous follower out before it serves.
        self.control.activated = self.control.epoch;
        let mut others = self.all();
        others.remove(&node);
        others.retain(|other| self.control.are_apart(node, *other));
        self.control.lost = others;
        let activate = Command::Activate {
            epoch: self.control.epoch,
            required: self.control.required.clone(),
            peers: self.all(),
        };
        self.command(node, activate);
        self.command(node, Command::Lease { until: Time::MAX });
    }

    /// R1, R5: who is in sync, and who is about to be.
    fn set(&mut self) {
        let control = &mut self.control;
        let required: BTreeSet<_> = control.in_sync.union(&control.joining).copied().collect();
        control.required.clone_from(&required);
        let epoch = self.control.epoch;
        let active = self.control.active;
        self.command(active, Command::Sets { epoch, required });
    }

    /// A required peer that is lost is taken out, confirmed; or its joining is given up.
    pub(super) fn cast_out(&mut self) {
        let active = self.control.active;
        let idle = self.control.fencing.is_none() && !self.control.moving && self.is_up(active);
        let control = &mut self.control;
        let gone: BTreeSet<_> = control
            .lost
            .intersection(&control.required)
            .copied()
            .collect();
        if !idle || gone.is_empty() {
            return;
        }
        control.lost.retain(|node| !gone.contains(node));
        control.joining.retain(|node| !gone.contains(node));
        control.epoch = control.epoch.next();
        control.in_sync.retain(|node| !gone.contains(node));
        self.note(|| format!("cast out {gone:?}"));
        self.set();
    }

    /// Who takes over: the one that was chosen, or any other in sync.
    fn heir(&self) -> NodeId {
        let fits =
            |node: &NodeId| *node != self.control.active && self.control.in_sync.contains(node);
        let chosen = Some(self.control.heir).filter(fits);
        let any = self.control.in_sync.iter().copied().find(fits);
        chosen.or(any).unwrap_or(self.control.active)
    }

    /// The standby takes over: first the active's lease is over, then the standby is fenced, then it is promoted.
    pub(super) fn take_over(&mut self) {
        let to = self.heir();
        let ready = to != self.control.active
            && self.control.fencing.is_none()
            && !self.control.moving
            && self
                .machine(to)
                .is_some_and(|m| matches!(m.role, Role::Standby(_)) && is_whole(m));
        if !ready {
            return;
        }
        self.note(|| format!("{to:?} takes over"));
        let until = self.now;
        self.command(self.control.active, Command::Lease { until });
        self.control.fencing = Some(to);
        self.command(to, Command::Fence);
    }

    /// The takeover did not happen: the active serves on.
    pub(super) fn thaw(&mut self) {
        let active = self.control.active;
        if self.machine(active).is_some_and(|m| m.is_active()) {
            self.command(active, Command::Lease { until: Time::MAX });
        } else if self.is_up(active) {
            self.assign(active);
        }
    }

    fn promote(&mut self, node: NodeId) {
        let old = self.control.active;
        let drained = std::mem::take(&mut self.control.handed_over);
        self.control.fencing = None;
        self.control.active = node;
        self.control.serving = false;
        self.control.joining.clear();
        self.control.epoch = self.control.epoch.next();
        // A planned move keeps all (R3); after a failure the former active is out, and what is kept is reconciled (R9).
        if !drained {
            let control = &self.control;
            let behind = control.are_apart(node, old);
            let kept = |id: &NodeId| *id == node || *id != old && !control.are_apart(node, *id);
            let in_sync: BTreeSet<_> = control.in_sync.iter().copied().filter(kept).collect();
            if behind {
                let gone = self.control.in_sync.difference(&in_sync).copied();
                self.control.cut_off.extend(gone);
            }
            self.control.in_sync = in_sync;
        }
        self.control.required.clone_from(&self.control.in_sync);
        self.model.give_up();
        if self.control.are_apart(node, old) && !drained {
            self.model.cut_off();
        }
        if self.config.ack == crate::config::Ack::Flush {
            // What was only on its way here is gone: the promise of a disk with a write cache.
            self.model.power_failed();
        }
        self.activate(node);
        for third in self.all() {
            if third != node && third != old && self.is_up(third) {
                self.assign(third);
            }
        }
        if self.machine(old).is_some_and(Machine::is_active) {
            self.command(old, Command::Abort);
        } else if self.is_up(old) {
            self.assign(old);
        }
    }

    pub(super) fn begin_move(&mut self) {
        let to = self.heir();
        let ready = self.control.serving
            && to != self.control.active
            && self.control.fencing.is_none()
            && !self.control.moving
            && self.is_up(self.control.active);
        if ready {
            self.control.moving = true;
            self.control.serving = false;
            self.command(self.control.active, Command::Drain);
        }
    }

    /// What the node does by itself in a healthy run.
    pub(super) fn control_step(&mut self) {
        self.cast_out();
    }

    fn request(&mut self, op: Op, at: ByteRange, data: Option<Vec<u8>>) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let active = self.control.active;
        let buf = data.map(|data| self.buf(active, data));
        if let (Op::Read, Some(buf)) = (op, buf) {
            self.node(active).reads.insert(id, buf);
        }
        match op {
            Op::Read => self.model.read(id, at),
            Op::Write { fua } => self.model.write(id, at, self.next_token, fua),
            Op::Zero { fua } => self.model.write(id, at, 0, fua),
            Op::Flush => self.model.flush(id),
        }
        let range = at;
        self.note(|| format!("request {id:?} {op:?} {range:?}"));
        self.input(active, Input::Request(Request { id, op, range, buf }));
        id
    }

    pub(super) fn write(&mut self, offset: u64, len: u64, fua: bool) -> RequestId {
        let data = model::content(self.next_token, disk::to_usize(len) / disk::SECTOR);
        let id = self.request(Op::Write { fua }, range(offset, len), Some(data));
        self.next_token += 1;
        id
    }

    pub(super) fn zero(&mut self, offset: u64, len: u64) -> RequestId {
        self.request(Op::Zero { fua: false }, range(offset, len), None)
    }

    pub(super) fn read(&mut self, offset: u64, len: u64) -> RequestId {
        let data = vec![0xEE; disk::to_usize(len)];
        self.request(Op::Read, range(offset, len), Some(data))
    }

    /// The volume is to grow, if it is served.
    pub(super) fn grow(&mut self, data: Option<u64>) {
        if self.control.serving && self.control.fencing.is_none() {
            let data = data.map(wire::ByteCount);
            self.command(self.control.active, Command::Grow { data });
        }
    }

    pub(super) fn flush(&mut self) -> RequestId {
        self.request(Op::Flush, range(0, 0), None)
    }

    pub(super) fn replied(&mut self, node: NodeId, id: RequestId, result: Result<(), Errno>) {
        let buf = self.node(node).reads.remove(&id);
        if !self.model.knows(id) {
            assert!(result.is_err(), "a late reply of a request given up");
            return;
        }
        assert_eq!(node, self.control.active, "one writer per epoch (G1)");
        let bytes = buf.map(|buf| self.node(node).bufs[&buf].clone());
        self.model.replied(id, result.is_ok(), bytes.as_deref());
    }

    /// G5's other half: what differs is known to somebody.
    pub(super) fn check_marks(&mut self) {
        let all = self.all();
        for one in &all {
            for two in all.range(*one..).skip(1) {
                self.check_pair(*one, *two);
            }
        }
    }

    /// Of two replicas, if they would not compare everything.
    fn check_pair(&self, one: NodeId, two: NodeId) {
        let (Some(a), Some(s)) = (self.machine(one), self.machine(two)) else {
            return;
        };
        let busy = |m: &Machine| {
            let own = m.superblock.get();
            own.mirror.is_none() && own.seed.is_none() || !m.jobs.is_empty()
        };
        let shared = |name| name == a.baselines(two).0 || name == a.baselines(two).1;
        let (baseline, offered) = s.baselines(one);
        let shares = [baseline, offered]
            .into_iter()
            .flatten()
            .any(|name| shared(Some(name)));
        if busy(a) || busy(s) || !shares {
            return;
        }
        let mut known = a.marked(two);
        known.union(&s.marked(one));
        for region in a.intent.regions().chain(s.intent.regions()) {
            known.set(region_blocks(region));
        }
        for block in 0..a.layout.blocks().min(s.layout.blocks()) {
            let read = |n: NodeId| {
                let at = disk::to_usize(block) * 4096;
                &self.nodes[usize::from(n.0)].disk.current[at..at + 4096]
            };
            assert!(
                known.get(block) || read(one) == read(two),
                "block {block} of {one:?} and {two:?} differs and nobody knows"
            );
        }
    }

    /// A person answers. One of three may have been away for so long that its marks against another say little.
    fn let_held_go(&mut self) {
        for node in self.all() {
            if self.machine(node).is_some_and(|m| m.held().is_some()) {
                self.command(node, Command::Demote);
            }
        }
        self.run();
    }

    /// Heals everything, and checks that the replicas end equal (G5) and nothing promised is lost (G2).
    pub(super) fn heal_and_check(&mut self) {
        self.note(|| "heal".to_owned());
        self.link_up = true;
        self.isolated.clear();
        self.thaw();
        for node in self.all() {
            if !self.is_up(node) {
                self.boot(node, false);
            }
        }
        self.run();
        // What was put aside once is there again after going back, with more marks than a bound leaves.
        if self.nodes.len() > 2 || self.config.undo_bytes.is_some() {
            self.let_held_go();
        }
        let active = self.control.active;
        assert!(self.control.serving, "nobody serves after healing");
        self.flush();
        self.run();
        assert!(self.model.is_idle(), "{} requests hang", self.model.len());
        assert_eq!(
            self.control.in_sync,
            self.all(),
            "a standby never came back"
        );
        let layout = self.machine(active).unwrap().layout;
        for node in self.all() {
            let own = self.machine(node).unwrap().layout.data_bytes;
            assert_eq!(own, layout.data_bytes, "{node:?} has another size");
        }
        let read = |n: NodeId| {
            self.nodes[usize::from(n.0)]
                .disk
                .bytes(0, layout.data_bytes)
        };
        let data: Vec<Vec<u8>> = self.all().into_iter().map(read).collect();
        self.model.check_all(&data[0], "replica A");
        for other in &data[1..] {
            let differs = (0..data[0].len())
                .step_by(512)
                .find(|at| data[0][*at..at + 512] != other[*at..at + 512]);
            assert_eq!(differs, None, "replicas differ after healing");
        }
        for node in &self.nodes {
            assert!(node.bufs.is_empty(), "buffers leak: {:?}", node.bufs.keys());
        }
    }
}
