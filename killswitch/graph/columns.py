"""The columns of a graph: which signal stands where, each signal and window once."""

from __future__ import annotations

from killswitch.graph.nodes import SignalRef


class Columns:
    """Hands out columns in the order in which signals are first read."""

    def __init__(self) -> None:
        self._index: dict[SignalRef, int] = {}

    def of(self, signal: SignalRef) -> int:
        """The column of `signal`, the same each time."""
        return self._index.setdefault(signal, len(self._index))

    @property
    def signals(self) -> tuple[SignalRef, ...]:
        """The signals, by column."""
        return tuple(self._index)
