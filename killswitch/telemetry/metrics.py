"""Metrics of a run. Names and units follow OpenTelemetry; attributes contain only names from policies.

No attribute contains a symbol or an id, so that the number of time series does not grow with trading. An unknown number
is not reported: it is counted as unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from killswitch.model.snapshot import IN_PROGRESS
from killswitch.planning.scopes.trigger_status import headroom, headroom_ratio

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

    from killswitch.model.snapshot import AccountSnapshot, Closing
    from killswitch.planning.scopes.trigger_status import MachineStatus, TriggerStatus

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_CLOSING = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)

_SLIPPAGE = (-0.01, 0.0, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)

Labels = dict[str, str | int]
Point = tuple[float, Labels]


class NotificationCounts(Struct, frozen=True):
    """The outbox: waiting messages, and those that this runner has delivered and given up, by target."""

    pending: int
    delivered: dict[str, int]
    failed: dict[str, int]
    in_time: dict[str, int] = {}
    """Those that were delivered within one minute of their decision."""


class SourceGauges(Struct, frozen=True, kw_only=True):
    """The source of the policies: its states, and seconds; None where a time is not known, or nothing is pending."""

    sync: str
    health: str
    suspended: str | None
    answer_age: float | None
    commit_age: float | None
    pending: float | None


class AnchorGauges(Struct, frozen=True):
    """Entries of the record that no anchor covers, and by place whether the last anchor was not published there."""

    uncovered: int
    failing: Mapping[str, bool]


class GaugeValues(Struct, frozen=True):
    """The values that gauges show until the next tick, replaced as a whole, and read by the exporting thread."""

    accounts: tuple[AccountSnapshot, ...] = ()
    machines: tuple[MachineStatus, ...] = ()
    closings: tuple[Closing, ...] = ()
    problems: int = 0
    notifications: NotificationCounts | None = None
    policy_files: str | None = None
    source: SourceGauges | None = None
    anchors: AnchorGauges | None = None


class Metrics:
    """The instruments of one run."""

    def __init__(self, meter: Meter) -> None:
        self._values = GaugeValues()
        self._tick = meter.create_histogram(
            "killswitch.tick.duration", "s", "Time from the beginning of a scheduled tick until it has acted",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )  # fmt: skip
        counter = meter.create_counter
        self._snapshots = counter(
            "killswitch.account.readings", "{reading}", "Snapshots of an account at scheduled ticks, by quality"
        )
        self._decisions = counter("killswitch.decisions", "{decision}", "Decisions, acted on or only recorded")
        self._orders = counter("killswitch.orders", "{order}", "Orders that have ended, by outcome")
        self._unknown = counter(
            "killswitch.orders.fate_unknown", "{order}", "Orders whose status was unknown and had to be queried"
        )
        self._closing = meter.create_histogram(
            "killswitch.close.duration", "s", "Time from a decision until its work on an account has ended",
            explicit_bucket_boundaries_advisory=_CLOSING,
        )  # fmt: skip
        self._closes = counter(
            "killswitch.closes", "{close}", "Closes that have ended, by whether every target was reached"
        )
        self._slippage = meter.create_histogram(
            "killswitch.close.slippage", "1", "Slippage of a filled order as a share of the mark when it was sent",
            explicit_bucket_boundaries_advisory=_SLIPPAGE,
        )  # fmt: skip
        self._unprotected = meter.create_histogram(
            "killswitch.close.unprotected", "s", "Time for which a close left a position without a protective order",
            explicit_bucket_boundaries_advisory=_CLOSING,
        )  # fmt: skip
        for name, unit, meaning, points in _GAUGES:
            meter.create_observable_gauge(name, [self._observed(points)], unit, meaning)
        for name, meaning, points in (
            ("killswitch.notifications.delivered", "Messages delivered, by target", _delivered),
            ("killswitch.notifications.failed", "Messages given up, by target", _failed),
        ):
            meter.create_observable_counter(name, [self._observed(points)], "{message}", meaning)

    def record_tick(self, seconds: float, values: GaugeValues, decided: Iterable[Labels], *, scheduled: bool) -> None:
        """Record a tick; `decided` has the labels of each of its decisions.

        A pass triggered by a push is not `scheduled`: its values and decisions count, but it is neither a tick nor a
        reading of the accounts that it repeats.
        """
        self._values = values
        if scheduled:
            self._tick.record(seconds)
            for each in values.accounts:
                self._snapshots.add(1, {"killswitch.account": each.account, "killswitch.account.quality": each.quality})
        for labels in decided:
            self._decisions.add(1, labels)

    def count_order(self, account: str, outcome: str) -> None:
        self._orders.add(1, {"killswitch.account": account, "killswitch.order.outcome": outcome})

    def count_unknown_status(self, account: str) -> None:
        self._unknown.add(1, {"killswitch.account": account})

    def record_close(self, account: str, status: str, seconds: float) -> None:
        self._closing.record(seconds, {"killswitch.account": account, "killswitch.close.status": status})
        reached = "true" if status == "flat" else "false"
        self._closes.add(1, {"killswitch.account": account, "killswitch.close.succeeded": reached})

    def record_slippage(self, account: str, share: float) -> None:
        self._slippage.record(share, {"killswitch.account": account})

    def record_unprotected(self, account: str, seconds: float) -> None:
        self._unprotected.record(seconds, {"killswitch.account": account})

    def _observed(
        self, points: Callable[[GaugeValues], Iterator[Point]]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        from opentelemetry.metrics import Observation

        return lambda _options: [Observation(value, labels) for value, labels in points(self._values)]


def gross(account: AccountSnapshot) -> Decimal | None:
    """Sum of all notionals in account currency; None where the account or one of them is unknown."""
    if account.quality != "ok" or account.positions is None:
        return None
    notionals = [position.notional for position in account.positions]
    amounts = [abs(notional) for notional in notionals if notional is not None]
    return sum(amounts, Decimal(0)) if len(amounts) == len(notionals) else None


def _headroom(values: GaugeValues) -> Iterator[Point]:
    for observed, labels in _triggers(values):
        if (found := headroom(observed)) is not None:
            yield found, labels | {"killswitch.signal.unit": observed.unit or "1"}


def _headroom_ratio(values: GaugeValues) -> Iterator[Point]:
    for observed, labels in _triggers(values):
        if (found := headroom_ratio(observed)) is not None:
            yield found, labels


def _triggers(values: GaugeValues) -> Iterator[tuple[TriggerStatus, Labels]]:
    for machine in values.machines:
        for observed in machine.triggers:
            yield observed, _machine(machine) | {"killswitch.trigger": observed.name}


def _unknown_triggers(values: GaugeValues) -> Iterator[Point]:
    for machine in values.machines:
        yield sum(observed.truth is None for observed in machine.triggers), _machine(machine)


def _levels(values: GaugeValues) -> Iterator[Point]:
    for machine in values.machines:
        yield machine.level, _machine(machine)


def paused_policies(values: GaugeValues) -> Iterator[Point]:
    """1 for each policy and scope that a pause keeps from firing, 0 for the others."""
    for machine in values.machines:
        yield int(machine.paused is not None), _machine(machine)


def _machine(machine: MachineStatus) -> Labels:
    return {"killswitch.policy": machine.policy, "killswitch.scope": machine.scope}


def _equity(values: GaugeValues) -> Iterator[Point]:
    for account in values.accounts:
        if account.quality == "ok" and account.equity is not None:
            yield float(account.equity), _account(account)


def _gross(values: GaugeValues) -> Iterator[Point]:
    for account in values.accounts:
        if (total := gross(account)) is not None:
            yield float(total), _account(account)


def _positions(values: GaugeValues) -> Iterator[Point]:
    for account in values.accounts:
        if account.quality == "ok" and account.positions is not None:
            yield len(account.positions), {"killswitch.account": account.account}


def _account(account: AccountSnapshot) -> Labels:
    return {"killswitch.account": account.account, "killswitch.currency": account.currency}


def _active(values: GaugeValues) -> Iterator[Point]:
    yield sum(closing.status in IN_PROGRESS for closing in values.closings), {}


def _problems(values: GaugeValues) -> Iterator[Point]:
    yield values.problems, {}


def _files(values: GaugeValues) -> Iterator[Point]:
    if values.policy_files is not None:
        yield 1, {"killswitch.policies.state": values.policy_files}


def _source_sync(values: GaugeValues) -> Iterator[Point]:
    if values.source is not None:
        yield 1, {"killswitch.source.state": values.source.sync}


def _source_health(values: GaugeValues) -> Iterator[Point]:
    if values.source is not None:
        yield 1, {"killswitch.source.state": values.source.health}


def _suspended(values: GaugeValues) -> Iterator[Point]:
    if values.source is not None and values.source.suspended is not None:
        yield 1, {"killswitch.source.state": values.source.suspended}


def _answer_age(values: GaugeValues) -> Iterator[Point]:
    return _seconds(None if values.source is None else values.source.answer_age)


def _commit_age(values: GaugeValues) -> Iterator[Point]:
    return _seconds(None if values.source is None else values.source.commit_age)


def _loosening(values: GaugeValues) -> Iterator[Point]:
    return _seconds(None if values.source is None else values.source.pending)


def _seconds(length: float | None) -> Iterator[Point]:
    if length is not None:
        yield length, {}


def _uncovered(values: GaugeValues) -> Iterator[Point]:
    if values.anchors is not None:
        yield values.anchors.uncovered, {}


def _failing_anchors(values: GaugeValues) -> Iterator[Point]:
    for place, is_failing in () if values.anchors is None else values.anchors.failing.items():
        yield int(is_failing), {"killswitch.anchor.place": place}


def _pending(values: GaugeValues) -> Iterator[Point]:
    if values.notifications is not None:
        yield values.notifications.pending, {}


def _delivered(values: GaugeValues) -> Iterator[Point]:
    return _by_target({} if values.notifications is None else values.notifications.delivered)


def _failed(values: GaugeValues) -> Iterator[Point]:
    return _by_target({} if values.notifications is None else values.notifications.failed)


def _in_time(values: GaugeValues) -> Iterator[Point]:
    counts = values.notifications
    for target, delivered in () if counts is None else counts.delivered.items():
        if delivered and counts is not None:
            yield 100 * counts.in_time.get(target, 0) / delivered, {"killswitch.target": target}


def _by_target(counts: Mapping[str, int]) -> Iterator[Point]:
    for target, count in counts.items():
        yield count, {"killswitch.target": target}


_GAUGES: Final[tuple[tuple[str, str, str, Callable[[GaugeValues], Iterator[Point]]], ...]] = (
    ("killswitch.trigger.headroom", "1", "How far a trigger is from true, in its signal's unit", _headroom),
    ("killswitch.trigger.headroom_ratio", "1", "Headroom as a share of the threshold", _headroom_ratio),
    ("killswitch.trigger.unknown", "{trigger}", "Triggers that are neither true nor false", _unknown_triggers),
    ("killswitch.stage.level", "{level}", "Level of the stage in force; 0 is normal", _levels),
    ("killswitch.policy.paused", "1", "1 while an operator's pause keeps a policy from firing", paused_policies),
    ("killswitch.account.equity", "{currency}", "Equity of an account", _equity),
    ("killswitch.account.gross", "{currency}", "Sum of the notionals of all positions", _gross),
    ("killswitch.account.positions", "{position}", "Open positions", _positions),
    ("killswitch.closes.active", "{decision}", "Decisions with a close in progress", _active),
    ("killswitch.problems", "{problem}", "Problems of the runner's own resources", _problems),
    ("killswitch.policies.files", "1", "1 for the state of the policy files: as loaded, changed or broken", _files),
    ("killswitch.source.sync", "1", "1 for the sync of the source: synced or out of sync", _source_sync),
    ("killswitch.source.health", "1", "1 for the health of the source, by its name", _source_health),
    ("killswitch.source.suspended", "1", "1 while an operator has suspended the source, by how", _suspended),
    ("killswitch.source.answer.age", "s", "Time since the source last answered", _answer_age),
    ("killswitch.source.commit.age", "s", "Age of the newest commit by its own date", _commit_age),
    ("killswitch.source.loosening.pending", "s", "Time until a loosening that waits takes effect", _loosening),
    ("killswitch.anchors.uncovered", "{entry}", "Entries of the record that no anchor covers", _uncovered),
    ("killswitch.anchors.failing", "1", "1 while a place has not got the newest anchor, by place", _failing_anchors),
    ("killswitch.notifications.pending", "{message}", "Messages that wait to be sent", _pending),
    ("killswitch.notifications.in_time", "%", "Messages delivered within one minute, of those delivered", _in_time),
)
"""Name, unit, meaning and values of each gauge."""
