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
from killswitch.model.decision import Decision, Intent, Notice, decision_id
from killswitch.model.instant import MINUTE, from_micros
from killswitch.model.snapshot import AccountSnapshot, Residual, Snapshot
from killswitch.planning.hedge.proxy_hedge import SAMPLE, HedgeData, Sized, size
from killswitch.planning.hedge.uncloseable import Obstacles, TickAccounts, UncloseablePosition, Watched, is_dust
from killswitch.planning.orders.unwind import declared_unwinding
from killswitch.planning.rounding import CLOSED_STATES
from killswitch.signals.history.marks import Marks
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import Instruments, PnlKey, ScopeView
from killswitch.valuation.trust import reason_untrusted

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
    `earlier_notices`: notices of earlier runs; None if unknown.
    """

    def __init__(
        self, policies: PolicySet, armed: Collection[str] | None = None, earlier_notices: Iterable[Notice] | None = None
    ) -> None:
        self._policies = policies
        self.armed = armed
        self._rules = {rule.name: rule for rule in policies.unwindings if rule.hedge.instruments}
        self._observing = frozenset(graph.policy for graph in policies.graphs if graph.mode == "observe")
        keep = max((rule.hedge.window for rule in self._rules.values()), default=0)
        self._marks = Marks(SAMPLE, keep, LONGEST_GAP)
        self._decisions: dict[str, Decision] = {}
        self._obstacles = Obstacles()
        self._seen = TickAccounts(0, {}, {}, {})
        self._uncloseable: list[UncloseablePosition] = []
        self._counted: set[str] = set()
        self._existing: dict[PnlKey, _ExistingHedge] = {}
        self._notified: set[tuple[PnlKey, str]] = set()
        self._earlier_notices = None if earlier_notices is None else tuple(earlier_notices)
        self._restored: set[str] = set()

    def restore(self, decisions: Iterable[Decision]) -> None:
        """Restore decisions from before a restart: those that may need a hedge, and the opened hedges."""
        for decision in decisions if self._rules else ():
            self.remember(decision)
            self._restored.add(decision.id)

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

    def observe(
        self, snapshot: Snapshot, now: int, last: Mapping[str, AccountSnapshot], instruments: Instruments
    ) -> bool:
        """Observe a snapshot; True if `plan` has work. `last`: the last good snapshot of each account."""
        if not self._rules:
            return False
        self._sample(snapshot, now, instruments)
        accounts = {account.account: account for account in snapshot.accounts}
        self._seen = TickAccounts(now, accounts, last, instruments)
        self._forget(snapshot)
        # the largest part first: it contains what other decisions would close of the same position
        found = self._obstacles.uncloseable(self._watched(snapshot), self._seen)
        self._uncloseable = sorted(found, key=lambda each: -each.contracts)
        return bool(self._uncloseable)

    def plan(self, busy: Collection[str]) -> tuple[list[Decision], list[Notice]]:
        """Hedge decisions for the last observed snapshot, and their notices.

        A hedge is opened or suggested once; if no instrument fits, that is notified once and retried at the next tick.
        """
        decisions: list[Decision] = []
        issued: list[Notice] = []
        seen = self._seen
        world = HedgeData(seen.now, seen.accounts, seen.last, seen.instruments, self._marks, busy, self.armed)
        for uncloseable in self._uncloseable:
            rule = self._rule_of(uncloseable.decision)
            part = self._uncovered(uncloseable)
            if rule is None or part is None:
                continue
            existing = self._existing.get(part.key, _NOTHING)
            found = size(part, rule, world, existing.orders)
            if isinstance(found, str):
                # A suggestion was notified already: only the market, or the data of this process, has changed since.
                if (part.key, SUGGESTED) not in self._notified and not self._was_notified(part, SUGGESTED):
                    self._notify_once(part, f"nothing can stand in: {found}", "nothing can stand in", issued)
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
                self._notify_once(part, f"{SUGGESTED}: {found.text}{not_opened}", SUGGESTED, issued)
        return decisions, issued

    def _sample(self, snapshot: Snapshot, now: int, instruments: Instruments) -> None:
        """Sample the marks of open markets; the mark of a halted market carries no information."""
        if not self._marks.is_due(now):
            return
        readable = [account for account in snapshot.accounts if reason_untrusted(account, now, None) is None]
        marks: dict[tuple[str, str], float] = {}
        for account, position in ScopeView(now, snapshot.scheduled, readable, instruments, None).positions():
            key = (account.account, position.symbol)
            shut = key in instruments and instruments[key].state in CLOSED_STATES
            if not shut and position.mark_price is not None and position.mark_price > ZERO:
                marks[key] = float(position.mark_price)
        self._marks.add(now, marks)

    def _forget(self, snapshot: Snapshot) -> None:
        """Drop decisions whose close is no longer shown, and hedges of positions that are gone.

        A position that appears after that is a new one.
        """
        shown = {closing.decision for closing in snapshot.closings}
        made = {id_ for id_, decision in self._decisions.items() if decision.as_of >= snapshot.as_of}
        self._decisions = {id_: each for id_, each in self._decisions.items() if id_ in shown or id_ in made}
        self._existing = {key: each for key, each in self._existing.items() if not self._is_closed(key)}
        self._notified = {(key, what) for key, what in self._notified if not self._is_closed(key)}

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

    def _notify_once(self, uncloseable: UncloseablePosition, text: str, what: str, issued: list[Notice]) -> None:
        """Notify once for each position, also across restarts."""
        if (uncloseable.key, what) not in self._notified:
            self._notified.add((uncloseable.key, what))
            if not self._was_notified(uncloseable, what):
                issued.append(_notice(uncloseable, self._seen.now, text))

    def _was_notified(self, uncloseable: UncloseablePosition, what: str) -> bool:
        """Whether an earlier run has notified this; if unknown, notices of ended closes count as sent."""
        of = uncloseable.decision
        if self._earlier_notices is None or of.id not in self._restored:
            return uncloseable.ended and of.id in self._restored
        account, symbol, side = uncloseable.key
        start, middle = f"hedge: {side} ", f" {symbol} on {account}, which "
        texts = (each.text for each in self._earlier_notices if each.as_of >= of.as_of)
        return any(each.startswith(start) and middle in each and what in each for each in texts)

    def _rule_of(self, decision: Decision) -> UnwindingRule | None:
        """The unwinding of the decision, if it has hedge instruments; None for decisions that are not acted on."""
        if decision.policy in self._observing or decision.kind in ("reset", "hedge"):
            return None
        rule = None if decision.unwinding is None else self._rules.get(decision.unwinding.name)
        built_in = decision.kind == "manual" and rule is not None and rule.name in OF_CAUSE
        if built_in and rule is not unwinding_for(decision.cause, self._policies.unwindings):
            return None  # a built-in unwinding and a document may both be named after the reason
        return rule


SUGGESTED = "suggested to stand in until it is closed"


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


def _notice(uncloseable: UncloseablePosition, now: int, text: str) -> Notice:
    of, about = uncloseable.decision, f"hedge: {_what(uncloseable)}: {text}"
    return Notice(from_micros(now), of.policy, of.scope, "blocked", "page", about, uncloseable.key[1])
