"""What a drill measured, from the store that it left: times, slippage and what was closed, next to the targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Final, Literal

import msgspec
from msgspec import Struct

from killswitch.incident.record.document import Incident
from killswitch.incident.record.results import RecordedDecision
from killswitch.model.instant import to_micros
from killswitch.model.store import Delivery
from killswitch.policy.schema.drill import DrillDocument, DrillTargets
from killswitch.risk.trading_cost import slippage

DRILL_FORMAT: Final = "killswitch.drill/v1"

MeasureName = Literal[
    "time to decision", "time to first order", "time to flat", "time to notification",
    "average slippage", "worst slippage", "closed",
]  # fmt: skip
Unit = Literal["seconds", "fraction"]


class Measure(Struct, frozen=True):
    """One measured value next to its target; `is_met` is null where the value is unknown, and `why` says why."""

    what: MeasureName
    value: float | None
    target: float
    unit: Unit
    is_met: bool | None
    why: str | None = None


class Spent(Struct, frozen=True):
    """Seconds of computing that a simulated clock does not count: of the deciding tick, and of the whole close."""

    tick: float = 0.0
    close: float = 0.0
    notification: float | None = None
    """Until the message of the first firing was delivered; None where it was not."""


NO_CONFIRMATION: Final[Mapping[str, float]] = MappingProxyType({})
NOTHING_SPENT: Final = Spent()


class DrillResult(Struct, frozen=True, tag_field="format", tag=DRILL_FORMAT):
    """One drill: what was run, how it ended, and its measures."""

    drill: str
    mode: Literal["dry_run", "simulation", "live"]
    at: datetime
    policy_set: str
    seed: int | None
    faults: tuple[str, ...]
    measures: tuple[Measure, ...]
    ended: str
    """`completed`, or why it ended before."""
    incident: str | None = None
    """The incident in the drill's own store, or of the real one for a live drill."""

    @property
    def is_passed(self) -> bool:
        """Whether it was completed, and every measure is known and met."""
        return self.ended == COMPLETED and bool(self.measures) and all(each.is_met is True for each in self.measures)


COMPLETED: Final = "completed"
encode_result = msgspec.json.Encoder(decimal_format="string").encode
decode_result = msgspec.json.Decoder(DrillResult).decode


def measures_of(
    document: DrillDocument,
    incident: Incident,
    recorded: Sequence[RecordedDecision],
    deliveries: Sequence[Delivery],
    spent: Spent = NOTHING_SPENT,
    confirms: Mapping[str, float] = NO_CONFIRMATION,
) -> tuple[Measure, ...]:
    """Return the measures of a drill whose incident this is; those of orders only where orders are sent.

    `confirms`: trigger → the seconds for which its policy wants it to be true, which are no delay.
    """
    targets = document.spec.targets
    found = [
        _time_to_decision(targets, incident, spent, confirms),
        _time_to_notification(targets, incident, deliveries, spent),
    ]
    if document.spec.mode == "dry_run":
        return tuple(found)
    found.insert(1, _time_to_first_order(targets, incident, spent))
    found.insert(2, _time_to_flat(targets, incident, spent))
    return (*found, *_slippage(targets, incident), _closed(incident, recorded))


def _measured(
    what: MeasureName, value: float | None, target: float, why: str, *, unit: Unit = "seconds", at_least: bool = False
) -> Measure:
    if value is None:
        return Measure(what, None, target, unit, None, why)
    return Measure(what, value, target, unit, value >= target if at_least else value <= target)


def _seconds(length: timedelta) -> float:
    return max(0.0, length.total_seconds())


def _time_to_decision(
    targets: DrillTargets, incident: Incident, spent: Spent, confirms: Mapping[str, float]
) -> Measure:
    """From the moment in which a trigger of the first firing was true for as long as its confirmation demands."""
    first = incident.firings[0]
    late = [
        max(0.0, _seconds(first.at - each.true_since) - confirms.get(each.name, 0.0))
        for each in first.triggers
        if each.true_since is not None
    ]
    value = min(late) + spent.tick if late else None
    return _measured("time to decision", value, _limit(targets.decision), "no trigger of the firing says since when")


def _time_to_first_order(targets: DrillTargets, incident: Incident, spent: Spent) -> Measure:
    sent = [each.sent_at for each in incident.orders]
    decided = {each.decision: each.at for each in incident.firings}
    value = None
    if sent:
        first = min(incident.orders, key=lambda each: each.sent_at)
        value = _seconds(first.sent_at - decided[first.decision]) + spent.tick
    return _measured("time to first order", value, _limit(targets.first_order), "no order was sent")


def _time_to_flat(targets: DrillTargets, incident: Incident, spent: Spent) -> Measure:
    """The longest of all closes, each from its decision until its last account had reached its targets."""
    decided = {each.decision: each.at for each in incident.firings}
    ends = [(decided[each.decision], each.at) for each in incident.endings if each.status == "flat"]
    is_whole = bool(ends) and len(ends) == len(incident.endings)
    lengths = [_seconds(end - begin) for begin, end in ends if end is not None]
    value = max(lengths) + spent.close if is_whole and len(lengths) == len(ends) else None
    return _measured("time to flat", value, _limit(targets.flat), "not every close has reached its targets")


def _time_to_notification(
    targets: DrillTargets, incident: Incident, deliveries: Sequence[Delivery], spent: Spent
) -> Measure:
    why = "no message about it was delivered: the set has no route, or its target failed"
    value = spent.notification
    if value is None and not spent.tick:
        opened = to_micros(incident.opened_at)
        ended = [
            (each.ended_at - opened) / 1_000_000
            for each in deliveries
            if each.state == "delivered" and each.ended_at is not None and each.message.at == opened
        ]
        value = min(ended, default=None)
    return _measured("time to notification", value, _limit(targets.notification), why)


def _limit(duration: int) -> float:
    return duration / 1_000_000


def _slippage(targets: DrillTargets, incident: Incident) -> tuple[Measure, ...]:
    filled = [each for each in incident.orders if each.filled]
    shares: list[Decimal] = []
    for each in filled:
        if each.side is not None and each.price is not None and each.arrival_mark:
            shares.append(slippage(each.side, each.arrival_mark, each.price))
    is_known = bool(filled) and len(shares) == len(filled)
    why = "no order was filled" if not filled else "an order has no known price or mark"
    average = float(sum(shares, Decimal(0)) / len(shares)) if is_known else None
    worst = float(max(shares)) if is_known else None
    return (
        _measured("average slippage", average, float(targets.average_slippage), why, unit="fraction"),
        _measured("worst slippage", worst, float(targets.worst_slippage), why, unit="fraction"),
    )


def _closed(incident: Incident, recorded: Sequence[RecordedDecision]) -> Measure:
    """The share of the positions to be reduced that the venue shows at their target."""
    settled, left = len(incident.settled), len(incident.left)
    unknown = any(each.contracts is None for each in incident.left)
    total = settled + left
    value = None if not total or unknown else settled / total
    why = "a position has not been shown by the venue" if unknown else "no position was to be reduced"
    return _measured("closed", value if recorded else None, 1.0, why, unit="fraction", at_least=True)
