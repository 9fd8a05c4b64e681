---- MODULE Restart ----
(* Late, with a crash that also loses what the node knew about its open proposals.

   Rule R6: after a restart a node acknowledges only after a barrier CAS of its own is confirmed. Without a register it
   resumes alone only from a durable, confirmed set of itself with no open proposal. *)
EXTENDS Late

CONSTANTS READISBARRIER, RESUMEOPEN

VARIABLES
  fresh,  \* node -> restarted, and no barrier of its own confirmed yet
  alone   \* node -> durable: the confirmed set was {node} and no proposal was open

rvars == <<vars, fresh, alone>>
keep == UNCHANGED <<fresh, alone>>

RInit == Init /\ fresh = [n \in Nodes |-> FALSE] /\ alone = [n \in Nodes |-> FALSE]

RAck(n) == ~fresh[n] /\ Ack(n) /\ keep
RShrink(n) == ~fresh[n] /\ Shrink(n) /\ keep
RGrow(n) == ~fresh[n] /\ Grow(n) /\ keep

\* Before the barrier a read resolves nothing: the node does not know what it had proposed.
RRead(n) ==
  IF fresh[n] /\ ~READISBARRIER
  THEN Look(n) /\ UNCHANGED need /\ keep
  ELSE Read(n) /\ fresh' = [fresh EXCEPT ![n] = FALSE] /\ UNCHANGED alone

RCrash(n) ==
  /\ role[n] # "down"
  /\ role' = [role EXCEPT ![n] = "down"]
  /\ pend' = [pend EXCEPT ![n] = 0]
  /\ conf' = [conf EXCEPT ![n] = 0]
  /\ fresh' = [fresh EXCEPT ![n] = TRUE]
  /\ alone' = [alone EXCEPT ![n] = IF fresh[n] THEN @ ELSE view[n].set = {n} /\ (RESUMEOPEN \/ need[n] = {n})]
  /\ need' = [need EXCEPT ![n] = IF READISBARRIER THEN view[n].set ELSE Nodes]
  /\ UNCHANGED <<reg, late, view, disk, link>> /\ UNCHANGED clients

Barrier(n) ==
  /\ fresh[n] /\ role[n] = "active" /\ view[n].active = n /\ reg.epoch < MaxEpoch
  /\ Cas(n, [view[n] EXCEPT !.epoch = @ + 1])
  /\ fresh' = [fresh EXCEPT ![n] = view'[n] = view[n]]
  /\ alone' = [alone EXCEPT ![n] = FALSE]
  /\ UNCHANGED <<role, disk, pend, conf, link>> /\ UNCHANGED clients

Resume(n) ==
  /\ fresh[n] /\ alone[n] /\ role[n] = "standby" /\ view[n].active = n /\ view[n].set = {n}
  /\ role' = [role EXCEPT ![n] = "active"]
  /\ need' = [need EXCEPT ![n] = {n}]
  /\ fresh' = [fresh EXCEPT ![n] = FALSE]
  /\ UNCHANGED <<reg, late, view, disk, pend, conf, link, alone>> /\ UNCHANGED clients

RPromote(n) == Promote(n) /\ fresh' = [fresh EXCEPT ![n] = FALSE] /\ UNCHANGED alone

RNext ==
  \/ (Flip \/ Land \/ \E n \in Nodes : Issue(n) \/ Mirror(n) \/ Resync(n) \/ Return(n)) /\ keep
  \/ \E n \in Nodes : RAck(n) \/ RShrink(n) \/ RGrow(n) \/ RRead(n) \/ RCrash(n) \/ Barrier(n) \/ Resume(n) \/ RPromote(n)

RSpec == RInit /\ [][RNext]_rvars
====
