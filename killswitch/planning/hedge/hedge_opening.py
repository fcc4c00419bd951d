"""Proxy hedges: suggests or opens a hedge of a position that cannot be closed, once for each position.

A hedge is temporary. It reduces no position, and neither a stage nor a reset ends it: an operator closes it once the
hedged position is gone. It is recorded on the policy and scope of the decision that could not be carried out, with the
contracts that it covers, so that neither another decision about the position nor a restart opens it again: only later
additions to the position are hedged, within the same bound.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.graph.unwinding import OF_CAUSE, UnwindingRule, unwinding_for
from killswitch.model.alert import Alert, Alerts, NoticeGroup
from killswitch.model.decision import Decision, Intent, Notice, decision_id
from killswitch.model.instant import MINUTE, from_micros, to_micros
from killswitch.model.snapshot import AccountSnapshot, Residual, Snapshot
from killswitch.planning.hedge.proxy_hedge import SAMPLE, HedgeData, Sized, size
from killswitch.planning.hedge.uncloseable import (
    Obstacles,
    TickAccounts,
    UncloseablePosition,
    Watched,
    is_dust,
    naked_legs,
)
from killswitch.planning.orders.unwind import declared_unwinding
from killswitch.planning.rounding import CLOSED_STATES
from killswitch.signals.arguments import HedgeLegs
from killswitch.signals.history.prices import PriceSamples
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import Instruments, PnlKey, ScopeView
from killswitch.valuation.trust import reason_untrusted

REMEMBERED = 100
"""Decisions that are checked for legs that they leave naked."""
LONGEST_GAP = 10 * MINUTE
"""Maximum span of a return (microseconds)."""


class _ExistingHedge(Struct, frozen=True):
    """Existing hedges of a position: the contracts that they cover, and the orders that opened them."""

    contracts: Decimal = ZERO
    orders: tuple[Intent, ...] = ()


_NOTHING = _ExistingHedge()


class HedgePlanner:
    """Observes the closes of decisions whose unwinding names hedge instruments. Without such an unwinding it is idle.

    Marks are sampled while the program runs: after a restart beta is unknown until enough returns are sampled, except
    for an instrument of the same name. `armed`: accounts on which orders may be sent; None is all.
    """

    def __init__(self, policies: PolicySet, armed: Collection[str] | None = None) -> None:
        self.armed = armed
        self._rules: dict[str, UnwindingRule] = {}
        self._decisions: dict[str, Decision] = {}
        self._of_hedges: dict[str, Decision] = {}
        """The newest decisions of policies with declared hedges, of which they may leave a leg naked."""
        self._keep = -1
        self.reload(policies)
        self._sampled_at: int | None = None
        self._obstacles = Obstacles()
        self._seen = TickAccounts(0, {}, {}, {})
        self._uncloseable: list[UncloseablePosition] = []
        self._counted: set[str] = set()
        self._existing: dict[PnlKey, _ExistingHedge] = {}

    def reload(self, policies: PolicySet) -> None:
        """Hedge by the next set; closes in progress by the rule that they began with, if that is gone.

        Sampling of marks begins again where a rule needs more of them than before.
        """
        under_way = {each.unwinding.name for each in self._decisions.values() if each.unwinding is not None}
        kept = {name: rule for name, rule in self._rules.items() if name in under_way}
        self._policies = policies
        self._rules = kept | {rule.name: rule for rule in policies.unwindings if rule.hedge.instruments}
        self._observing = frozenset(graph.policy for graph in policies.graphs if graph.mode == "observe")
        keep = max((rule.hedge.window for rule in self._rules.values()), default=0)
        if keep > self._keep:
            self._keep, self._prices = keep, PriceSamples([{"window": keep, "every": SAMPLE}], LONGEST_GAP)

    def restore(self, decisions: Iterable[Decision]) -> None:
        """Restore decisions from before a restart: those that may need a hedge, and the opened hedges."""
        for decision in decisions if self._rules else ():
            self.remember(decision)

    def remember(self, decision: Decision) -> None:
        """Register a decision that is acted on: observe its close, or count a hedge once."""
        if decision.covers and decision.mode == "enforce" and decision.id not in self._counted:
            self._counted.add(decision.id)
            for each in decision.covers:
                key = (each.account, each.symbol, each.position_side)
                before = self._existing.get(key, _NOTHING)
                orders = tuple(intent for intent in decision.intents if intent.purpose == "hedge")
                self._existing[key] = _ExistingHedge(before.contracts + each.contracts, (*before.orders, *orders))
        elif self._rule_of(decision) is not None:
            self._decisions[decision.id] = decision
            if self._hedges_of(decision):
                self._of_hedges[decision.id] = decision
                if len(self._of_hedges) > REMEMBERED:
                    del self._of_hedges[next(iter(self._of_hedges))]

    def observe(
        self, snapshot: Snapshot, now: int, last: Mapping[str, AccountSnapshot], instruments: Instruments
    ) -> bool:
        """Observe a snapshot; True if any position may need a hedge. `last`: the last good snapshot of each account."""
        if not self._rules:
            return False
        self._sample(snapshot, now, instruments)
        accounts = {account.account: account for account in snapshot.accounts}
        self._seen = TickAccounts(now, accounts, last, instruments)
        self._forget(snapshot)
        # the largest part first: it contains what other decisions would close of the same position
        found = self._obstacles.uncloseable(self._watched(snapshot), self._seen)
        known = {each.key for each in found}
        found += [each for each in self._naked() if each.key not in known]
        self._uncloseable = sorted(found, key=lambda each: -each.contracts)
        return True

    def plan(self, busy: Collection[str]) -> tuple[list[Decision], list[Notice], Alerts]:
        """Hedge decisions for the last observed snapshot, a notice of each, and the positions that have no hedge.

        A hedge is opened once; if no instrument fits, that is retried at the next tick.
        """
        decisions: list[Decision] = []
        issued: list[Notice] = []
        without: list[Alert] = []
        seen = self._seen
        world = HedgeData(seen.now, seen.accounts, seen.last, seen.instruments, self._prices, busy, self.armed)
        for uncloseable in self._uncloseable:
            rule = self._rule_of(uncloseable.decision)
            part = self._uncovered(uncloseable)
            if rule is None or part is None:
                continue
            existing = self._existing.get(part.key, _NOTHING)
            found = size(part, rule, world, existing.orders)
            if isinstance(found, str):
                without.append(_alert(part, f"nothing can stand in: {found}", is_suggested=False))
            elif rule.hedge.mode == "act" and found.why_suggest_only is None:
                made = _decision(_hedge_id(part, existing.contracts), part, rule, found, self._policies, world.now)
                self.remember(made)
                decisions.append(made)
                issued.append(_notice(part, world.now, _opened(found)))
            else:
                not_opened = (
                    f"; not opened: {found.why_suggest_only}"
                    if rule.hedge.mode == "act" and found.why_suggest_only is not None
                    else ""
                )
                suggestion = f"suggested to stand in until it is closed: {found.text}{not_opened}"
                without.append(_alert(part, suggestion, is_suggested=True))
        return decisions, issued, Alerts(tuple(without), self._unjudged())

    @property
    def judges(self) -> tuple[str, ...]:
        """How the keys begin of positions that may be judged: none without a rule."""
        return tuple(f"hedge/{name}" for name in self._seen.accounts) if self._rules else ()

    def _unjudged(self) -> tuple[str, ...]:
        """The keys of positions that are still there: only one that is closed or hedged needs no hedge any more."""
        if not self._rules:
            return ()
        keys = []
        for name, account in self._seen.accounts.items():
            if reason_untrusted(account, self._seen.now, None) is not None:
                keys.append(f"hedge/{name}")
                continue
            held = {(name, row.symbol, row.side) for row in account.positions or () if row.contracts}
            keys += ["/".join(("hedge", *key)) for key in held - self._existing.keys()]
        return tuple(keys)

    def _sample(self, snapshot: Snapshot, now: int, instruments: Instruments) -> None:
        """Sample the marks of open markets; the mark of a halted market carries no information."""
        if now // SAMPLE == self._sampled_at:
            return
        self._sampled_at = now // SAMPLE
        readable = [account for account in snapshot.accounts if reason_untrusted(account, now, None) is None]
        marks: dict[tuple[str, str], float] = {}
        for account, position in ScopeView(now, snapshot.scheduled, readable, instruments, None).positions():
            key = (account.account, position.symbol)
            shut = key in instruments and instruments[key].state in CLOSED_STATES
            if not shut and position.mark_price is not None and position.mark_price > ZERO:
                marks[key] = float(position.mark_price)
        self._prices.add(now, marks)

    def _forget(self, snapshot: Snapshot) -> None:
        """Drop decisions whose close is no longer shown, and hedges of positions that are gone.

        A position that appears after that is a new one.
        """
        shown = {closing.decision for closing in snapshot.closings}
        made = {id_ for id_, decision in self._decisions.items() if decision.as_of >= snapshot.as_of}
        self._decisions = {id_: each for id_, each in self._decisions.items() if id_ in shown or id_ in made}
        self._existing = {key: each for key, each in self._existing.items() if not self._is_closed(key)}

    def _is_closed(self, key: PnlKey) -> bool:
        account = self._seen.accounts.get(key[0])
        if account is None or reason_untrusted(account, self._seen.now, None) is not None:
            return False
        return not any(row.contracts and (row.symbol, row.side) == key[1:] for row in account.positions or ())

    def _watched(self, snapshot: Snapshot) -> Iterator[Watched]:
        for closing in snapshot.closings:
            decision = self._decisions.get(closing.decision)
            rule = None if decision is None else self._rule_of(decision)
            if decision is not None and rule is not None:
                yield closing, decision, rule.hedge

    def _naked(self) -> Iterator[UncloseablePosition]:
        """Legs that are naked for longer than the rule waits, once each."""
        found: dict[PnlKey, UncloseablePosition] = {}
        for decision in self._of_hedges.values():
            rule = self._rule_of(decision)
            if rule is not None and self._seen.now - to_micros(decision.as_of) >= rule.hedge.after:
                found |= {each.key: each for each in naked_legs(decision, self._hedges_of(decision), self._seen)}
        yield from found.values()

    def _hedges_of(self, decision: Decision) -> tuple[HedgeLegs, ...]:
        """The declared hedges of the decision's policy."""
        return next((graph.hedges for graph in self._policies.graphs if graph.policy == decision.policy), ())

    def _uncovered(self, uncloseable: UncloseablePosition) -> UncloseablePosition | None:
        """The unhedged part of a position; None if there is none, or it is below the venue's minimum."""
        existing = self._existing.get(uncloseable.key, _NOTHING).contracts
        if not existing:
            return uncloseable
        more = uncloseable.contracts - existing
        rules = self._seen.instruments.get((uncloseable.account, uncloseable.position.symbol))
        if more <= ZERO or is_dust(more, uncloseable.position, self._seen.last[uncloseable.account], rules):
            return None
        return replace(uncloseable, contracts=more)

    def _rule_of(self, decision: Decision) -> UnwindingRule | None:
        """The unwinding of the decision, if it has hedge instruments; None for decisions that are not acted on."""
        if decision.policy in self._observing or decision.kind in ("reset", "hedge"):
            return None
        rule = None if decision.unwinding is None else self._rules.get(decision.unwinding.name)
        built_in = decision.kind == "manual" and rule is not None and rule.name in OF_CAUSE
        if built_in and rule is not unwinding_for(decision.cause, self._policies.unwindings):
            return None  # a built-in unwinding and a document may both be named after the reason
        return rule


