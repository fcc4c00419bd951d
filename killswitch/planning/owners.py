"""Owners in planning: what may be closed of a position for a strategy, and whose part each close of ours closes.

In one-way mode several strategies share one net position. A close for one of them reduces it by at most its own part in
the direction of the position, and leaves the rest to its owners. Parts of different strategies add up, so that a close
that is planned while another is in progress continues below the target of that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from decimal import Decimal
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.decision import Decision, Intent, OwnClose
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import IN_PROGRESS, AccountSnapshot, Event, Fill, Instrument, Snapshot
from killswitch.model.venue import decision_in
from killswitch.planning.targets.selection import SelectedTarget
from killswitch.valuation.own_quantities import DAY, OwnQuantities
from killswitch.valuation.ownership import AccountOwnership, BookKey, StrategyRule, merged_rows
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


class NotClosed(Struct, frozen=True):
    """Contracts of a position that a close which has ended has left of the parts of these strategies."""

    decision: str
    policy: str
    scope: str
    position: PnlKey
    contracts: Decimal
    strategies: tuple[str, ...]


class Owners:
    """The owners of positions and orders, and the closes of ours that take parts of strategies."""

    def __init__(self, rules: Sequence[StrategyRule]) -> None:
        self._quantities = OwnQuantities(rules, self._owners_of_close)
        self._closes: dict[PnlKey, dict[str, tuple[int, tuple[OwnClose, ...]]]] = {}
        """Position → decision → when it was made, and the parts that it closes (none: nobody's)."""
        self._working: frozenset[str] = frozenset()
        self._planned: set[str] = set()
        self._scopes: dict[str, tuple[str, str]] = {}
        """Decision → its policy and scope."""
        self._to_judge: set[str] = set()
        """Decisions whose close has ended, and of which it is not known yet whether it closed every part."""

    def reload(self, rules: Sequence[StrategyRule]) -> None:
        """Attribute later fills by the next set's strategies; what each holds, and what is being closed, stays."""
        self._quantities.rules = rules

    def observe(
        self,
        snapshot: Snapshot,
        now: int,
        events: Iterable[Event],
        instruments: Mapping[tuple[str, str], Instrument] = MappingProxyType({}),
    ) -> Mapping[str, AccountOwnership]:
        """Fold a snapshot; account → the owners in it. `events`: those that are carried out; a refused reset is not."""
        if not self._quantities.rules:
            return {}
        self._planned.clear()
        working = frozenset(each.decision for each in snapshot.closings if each.status in IN_PROGRESS)
        self._to_judge |= self._working - working
        self._working = working
        self._closes = {
            key: kept
            for key, closes in self._closes.items()
            if (kept := {id_: each for id_, each in closes.items() if id_ in self._working or each[0] > now - DAY})
        }
        known = {id_ for closes in self._closes.values() for id_ in closes}
        self._scopes = {id_: each for id_, each in self._scopes.items() if id_ in known}
        self._to_judge &= known
        found = self._quantities.observe(snapshot.accounts, now, instruments)
        for event in events:
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

    def forget_planned(self) -> None:
        """Forget what was planned in this tick, before its decisions are merged and remembered as they are."""
        for closes in self._closes.values():
            for id_ in self._planned & closes.keys():
                del closes[id_]
        self._planned.clear()

    def remember(self, decision: Decision) -> None:
        """Remember whose parts the decision closes."""
        self._scopes[decision.id] = (decision.policy, decision.scope)
        for intent in decision.intents if self._quantities.rules else ():
            key = (intent.account, intent.symbol, intent.position_side)
            self._closes.setdefault(key, {})[decision.id] = (to_micros(decision.as_of), intent.parts)

    def changed(self) -> bytes | None:
        """The own quantities as JSON; None if they are as at the last call."""
        self._quantities.awaited = (self._working | self._to_judge) & self._scopes.keys()
        return self._quantities.changed()

    def restore(self, blob: bytes | None, past: Iterable[Decision]) -> None:
        """Restore the own quantities of an earlier run, and the closes of its decisions; DamagedStateError."""
        self._quantities.restore(blob)
        for decision in past:
            if decision.mode == "enforce":
                self.remember(decision)
        self._working = self._quantities.awaited  # of those that have ended since, what they left is reported

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
        return min(part.contracts, _held({key[0]: view.owned(key[0])}, key, part.strategy))

    def _owners_of_close(self, account: str, fill: Fill) -> tuple[str, Sequence[tuple[str, Decimal]]]:
        """The decision in the id of a fill of ours, else the newest on the position, and the parts that it closes."""
        side = "long" if fill.side == "sell" else "short"
        closes = self._closes.get((account, fill.symbol, side), {})
        named = decision_in(fill.client_order_id or "")
        if named not in closes:
            named = max(closes, key=lambda id_: closes[id_][0], default=None)
        if named is None:
            return "", ()
        return named, [(part.strategy, part.contracts) for part in closes[named][1]]

    def not_closed(self, owned: Mapping[str, AccountOwnership]) -> list[NotClosed]:
        """What closes that have ended have left of the parts that they were to close, each once.

        The position may be at its target because another strategy has reduced its own part meanwhile.
        """
        found: list[NotClosed] = []
        for decision in sorted(self._to_judge):
            keys = [key for key, closes in self._closes.items() if decision in closes and closes[decision][1]]
            if any((key[1], key[2]) in _unknown_in(owned, key[0]) for key in keys):
                continue  # a fill is missing
            self._to_judge.discard(decision)
            for key in keys:
                parts = self._closes[key][decision][1]
                left = sum((part.contracts for part in parts), ZERO)
                left -= self._quantities.closed(decision, key[0], _book_key(key))
                own = sum((_held(owned, key, part.strategy) for part in parts), ZERO)
                if min(left, own) > ZERO:
                    names = tuple(part.strategy for part in parts)
                    found.append(NotClosed(decision, *self._scopes[decision], key, min(left, own), names))
        return found


def _book_key(key: PnlKey) -> BookKey:
    return key[1], "long" if key[2] == "long" else "short"


def _unknown_in(owned: Mapping[str, AccountOwnership], account: str) -> Mapping[BookKey, str]:
    return owned[account].unknown if account in owned else {}


def _held(owned: Mapping[str, AccountOwnership], key: PnlKey, strategy: str) -> Decimal:
    """The contracts that a strategy has of the position, in its direction."""
    return (owned[key[0]].held_by(strategy, _book_key(key)) or ZERO) if key[0] in owned else ZERO


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
