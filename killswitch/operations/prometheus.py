"""The state of a store in the text format of Prometheus, version 0.0.4, for the server's `/metrics`.

Names are those of the metrics that a run exports by OpenTelemetry, as a collector spells them for Prometheus. What is
unknown has no line: an alert on it must use `absent()`. No label has a symbol, an order or a decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct

from killswitch.incident.record.results import Result, read_result
from killswitch.model.instant import SECOND, to_micros
from killswitch.model.snapshot import IN_PROGRESS
from killswitch.model.store import Delivery, Store
from killswitch.operations.status import StoreStatus, store_status
from killswitch.planning.scopes.trigger_status import headroom_ratio
from killswitch.risk.trading_cost import slippage

DELIVERIES = 1_000
"""The newest messages that count for the share delivered in time."""
IN_TIME = 60 * SECOND
"""Within which a message is to be delivered (microseconds)."""
CLOSES = 20
"""The newest decisions whose closes count for success and slippage."""
CLOSES_OF = timedelta(days=1)
"""The age up to which they count."""

Kind = Literal["gauge", "counter"]
Labels = tuple[tuple[str, str], ...]


class Sample(Struct, frozen=True):
    """One line: the value under its labels."""

    value: float
    labels: Labels = ()


class Family(Struct, frozen=True):
    """The lines of one metric."""

    name: str
    kind: Kind
    help: str
    samples: tuple[Sample, ...]


def prometheus_text(store: Store, now: datetime) -> str:
    """Return every metric of the store. StoreError if it cannot be read."""
    found = store_status(store, now, 0)
    return "".join(f"{line}\n" for family in _families(store, found, now) for line in lines_of(family))


def lines_of(family: Family) -> Iterator[str]:
    """Yield the lines of one metric; none without a sample."""
    if not family.samples:
        return
    yield f"# HELP {family.name} {family.help}"
    yield f"# TYPE {family.name} {family.kind}"
    for each in family.samples:
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in each.labels)
        yield f"{family.name}{'{' + labels + '}' if labels else ''} {each.value:.15g}"


def _escaped(value: str) -> str:
    """A label's value: backslash, quote and line break are escaped, as the format demands."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _families(store: Store, status: StoreStatus, now: datetime) -> Iterator[Family]:
    yield Family(
        "killswitch_runner_up", "gauge", "1 while a runner holds the lease and ticks",
        (Sample(float(status.runner.is_alive)),),
    )  # fmt: skip
    yield from _of_view(status)
    yield from _of_alerts(status)
    yield from _of_notifications(status, store.deliveries(DELIVERIES))
    yield from _of_closes(list(_recent_results(store, now)))


def _of_view(status: StoreStatus) -> Iterator[Family]:
    """What the last tick has left; nothing before the first one."""
    view = status.view
    if view is None:
        return
    age = (status.now - view.as_of).total_seconds()
    yield Family("killswitch_tick_age_seconds", "gauge", "Time since the last tick", (Sample(age),))
    yield Family(
        "killswitch_problems", "gauge", "Problems of the runner's own resources", (Sample(len(view.problems)),)
    )
    closing = sum(each.status in IN_PROGRESS for each in view.closings)
    yield Family("killswitch_closes_active", "gauge", "Decisions with a close in progress", (Sample(closing),))
    machines = [(each, (("policy", each.policy), ("scope", each.scope))) for each in view.machines]
    yield Family(
        "killswitch_stage_level", "gauge", "Level of the stage in force; 0 is normal",
        tuple(Sample(each.level, labels) for each, labels in machines),
    )  # fmt: skip
    yield Family(
        "killswitch_trigger_unknown", "gauge", "Triggers that are neither true nor false",
        tuple(Sample(sum(one.truth is None for one in each.triggers), labels) for each, labels in machines),
    )  # fmt: skip
    yield Family(
        "killswitch_trigger_headroom_ratio", "gauge", "Headroom of a trigger as a share of its threshold",
        tuple(
            Sample(share, (*labels, ("trigger", trigger.name)))
            for each, labels in machines for trigger in each.triggers
            if (share := headroom_ratio(trigger)) is not None
        ),
    )  # fmt: skip
    accounts = [(each, (("account", each.account),)) for each in view.accounts]
    yield Family(
        "killswitch_account_up", "gauge", "1 if the last tick has read the account",
        tuple(Sample(float(each.quality == "ok"), labels) for each, labels in accounts),
    )  # fmt: skip
    yield Family(
        "killswitch_account_equity", "gauge", "Equity of an account that was read",
        tuple(
            Sample(float(each.equity), (*labels, ("currency", each.currency)))
            for each, labels in accounts if each.quality == "ok" and each.equity is not None
        ),
    )  # fmt: skip
    yield Family(
        "killswitch_account_positions", "gauge", "Open positions of an account that was read",
        tuple(
            Sample(each.positions, labels)
            for each, labels in accounts if each.quality == "ok" and each.positions is not None
        ),
    )  # fmt: skip


