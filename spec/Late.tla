---- MODULE Late ----
(* A pair of data nodes and one linearizable register. One block, whose contents are the versions 1..MaxWrites.
   A compare-and-swap (CAS) may land without its caller learning it, or land long after its caller gave up.

   Rules: R1 (ack by known set and unresolved proposals), R2 (an unchanged record proves nothing),
   R3 (promote from the set only), R4 (older epochs are refused), R5 (a joiner counts from its proposal),
   R7 (alone only after the CAS). *)
EXTENDS Integers, FiniteSets, TLC

CONSTANTS MaxWrites, MaxEpoch, MaxLate,
          ACKKNOWN, READRESOLVES, UNSAFEPROMOTE, OLDFRAMES, EARLYGROW, SKIPCAS

Nodes == {1, 2}
Other(n) == 3 - n

VARIABLES
  reg,    \* the register: [epoch, active, set]
  late,   \* CAS requests that timed out at their caller and may still land
  view,   \* node -> the last record it knows
  need,   \* node -> the members an acknowledgement needs: known set and unresolved proposals
  role,   \* node -> "active" | "standby" | "down"
  disk,   \* node -> version on its disk
  pend,   \* node -> version being written, 0 = none
  conf,   \* node -> newest version that the peer confirmed to it
  link,   \* TRUE: the mirror link works
  next,   \* next version to be written
  acked,  \* newest version acknowledged to a client
  cut,    \* version on the disk of the newest active when it was promoted
  stale   \* history: a deposed active completed a write that the new one did not start with

vars == <<reg, late, view, need, role, disk, pend, conf, link, next, acked, cut, stale>>
clients == <<next, acked, cut, stale>>

Max(a, b) == IF a > b THEN a ELSE b

Init ==
  /\ reg = [epoch |-> 1, active |-> 1, set |-> Nodes]
  /\ late = {}
  /\ view = [n \in Nodes |-> reg]
  /\ need = [n \in Nodes |-> Nodes]
  /\ role = [n \in Nodes |-> IF n = 1 THEN "active" ELSE "standby"]
  /\ disk = [n \in Nodes |-> 0]
  /\ pend = [n \in Nodes |-> 0]
  /\ conf = [n \in Nodes |-> 0]
  /\ link = TRUE
  /\ next = 1 /\ acked = 0 /\ cut = 0 /\ stale = FALSE

Issue(n) ==
  /\ role[n] = "active" /\ pend[n] = 0 /\ next <= MaxWrites
  /\ disk' = [disk EXCEPT ![n] = next]
  /\ pend' = [pend EXCEPT ![n] = next]
  /\ next' = next + 1
  /\ UNCHANGED <<reg, late, view, need, role, conf, link, acked, cut, stale>>

\* The standby takes a write only from the epoch it knows, or a newer one (R4). Its confirmation may be slow.
Mirror(n) ==
  LET m == Other(n) IN
  /\ role[n] = "active" /\ pend[n] # 0 /\ link /\ role[m] = "standby"
  /\ m \in view[n].set
  /\ OLDFRAMES \/ view[n].epoch >= view[m].epoch
  /\ disk' = [disk EXCEPT ![m] = pend[n]]
  /\ view' = [view EXCEPT ![m] = IF view[n].epoch > view[m].epoch THEN view[n] ELSE @]
  /\ conf' = [conf EXCEPT ![n] = pend[n]]
  /\ UNCHANGED <<reg, late, need, role, pend, link>> /\ UNCHANGED clients

Deposed(n) == \E m \in Nodes : role[m] = "active" /\ view[m].epoch > view[n].epoch

Ack(n) ==
  /\ role[n] = "active" /\ pend[n] # 0
  /\ \/ (IF ACKKNOWN THEN view[n].set ELSE need[n]) = {n}
     \/ conf[n] = pend[n]
     \/ SKIPCAS /\ ~link
  /\ acked' = Max(acked, pend[n])
  /\ pend' = [pend EXCEPT ![n] = 0]
  /\ stale' = (stale \/ (Deposed(n) /\ pend[n] > cut))
  /\ UNCHANGED <<reg, late, view, need, role, disk, conf, link, next, cut>>

\* A CAS of the active: it lands and is learnt; it lands and the answer is lost; it is given up and may land later.
Cas(n, new) ==
  \/ /\ reg = view[n]
     /\ reg' = new
     /\ \/ view' = [view EXCEPT ![n] = new] /\ need' = [need EXCEPT ![n] = new.set]
        \/ UNCHANGED view /\ need' = [need EXCEPT ![n] = @ \cup new.set]
     /\ UNCHANGED late
  \/ /\ late' = late \cup {[old |-> view[n], new |-> new]}
     /\ need' = [need EXCEPT ![n] = @ \cup new.set]
     /\ UNCHANGED <<reg, view>>

