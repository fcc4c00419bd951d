"""Evaluation of signals: the columns of a tick, of a position, and of future bars in a backtest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.declaration import LookAhead, PositionSignal, ScopeSignal, TextSignal, WindowSignal
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import Interval, known
from killswitch.valuation.scope_view import ScopeView

if TYPE_CHECKING:
    from killswitch.signals.declaration import Bounds, EquityPath, RankedPosition, ScopeReader, TextReader, WindowReader


class SignalReference(Protocol):
    """The graph's reference to a signal: its catalogue name and its window (microseconds)."""

    @property
    def name(self) -> str: ...

    @property
    def window(self) -> int | None: ...


class SignalColumns(Struct):
    """The values of one tick, by index in the graph's signals: intervals [lo, hi], and texts of text signals."""

    lo: list[float]
    hi: list[float]
    text: list[str | None]


class ColumnReader:
    """Reads the columns of a graph's signals."""

    def __init__(self, references: Sequence[SignalReference]) -> None:
        self._size = len(references)
        self._windowed: list[tuple[int, WindowReader, int]] = []
        self._numbers: list[tuple[int, ScopeReader]] = []
        self._texts: list[tuple[int, TextReader, int]] = []
        for index, reference in enumerate(references):
            match BY_NAME[reference.name]:
                case WindowSignal() as spec:
                    self._windowed.append((index, spec.reader, _window(reference)))
                case TextSignal() as spec:
                    self._texts.append((index, spec.reader, _window(reference)))
                case ScopeSignal() as spec:
                    self._numbers.append((index, spec.reader))
                case _:
                    raise TypeError(f"{reference.name} is not a scope signal")

    def read(self, history: History, view: ScopeView) -> SignalColumns:
        """The current columns. `history` has observed `view`, or assumes another equity for it."""
        lo, hi = [-math.inf] * self._size, [math.inf] * self._size
        text: list[str | None] = [None] * self._size if self._texts else []
        for index, windowed, window in self._windowed:
            lo[index], hi[index] = windowed(history, window)
        for index, number in self._numbers:
            lo[index], hi[index] = number(history, view)
        for index, reader, window in self._texts:
            text[index] = reader(history, window)
        return SignalColumns(lo, hi, text)


def position_columns(references: Iterable[SignalReference], ranked: RankedPosition) -> SignalColumns:
    """The columns of signals of one position, over the window of the decision."""
    intervals = [_of_position(reference, ranked) for reference in references]
    return SignalColumns([low for low, _ in intervals], [high for _, high in intervals], [])


def _of_position(reference: SignalReference, ranked: RankedPosition) -> Interval:
    spec = BY_NAME[reference.name]
    if not isinstance(spec, PositionSignal):
        raise TypeError(f"{reference.name} is not a position signal")
    return known(spec.reader(ranked))


def bounds_ahead(reference: SignalReference, path: EquityPath) -> Bounds | LookAhead:
    """The signal's bounds at each bar of the path, or its declared look-ahead."""
    match BY_NAME[reference.name]:
        case WindowSignal(look_ahead=look_ahead):
            return look_ahead if isinstance(look_ahead, LookAhead) else look_ahead(path, _window(reference))
        case ScopeSignal(look_ahead=look_ahead):
            return look_ahead if isinstance(look_ahead, LookAhead) else look_ahead(path)
        case _:
            return LookAhead.NO_LOOK_AHEAD


def _window(reference: SignalReference) -> int:
    if reference.window is None:
        raise LookupError(f"{reference.name} requires a window, and none is given")
    return reference.window


def kept_highest(references: Iterable[SignalReference]) -> tuple[int, ...]:
    """The windows whose highest unit value the history keeps, in microseconds, each once."""
    return tuple(sorted({_window(each) for each in references if BY_NAME[each.name].keeps_highest}))


def longest_window(references: Iterable[SignalReference]) -> int:
    """The longest window of the references, microseconds; 0 without any."""
    return max((reference.window or 0 for reference in references), default=0)