def _of_alerts(status: StoreStatus) -> Iterator[Family]:
    yield Family(
        "killswitch_alerts_active", "gauge", "What is wrong now, by severity",
        tuple(
            Sample(sum(each.severity == severity for each in status.active_alerts), (("severity", severity),))
            for severity in ("page", "warning", "info")
        ),
    )  # fmt: skip
    yield Family(
        "killswitch_trading_locked", "gauge", "1 if the lock file of the scope locks, as a bot reads it",
        tuple(Sample(float(each.locked), (("scope", each.scope),)) for each in status.locks if each.scope is not None),
    )  # fmt: skip


def _of_notifications(status: StoreStatus, newest: Sequence[Delivery]) -> Iterator[Family]:
    counts: dict[str, list[int]] = {}
    for each in status.notifications:
        sums = counts.setdefault(each.target, [0, 0, 0])
        for place, number in enumerate((each.pending, each.delivered, each.given_up)):
            sums[place] += number
    for place, (name, kind, meaning) in enumerate(_OUTBOX):
        yield Family(name, kind, meaning, tuple(Sample(sums[place], (("target", t),)) for t, sums in counts.items()))
    ended = [each for each in newest if each.state in ("delivered", "given_up")]
    if ended:
        in_time = sum(_is_in_time(each) for each in ended)
        yield Family(
            "killswitch_notifications_in_time_ratio", "gauge", "Share of messages delivered within a minute",
            (Sample(in_time / len(ended)),),
        )  # fmt: skip


_OUTBOX: Final[tuple[tuple[str, Kind, str], ...]] = (
    ("killswitch_notifications_pending", "gauge", "Messages that wait to be sent"),
    ("killswitch_notifications_delivered", "gauge", "Messages delivered, as far as the store keeps them"),
    ("killswitch_notifications_failed", "gauge", "Messages given up, as far as the store keeps them"),
)


def _is_in_time(each: Delivery) -> bool:
    return each.state == "delivered" and each.ended_at is not None and each.ended_at - each.message.at <= IN_TIME


def _recent_results(store: Store, now: datetime) -> Iterator[Result]:
    """The results of the newest decisions that sent an order."""
    oldest = to_micros(now - CLOSES_OF)
    for stored in store.decisions(CLOSES):
        if to_micros(stored.decision.as_of) >= oldest and stored.decision.kind != "reset":
            result = read_result(store, stored.decision)
            if result.orders or result.swept:
                yield result


def _of_closes(results: Sequence[Result]) -> Iterator[Family]:
    """Success and slippage of the closes of the last day; nothing where there was none."""
    ended = [each for each in results if each.standing != "closing"]
    if ended:
        good = sum(each.standing in ("flat", "at target") for each in ended)
        yield Family(
            "killswitch_close_success_ratio", "gauge", "Share of the last day's closes that reached every target",
            (Sample(good / len(ended)),),
        )  # fmt: skip
    slipped = list(_slipped(results))
    if slipped:
        yield Family(
            "killswitch_close_slippage_average_ratio", "gauge", "Average slippage of the last day's filled orders",
            (Sample(float(sum(slipped) / len(slipped))),),
        )  # fmt: skip
        yield Family(
            "killswitch_close_slippage_worst_ratio", "gauge", "Worst slippage of the last day's filled orders",
            (Sample(float(max(slipped))),),
        )  # fmt: skip
    took = [each.totals.took for each in ended if each.totals.took is not None]
    if took:
        yield Family(
            "killswitch_close_longest_seconds", "gauge", "Longest of the last day's closes, from its first order",
            (Sample(max(took)),),
        )  # fmt: skip


def _slipped(results: Iterable[Result]) -> Iterator[Decimal]:
    for result in results:
        for order in result.orders:
            if order.filled and order.side is not None and order.price is not None and order.arrival_mark:
                yield slippage(order.side, order.arrival_mark, order.price)
