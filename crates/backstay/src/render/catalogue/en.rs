//! English: everything but problems.

pub(super) const TEXTS: &[(&str, &str)] = &[
    // Obstacles: continue "NODE …".
    ("obstacle.out-of-sync", "is out of sync"),
    ("obstacle.inconsistent", "has only a part of a resync"),
    ("obstacle.disk-failed", "has a failed disk"),
    (
        "obstacle.rolled-back",
        "has an older disk than it had: it was restored from a snapshot",
    ),
    (
        "obstacle.instance-open",
        "still has the device of an earlier activation open",
    ),
    ("obstacle.failed-here", "failed to run the group before"),
    ("obstacle.not-attached", "has not attached its replica"),
    ("obstacle.silent", "is silent"),
    (
        "obstacle.held-back",
        "holds {amount} of writes that a failover cut off, and does not follow until a person decides",
    ),
    (
        "obstacle.async-behind",
        "is further behind than max_lag or max_lag_seconds allow, or is being brought up to date",
    ),
    ("obstacle.no-vote", "does not vote"),
    (
        "obstacle.no-register",
        "would not reach a majority of the register, because other nodes are silent",
    ),
    (
        "obstacle.wrong-disk.no-mirror",
        "has a disk that holds no mirror",
    ),
    (
        "obstacle.wrong-disk.other-mirror",
        "has a disk that belongs to another mirror",
    ),
    (
        "obstacle.wrong-disk.own-content",
        "has a disk with content of its own, which is not overwritten",
    ),
    (
        "obstacle.wrong-disk.shrunk",
        "has a disk that is smaller than when it was made a replica",
    ),
    (
        "obstacle.wrong-disk.too-small",
        "has a disk that is smaller than the active's volume",
    ),
    (
        "obstacle.wrong-disk.damaged",
        "has a disk whose mirror metadata is damaged",
    ),
    (
        "obstacle.wrong-disk.newer",
        "has a disk that a newer release wrote",
    ),
    (
        "obstacle.wrong-disk.other-disk",
        "has a disk beside another disk's metadata",
    ),
    (
        "remedy.wrong-disk.no-mirror",
        "see whether {node} has the right disk in its place; one that was enlarged needs `backstay mirror resize`, a new one \
         `backstay mirror create --empty`",
    ),
    (
        "remedy.wrong-disk.other-mirror",
        "put the right disk back into {node}; `backstay mirror inspect` shows whose a disk is",
    ),
    (
        "remedy.wrong-disk.own-content",
        "if that content is not needed, on {node}: `backstay mirror create --empty --overwrite`",
    ),
    (
        "remedy.wrong-disk.shrunk",
        "give the disk of {node} its size back; `backstay mirror inspect` shows what it needs",
    ),
    (
        "remedy.wrong-disk.too-small",
        "enlarge the disk of {node}, then `backstay mirror resize` on it while its daemon is stopped",
    ),
    (
        "remedy.wrong-disk.damaged",
        "save what is needed of it, then make it anew on {node}: `backstay mirror create --empty --overwrite`",
    ),
    (
        "remedy.wrong-disk.newer",
        "run the same release on {node} as before",
    ),
    (
        "remedy.wrong-disk.other-disk",
        "see on {node} whether `disk` and `metadata` name the right pair: `backstay mirror inspect DISK --metadata DEVICE`; a disk \
         that was enlarged, or replaced by a whole copy, needs `backstay mirror resize`",
    ),
    (
        "remedy.out-of-sync",
        "wait for the resync: `backstay mirror status`",
    ),
    (
        "remedy.inconsistent",
        "wait for the resync: `backstay mirror status`",
    ),
    ("remedy.disk-failed", "replace the disk of {node}"),
    (
        "remedy.rolled-back",
        "let {node} resynchronise in full; do not restore disks of members",
    ),
    (
        "remedy.instance-open",
        "end what still uses the device on {node}",
    ),
    (
        "remedy.failed-here",
        "repair the service on {node}, then `backstay start {group}`",
    ),
    (
        "remedy.not-attached",
        "see whether the daemon runs on {node}: `backstay status` there",
    ),
    (
        "remedy.async-behind",
        "wait until {node} has caught up: `backstay mirror status`; if it never does, the link is too slow for what is written",
    ),
    (
        "remedy.silent",
        "see whether {node} and its daemon run, and its heartbeat networks",
    ),
    (
        "remedy.held-back",
        "save them or let them go: `backstay mirror demote` on {node} shows what they are; see `backstay help BS-403`",
    ),
    ("remedy.no-vote", "let {node} rejoin"),
    ("remedy.no-register", "bring the silent nodes back"),
    // Events.
    ("event.started", "daemon started (start {starts})"),
    ("event.node-up", "{node} is heard"),
    (
        "event.node-suspect",
        "{node} is silent on every link for {silent}",
    ),
    (
        "event.link-down",
        "heartbeat link {link} to {node} went silent",
    ),
    (
        "event.link-up",
        "heartbeat link {link} to {node} is heard again",
    ),
    (
        "event.record-changed",
        "record {version}: {active} active, epoch {epoch}, may be promoted: {members}",
    ),
    ("event.role-changed", "{me} went from {from} to {to}"),
    ("event.decision", "decided to {act}: {rule}"),
    ("event.phase", "{phase} took {took}"),
    ("event.transition-done", "transition done after {took}"),
    ("event.lease-lost", "lease ran out: nothing is answered"),
    ("event.lease-gained", "lease is confirmed"),
    (
        "event.replica-lost",
        "mirror lost the replica on {node}: {why}",
    ),
    (
        "event.resync-started",
        "resync of {node} began: {dirty} may differ",
    ),
    (
        "event.undo-lost",
        "the resync of {mirror} to this node cannot be undone any more: {why}",
    ),
    (
        "undo.full",
        "its undo log is full; `undo_bound` and the file or device limit it",
    ),
    (
        "undo.failed",
        "its undo log cannot be written, or what is to be saved cannot be read; see the daemon's log, and check `undo` in the configuration",
    ),
    (
        "undo.silent",
        "its undo log does not answer; check what it is on",
    ),
    (
        "undo.gone",
        "its undo log is not there any more, or not as it was; check `undo` in the configuration before the next resync",
    ),
    (
        "undo.resized",
        "the volume's size changed; the next resync has a way back again",
    ),
    (
        "event.unreadable-mended",
        "{range} of {mirror} could not be read here; it was written anew from another replica",
    ),
    (
        "event.unreadable",
        "{range} of {mirror} cannot be read here, and no replica could serve it: the reader got an error",
    ),
    (
        "event.verified-clean",
        "verified {mirror} against {node}: {checked} compared, all equal",
    ),
    (
        "event.verified",
        "verified {mirror} against {node}: {checked} compared, {different} different, {unreadable} unreadable, {repaired} repaired",
    ),
    ("event.grown", "{mirror} has {size} now on every replica"),
    ("event.not-grown", "{mirror} stays at {size}: {why}"),
    ("grow.not-larger", "it has {now} already"),
    (
        "grow.away",
        "the replica of {node} is away or does not hold everything yet",
    ),
    (
        "grow.no-room",
        "the disk of {node} has room for {most}, in multiples of 4 KiB",
    ),
    (
        "grow.cramped",
        "the metadata device of {node} has room for a volume of {most} only",
    ),
    ("grow.older", "the release on {node} cannot do it"),
    (
        "grow.stranded",
        "the disk of {node} was enlarged, and the mirror's metadata still lies where its end was",
    ),
    (
        "grow.lost",
        "the connection to {node} was lost on the way, or it came up meanwhile",
    ),
    (
        "grow.unusable",
        "the disk of {node} fails to write behind the volume",
    ),
    ("grow.ended", "this node stopped serving on the way"),
    (
        "grow.busy",
        "the mirror is not served at the moment, or an earlier growth is not over everywhere",
    ),
    ("event.resync-done", "resync of {node} done: {sent} sent"),
    (
        "event.discarded",
        "{node} discarded its unacknowledged writes, at most {at_most}",
    ),
    (
        "event.put-aside",
        "{at_most} of writes that the failover cut off were put aside, in {count} ranges: {ranges}",
    ),
    (
        "event.let-go",
        "{amount} of {mirror} that a failover cut off were let go, as asked, and will be replaced: {ranges}",
    ),
    (
        "event.resource-failed",
        "{resource} failed (restart {restarts} in its window)",
    ),
    ("event.disk-failed", "local disk failed: {error}"),
    ("event.problem-began", "{code} began: {problem}"),
    ("event.problem-ended", "{code} ended: {problem}"),
    ("event.asked", "asked to {request} ({reason}): {result}"),
    (
        "event.adopted",
        "took over what the earlier daemon had left running",
    ),
    ("disk.hang", "it hangs"),
    ("disk.errno", "{error}"),
    ("reason.none", "no reason given"),
    // Roles.
    ("role.witness", "witness"),
    ("role.settling", "settling"),
    ("role.standby", "standby"),
    ("role.promoting", "promoting"),
    ("role.active", "active"),
    ("role.frozen", "frozen"),
    ("role.demoting", "demoting"),
    ("role.held", "held"),
    // Why a replica was lost.
    ("loss.closed", "the connection closed"),
    ("loss.silent", "it acknowledged nothing in time"),
    ("loss.disk-failed", "its disk failed"),
    ("loss.protocol", "it broke the protocol"),
    ("loss.refused", "it refused the session"),
    ("loss.behind", "it is as far behind as it may be"),
    // Acts: continue "decided to …".
    ("act.take-over", "take over from {node}"),
    ("act.take-handover", "take over what {node} handed over"),
    ("act.wait", "wait"),
    ("act.drop-replica", "go on without the replica on {node}"),
    ("act.add-replica", "count the replica on {node} again"),
    ("act.hand-over", "hand over to {node}"),
    ("act.restart-resource", "restart {resource}"),
    ("act.hold-stopped", "hold the group, as asked"),
    ("act.hold-failed", "hold the group and call a person"),
    ("act.freeze", "answer nothing"),
    ("act.thaw", "answer again"),
    ("act.step-down", "stop everything and step down"),
    ("act.resume", "resume serving"),
    ("act.bootstrap", "make the first record"),
    // Rules: the reason of a decision.
    (
        "rule.promote-in-sync",
        "the replica is in sync and every lease ran out (R3)",
    ),
    (
        "rule.beyond-bound",
        "the replica is at its bound, and what would exceed it is acknowledged only when nobody can be promoted without it (R11)",
    ),
    ("rule.handover", "the active handed over on purpose"),
    (
        "rule.go-solo",
        "the replica is gone, so it leaves the set before a write is acknowledged alone (R7)",
    ),
    (
        "rule.grow",
        "the replica has everything, and counts before the record says so (R5)",
    ),
    (
        "rule.disk-failed-here",
        "the own disk failed and the peer is up to date (R7)",
    ),
    (
        "rule.stuck-peer",
        "its heartbeats live, but its disk or the way to it hangs (R18)",
    ),
    (
        "rule.no-lease",
        "without a confirmed lease nothing is answered (R8)",
    ),
    ("rule.lease-back", "the lease is confirmed (R8)"),
    ("rule.deposed", "a newer record names another node"),
    ("rule.restart-budget", "restarts are left in its window"),
    ("rule.budget-spent", "its restarts here are used up"),
    (
        "rule.failed-everywhere",
        "its restarts are used up on every node",
    ),
    ("rule.asked", "a person asked"),
    (
        "rule.barrier",
        "a barrier was confirmed after the restart (R6)",
    ),
    (
        "rule.first-record",
        "there is no record, and this node holds the origin of the data",
    ),
    (
        "rule.forced",
        "a person said that the active is off, and promotes what is left (R17)",
    ),
    // What was seen.
    ("seen.silent", "{node} was silent for {time}"),
    ("seen.heard", "{node} was heard {time} ago"),
    ("seen.grants-over", "leases granted here ran out {time} ago"),
    (
        "seen.witness-lease",
        "the witness reported a lease of {node} for {time} more",
    ),
    ("seen.at-epoch", "the record was at epoch {epoch}"),
    ("seen.own-obstacle", "this node {obstacle}"),
    ("seen.replica-lost", "the replica on {node} was lost: {why}"),
    ("seen.failures", "{resource} failed {count} times"),
    // Why an alternative was rejected.
    (
        "because.no-majority",
        "no majority of the register answered",
    ),
    ("because.lease-running", "somebody might still hold a lease"),
    ("because.not-promotable", "the replica {obstacle}"),
    ("because.budget-spent", "it was tried as often as allowed"),
    (
        "because.would-block",
        "writes would wait for a replica that does not answer",
    ),
    ("because.would-lose", "acknowledged data could be lost"),
    ("because.failed-there", "the group failed there already"),
    // Phases of a transition.
    ("phase.detect", "detect"),
    ("phase.lease", "lease"),
    ("phase.decide", "decide"),
    ("phase.mirror", "mirror"),
    // Requests and what came of them.
    ("request.move", "move the group"),
    ("request.move-to", "move the group to {node}"),
    ("request.start", "start the group"),
    ("request.stop", "stop the group"),
    ("request.verify", "verify the mirror {mirror}"),
    (
        "request.verify-repair",
        "verify and repair the mirror {mirror}",
    ),
    (
        "request.grow",
        "make the mirror {mirror} as large as all disks let it",
    ),
    ("request.grow-to", "make the mirror {mirror} {size} large"),
    ("request.resync", "resynchronise the mirror {mirror} now"),
    (
        "request.resync-full",
        "resynchronise the mirror {mirror} now, and compare everything",
    ),
    (
        "request.resync-of",
        "resynchronise the mirror {mirror} on {node} now",
    ),
    (
        "request.resync-full-of",
        "resynchronise the mirror {mirror} on {node} now, and compare everything",
    ),
    (
        "request.promote",
        "promote {node} by force, because {off} is off",
    ),
    (
        "request.demote",
        "let go {amount} of writes of the mirror {mirror} that {node} holds back",
    ),
    ("result.taken", "taken"),
    ("fault.no-active", "no node is active that could do it"),
    ("fault.target", "{node} {obstacle}"),
    ("fault.no-target", "no other node could take the group over"),
    (
        "fault.busy",
        "the group is in the middle of another transition",
    ),
    ("fault.already", "it already is as asked"),
    (
        "fault.unclear",
        "the register could not be changed; whether it still will be is not known yet",
    ),
    ("fault.silent", "{node} is not heard"),
    (
        "fault.name-one",
        "several replicas are in sync, and only one can be compared at a time: name it",
    ),
    (
        "fault.alive",
        "{node} is heard, by this node or by another one: it is not off",
    ),
    ("fault.other-active", "the active by the record is {node}"),
    (
        "fault.no-majority",
        "too few nodes are heard to change who is active",
    ),
    (
        "fault.lease-running",
        "somebody may hold a lease for some seconds more",
    ),
    (
        "fault.promotable",
        "{node} is in sync and takes over by itself",
    ),
    ("fault.not-held-back", "{node} holds nothing back"),
    (
        "fault.other-held-back",
        "{node} holds {amount} back, which is not what was confirmed",
    ),
    (
        "fault.better",
        "{node} is alive, and its replica holds what this one lacks: that one is to serve",
    ),
    (
        "fault.ask-there",
        "this is asked on {node} only: run it there",
    ),
    (
        "fault.other-record",
        "who is active, or in the set, changed since it was shown: look again",
    ),
    ("hold.stopped", "a person stopped it"),
    ("hold.failed", "it failed on every node"),
    // Status.
    ("status.ready", "every group can fail over now"),
    ("status.degraded", "group {group} cannot fail over: {why}"),
    ("status.down", "group {group} is not served"),
    ("status.unknown", "the state of the cluster is not known"),
    ("status.why-unknown", "no standby is ready"),
];
