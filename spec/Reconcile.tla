---- MODULE Reconcile ----
(* One region of a mirrored pair through crashes, restarts, takeovers and returns. The register is simple here: a CAS lands
   at once. What is checked is what a client reads, and what the intent logs and bits must remember.

   Rules: R9 (reconcile before serving), R10 (a region leaves the intent log only when all replicas have it durable). *)
EXTENDS Integers, FiniteSets, TLC

CONSTANTS MaxWrites, MaxCrashes,
          SERVEFIRST, LOGLATE, CLEANEARLY, NOMERGE, NOBITS

Nodes == {1, 2}
Other(n) == 3 - n
Max(a, b) == IF a > b THEN a ELSE b

VARIABLES
  active, set,   \* the register
  up,            \* node -> runs
  serving,       \* the active serves reads and writes
  met,           \* the active and the out member exchanged their logs since both run
  disk,          \* node -> version of the region
  intent,        \* node -> the region stands in its durable intent log
  bits,          \* node -> the region stands in its durable bitmap of differences to the peer
  pend,          \* version in flight, 0 = none
  at,            \* nodes that wrote the version in flight
  next,
  seen,          \* newest version that was acknowledged or returned by a read
  crashes

vars == <<active, set, up, serving, met, disk, intent, bits, pend, at, next, seen, crashes>>
peer == Other(active)

Init ==
  /\ active = 1 /\ set = Nodes /\ up = [n \in Nodes |-> TRUE] /\ serving = TRUE /\ met = FALSE
  /\ disk = [n \in Nodes |-> 0] /\ intent = [n \in Nodes |-> FALSE] /\ bits = [n \in Nodes |-> FALSE]
  /\ pend = 0 /\ at = {} /\ next = 1 /\ seen = 0 /\ crashes = 0

\* The region is in the intent log before any replica is written; alone, it is in the bitmap as well.
Begin ==
  /\ serving /\ pend = 0 /\ next <= MaxWrites
  /\ pend' = next /\ next' = next + 1 /\ at' = {}
  /\ intent' = [intent EXCEPT ![active] = ~LOGLATE]
  /\ bits' = [bits EXCEPT ![active] = @ \/ (set = {active} /\ ~NOBITS)]
  /\ UNCHANGED <<active, set, up, serving, met, disk, seen, crashes>>

Local ==
  /\ pend # 0 /\ active \notin at
  /\ disk' = [disk EXCEPT ![active] = pend]
  /\ at' = at \cup {active}
  /\ UNCHANGED <<active, set, up, serving, met, intent, bits, pend, next, seen, crashes>>

Remote ==
  /\ pend # 0 /\ peer \in set /\ up[peer] /\ peer \notin at
  /\ disk' = [disk EXCEPT ![peer] = pend]
  /\ intent' = [intent EXCEPT ![peer] = TRUE]
  /\ at' = at \cup {peer}
  /\ UNCHANGED <<active, set, up, serving, met, bits, pend, next, seen, crashes>>

Ack ==
  /\ pend # 0 /\ set \subseteq at
  /\ seen' = Max(seen, pend)
  /\ pend' = 0 /\ at' = {}
  /\ UNCHANGED <<active, set, up, serving, met, disk, intent, bits, next, crashes>>

Clean(n) ==
  /\ serving /\ up[n]
  /\ n \in set
  /\ pend = 0 \/ (CLEANEARLY /\ n \in at)
  /\ intent' = [intent EXCEPT ![n] = FALSE]
  /\ UNCHANGED <<active, set, up, serving, met, disk, bits, pend, at, next, seen, crashes>>

\* What a read returns, a client has seen. A write in flight on the same region may be returned or not.
Read ==
  /\ serving /\ pend = 0
  /\ seen' = Max(seen, disk[active])
  /\ UNCHANGED <<active, set, up, serving, met, disk, intent, bits, pend, at, next, crashes>>

