"""How many requests a principal and a source may make, and what the server has counted. No clock of its own.

A bucket fills at its rate up to its burst, and a request takes one. Each principal has one for each class of effect, so
that a program that reads in a loop never uses up what its owner needs for a halt, and tightening has no limit by source
at all. Failed logins slow their source only while they fail: a request with a valid credential is never among them, so
that nobody can lock a desk out of `halt` from the machine or behind the proxy that it shares with them.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec import Struct

from killswitch.server.access import EffectClass

MOST_NAMES: Final = 10_000
"""Principals and sources that are remembered; the one that was seen longest ago is forgotten first, and begins full."""


class RequestRate(Struct, frozen=True):
    """Requests a second in the long run, and how many may come at once."""

    per_second: float
    burst: float


OF_PRINCIPAL: Final[Mapping[EffectClass, RequestRate]] = {
    "read": RequestRate(20.0, 100.0),
    "positions": RequestRate(20.0, 100.0),
    "report": RequestRate(5_000.0, 10_000.0),
    "tighten": RequestRate(50.0, 500.0),
    "loosen": RequestRate(1.0, 30.0),
    "carry": RequestRate(2.0, 30.0),
    "administer": RequestRate(1.0, 30.0),
}
"""Of each principal, in each class."""
OF_SOURCE: Final = RequestRate(200.0, 1_000.0)
"""Of each address, for all classes but tightening and what bots report: a bot that asks the gate is no flood."""
WITHOUT_SOURCE: Final = frozenset({"tighten", "report"})
OUT_OF_SCOPE: Final = RequestRate(1.0, 30.0)
"""Commands of one principal in scopes that are not its own: each is refused, some only after the store was read."""
FAILED_LOGINS: Final = RequestRate(0.2, 20.0)
"""Failed logins of a source that are answered at once with 401; further ones get 429."""


class RateTable:
    """The buckets of names at one rate. Not thread-safe: all calls come from one loop."""

    def __init__(self, monotonic: Callable[[], float], most: int = MOST_NAMES) -> None:
        """`monotonic`: seconds, which never go back."""
        self._monotonic = monotonic
        self._most = most
        self._left: OrderedDict[object, tuple[float, float]] = OrderedDict()
        """Name → what its bucket held when it was last used, and when that was."""

    def take(self, name: object, rate: RequestRate) -> float:
        """Take one from the bucket of the name: 0 if there was one, else the seconds until there is one again."""
        now = self._monotonic()
        level, at = self._left.pop(name, (rate.burst, now))
        level = min(rate.burst, level + (now - at) * rate.per_second)
        wait = 0.0 if level >= 1.0 else (1.0 - level) / rate.per_second
        self._left[name] = (level if wait else level - 1.0, now)
        if len(self._left) > self._most:
            self._left.popitem(last=False)
        return wait

    def __len__(self) -> int:
        return len(self._left)


class RequestRates:
    """The limits of requests by principal and by source."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._principals = RateTable(monotonic)
        self._sources = RateTable(monotonic)
        self._failures = RateTable(monotonic)

    def wait(self, principal: str, source: str, effect: EffectClass) -> float:
        """Seconds that a request has to wait; 0 if it may be served now, and is counted."""
        found = self._principals.take((principal, effect), OF_PRINCIPAL[effect])
        if found or effect in WITHOUT_SOURCE:
            return found
        return self._sources.take(source, OF_SOURCE)

    def out_of_scope(self, principal: str) -> float:
        """Count a command in a scope of others: 0, or the seconds until the next one is looked at."""
        return self._principals.take((principal, "out of scope"), OUT_OF_SCOPE)

    def failed(self, source: str) -> float:
        """Count a failed login: 0, or the seconds until the next one is answered other than by 429."""
        return self._failures.take(source, FAILED_LOGINS)


class ServerCounters:
    """What has happened since the start, as a monitoring system reads it."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self.gauges: dict[str, Callable[[], float]] = {}
        """Name → its present value."""

    def count(self, name: str, label: str = "") -> None:
        """Count one. `label`: of a small fixed set, never a value from a request."""
        self._counts[name, label] += 1

    def of(self, name: str, label: str = "") -> int:
        """How often that was counted."""
        return self._counts[name, label]

    def lines(self) -> Iterator[str]:
        """The text format of Prometheus, version 0.0.4."""
        last = ""
        for (name, label), number in sorted(self._counts.items()):
            if name != last:
                yield f"# TYPE killswitch_server_{name}_total counter"
                last = name
            shown = f'{{kind="{label}"}}' if label else ""
            yield f"killswitch_server_{name}_total{shown} {number}"
        for name, value in sorted(self.gauges.items()):
            yield f"# TYPE killswitch_server_{name} gauge"
            yield f"killswitch_server_{name} {value():g}"
