//! Deliberate defects, one per safety rule, for proving that the simulation catches them (design §9).
//!
//! Without the feature `mutants` every question is answered with a constant `false` and the compiler removes the defect:
//! a release cannot contain one. With it, at most one defect is switched on per thread: a world lives in one.

/// A deliberate defect. The name says what is wrong; the comment, which rule it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mutant {
    /// R1: acknowledges by the known set only, forgetting unresolved proposals.
    AckKnownSetOnly = 1,
    /// R2: an unchanged record is taken as proof that a proposal failed.
    UnchangedResolves,
    /// R3: promotes a member that is out of sync.
    PromoteOutOfSync,
    /// R3: proposes the takeover without fencing the old epoch first.
    PromoteWithoutFence,
    /// R4: a standby accepts frames of an older session.
    OldSessionAccepted,
    /// R5: the joiner counts only after the grow is confirmed.
    GrowLate,
    /// R6: acknowledges after a restart without a barrier.
    NoBarrier,
    /// R6: sends a proposal before it is durable.
    ProposalNotDurable,
    /// R7: acknowledges alone before the standby is recorded as out.
    AckBeforeShrink,
    /// R8: a lease is counted from the grant's receipt.
    LeaseFromReceipt,
    /// R8: a restarted grantor forgets its grants.
    GrantorAmnesia,
    /// R8: grants while its own takeover is unresolved.
    GrantWhileTaking,
    /// R8: a solo active keeps its endless lease while a grow is proposed.
    EndlessLeaseWhileGrowing,
    /// R8: takes over before its own grants ran out.
    TakeoverBeforeGrantsEnd,
    /// R9: serves before the intent regions are reconciled.
    ServeBeforeReconcile,
    /// R10: a reconnected member counts at once.
    ReconnectCountsAtOnce,
    /// R10: regions leave the intent log before the peer has them durable.
    IntentDroppedEarly,
    /// R10: bits are cleared for good before the target committed.
    BitsClearedEarly,
    /// R9/G5: data is written before its region is durable in the intent log.
    WriteBeforeIntent,
    /// R11: an asynchronous replica that is not eligible is promoted automatically.
    AsyncPromoted,
    /// R12: the address stays open when the lease ends.
    GateIgnoresLease,
    /// R13: one mirror in sync is enough for the group.
    AnyMirrorInSync,
    /// R14: an older generation is accepted.
    GenerationIgnored,
    /// R14: a disk's age is judged by the own copy of the record, which may be as old as the disk.
    OldRecordTrusted,
    /// R14: the bitmap is trusted whatever state the peer's disk was restored to.
    BaselineIgnored,
    /// R15: promotable while an old instance is open.
    InstanceIgnored,
    /// R15: a stop in order leaves running what a restarted daemon had not taken over yet.
    HalfAdopted,
    /// R16: an epoch is accepted before old local I/O is drained.
    NoDrain,
    /// R18: a standby that does not acknowledge is never taken out.
    StuckPeerKept,
    /// An acceptor answers before its state is durable.
    AcceptorNotDurable,
    /// An acceptor accepts below its promise.
    PromiseIgnored,
    /// A flush is acknowledged when only the local disk is durable.
    FlushLocalOnly,
    /// Overlapping writes are not ordered.
    OverlapUnordered,
    /// A failed flush is retried and taken as good.
    FlushRetried,
    /// G2: what an earlier life wrote, and no flush covered, is taken as good.
    RenewalSkipped,
    /// A replica in mid-resync reports itself consistent.
    ResyncConsistentEarly,
    /// G2: a standby answers a flush before the writes that were sent ahead of it are done.
    FlushOvertakes,
    /// R11: an asynchronous replica may be behind by any amount.
    BoundIgnored,
    /// R11: a flush does not order what is behind it on an asynchronous replica.
    EpochsUnordered,
    /// What an asynchronous failover cut off is overwritten without being put aside.
    CutOffForgotten,
    /// What could not be put aside is overwritten without a person's word.
    HeldBackFollows,
    /// R17: who may hold what a forced promotion left behind is not noted.
    ForcedForgets,
    /// G4: a person's word promotes a mixture, a failed disk, or one older than the record.
    ForcedMixture,
    /// R10, three replicas: a standby forgets a region that only some of the others have durably.
    ThirdForgotten,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 44] = [
        Self::AckKnownSetOnly,
        Self::UnchangedResolves,
        Self::PromoteOutOfSync,
        Self::PromoteWithoutFence,
        Self::OldSessionAccepted,
        Self::GrowLate,
        Self::NoBarrier,
        Self::ProposalNotDurable,
        Self::AckBeforeShrink,
        Self::LeaseFromReceipt,
        Self::GrantorAmnesia,
        Self::GrantWhileTaking,
        Self::EndlessLeaseWhileGrowing,
        Self::TakeoverBeforeGrantsEnd,
        Self::ServeBeforeReconcile,
        Self::ReconnectCountsAtOnce,
        Self::IntentDroppedEarly,
        Self::BitsClearedEarly,
        Self::WriteBeforeIntent,
        Self::AsyncPromoted,
        Self::GateIgnoresLease,
        Self::AnyMirrorInSync,
        Self::GenerationIgnored,
        Self::OldRecordTrusted,
        Self::BaselineIgnored,
        Self::InstanceIgnored,
        Self::HalfAdopted,
        Self::NoDrain,
        Self::StuckPeerKept,
        Self::AcceptorNotDurable,
        Self::PromiseIgnored,
        Self::FlushLocalOnly,
        Self::OverlapUnordered,
        Self::FlushRetried,
        Self::RenewalSkipped,
        Self::ResyncConsistentEarly,
        Self::FlushOvertakes,
        Self::BoundIgnored,
        Self::EpochsUnordered,
        Self::CutOffForgotten,
        Self::HeldBackFollows,
        Self::ForcedForgets,
        Self::ForcedMixture,
        Self::ThirdForgotten,
    ];
}

