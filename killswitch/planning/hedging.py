"""Hedges: what stands in for a position that cannot be closed, suggested or opened, once for each.

A hedge is temporary. It reduces nothing, no stage ends it, and no reset: whoever reads the notice closes it by hand
once the position that it stands in for is gone. It is recorded on the policy and the scope of the decision that could
not be carried out, under an id that is the same whenever it is made, so that a restart knows it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from killswitch.graph.nodes import PolicySet
from killswitch.graph.unwinding import OF_CAUSE, UnwindingRule, unwinding_for
from killswitch.model.decision import Decision, Notice, Severity, decision_id
from killswitch.model.instant import MINUTE, from_micros
from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.planning.standin import SAMPLE, Sized, World, size
from killswitch.planning.stuck import Obstacles, Stuck, Watched
from killswitch.planning.unwind import manner
from killswitch.signals.marks import Marks
from killswitch.signals.view import Instruments, ScopeView, distrust

LONGEST_GAP = 10 * MINUTE
"""Microseconds that a return may span."""


class Hedging:
    """Watches the closings of decisions whose unwinding names instruments that may stand in. Without one it is idle.

    Marks are sampled from when it is made: after a restart beta is unknown until enough returns are seen again, but
    for an instrument of the same name.
    """

    def __init__(self, policies: PolicySet) -> None:
        self._policies = policies
        self._rules = {rule.name: rule for rule in policies.unwindings if rule.hedge.stand_ins}
        self._observing = frozenset(graph.policy for graph in policies.graphs if graph.mode == "observe")
        keep = max((rule.hedge.window for rule in self._rules.values()), default=0)
        self._marks = Marks(SAMPLE, keep, LONGEST_GAP)
        self._decisions: dict[str, Decision] = {}
        self._obstacles = Obstacles()
        self._done: set[str] = set()
        self._told: set[str] = set()

    def restore(self, decisions: Iterable[Decision]) -> None:
        """Take up what was decided before a restart: what may need a hedge, and which hedges were opened."""
        for decision in decisions if self._rules else ():
            if decision.kind == "hedge":
                self._done.add(decision.id)
            else:
                self.remember(decision)

    def remember(self, decision: Decision) -> None:
        """A decision that is acted on: its closing is watched."""
        if self._rule_of(decision) is not None:
            self._decisions[decision.id] = decision

    def look(
        self,
        snapshot: Snapshot,
        now: int,
        last: Mapping[str, AccountSnapshot],
        instruments: Instruments,
        busy: Collection[str],
    ) -> tuple[list[Decision], list[Notice]]:
        """The hedges that this snapshot asks for, and what is told of them. `last`: each account as read last."""
        decisions: list[Decision] = []
        told: list[Notice] = []
        if not self._rules:
            return decisions, told
        self._sample(snapshot, now, instruments)
        self._forget(snapshot)
        accounts = {account.account: account for account in snapshot.accounts}
        world = World(now, accounts, last, instruments, self._marks, busy)
        for stuck in self._obstacles.stuck(self._watched(snapshot), world):
            rule = self._rule_of(stuck.decision)
            if rule is not None:
                self._answer(stuck, rule, world, decisions, told)
        return decisions, told

    def _sample(self, snapshot: Snapshot, now: int, instruments: Instruments) -> None:
        if self._marks.is_due(now):
            readable = [account for account in snapshot.accounts if distrust(account, now, None) is None]
            self._marks.sample(ScopeView(now, snapshot.scheduled, readable, instruments, None))

    def _forget(self, snapshot: Snapshot) -> None:
        """A decision is watched from when it is made until its closing is not shown any more."""
        shown = {closing.decision for closing in snapshot.closings}
        made = {id_ for id_, decision in self._decisions.items() if decision.as_of >= snapshot.as_of}
        self._decisions = {id_: each for id_, each in self._decisions.items() if id_ in shown or id_ in made}

    def _watched(self, snapshot: Snapshot) -> Iterator[Watched]:
        for closing in snapshot.closings:
            decision = self._decisions.get(closing.decision)
            rule = None if decision is None else self._rule_of(decision)
            if decision is not None and rule is not None:
                yield closing, decision, rule.hedge

    def _answer(
        self, stuck: Stuck, rule: UnwindingRule, world: World, decisions: list[Decision], told: list[Notice]
    ) -> None:
        """Hedge it, or suggest that, once; where nothing can stand in, say so once and look again at the next tick."""
        id_ = _hedge_id(stuck)
        if id_ in self._done:
            return
        found = size(stuck, rule, world)
        if isinstance(found, str):
            if id_ not in self._told:
                self._told.add(id_)
                told.append(_notice(stuck, world.now, "page", f"nothing can stand in: {found}"))
            return
        self._done.add(id_)
        if rule.hedge.mode == "act":
            decisions.append(_decision(id_, stuck, rule, found, self._policies, world.now))
        told.append(_notice(stuck, world.now, "page", _said(found, opened=rule.hedge.mode == "act")))

    def _rule_of(self, decision: Decision) -> UnwindingRule | None:
        """The unwinding of the decision, where it has a hedge to offer; None for what is not acted on."""
        if decision.policy in self._observing or decision.kind in ("reset", "hedge"):
            return None
        rule = None if decision.unwinding is None else self._rules.get(decision.unwinding.name)
        built_in = decision.kind == "manual" and rule is not None and rule.name in OF_CAUSE
        if built_in and rule is not unwinding_for(decision.cause, self._policies):
            return None  # what is built in for a reason has its name from it, as a document may have too
        return rule


def _hedge_id(stuck: Stuck) -> str:
    """The same for one position of one decision, whenever and wherever it is hedged."""
    decision = stuck.decision
    return decision_id(decision.policy, decision.scope, f"hedge/{decision.id}/{'/'.join(stuck.key)}", decision.as_of)


def _decision(id_: str, stuck: Stuck, rule: UnwindingRule, found: Sized, policies: PolicySet, now: int) -> Decision:
    """The record of a hedge that is opened: at the level of the decision that it belongs to."""
    of = stuck.decision
    return Decision(
        id=id_,
        as_of=from_micros(now),
        policy=of.policy,
        policy_set=policies.digest,
        commit=policies.commit,
        scope=of.scope,
        mode="enforce",
        stage=of.stage,
        level=of.level,
        previous_level=of.level,
        kind="hedge",
        intents=found.intents,
        cause=of.cause,
        reason=f"temporary: stands in for {_what(stuck)}; {found.text}",
        unwinding=manner(rule),
    )


def _what(stuck: Stuck) -> str:
    account, symbol, side = stuck.key
    return f"{side} {stuck.contracts} {symbol} on {account}, which could not be closed ({stuck.why})"


def _said(found: Sized, *, opened: bool) -> str:
    account = found.intents[0].account
    if not opened:
        return f"suggested to stand in until it is closed: {found.text}"
    return f"temporary, until it is closed: {found.text}; `ksctl close --scope account/{account}` ends it"


def _notice(stuck: Stuck, now: int, severity: Severity, text: str) -> Notice:
    of = stuck.decision
    return Notice(
        from_micros(now), of.policy, of.scope, "blocked", severity, f"hedge: {_what(stuck)}: {text}", stuck.key[1]
    )
