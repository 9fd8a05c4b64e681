---- MODULE Volatile ----
(* Write caches. Node 1 is active, node 2 stands by; the standby may lose power at any time, and the active may fail for good.
   What counts is what node 2 then holds.

   Rule: R10 (a member that reconnects counts for acknowledgements and flushes only after every write that it had not
   flushed was sent again). *)
EXTENDS Integers, FiniteSets, TLC

CONSTANTS MaxWrites, MaxSessions,
          NOREPLAY, FLUSHALONE

Nodes == {1, 2}

VARIABLES
  cache,    \* node -> version that a read returns
  durable,  \* node -> version that survives a loss of power
  session,  \* how often the standby started
  counted,  \* the session of the standby that the active counts
  next, pend,
  acked,    \* newest acknowledged write
  flushed,  \* newest write under an acknowledged flush
  promoted  \* the active failed, node 2 took over

vars == <<cache, durable, session, counted, next, pend, acked, flushed, promoted>>

Init ==
  /\ cache = [n \in Nodes |-> 0] /\ durable = [n \in Nodes |-> 0]
  /\ session = 0 /\ counted = 0 /\ next = 1 /\ pend = 0 /\ acked = 0 /\ flushed = 0
  /\ promoted = FALSE

Counts == NOREPLAY \/ counted = session

Issue ==
  /\ ~promoted /\ pend = 0 /\ next <= MaxWrites
  /\ pend' = next
  /\ next' = next + 1
  /\ cache' = [cache EXCEPT ![1] = next]
  /\ UNCHANGED <<durable, session, counted, acked, flushed, promoted>>

Send ==
  /\ ~promoted /\ pend # 0 /\ Counts
  /\ cache' = [cache EXCEPT ![2] = pend]
  /\ acked' = pend
  /\ pend' = 0
  /\ UNCHANGED <<durable, session, counted, next, flushed, promoted>>

Replay ==
  /\ ~promoted /\ counted # session
  /\ cache' = [cache EXCEPT ![2] = acked]
  /\ counted' = session
  /\ UNCHANGED <<durable, session, next, pend, acked, flushed, promoted>>

Flush ==
  /\ ~promoted /\ pend = 0 /\ Counts /\ flushed < acked
  /\ durable' = IF FLUSHALONE THEN [durable EXCEPT ![1] = cache[1]] ELSE cache
  /\ flushed' = acked
  /\ UNCHANGED <<cache, session, counted, next, pend, acked, promoted>>

PowerCycle ==
  /\ ~promoted /\ session < MaxSessions
  /\ cache' = [cache EXCEPT ![2] = durable[2]]
  /\ session' = session + 1
  /\ UNCHANGED <<durable, counted, next, pend, acked, flushed, promoted>>

Fail ==
  /\ ~promoted
  /\ promoted' = TRUE
  /\ UNCHANGED <<cache, durable, session, counted, next, pend, acked, flushed>>

Next == Issue \/ Send \/ Replay \/ Flush \/ PowerCycle \/ Fail
Spec == Init /\ [][Next]_vars

\* G2: an acknowledged flush survives on every replica that may be promoted.
NoFlushedLost == promoted => cache[2] >= flushed
\* Must fail: nobody can promise unflushed writes across a loss of power.
AckedIsFlushed == promoted => cache[2] >= acked
====
