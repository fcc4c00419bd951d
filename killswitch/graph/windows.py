"""The window of a signal: present where the signal takes one, absent where it does not."""

from __future__ import annotations

from killswitch.graph.problems import Problem
from killswitch.policy.scalars import duration
from killswitch.policy.shape import MistakeError
from killswitch.signals.catalogue import SignalSpec


def spelled(spec: SignalSpec) -> str:
    """How the signal is written in an expression."""
    return f'{spec.name}("15m")' if spec.windowed else spec.name


def window_of(spec: SignalSpec, written: str | None) -> int | Problem | None:
    """The window in microseconds, or what is wrong with it; `written` is None where no window is given."""
    if not spec.windowed:
        if written is None:
            return None
        return Problem("KS3003", f"`{spec.name}` takes no window", f"write `{spec.name}`")
    if written is None:
        return Problem("KS3002", f"`{spec.name}` needs a window", f"write `{spelled(spec)}`")
    try:
        return duration(written)
    except MistakeError:  # its message is for a value of its own; here the way out is the whole call
        fix = f"a window is one text with a number and its unit: `{spelled(spec)}`"
        return Problem("KS4005", f"this is no window for `{spec.name}`", fix)
