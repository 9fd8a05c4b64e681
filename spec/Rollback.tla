---- MODULE Rollback ----
(* A node is restored from a snapshot: its disk, and all that it remembers, is from the past.

   Rule: R14 (the record counts each member's attachments; a disk that shows an older count is not promotable and gets a
   full resync). *)
EXTENDS Integers, FiniteSets, TLC

CONSTANTS MaxWrites, MaxGeneration, MaxRestores,
          IGNOREGENERATION, SAMEATTACHMENT

Nodes == {1, 2}
Other(n) == 3 - n

VARIABLES
  active, set,  \* the register
  counted,      \* the register: node -> generation of its last attachment
  up, attached,
  disk,         \* node -> [version, generation]
  snapshot,     \* node -> an earlier state of its disk
  next, acked, restores

vars == <<active, set, counted, up, attached, disk, snapshot, next, acked, restores>>
Blank == [version |-> 0, generation |-> 1]

Init ==
  /\ active = 1 /\ set = Nodes /\ counted = [n \in Nodes |-> 1]
  /\ up = [n \in Nodes |-> TRUE] /\ attached = [n \in Nodes |-> TRUE]
  /\ disk = [n \in Nodes |-> Blank] /\ snapshot = [n \in Nodes |-> Blank]
  /\ next = 1 /\ acked = 0 /\ restores = 0

Write ==
  /\ next <= MaxWrites
  /\ \A n \in set \cup {active} : attached[n]
  /\ disk' = [n \in Nodes |-> IF n \in set THEN [disk[n] EXCEPT !.version = next] ELSE disk[n]]
  /\ acked' = next
  /\ next' = next + 1
  /\ UNCHANGED <<active, set, counted, up, attached, snapshot, restores>>

Down(n) ==
  /\ up[n]
  /\ up' = [up EXCEPT ![n] = FALSE]
  /\ attached' = [attached EXCEPT ![n] = FALSE]
  /\ UNCHANGED <<active, set, counted, disk, snapshot, next, acked, restores>>

Up(n) ==
  /\ ~up[n]
  /\ up' = [up EXCEPT ![n] = TRUE]
  /\ UNCHANGED <<active, set, counted, attached, disk, snapshot, next, acked, restores>>

Snapshot(n) ==
  /\ restores < MaxRestores
  /\ snapshot' = [snapshot EXCEPT ![n] = disk[n]]
  /\ UNCHANGED <<active, set, counted, up, attached, disk, next, acked, restores>>

\* A snapshot of the current attachment cannot be told from the disk itself: see SAMEATTACHMENT.
Restore(n) ==
  /\ ~up[n] /\ restores < MaxRestores
  /\ SAMEATTACHMENT \/ snapshot[n] = disk[n] \/ snapshot[n].generation < disk[n].generation
  /\ disk' = [disk EXCEPT ![n] = snapshot[n]]
  /\ restores' = restores + 1
  /\ UNCHANGED <<active, set, counted, up, attached, snapshot, next, acked>>

Bumped(n) == counted[n] + 1

Attach(n) ==
  /\ up[n] /\ ~attached[n] /\ n \in set /\ counted[n] < MaxGeneration
  /\ IGNOREGENERATION \/ disk[n].generation = counted[n]
  /\ counted' = [counted EXCEPT ![n] = Bumped(n)]
  /\ disk' = [disk EXCEPT ![n].generation = Bumped(n)]
  /\ attached' = [attached EXCEPT ![n] = TRUE]
  /\ UNCHANGED <<active, set, up, snapshot, next, acked, restores>>

Shrink ==
  /\ attached[active] /\ set = Nodes
  /\ set' = {active}
  /\ attached' = [attached EXCEPT ![Other(active)] = FALSE]
  /\ UNCHANGED <<active, counted, up, disk, snapshot, next, acked, restores>>

Promote(n) ==
  /\ attached[n] /\ n \in set /\ n # active
  /\ active' = n /\ set' = {n}
  /\ attached' = [attached EXCEPT ![Other(n)] = FALSE]
  /\ UNCHANGED <<counted, up, disk, snapshot, next, acked, restores>>

\* A full resync, whatever the disk held before.
Join ==
  LET n == Other(active) IN
  /\ attached[active] /\ up[n] /\ n \notin set /\ counted[n] < MaxGeneration
  /\ counted' = [counted EXCEPT ![n] = Bumped(n)]
  /\ disk' = [disk EXCEPT ![n] = [version |-> disk[active].version, generation |-> Bumped(n)]]
  /\ set' = Nodes
  /\ attached' = [attached EXCEPT ![n] = TRUE]
  /\ UNCHANGED <<active, up, snapshot, next, acked, restores>>

Next ==
  \/ Write \/ Shrink \/ Join
  \/ \E n \in Nodes : Down(n) \/ Up(n) \/ Snapshot(n) \/ Restore(n) \/ Attach(n) \/ Promote(n)

Spec == Init /\ [][Next]_vars

\* G4: an attached member of the set holds every acknowledged write.
AttachedIsCurrent == \A n \in set : attached[n] => disk[n].version >= acked
====
