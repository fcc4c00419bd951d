"""Collectors: what signals need of past snapshots beyond unit values, folded once for all signals of a scope."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar, cast

from msgspec import Raw
from msgspec import json as msgjson

from killswitch.signals.arguments import Value

if TYPE_CHECKING:  # `ksctl validate` imports this module through the catalogue, and needs no views
    from decimal import Decimal

    from killswitch.signals.history.rows import Correction
    from killswitch.valuation.scope_view import ScopeView
    from killswitch.valuation.unit_value import UnitValueTrack

Needs = Sequence[Mapping[str, Value]]
"""The arguments, by key, of each signal in use that reads a collector."""

_ENCODER = msgjson.Encoder(decimal_format="string")


class EquityRecord(Protocol):
    """What a history has recorded of the equity of the last snapshot in which it was known."""

    unknown: str | None
    last_at: int | None
    corrected_now: list[Correction]
    track: UnitValueTrack

    @property
    def current_equity(self) -> Decimal | None: ...


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

    def record(self, history: EquityRecord) -> None:  # noqa: B027 - most collectors need no unit values
        """Add the unit value of the snapshot, after its equity was explained; not called while equity is unknown."""

    def correct(self, correction: Correction) -> None:  # noqa: B027 - as above
        """Apply a correction of earlier unit values."""

    @abstractmethod
    def restart(self, now: int, *, accept: bool) -> None:
        """A reset: windows begin at `now` and count as complete; with `accept` (by an operator) bases are renewed."""

    @abstractmethod
    def state(self) -> object:
        """What `restore` needs, in types that msgspec encodes as JSON."""

    @abstractmethod
    def restore(self, stored: bytes) -> None:
        """Restore an encoded state, also of another version or with other arguments. MsgspecError if damaged."""


C = TypeVar("C", bound=Collector)


class Collectors:
    """The collectors of one scope, by class."""

    def __init__(self, needs: Mapping[type[Collector], Needs], max_gap: int) -> None:
        self._by_class = {kind: kind(arguments, max_gap) for kind, arguments in needs.items()}

    def of(self, kind: type[C]) -> C:
        """The collector of this class; KeyError if no signal in use declares it."""
        return cast(C, self._by_class[kind])

    def get(self, kind: type[C]) -> C | None:
        """The collector of this class; None if nothing in use reads it."""
        return cast("C | None", self._by_class.get(kind))

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Add a snapshot to each."""
        for each in self._by_class.values():
            each.observe(view, before)

    def record(self, history: EquityRecord) -> None:
        """Add the unit value of the snapshot to each, and its corrections of earlier ones."""
        for correction in history.corrected_now:
            self.correct(correction)
        for each in self._by_class.values():
            each.record(history)

    def correct(self, correction: Correction) -> None:
        """Apply a correction of earlier unit values to each."""
        for each in self._by_class.values():
            each.correct(correction)

    def restart(self, now: int, *, accept: bool) -> None:
        """Restart the windows of each."""
        for each in self._by_class.values():
            each.restart(now, accept=accept)

    def state(self) -> dict[str, Raw]:
        """The state of each, by its name."""
        return {each.name: Raw(_ENCODER.encode(each.state())) for each in self._by_class.values()}

    def restore(self, stored: Mapping[str, Raw]) -> None:
        """Restore those that are stored; the others begin now. msgspec.MsgspecError if one is damaged."""
        for each in self._by_class.values():
            if (state := stored.get(each.name)) is not None:
                each.restore(bytes(state))


NO_COLLECTORS: Mapping[type[Collector], Needs] = {}
