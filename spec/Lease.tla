---- MODULE Lease ----
(* Who may serve the address. Discrete time. Node A is active and holds a lease: granted by the standby B, or by the witness W
   (which with A is a majority of the register). B may take over once nobody can still have a lease.

   Rules: R8 (lease), R6 for grantors (a restarted one supports nobody for a while), R7 (alone), R3 (planned move).
   A's clock may run slow by Drift over one lease; the margin M covers it. *)
EXTENDS Integers, FiniteSets, TLC

CONSTANTS T, M, Drift, MaxT,
          AMNESIA, GRANTUNRESOLVED, SOLOFOREVER, FROMREPLY, NOMARGIN, HANDSERVING

B == 2
W == 3
Grantors == {B, W}
Times == 0..MaxT

VARIABLES
  now,
  asks,      \* requests on their way: <<grantor, time of sending>>
  grants,    \* answers on their way: the same
  until,     \* grantor -> end of the lease that A counts from it, by A's clock
  promised,  \* grantor -> it supports no takeover before this time
  active,    \* the register: who is active
  set,       \* the register: the in-sync set
  growing,   \* a grow of A is on its way to the register
  taking,    \* a takeover of B is on its way to the register
  solo,      \* A serves without a lease, because nobody else can be promoted
  handing,   \* A proposed to hand over to B: it stopped serving before it did
  serving,   \* B serves
  restarts   \* restarts of grantors so far

vars == <<now, asks, grants, until, promised, active, set, growing, taking, solo, handing, serving, restarts>>

Margin == IF NOMARGIN THEN 0 ELSE M

Init ==
  /\ now = 0 /\ asks = {} /\ grants = {}
  /\ until = [g \in Grantors |-> 0] /\ promised = [g \in Grantors |-> 0]
  /\ active = 1 /\ set = {1, B}
  /\ growing = FALSE /\ taking = FALSE /\ solo = FALSE /\ handing = FALSE /\ serving = FALSE /\ restarts = 0

\* A message that can no longer give a lease is dropped: answering it could only delay a takeover.
Useful(messages, time) == {m \in messages : m[2] + T + Drift > time}

Tick ==
  /\ now < MaxT
  /\ now' = now + 1
  /\ asks' = IF FROMREPLY THEN asks ELSE Useful(asks, now')
  /\ grants' = IF FROMREPLY THEN grants ELSE Useful(grants, now')
  /\ UNCHANGED <<until, promised, active, set, growing, taking, solo, serving, restarts, handing>>

Ask(g) ==
  /\ active = 1
  /\ asks' = asks \cup {<<g, now>>}
  /\ UNCHANGED <<now, grants, until, promised, active, set, growing, taking, solo, serving, restarts, handing>>

\* B grants nothing while its own takeover is unresolved; W nothing once the record named another active.
Grant(g, sent) ==
  /\ <<g, sent>> \in asks
  /\ g = B => ~serving /\ (GRANTUNRESOLVED \/ ~taking)
  /\ g = W => active = 1
  /\ asks' = asks \ {<<g, sent>>}
  /\ grants' = grants \cup {<<g, sent>>}
  /\ promised' = [promised EXCEPT ![g] = now + T + Margin]
  /\ UNCHANGED <<now, until, active, set, growing, taking, solo, serving, restarts, handing>>

\* The lease counts from the sending of the request.
Granted(g, sent) ==
  /\ <<g, sent>> \in grants
  /\ grants' = grants \ {<<g, sent>>}
  /\ LET end == (IF FROMREPLY THEN now ELSE sent) + T + Drift IN
     until' = [until EXCEPT ![g] = IF end > @ THEN end ELSE @]
  /\ UNCHANGED <<now, asks, promised, active, set, growing, taking, solo, serving, restarts, handing>>

\* A restarted grantor does not know what it promised, so it keeps the longest promise that it can have made.
RestartGrantor(g) ==
  /\ restarts < 1
  /\ g = B => ~serving
  /\ restarts' = restarts + 1
  /\ promised' = [promised EXCEPT ![g] = IF AMNESIA THEN 0 ELSE now + T + Margin]
  /\ UNCHANGED <<now, asks, grants, until, active, set, growing, taking, solo, serving, handing>>

Shrink ==
  /\ active = 1 /\ set = {1, B} /\ ~growing /\ ~handing
  /\ set' = {1}
  /\ solo' = TRUE
  /\ UNCHANGED <<now, asks, grants, until, promised, active, growing, taking, serving, restarts, handing>>

\* The endless lease ends before the grow is sent, not when it is confirmed.
GrowSend ==
  /\ active = 1 /\ solo /\ set = {1} /\ ~growing
  /\ growing' = TRUE
  /\ solo' = SOLOFOREVER
  /\ UNCHANGED <<now, asks, grants, until, promised, active, set, taking, serving, restarts, handing>>

GrowLand ==
  /\ growing /\ active = 1
  /\ growing' = FALSE
  /\ set' = {1, B}
  /\ UNCHANGED <<now, asks, grants, until, promised, active, taking, solo, serving, restarts, handing>>

TakeSend ==
  /\ ~taking /\ ~serving /\ active = 1 /\ B \in set /\ now >= promised[B]
  /\ taking' = TRUE
  /\ UNCHANGED <<now, asks, grants, until, promised, active, set, growing, solo, serving, restarts, handing>>

\* The takeover needs the witness' vote when it lands.
TakeLand ==
  /\ taking /\ active = 1 /\ B \in set /\ now >= promised[W]
  /\ active' = B
  /\ set' = {B}
  /\ UNCHANGED <<now, asks, grants, until, promised, growing, taking, solo, serving, restarts, handing>>

\* A planned move. A stops serving before it proposes it, and does not start again while it is unresolved; so its lease
\* and what was granted to it are void, and nobody waits for them.
HandSend ==
  /\ active = 1 /\ set = {1, B} /\ ~growing /\ ~handing
  /\ handing' = TRUE
  /\ UNCHANGED <<now, asks, grants, until, promised, active, set, growing, taking, solo, serving, restarts>>

HandLand ==
  /\ handing /\ active = 1
  /\ active' = B
  /\ UNCHANGED <<now, asks, grants, until, promised, set, growing, taking, solo, serving, restarts, handing>>

\* B serves when it knows that it won, and after a takeover only when all its own grants ran out.
Serve ==
  /\ active = B /\ ~serving
  /\ handing \/ (taking /\ (GRANTUNRESOLVED \/ now >= promised[B]))
  /\ serving' = TRUE
  /\ taking' = FALSE
  /\ UNCHANGED <<now, asks, grants, until, promised, active, set, growing, solo, restarts, handing>>

Next ==
  \/ Tick \/ Shrink \/ GrowSend \/ GrowLand \/ TakeSend \/ TakeLand \/ HandSend \/ HandLand \/ Serve
  \/ \E g \in Grantors :
       Ask(g) \/ RestartGrantor(g) \/ \E sent \in Times : Grant(g, sent) \/ Granted(g, sent)

Spec == Init /\ [][Next]_vars

ActiveServes == (HANDSERVING \/ ~handing) /\ (solo \/ until[B] > now \/ until[W] > now)
\* G1: the address is served by one node.
OneActive == ~(ActiveServes /\ serving)
\* Must fail: B does get to serve.
NeverTaken == ~serving
====
