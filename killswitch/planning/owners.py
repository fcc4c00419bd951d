"""Owners in planning: what may be closed of a position for a strategy, and whose part each close of ours closes.

In one-way mode several strategies share one net position. A close for one of them reduces it by at most its own part in
the direction of the position, and leaves the rest to its owners. Parts of different strategies add up, so that a close
that is planned while another is in progress continues below the target of that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.decision import Decision, Intent, OwnClose
from killswitch.model.instant import to_micros
from killswitch.model.own_order_ids import decision_in
from killswitch.model.snapshot import IN_PROGRESS, AccountSnapshot, Fill, Snapshot
from killswitch.planning.targets.selection import SelectedTarget
from killswitch.valuation.own_quantities import DAY, OwnQuantities
from killswitch.valuation.ownership import AccountOwnership, StrategyRule, merged_rows
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import PnlKey, ScopeView


class Closable(Struct, frozen=True):
    """What a strategy may close of one position: down to `floor` contracts of what the venue shows.

    `parts`: whose contracts the close down to there takes: its own, and those of closes in progress that it continues.
    """

    own: Decimal
    floor: Decimal
    parts: tuple[OwnClose, ...]


class OwnTargets(Struct, frozen=True):
    """The targets of a stage that closes for a strategy, in contracts of its own, and what bounds each of them.

    `remarks`: what is not closable because others own it.
    """

    targets: Sequence[SelectedTarget]
    closable: Mapping[PnlKey, Closable]
    remarks: tuple[str, ...] = ()


class Owners:
    """The owners of positions and orders, and the closes of ours that take parts of strategies."""

    def __init__(self, rules: Sequence[StrategyRule]) -> None:
        self._quantities = OwnQuantities(rules, self._owners_of_close)
        self._closes: dict[PnlKey, dict[str, tuple[int, tuple[OwnClose, ...]]]] = {}
        """Position → decision → when it was made, and the parts that it closes (none: nobody's)."""
        self._working: frozenset[str] = frozenset()
        self._planned: set[str] = set()

    def observe(self, snapshot: Snapshot, now: int) -> Mapping[str, AccountOwnership]:
        """Fold a snapshot; account → the owners in it."""
        if not self._quantities.rules:
            return {}
        self._planned.clear()
        self._working = frozenset(each.decision for each in snapshot.closings if each.status in IN_PROGRESS)
        self._closes = {
            key: kept
            for key, closes in self._closes.items()
            if (kept := {id_: each for id_, each in closes.items() if id_ in self._working or each[0] > now - DAY})
        }
        found = self._quantities.observe(snapshot.accounts, now)
        for event in snapshot.events:
            for account in snapshot.accounts if event.kind == "reset" else ():
                if self._concerns(event.scope, account):
                    self._quantities.accept(account.account)
        return found

    def _concerns(self, scope: str | None, account: AccountSnapshot) -> bool:
        """Whether a reset of the scope is a reset of the account."""
        kind, _, name = (scope or "portfolio").partition("/")
        if kind == "strategy":
            names = (account.account, account.venue, account.market, account.currency)
            return any(rule.name == name and rule.covers(*names) for rule in self._quantities.rules)
        return kind == "portfolio" or (kind, name) in (("account", account.account), ("venue", account.venue))

    def preview(self, accounts: Iterable[AccountSnapshot]) -> Mapping[str, AccountOwnership]:
        """The owners in a second snapshot, whose fills are not folded."""
        return deepcopy(self._quantities).observe(tuple(replace(each, fills=None) for each in accounts), 0)

    def plan(self, decision: Decision) -> None:
        """Remember what a decision of this tick closes, so that later ones of the tick continue below it."""
        if decision.mode == "enforce":
            self.remember(decision)
            self._planned.add(decision.id)

    def remember(self, decision: Decision) -> None:
        """Remember whose parts the decision closes."""
        for intent in decision.intents if self._quantities.rules else ():
            key = (intent.account, intent.symbol, intent.position_side)
            self._closes.setdefault(key, {})[decision.id] = (to_micros(decision.as_of), intent.parts)

    def changed(self) -> bytes | None:
        """The own quantities as JSON; None if they are as at the last call."""
        return self._quantities.changed()

    def restore(self, blob: bytes | None, past: Iterable[Decision]) -> None:
        """Restore the own quantities of an earlier run, and the closes of its decisions; DamagedStateError."""
        self._quantities.restore(blob)
        for decision in past:
            if decision.mode == "enforce":
                self.remember(decision)

    def limited(self, view: ScopeView, targets: Sequence[SelectedTarget]) -> OwnTargets:
        """The targets of a close for the view's strategy, as far as they are closable."""
        if view.part is None or view.part.kind != "strategy":
            return OwnTargets(targets, {})
        kept: list[SelectedTarget] = []
        closable: dict[PnlKey, Closable] = {}
        remarks: list[str] = []
        for target in targets:
            position, key = target.ranked.candidate.position, target.ranked.candidate.key
            wanted = position.contracts - target.contracts
            found = self._closable(view, key, view.part.name, wanted)
            if found.own < wanted:
                rest = f"{wanted - found.own} of {position.symbol} {position.side} in {key[0]}"
                remarks.append(f"{rest} is not closable: owned by others, or held against them")
            if found.own > ZERO or not wanted:
                closable[key] = found
                kept.append(replace(target, contracts=position.contracts - found.own))
        return OwnTargets(kept, closable, tuple(remarks))

    def _closable(self, view: ScopeView, key: PnlKey, strategy: str, wanted: Decimal) -> Closable:
        account, symbol, side = key
        at_venue = view.at_venue(account)
        rows = {} if at_venue is None else merged_rows(at_venue.positions or ())
        shown = next((row.contracts for each, row in rows.items() if each == (symbol, side)), ZERO)
        others = [
            part
            for id_, (_, parts) in self._closes.get(key, {}).items()
            if id_ in self._working or id_ in self._planned
            for part in parts
            if part.strategy != strategy
        ]
        floor = max(shown - sum((self._left(view, key, part) for part in others), ZERO), ZERO)
        own = min(wanted, floor)
        left = [OwnClose(part.strategy, self._left(view, key, part)) for part in others]
        return Closable(own, floor - own, (OwnClose(strategy, own), *(each for each in left if each.contracts)))

    @staticmethod
    def _left(view: ScopeView, key: PnlKey, part: OwnClose) -> Decimal:
        """What is left of a part that a close of ours takes: not more than its owner still has."""
        parts = view.owned(key[0]).parts
        held = next((own for (symbol, side), own in parts.items() if (symbol, side) == key[1:]), {}).get(part.strategy)
        size = ZERO if held is None or held.side != key[2] else abs(held.contracts)
        return min(part.contracts, size)

    def _owners_of_close(self, account: str, fill: Fill) -> Sequence[tuple[str, Decimal]]:
        """The parts that a fill of ours closes: those of the decision in its id, else of the newest on the position."""
        side = "long" if fill.side == "sell" else "short"
        closes = self._closes.get((account, fill.symbol, side), {})
        named = closes.get(decision_in(fill.client_order_id or "") or "")
        newest = named or max(closes.values(), key=lambda each: each[0], default=(0, ()))
        return [(part.strategy, part.contracts) for part in newest[1]]


def with_owners(intents: Sequence[Intent], closable: Mapping[PnlKey, Closable]) -> tuple[Intent, ...]:
    """The intents of a close for a strategy, with the targets of the positions at the venue and the owners' parts.

    Rounding to the venue's steps takes nothing of others. A close that continues others adds what they have not closed.
    """
    left = {key: own.own + own.floor for key, own in closable.items()}
    kept: list[Intent] = []
    for intent in intents:
        key = _key(intent)
        contracts = min(intent.contracts, left.get(key, intent.contracts))
        if key in left:
            left[key] -= contracts
        if contracts > ZERO:
            kept.append(replace(intent, contracts=contracts))
    continued: set[PnlKey] = set()
    return tuple(_with_parts(intent, closable, left, continued) for intent in kept)


def _with_parts(
    intent: Intent, closable: Mapping[PnlKey, Closable], left: Mapping[PnlKey, Decimal], continued: set[PnlKey]
) -> Intent:
    """The intent with its parts; the first one of a position also takes what closes in progress have not closed."""
    key = _key(intent)
    found = closable.get(key)
    if found is None:
        return intent
    own, *others = found.parts
    more = ZERO if key in continued else sum((part.contracts for part in others), ZERO)
    continued.add(key)
    closed = OwnClose(own.strategy, found.own + found.floor - left[key])
    return replace(intent, contracts=intent.contracts + more, target=left[key], parts=(closed, *others))


def _key(intent: Intent) -> PnlKey:
    return (intent.account, intent.symbol, intent.position_side)
