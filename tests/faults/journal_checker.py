"""Compares the journal with the truth at the moment at which something is written, sent or executed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

from msgspec import Struct

from killswitch.model.decision import Decision
from killswitch.model.store import JournalEntry, StoredDecision, TickRecord
from killswitch.model.venue import OrderRequest
from tests.faults.exchange import ZERO, Deed, Exchange, Key


class MemoryJournal:
    """What closing needs of a store, in memory. A transaction is whole or not at all, as in a real store."""

    def __init__(self) -> None:
        self.entries: list[JournalEntry] = []
        self._decisions: dict[str, Decision] = {}

    def append(self, entry: JournalEntry) -> int:
        self.append_all((entry,))
        return len(self.entries)

    def append_all(self, entries: Sequence[JournalEntry]) -> None:
        first = len(self.entries) + 1
        numbers = range(first, first + len(entries))
        self.entries += [
            JournalEntry(
                it.decision, it.kind, it.at, it.account, it.symbol, it.position_side, it.client_order_id, it.attempt,
                dict(it.data), number,
            )
            for it, number in zip(entries, numbers, strict=True)
        ]  # fmt: skip

    def commit_tick(self, record: TickRecord) -> None:
        self._decisions |= {decision.id: decision for decision in record.decisions}
        self.append_all(record.journal)

    def journal(self, decision: str | None = None) -> Sequence[JournalEntry]:
        return [it for it in self.entries if decision in (None, it.decision)]

    def journal_from(self, sequence: int) -> Sequence[JournalEntry]:
        return [it for it in self.entries if it.sequence >= sequence]

    def decision(self, id_prefix: str) -> StoredDecision | None:
        found = [it for name, it in self._decisions.items() if name.startswith(id_prefix)]
        return StoredDecision(found[0], None) if found else None

    def unfinished(self) -> Sequence[StoredDecision]:
        planned = {(it.decision, it.account) for it in self.entries if it.kind == "planned"}
        finished = {(it.decision, it.account) for it in self.entries if it.kind == "finished"}
        open_ones = {decision for decision, _ in planned - finished}
        return [StoredDecision(it, None) for name, it in self._decisions.items() if name in open_ones]

    def decisions(self, limit: int) -> Sequence[StoredDecision]:
        newest = list(self._decisions.values())[::-1][:limit]
        return [StoredDecision(it, None) for it in newest]


class JournalChecker:
    """Sits between closing, its journal and the exchange, and records every false entry and every violation.

    It is the journal that closing is given. `watch` is called with every order that is sent.
    """

    def __init__(self, store: Any, exchange: Exchange) -> None:
        self._store = store
        self._exchange = exchange
        self._allowed: dict[str, tuple[str, str]] = {}
        self._swept = False
        self.violations: list[str] = []
        self.first_sent: float | None = None
        self.misled_since: Callable[[float], bool] = lambda since: False
        """Whether an answer left out positions since then."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append(self, entry: JournalEntry) -> int:
        number: int = self._store.append(entry)
        self._written(entry)
        return number

    def append_all(self, entries: Sequence[JournalEntry]) -> None:
        self._store.append_all(entries)
        for entry in entries:
            self._written(entry)

    def watch(self, request: OrderRequest) -> None:
        """An order is sent: the journal must have exactly this order."""
        if self.first_sent is None:
            self.first_sent = self._exchange.now()[0]
        written = self._allowed.get(request.client_order_id)
        if written is None:
            self.violations.append(f"{request.client_order_id} was sent, and no entry says so")
        elif written != (request.side, str(request.amount)):
            self.violations.append(
                f"{request.client_order_id}: {request.side} {request.amount} was sent, {written} journaled"
            )

    def sent(self) -> set[str]:
        """Client order ids that the journal knows."""
        return set(self._allowed)

    def _written(self, entry: JournalEntry) -> None:
        if entry.kind in ("sending", "protected") and entry.client_order_id is not None:
            self._allowed[entry.client_order_id] = (entry.data.get("side") or "", entry.data.get("amount") or "")
        if entry.kind == "swept":
            self._swept = True
        if entry.kind == "finished" and entry.data.get("status") == "flat":
            self._compare_with_truth(entry)

    def _compare_with_truth(self, finished: JournalEntry) -> None:
        stored = self._store.decision(finished.decision)
        for intent in stored.decision.intents:
            if intent.account != finished.account or intent.purpose != "reduce":
                continue
            least = self._least_lately((intent.symbol, intent.position_side))
            if least > intent.target:
                self.violations.append(
                    f"{finished.decision} is flat, it says, and {intent.symbol} {intent.position_side} is {least}"
                )

    def _least_lately(self, key: Key) -> Decimal:
        """The least that was held in the time that the venue's answer may be old: others may open again meanwhile.

        Where others have opened something that one wrong answer left out, nobody could have known.
        """
        since = self._exchange.now()[0] - 8.0
        opened = any(deed.key == key and deed.actor == "hand" and deed.closed < ZERO for deed in self._exchange.deeds)
        if opened and self.misled_since(since):
            return ZERO
        held = self._exchange.held.get(key, ZERO)
        lately = [deed for deed in self._exchange.deeds if deed.key == key and deed.at >= since]
        return min([held, *(deed.before for deed in lately), *(deed.after for deed in lately)])


