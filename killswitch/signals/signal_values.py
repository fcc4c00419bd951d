"""Evaluation of signals: the columns of a tick, of a position, and of future bars in a backtest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.declaration import BoolSignal, LookAhead, PositionSignal, ScopeSignal, TextSignal
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import Interval, known
from killswitch.valuation.scope_view import ScopeView

if TYPE_CHECKING:
    from killswitch.signals.arguments import Value
    from killswitch.signals.declaration import BoolReader, Bounds, EquityPath, RankedPosition, ScopeReader, TextReader
    from killswitch.signals.history.collector import Collector


class SignalReference(Protocol):
    """The graph's reference to a signal: its catalogue name, and the values of its arguments."""

    @property
    def name(self) -> str: ...

    @property
    def arguments(self) -> tuple[Value, ...]: ...


class SignalColumns(Struct):
    """The values of one tick, by index in the graph's signals: intervals [lo, hi], and texts of text signals."""

    lo: list[float]
    hi: list[float]
    text: list[str | None]


class ColumnReader:
    """Reads the columns of a graph's signals."""

    def __init__(self, references: Sequence[SignalReference]) -> None:
        self._size = len(references)
        self._numbers: list[tuple[int, ScopeReader, tuple[Value, ...]]] = []
        self._truths: list[tuple[int, BoolReader, tuple[Value, ...]]] = []
        self._texts: list[tuple[int, TextReader, tuple[Value, ...]]] = []
        for index, reference in enumerate(references):
            values = _values(reference)
            match BY_NAME[reference.name]:
                case TextSignal() as spec:
                    self._texts.append((index, spec.reader, values))
                case BoolSignal() as spec:
                    self._truths.append((index, spec.reader, values))
                case ScopeSignal() as spec:
                    self._numbers.append((index, spec.reader, values))
                case _:
                    raise TypeError(f"{reference.name} is not a scope signal")

    def read(self, history: History, view: ScopeView) -> SignalColumns:
        """The current columns. `history` has observed `view`, or assumes another equity for it."""
        (columns,) = self.read_each([(history, view)])
        return columns

    def _read_one(self, history: History, view: ScopeView) -> SignalColumns:
        size = self._size
        found = SignalColumns([-math.inf] * size, [math.inf] * size, [None] * size if self._texts else [])
        lo, hi = found.lo, found.hi
        for index, number, values in self._numbers:
            lo[index], hi[index] = number(history, view, *values)
        for index, truth, values in self._truths:
            holds = truth(history, view, *values)
            lo[index], hi[index] = (0.0, 1.0) if holds is None else (float(holds), float(holds))
        for index, reader, values in self._texts:
            found.text[index] = reader(history, view, *values)
        return found

    def read_each(self, scopes: Sequence[tuple[History, ScopeView]]) -> list[SignalColumns]:
        """The current columns of several scopes: each signal of all of them, which keeps its code in the caches."""
        size, has_texts = self._size, bool(self._texts)
        if len(scopes) == 1:
            return [self._read_one(*scopes[0])]
        found = [
            SignalColumns([-math.inf] * size, [math.inf] * size, [None] * size if has_texts else []) for _ in scopes
        ]
        rows = [(history, view, it.lo, it.hi) for (history, view), it in zip(scopes, found, strict=True)]
        for index, number, values in self._numbers:
            for history, view, lo, hi in rows:
                lo[index], hi[index] = number(history, view, *values)
        for index, truth, values in self._truths:
            for history, view, lo, hi in rows:
                holds = truth(history, view, *values)
                lo[index], hi[index] = (0.0, 1.0) if holds is None else (float(holds), float(holds))
        for index, reader, values in self._texts:
            for (history, view), columns in zip(scopes, found, strict=True):
                columns.text[index] = reader(history, view, *values)
        return found


def position_columns(references: Iterable[SignalReference], ranked: RankedPosition) -> SignalColumns:
    """The columns of signals of one position."""
    intervals = [_of_position(reference, ranked) for reference in references]
    return SignalColumns([low for low, _ in intervals], [high for _, high in intervals], [])


def _of_position(reference: SignalReference, ranked: RankedPosition) -> Interval:
    spec = BY_NAME[reference.name]
    if not isinstance(spec, PositionSignal):
        raise TypeError(f"{reference.name} is not a position signal")
    return known(spec.reader(ranked, *_values(reference)))


def bounds_ahead(reference: SignalReference, path: EquityPath) -> Bounds | LookAhead:
    """The signal's bounds at each bar of the path, or its declared look-ahead."""
    match BY_NAME[reference.name]:
        case ScopeSignal(look_ahead=look_ahead):
            return look_ahead if isinstance(look_ahead, LookAhead) else look_ahead(path, *_values(reference))
        case _:
            return LookAhead.NO_LOOK_AHEAD


def has_look_ahead(reference: SignalReference) -> bool:
    """Whether a backtest can bound the signal at bars to come; a policy that reads another is ticked at every bar."""
    spec = BY_NAME[reference.name]
    return isinstance(spec, ScopeSignal) and spec.look_ahead is not LookAhead.NO_LOOK_AHEAD


def _values(reference: SignalReference) -> tuple[Value, ...]:
    wanted = len(BY_NAME[reference.name].arguments)
    if len(reference.arguments) != wanted:
        raise LookupError(f"{reference.name} takes {wanted} arguments, and {len(reference.arguments)} are given")
    return reference.arguments


def _durations(reference: SignalReference) -> Iterator[int]:
    """The durations that the history of the scope must reach back."""
    for argument, value in zip(BY_NAME[reference.name].arguments, _values(reference), strict=True):
        if argument.looks_back and isinstance(value, int):
            yield value


def kept_highest(references: Iterable[SignalReference]) -> tuple[int, ...]:
    """The windows whose highest unit value the history keeps, in microseconds, each once."""
    kept = (each for each in references if BY_NAME[each.name].keeps_highest)
    return tuple(sorted({window for each in kept for window in _durations(each)}))


def longest_window(references: Iterable[SignalReference]) -> int:
    """The longest window of the references, microseconds; 0 without any."""
    return max((window for each in references for window in _durations(each)), default=0)


def collector_needs(references: Iterable[SignalReference]) -> dict[type[Collector], list[Mapping[str, Value]]]:
    """The collectors that the references read, with the arguments of each."""
    found: dict[type[Collector], list[Mapping[str, Value]]] = {}
    for each in references:
        spec = BY_NAME[each.name]
        keys = [argument.key for argument in spec.arguments]
        for kind in spec.collects:
            found.setdefault(kind, []).append(dict(zip(keys, _values(each), strict=True)))
    return found
