---- MODULE Resync ----
(* The source brings a target up to date, under writes, while the target may lose power or go back to the consistent point
   from which the resync started. Blocks are written on the source for good; the target has a write cache.

   Rule: R10 (bits leave the bitmap only when the target has the block durable; clearing during a resync is provisional
   until the target committed that resync; a target that rolled back restores the base bitmap). *)
EXTENDS Integers, FiniteSets, TLC

CONSTANTS Blocks, MaxVersion,
          CLEARONCOPY, DROPLOG, KEEPCLEARED, JOINEARLY

VARIABLES
  source,     \* block -> version
  cache,      \* block -> version that the target reads
  durable,    \* block -> version that survives the target's loss of power
  point,      \* block -> version at the target's consistent point
  joined,     \* the target is in the in-sync set
  resyncing,  \* between the start of a resync and its commit
  base,       \* bitmap: differs from the target's consistent point
  left,       \* bitmap: still to be copied in this resync
  done,       \* copied, not yet durable on the target; in memory only
  log,        \* written on both, not yet durable on the target
  link

vars == <<source, cache, durable, point, joined, resyncing, base, left, done, log, link>>
Zero == [b \in Blocks |-> 0]

Init ==
  /\ source = Zero /\ cache = Zero /\ durable = Zero /\ point = Zero
  /\ joined = TRUE /\ resyncing = FALSE /\ base = {} /\ left = {} /\ done = {} /\ log = {} /\ link = TRUE

\* A block that was copied, or that never differed, is mirrored; another one keeps its bit.
Write(b) ==
  /\ source[b] < MaxVersion
  /\ joined => link
  /\ source' = [source EXCEPT ![b] = @ + 1]
  /\ LET mirrored == link /\ (joined \/ (resyncing /\ (b \notin left \/ b \in done))) IN
     /\ cache' = IF mirrored THEN [cache EXCEPT ![b] = source'[b]] ELSE cache
     /\ log' = IF mirrored THEN log \cup {b} ELSE log
     /\ left' = IF mirrored \/ ~resyncing THEN left ELSE left \cup {b}
     /\ base' = IF joined THEN base ELSE base \cup {b}
  /\ UNCHANGED <<durable, point, joined, resyncing, done, link>>

Start ==
  /\ link /\ ~joined /\ ~resyncing
  /\ resyncing' = TRUE
  /\ point' = durable /\ cache' = durable
  /\ left' = base /\ done' = {}
  /\ UNCHANGED <<source, durable, joined, base, log, link>>

Copy(b) ==
  /\ link /\ resyncing /\ b \in left \ done
  /\ cache' = [cache EXCEPT ![b] = source[b]]
  /\ done' = done \cup {b}
  /\ left' = IF CLEARONCOPY THEN left \ {b} ELSE left
  /\ UNCHANGED <<source, durable, point, joined, resyncing, base, log, link>>

\* The target flushes and says so.
Flush ==
  /\ link /\ (joined \/ resyncing)
  /\ durable' = cache
  /\ left' = left \ done
  /\ done' = {} /\ log' = {}
  /\ UNCHANGED <<source, cache, point, joined, resyncing, base, link>>

\* The resync is committed: from here the target counts, and has no point to go back to.
Commit ==
  /\ link /\ resyncing /\ done = {}
  /\ JOINEARLY \/ left = {}
  /\ joined' = TRUE /\ resyncing' = FALSE
  /\ base' = {} /\ left' = {}
  /\ UNCHANGED <<source, cache, durable, point, done, log, link>>

\* The link breaks; perhaps because the target lost power. What it had not flushed is a difference again.
Gone(power) ==
  /\ link
  /\ link' = FALSE /\ joined' = FALSE
  /\ cache' = IF power THEN durable ELSE cache
  /\ done' = {} /\ log' = {}
  /\ LET lost == IF DROPLOG THEN {} ELSE log IN
     /\ left' = IF resyncing THEN left \cup lost ELSE {}
     /\ base' = base \cup lost
  /\ UNCHANGED <<source, durable, point, resyncing>>

Back == ~link /\ link' = TRUE /\ UNCHANGED <<source, cache, durable, point, joined, resyncing, base, left, done, log>>

\* The target undoes the unfinished resync, mirrored writes included.
RollBack ==
  /\ resyncing /\ ~link
  /\ cache' = point /\ durable' = point
  /\ resyncing' = FALSE
  /\ base' = IF KEEPCLEARED THEN left ELSE base
  /\ left' = {}
  /\ UNCHANGED <<source, point, joined, done, log, link>>

Next ==
  \/ Start \/ Flush \/ Commit \/ Back \/ RollBack
  \/ \E power \in BOOLEAN : Gone(power)
  \/ \E b \in Blocks : Write(b) \/ Copy(b)

Spec == Init /\ [][Next]_vars

\* G5: a block that differs from what the target has for sure is remembered.
BitmapCoversDifference ==
  \A b \in Blocks : source[b] # durable[b] => b \in log \cup (IF resyncing THEN left ELSE base)
\* G4: a member of the in-sync set is not behind.
JoinedIsEqual == joined => cache = source
====