Crash(n) ==
  /\ up[n] /\ crashes < MaxCrashes
  /\ crashes' = crashes + 1
  /\ up' = [up EXCEPT ![n] = FALSE]
  /\ met' = FALSE
  /\ IF n = active
     THEN serving' = FALSE /\ pend' = 0 /\ at' = {}
     ELSE UNCHANGED <<serving, pend, at>>
  /\ UNCHANGED <<active, set, disk, intent, bits, next, seen>>

Return(n) ==
  /\ ~up[n]
  /\ up' = [up EXCEPT ![n] = TRUE]
  /\ UNCHANGED <<active, set, serving, met, disk, intent, bits, pend, at, next, seen, crashes>>

\* The active alone. What was in flight is now a difference.
Shrink ==
  /\ up[active] /\ set = Nodes
  /\ set' = {active}
  /\ bits' = [bits EXCEPT ![active] = @ \/ intent[active]]
  /\ met' = FALSE
  /\ UNCHANGED <<active, up, serving, disk, intent, pend, at, next, seen, crashes>>

Promote ==
  /\ up[peer] /\ peer \in set
  /\ active' = peer /\ set' = {peer}
  /\ bits' = [bits EXCEPT ![peer] = @ \/ intent[peer]]
  /\ serving' = FALSE /\ met' = FALSE /\ pend' = 0 /\ at' = {}
  /\ UNCHANGED <<up, disk, intent, next, seen, crashes>>

\* R9: the regions of every kept member's intent log are copied, or the member was sent out of the set.
Reconcile ==
  /\ up[active] /\ up[peer] /\ ~serving /\ set = Nodes /\ (intent[active] \/ intent[peer])
  /\ disk' = [disk EXCEPT ![peer] = disk[active]]
  /\ intent' = [n \in Nodes |-> FALSE]
  /\ UNCHANGED <<active, set, up, serving, met, bits, pend, at, next, seen, crashes>>

Serve ==
  /\ up[active] /\ ~serving
  /\ \/ SERVEFIRST
     \/ set = {active}
     \/ up[peer] /\ ~intent[active] /\ ~intent[peer]
  /\ serving' = TRUE
  /\ UNCHANGED <<active, set, up, met, disk, intent, bits, pend, at, next, seen, crashes>>

\* A member that returns brings its own logs: what it wrote and nobody else has must be overwritten.
Meet ==
  /\ serving /\ up[peer] /\ set = {active} /\ ~met
  /\ met' = TRUE
  /\ bits' = [bits EXCEPT ![active] = @ \/ (~NOMERGE /\ (intent[peer] \/ bits[peer])), ![peer] = FALSE]
  /\ intent' = [intent EXCEPT ![peer] = FALSE]
  /\ UNCHANGED <<active, set, up, serving, disk, pend, at, next, seen, crashes>>

Resync ==
  /\ met /\ up[peer] /\ bits[active] /\ pend = 0
  /\ disk' = [disk EXCEPT ![peer] = disk[active]]
  /\ bits' = [bits EXCEPT ![active] = FALSE]
  /\ UNCHANGED <<active, set, up, serving, met, intent, pend, at, next, seen, crashes>>

Grow ==
  /\ met /\ up[peer] /\ set = {active} /\ ~bits[active] /\ pend = 0
  /\ set' = Nodes
  /\ UNCHANGED <<active, up, serving, met, disk, intent, bits, pend, at, next, seen, crashes>>

Next ==
  \/ Begin \/ Local \/ Remote \/ Ack \/ Read \/ Shrink \/ Promote \/ Reconcile \/ Serve \/ Meet \/ Resync \/ Grow
  \/ \E n \in Nodes : Clean(n) \/ Crash(n) \/ Return(n)

Spec == Init /\ [][Next]_vars

\* G2, G4: what a client has seen is on every member that may be promoted.
SeenStays == \A n \in set : disk[n] >= seen
\* G5: members of the set differ only where an intent log says so.
DifferenceIsLogged == set = Nodes /\ disk[1] # disk[2] => intent[1] \/ intent[2]
====