Land ==
  \E c \in late :
    /\ late' = late \ {c}
    /\ reg' = IF reg = c.old THEN c.new ELSE reg
    /\ UNCHANGED <<view, need, role, disk, pend, conf, link>> /\ UNCHANGED clients

Next1(n, set) == [epoch |-> view[n].epoch + 1, active |-> n, set |-> set]

Shrink(n) ==
  /\ role[n] = "active" /\ view[n].active = n /\ view[n].set = Nodes /\ reg.epoch < MaxEpoch
  /\ Cas(n, Next1(n, {n}))
  /\ UNCHANGED <<role, disk, pend, conf, link>> /\ UNCHANGED clients

Resync(n) ==
  LET m == Other(n) IN
  /\ role[n] = "active" /\ view[n].active = n /\ view[n].set = {n} /\ link
  /\ role[m] = "standby" /\ view[n].epoch >= view[m].epoch
  /\ disk' = [disk EXCEPT ![m] = disk[n]]
  /\ view' = [view EXCEPT ![m] = view[n]]
  /\ UNCHANGED <<reg, late, need, role, pend, conf, link>> /\ UNCHANGED clients

Grow(n) ==
  LET m == Other(n) IN
  /\ role[n] = "active" /\ view[n].active = n /\ view[n].set = {n} /\ reg.epoch < MaxEpoch
  /\ role[m] = "standby" /\ link
  /\ EARLYGROW \/ (disk[m] = disk[n] /\ pend[n] = 0)
  /\ Cas(n, Next1(n, Nodes))
  /\ UNCHANGED <<role, disk, pend, conf, link>> /\ UNCHANGED clients

Promote(n) ==
  /\ role[n] = "standby" /\ reg.active # n /\ reg.epoch < MaxEpoch
  /\ UNSAFEPROMOTE \/ n \in reg.set
  /\ reg' = [epoch |-> reg.epoch + 1, active |-> n, set |-> {n}]
  /\ view' = [view EXCEPT ![n] = reg']
  /\ need' = [need EXCEPT ![n] = {n}]
  /\ role' = [role EXCEPT ![n] = "active"]
  /\ cut' = disk[n]
  /\ UNCHANGED <<late, disk, pend, conf, link, next, acked, stale>>

\* A node reads the register.
Look(n) ==
  /\ role[n] # "down"
  /\ view' = [view EXCEPT ![n] = reg]
  /\ role' = [role EXCEPT ![n] = IF reg.active = n /\ (@ = "active" \/ n \in reg.set) THEN "active" ELSE "standby"]
  /\ pend' = [pend EXCEPT ![n] = IF role'[n] = "active" THEN @ ELSE 0]
  /\ UNCHANGED <<reg, late, disk, conf, link>> /\ UNCHANGED clients

\* Only a newer epoch resolves what it proposed (R2).
Read(n) ==
  /\ Look(n)
  /\ need' = [need EXCEPT ![n] = IF READRESOLVES \/ reg.epoch > view[n].epoch THEN reg.set ELSE @]

Crash(n) ==
  /\ role[n] # "down"
  /\ role' = [role EXCEPT ![n] = "down"]
  /\ pend' = [pend EXCEPT ![n] = 0]
  /\ conf' = [conf EXCEPT ![n] = 0]
  /\ UNCHANGED <<reg, late, view, need, disk, link>> /\ UNCHANGED clients

Return(n) ==
  /\ role[n] = "down"
  /\ role' = [role EXCEPT ![n] = "standby"]
  /\ UNCHANGED <<reg, late, view, need, disk, pend, conf, link>> /\ UNCHANGED clients

Flip == link' = ~link /\ UNCHANGED <<reg, late, view, need, role, disk, pend, conf>> /\ UNCHANGED clients

Next ==
  \/ Flip \/ Land
  \/ \E n \in Nodes :
       Issue(n) \/ Mirror(n) \/ Ack(n) \/ Shrink(n) \/ Resync(n) \/ Grow(n) \/ Promote(n) \/ Read(n) \/ Crash(n) \/ Return(n)

Bound == Cardinality(late) <= MaxLate
Spec == Init /\ [][Next]_vars

\* G2: whoever the register would let be promoted holds every acknowledged write.
NoAckedLost == \A n \in reg.set : disk[n] >= acked
\* G1: a deposed active completes no write that the new active did not already hold when it was promoted.
OneWriter == ~stale
====
