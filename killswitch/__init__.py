"""Killswitch: stops a trading book that goes wrong.

`killswitch.start` and `killswitch.start_async` run the monitor inside another program (docs/embedding.md). They are
imported when they are first used, so that `import killswitch` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from killswitch.embedding import Monitor, MonitorError, MonitorOptions, StageChange, start, start_async

__all__ = ["Monitor", "MonitorError", "MonitorOptions", "StageChange", "start", "start_async"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("killswitch.embedding"), name)
