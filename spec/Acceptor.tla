---- MODULE Acceptor ----
(* The embedded register: CASPaxos (Rystsov, "CASPaxos: Replicated State Machines without logs", 2018) with three acceptors.
   The register's value is its own history: the sequence of the proposers that changed it. An acceptor may lose its file,
   or come back with an older one; then it takes no further part (it would rejoin under a new id).

   Rules: §3 of the design (durable acceptor, lost file), R2 and R6 (a ballot is used once, also across a restart). *)
EXTENDS Integers, Sequences, FiniteSets, TLC

CONSTANTS Acceptors, MaxBallot, MaxLosses,
          AMNESIA, OLDFILE, IGNOREACCEPTED, BALLOTTWICE, LATEACCEPT

\* The acceptors do not differ, so TLC need not try each naming of them.
Alike == Permutations(Acceptors)
Ballots == 1..MaxBallot
Quorums == {q \in SUBSET Acceptors : Cardinality(q) = 2}
Proposer(b) == b % 2
None == [ballot |-> 0, value |-> <<>>]
Blank == [promised |-> 0, ballot |-> 0, value |-> <<>>]

VARIABLES
  file,     \* acceptor -> its durable state: [promised, ballot, value]
  old,      \* acceptor -> an earlier state of its file
  gone,     \* acceptors that take no further part
  promise,  \* ballot -> acceptor -> the promise that it sent: its accepted ballot and value, or "no"
  request,  \* ballot -> values that its proposer asked to accept
  votes,    \* <<ballot, value, acceptor>>
  losses

vars == <<file, old, gone, promise, request, votes, losses>>

Init ==
  /\ file = [a \in Acceptors |-> Blank] /\ old = [a \in Acceptors |-> Blank] /\ gone = {}
  /\ promise = [b \in Ballots |-> [a \in Acceptors |-> [ballot |-> -1, value |-> <<>>]]]
  /\ request = [b \in Ballots |-> {}]
  /\ votes = {} /\ losses = 0

Promise(a, b) ==
  /\ a \notin gone /\ b > file[a].promised
  /\ file' = [file EXCEPT ![a].promised = b]
  /\ promise' = [promise EXCEPT ![b][a] = [ballot |-> file[a].ballot, value |-> file[a].value]]
  /\ UNCHANGED <<old, gone, request, votes, losses>>

Newest(b, q) ==
  IF IGNOREACCEPTED THEN None
  ELSE CHOOSE p \in {promise[b][a] : a \in q} : \A a \in q : promise[b][a].ballot <= p.ballot

\* Change the value, or write it once more (a read, a barrier).
Request(b, q) ==
  /\ \A a \in q : promise[b][a].ballot >= 0
  /\ request[b] = {} \/ (BALLOTTWICE /\ Cardinality(request[b]) < 2)
  /\ LET value == Newest(b, q).value IN
     \E new \in {value, Append(value, Proposer(b))} :
       request' = [request EXCEPT ![b] = @ \cup {new}]
  /\ UNCHANGED <<file, old, gone, promise, votes, losses>>

Accept(a, b) ==
  \E value \in request[b] :
    /\ a \notin gone /\ (LATEACCEPT \/ b >= file[a].promised)
    /\ file' = [file EXCEPT ![a] = [promised |-> b, ballot |-> b, value |-> value]]
    /\ votes' = votes \cup {<<b, value, a>>}
    /\ UNCHANGED <<old, gone, promise, request, losses>>

Snapshot(a) ==
  /\ a \notin gone /\ losses < MaxLosses /\ old[a] # file[a]
  /\ old' = [old EXCEPT ![a] = file[a]]
  /\ UNCHANGED <<file, gone, promise, request, votes, losses>>

Lose(a) ==
  /\ a \notin gone /\ losses < MaxLosses
  /\ losses' = losses + 1
  /\ \/ /\ AMNESIA
        /\ file' = [file EXCEPT ![a] = Blank]
        /\ UNCHANGED gone
     \/ /\ OLDFILE
        /\ file' = [file EXCEPT ![a] = old[a]]
        /\ UNCHANGED gone
     \/ /\ gone' = gone \cup {a}
        /\ UNCHANGED file
  /\ UNCHANGED <<old, promise, request, votes>>

Next ==
  \/ \E a \in Acceptors, b \in Ballots : Promise(a, b) \/ Accept(a, b)
  \/ \E b \in Ballots, q \in Quorums : Request(b, q)
  \/ \E a \in Acceptors : Lose(a) \/ (OLDFILE /\ Snapshot(a))

Spec == Init /\ [][Next]_vars

Chosen == {<<b, v>> \in {<<vote[1], vote[2]>> : vote \in votes} :
             \E q \in Quorums : \A a \in q : <<b, v, a>> \in votes}
Prefix(s, t) == Len(s) <= Len(t) /\ SubSeq(t, 1, Len(s)) = s
\* Every value that was ever chosen is part of one history: no two CAS succeed from the same record.
OneHistory == \A x, y \in Chosen : x[1] <= y[1] => Prefix(x[2], y[2])
====