/// A deliberate defect that brings back a bug which other block replication had (`docs/bugs.md`): the mirror's named tests
/// must notice each. The comment has the number of the bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// 1: a write's buffer is given back while the disk still reads it.
    BufferReleasedEarly,
    /// 2: a failed write of the intent log or the bitmap counts as done.
    FailedLogIgnored,
    /// 3: a region leaves the intent log before its marks are durable.
    MarksEvicted,
    /// 3: what is hot when a peer leaves the set is not marked against it.
    HotUnmarked,
    /// 4: the end of a resync clears what was marked since it was asked for.
    FreshMarksForgotten,
    /// 4: a resync reads without regard to writes under way.
    ChunkUnlocked,
    /// 5: a target commits a resync without a flush.
    CommitUnflushed,
    /// 6: a replica whose resync did not end serves.
    MixturePromoted,
    /// 7: epoch, generation and state count as durable when their write is asked for.
    EpochNotDurable,
    /// 8: a write is acknowledged without the required peers.
    AckWithoutPeer,
    /// 9: a write waits for the overlapping ones under way, not for those that wait before it.
    SmallOvertakes,
    /// 10: FUA does not reach the peer.
    FuaDropped,
    /// 10: a standby flushes before the earlier writes are done.
    FlushOvertakes,
    /// 10: an asynchronous standby applies what comes behind a flush that is not done.
    OrderedFlushIgnored,
    /// 11: a failed write of data counts as done.
    FailedWriteIgnored,
    /// 12: checksums of metadata are not looked at.
    ChecksumIgnored,
    /// 12: metadata is overwritten in place.
    SlotsNotAlternated,
    /// 13: a standby acknowledges zeroing and does nothing.
    ZeroNotApplied,
    /// 13: only blocks that a write covers wholly are marked.
    PartialBlocksUnmarked,
    /// 16: damaged metadata is always taken for a torn write: what is before it counts.
    RotTakenForTorn,
    /// 17: a standby that is too small follows.
    SizeIgnored,
    /// 17: a disk with other data is overwritten.
    ForeignOverwritten,
    /// 17: the disk of another mirror is attached.
    WrongMirrorAttached,
    /// 18: a lost bitmap or intent log counts as empty.
    LostMetadataClean,
    /// 18: every session copies everything.
    AlwaysFullResync,
    /// What a volume gains when it grows is not marked.
    GainUnmarked,
    /// A bitmap that grows is written over the old one as it is.
    OldBitmapTrusted,
    /// A disk that was written behind the mirror's back is taken for what it was made as.
    SeedUnchecked,
    /// A disk made of zeros still passes for one after a resync began to fill it.
    SeedOutlivesChunks,
    /// The old metadata is blanked before the new one is whole.
    MetadataBlankedEarly,
    /// Three replicas: what a resync writes into a standby is not marked against the third replica.
    ChunkUnmarked,
    /// Undo: a block is overwritten while what saves it is still on its way.
    OverwrittenUnsaved,
    /// Undo: blocks that a full log does not have are overwritten before that is durable.
    UndoLossLate,
    /// Undo: the log outlives the commit.
    UndoOutlivesCommit,
    /// Undo: what is written back is not marked.
    UndoneUnmarked,
    /// Undo: a replica that the record counts in gets a way back, and is promoted after it.
    UndoInside,
    /// Undo: a later life of the daemon takes a batch as saved that was never durable.
    UndoTailTrusted,
    /// Undo: what an earlier life of the daemon wrote counts as saved before it is durable.
    UndoLoadUnsynced,
    /// Undo: a short pause of the process counts as the log's silence.
    UndoPauseBlamed,
    /// What is behind the start of a resync is applied before the replica says that it is a mixture.
    StartUnordered,
    /// A standby forgets a region that it wrote alone when the active lets go of it, before the resync that makes it equal is
    /// committed.
    OwedLetGo,
    /// What a volume gains while it is served is not made zero first.
    GainNotCleared,
    /// What was prepared for a volume that grows is not durable here before others take the new size.
    ReadyNotDurable,
    /// The front end is told of a new size before every replica has it.
    SizeToldEarly,
}

#[cfg(feature = "mutants")]
std::thread_local! {
    static ON: core::cell::Cell<Option<Mutant>> = const { core::cell::Cell::new(None) };
    static BUG: core::cell::Cell<Option<Bug>> = const { core::cell::Cell::new(None) };
}

/// Brings one bug back for this thread, or none.
#[cfg(feature = "mutants")]
pub fn bring_back(bug: Option<Bug>) {
    BUG.set(bug);
}

/// True if this bug is back in this thread.
#[cfg(feature = "mutants")]
#[must_use]
pub fn has(bug: Bug) -> bool {
    BUG.get() == Some(bug)
}

/// False: this build contains no bugs on purpose.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn has(_bug: Bug) -> bool {
    false
}

/// Switches one defect on for this thread, or all off.
#[cfg(feature = "mutants")]
pub fn switch(mutant: Option<Mutant>) {
    ON.set(mutant);
}

/// True if this defect is switched on in this thread.
#[cfg(feature = "mutants")]
#[must_use]
pub fn on(mutant: Mutant) -> bool {
    ON.get() == Some(mutant)
}

/// False: this build contains no defects on purpose.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn on(_mutant: Mutant) -> bool {
    false
}
