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
    /// R15: promotable while an old instance is open.
    InstanceIgnored,
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
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 37] = [
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
        Self::InstanceIgnored,
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
    ];
}

#[cfg(feature = "mutants")]
std::thread_local! {
    static ON: core::cell::Cell<Option<Mutant>> = const { core::cell::Cell::new(None) };
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