def _hedge_id(uncloseable: UncloseablePosition, existing: Decimal) -> str:
    """Id of a hedge: equal for the same decision, position and amount already hedged."""
    decision = uncloseable.decision
    what = f"hedge/{decision.id}/{'/'.join(uncloseable.key)}" + (f"/{existing.normalize():f}" if existing else "")
    return decision_id(decision.policy, decision.scope, what, decision.as_of)


def _decision(
    id_: str, uncloseable: UncloseablePosition, rule: UnwindingRule, found: Sized, policies: PolicySet, now: int
) -> Decision:
    """The decision that opens a hedge, at the level of the decision that it belongs to."""
    of = uncloseable.decision
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
        reason=f"temporary: stands in for {_what(uncloseable)}; {found.text}",
        unwinding=declared_unwinding(rule),
        covers=(
            Residual(
                uncloseable.account, uncloseable.position.symbol, uncloseable.position.side, uncloseable.contracts
            ),
        ),
    )


def _what(uncloseable: UncloseablePosition) -> str:
    account, symbol, side = uncloseable.key
    return f"{side} {uncloseable.contracts} {symbol} on {account}, which could not be closed ({uncloseable.why})"


def _opened(found: Sized) -> str:
    account = found.intents[0].account
    return f"temporary, until it is closed: {found.text}; `ksctl close --scope account/{account}` ends it"


def _text(uncloseable: UncloseablePosition, text: str) -> str:
    return f"hedge: {_what(uncloseable)}: {text}"


def _alert(uncloseable: UncloseablePosition, text: str, *, is_suggested: bool) -> Alert:
    """A position without a hedge. A suggestion is news after the finding that nothing fits, and not the reverse.

    So is a suggestion for more contracts than any before.
    """
    account, symbol, side = uncloseable.key
    of = uncloseable.decision
    return Alert(
        f"hedge/{account}/{symbol}/{side}",
        "page",
        _text(uncloseable, text),
        NoticeGroup(of.policy, of.scope, "blocked", symbol),
        over=f"hedge: {side} {symbol} on {account} needs no hedge any more",
        measure=(uncloseable.contracts if is_suggested else ZERO,),
    )


def _notice(uncloseable: UncloseablePosition, now: int, text: str) -> Notice:
    of, symbol = uncloseable.decision, uncloseable.key[1]
    return Notice(
        from_micros(now),
        of.policy,
        of.scope,
        "blocked",
        "page",
        _text(uncloseable, text),
        symbol,
        title="a temporary hedge is opened",
    )
