"""The window of a signal: present where the signal takes one, absent where it does not."""

from __future__ import annotations

from killswitch.graph.problems import Problem
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
    window = micros(written)
    if not window:
        fix = f"a window is a text such as `{spelled(spec)}`"
        return Problem("KS4005", f"this is no window for `{spec.name}`", fix)
    return window


import re  # noqa: E402

_PART = re.compile(r"(\d+)(ms|s|m|h|d)")
_UNIT = {"ms": 1000, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}


def micros(text: str) -> int | None:
    if not re.fullmatch(r"(\d+(ms|s|m|h|d))+", text):
        return None
    return sum(int(n) * _UNIT[u] for n, u in _PART.findall(text))