class Bound(Struct):
    """What may be closed of one position at most, over all decisions about it: `start` is what the first found."""

    start: Decimal
    target: Decimal
    first: float
    last: float

    def also(self, target: Decimal, at: float) -> None:
        """Include another decision."""
        self.target, self.last = min(self.target, target), at


def overclosed(exchange: Exchange, key: Key, bound: Bound) -> str | None:
    """What our orders closed of a position beyond what was decided; None if nothing.

    What others opened before a decision was decided on too, and what they open later may be closed where everything
    is to be closed; what others closed is not ours to close.
    """
    deeds = [deed for deed in exchange.deeds if deed.key == key and deed.at >= bound.first]
    ours = [deed for deed in deeds if deed.actor in ("ours", "sweep") and deed.closed > ZERO]
    closed = sum((deed.closed for deed in ours), ZERO)
    until = float("inf") if bound.target == ZERO else bound.last
    by_others = [deed for deed in deeds if deed.actor == "hand" and deed.closed < ZERO and deed.at <= until]
    opened = sum((-deed.closed for deed in by_others), ZERO)
    if closed > bound.start + opened - bound.target:
        return f"{closed} of {key} were closed, of {bound}, {opened} opened by others"
    untouched = not any(deed.actor not in ("ours", "sweep") for deed in deeds)
    below = [deed for deed in ours if deed.after < bound.target]
    if untouched and below:
        return f"{key} fell to {below[0].after}, below the target {bound.target}"
    return None


def wrong_stops(exchange: Exchange, journal: Sequence[JournalEntry], keys: Iterable[Key]) -> list[str]:
    """Positions that have lost their stop without a journal entry, or have it twice.

    The venue removes the stop of a position that was closed; whoever opens it again has none, and that is their affair.
    """
    closed = {deed.key for deed in exchange.deeds if deed.after == ZERO}
    reported = [it for it in journal if it.kind == "guarded" and it.data["state"] != "resting"]
    excused = {(it.symbol, it.position_side) for it in reported}
    found = []
    for key in keys:
        stops = [it for it in exchange.resting() if it.reduce_only and (it.symbol, it.position_side) == key]
        if len(stops) > 1:
            found.append(f"{key} has {len(stops)} stops")
        if exchange.held[key] > ZERO and not stops and key not in excused | closed:
            found.append(f"{key} stands naked with {exchange.held[key]}")
    return found


def orphans(exchange: Exchange, checker: JournalChecker) -> list[Deed]:
    """Deeds of ours under an id that the journal does not know."""
    known = checker.sent()
    return [deed for deed in exchange.deeds if deed.actor == "ours" and deed.name not in known]
