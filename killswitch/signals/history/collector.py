"""Collectors: what signals need of past snapshots beyond unit values, folded once for all signals of a scope."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar, cast

from msgspec import Raw
from msgspec import json as msgjson

from killswitch.signals.arguments import Value

if TYPE_CHECKING:  # `ksctl validate` imports this module through the catalogue, and needs no views
    from decimal import Decimal

    from killswitch.model.words import ChangeCause
    from killswitch.pnl_explain.explanation import EquityTerms
    from killswitch.pnl_explain.ledger import ScopeLedger
    from killswitch.pnl_explain.pending_changes import UnexplainedChanges
    from killswitch.signals.history.rows import Correction, UnitValueRow
    from killswitch.valuation.scope_view import ScopeView

Needs = Sequence[Mapping[str, Value]]
"""The arguments, by key, of each signal in use that reads a collector."""

_ENCODER = msgjson.Encoder(decimal_format="string")


class Collector(ABC):
    """Something that is collected from the snapshots of a scope, such as its round trips or samples of prices.

    A signal declares in `collects` what it reads; a scope has one collector of a class, made with the arguments of all
    signals that read it. It observes every snapshot, also those in which equity is unknown.
    """

    name: ClassVar[str]
    """The key of its stored state."""

    @abstractmethod
    def __init__(self, needs: Needs, max_gap: int) -> None:
        """`max_gap`: the longest gap between observations within which nothing is missed (microseconds)."""

    @abstractmethod
    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Add a snapshot. `before`: the snapshot observed last, in this run."""

    @abstractmethod
    def restart(self, now: int, *, accept: bool) -> None:
        """A reset: windows begin at `now` and count as complete; with `accept` (by an operator) bases are renewed."""

    @abstractmethod
    def state(self) -> object:
        """What `restore` needs, in types that msgspec encodes as JSON."""

    @abstractmethod
    def restore(self, stored: bytes) -> None:
        """Restore an encoded state, also of another version or with other arguments. MsgspecError if damaged."""


class FollowedHistory(Protocol):
    """What a collector that follows a scope's history reads of it."""

    view: ScopeView | None
    rows: deque[UnitValueRow]
    members: frozenset[str]
    transferred: Decimal

    @property
    def terms(self) -> EquityTerms: ...

    @property
    def ledger(self) -> ScopeLedger: ...

    @property
    def changes(self) -> UnexplainedChanges: ...


class HistoryCollector(Collector):
    """A collector that follows the scope's equity and unit value, as transfers and corrections leave them."""

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Nothing: it follows the history once that has observed the snapshot."""

    @classmethod
    def reach(cls, max_gap: int) -> int:
        """How far back it reads the history's rows, microseconds."""
        return 0

    @abstractmethod
    def follow(self, history: FollowedHistory, equity: Decimal | None) -> None:
        """Follow the history after a snapshot, whose unit value is that of its newest row.

        `equity`: in the scope's currency; None if it is unknown, and there is no row. It follows once more, with a
        lower equity and unit value, if a price of the snapshot was not corroborated.
        """

    def correct(self, correction: Correction) -> None:
        """A change of equity was identified: unit values since then, and the money moved, are corrected."""

    def restate(self, change: str, cause: ChangeCause, now: int) -> None:
        """An operator has restated an unexplained change, see `History.restate`."""

    def begin_series(self) -> None:
        """Earlier unit values are comparable with no later one: everything was lost, or accounts have left."""


C = TypeVar("C", bound=Collector)


class Collectors:
    """The collectors of one scope, by class."""

    def __init__(self, needs: Mapping[type[Collector], Needs], max_gap: int) -> None:
        self._by_class = {kind: kind(arguments, max_gap) for kind, arguments in needs.items()}
        self.all: Sequence[Collector] = tuple(self._by_class.values())
        self.following = tuple(each for each in self.all if isinstance(each, HistoryCollector))

    def of(self, kind: type[C]) -> C:
        """The collector of this class; KeyError if no signal in use declares it."""
        return cast(C, self._by_class[kind])

    def get(self, kind: type[C]) -> C | None:
        """The collector of this class; None if nothing in use reads it."""
        return cast("C | None", self._by_class.get(kind))

    def follow(self, history: FollowedHistory, equity: Decimal | None) -> None:
        """Let those that follow the history do so."""
        follow_each([(self, history, equity)])

    def correct(self, correction: Correction) -> None:
        """Correct the values that they keep."""
        for each in self.following:
            each.correct(correction)

    def restate(self, change: str, cause: ChangeCause, now: int) -> None:
        """Restate a change in each history that they keep."""
        for each in self.following:
            each.restate(change, cause, now)

    def begin_series(self) -> None:
        """Drop the values that they keep."""
        for each in self.following:
            each.begin_series()

    def restart(self, now: int, *, accept: bool) -> None:
        """Restart the windows of each."""
        for each in self.all:
            each.restart(now, accept=accept)

    def state(self) -> dict[str, Raw]:
        """The state of each, by its name."""
        return {each.name: Raw(_ENCODER.encode(each.state())) for each in self._by_class.values()}

    def restore(self, stored: Mapping[str, Raw]) -> None:
        """Restore those that are stored; the others begin now. msgspec.MsgspecError if one is damaged."""
        for each in self._by_class.values():
            if (state := stored.get(each.name)) is not None:
                each.restore(bytes(state))


def observe_each(scopes: Sequence[tuple[Collectors, ScopeView, ScopeView | None]]) -> None:
    """Add the snapshot of each scope to its collectors, which are of the same classes: one class after the other.

    With the view of each, the one before.
    """
    if len(scopes) == 1:  # with one scope nothing is gained by it
        ((collectors, view, before),) = scopes
        for each in collectors.all:
            each.observe(view, before)
        return
    for of_class in zip(*(collectors.all for collectors, _, _ in scopes), strict=True):
        for each, (_, view, before) in zip(of_class, scopes, strict=True):
            each.observe(view, before)


def follow_each(scopes: Sequence[tuple[Collectors, FollowedHistory, Decimal | None]]) -> None:
    """Let those that follow the history of each scope, with its equity, do so: one class after the other."""
    if len(scopes) == 1:
        ((collectors, history, equity),) = scopes
        for one in collectors.following:
            one.follow(history, equity)
        return
    for of_class in zip(*(collectors.following for collectors, _, _ in scopes), strict=True):
        for each, (_, history, equity) in zip(of_class, scopes, strict=True):
            each.follow(history, equity)


def reach(collectors: Iterable[type[Collector]], max_gap: int) -> int:
    """How far back the collectors read the history's rows, microseconds."""
    return max((each.reach(max_gap) for each in collectors if issubclass(each, HistoryCollector)), default=0)


NO_COLLECTORS: Mapping[type[Collector], Needs] = {}
