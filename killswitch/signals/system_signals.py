"""Signals of the systems around the book: the runner, heartbeats of bots, external alerts, flags, and the time of day.

A backtest contains none of these except the time, so that they have no look-ahead.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from killswitch.model.instant import from_micros, to_micros
from killswitch.signals.arguments import NAME, Argument, Value
from killswitch.signals.declaration import (
    NOT_NEGATIVE,
    BoolSignal,
    SignalSpec,
    condition,
)
from killswitch.signals.history.pulse import TickLateness, WatchedHeartbeats
from killswitch.signals.history.windows import known
from killswitch.signals.written_forms import labels as labels_of
from killswitch.signals.written_forms import minute_of_day, weekdays
from killswitch.signals.written_forms import zone as zone_of

if TYPE_CHECKING:
    from killswitch.signals.history.scope import History
    from killswitch.valuation.scope_view import ScopeView

BEGIN = Argument(
    key="from",
    kind="time",
    meaning="The local time at which it begins, included; the day is that of this time.",
    example="22:00",
)
END = Argument(
    key="to",
    kind="time",
    meaning="The local time at which it ends, not included; at or before `from` it is on the next day.",
    example="06:00",
)
ZONE = Argument(
    key="zone",
    kind="zone",
    meaning="The time zone, by its IANA name.",
    example="Europe/Berlin",
)
DAYS = Argument(
    key="days",
    kind="days",
    meaning="The weekdays on which it begins: mon to sun, ranges, several with commas, or any.",
    example="mon-fri",
)
LABELS = Argument(
    key="labels",
    kind="labels",
    meaning="Labels that the alert must have, each with its value; `any` for every alert of that name.",
    example="team=risk,severity=page",
)


def _alert_active(history: History, view: ScopeView, name: str, labels: str) -> bool | None:
    """Whether such an alert fires and has not ended; None while the receiver of alerts is not known to work.

    An alert is over from the instant `ends_at` on, as Alertmanager counts it.
    """
    tick = view.tick
    if tick is None or tick.alerts_as_of is None or view.as_of - to_micros(tick.alerts_as_of) > history.max_gap:
        return None
    wanted = labels_of(labels).items()
    return any(
        alert.name == name
        and alert.status == "firing"
        and (alert.ends_at is None or to_micros(alert.ends_at) > view.as_of)
        and wanted <= alert.labels.items()
        for alert in tick.alerts
    )


def is_within(at: int, begin: str, end: str, zone: str, days: str) -> bool:
    """Whether the local time of `at` (microseconds) is in [begin, end), which begins on one of the days.

    Local times are those of a clock on the wall: 02:00 to 03:00 does not occur on the day on which clocks are advanced
    over it, and lasts two hours when they are set back to 02:00.
    """
    local = from_micros(at).astimezone(zone_of(zone))
    minute, first, last = 60 * local.hour + local.minute, minute_of_day(begin), minute_of_day(end)
    today, on = local.weekday(), weekdays(days)
    if first < last:
        return first <= minute < last and today in on
    return (minute >= first and today in on) or (minute < last and (today - 1) % 7 in on)


_condition = partial(condition, unit="seconds", range=NOT_NEGATIVE)
"""A condition of a system, in seconds."""

FLAG_SET = BoolSignal(
    name="flag.set",
    arguments=(replace(NAME, example="maintenance"),),
    meaning=(
        "Whether an operator has set the flag of this name for the scope or a wider one, with `ksctl flag set`, and it "
        "has neither ended nor been cleared. It outlives restarts. A flag of one account is not set for the portfolio."
    ),
    partly_known="never",
    unknown="never",
    collects=(),
    needs_equity=False,
    reader=lambda _, view, name: view.has_flag(name),
)

SIGNALS: tuple[SignalSpec, ...] = (
    _condition(
        name="runner.tick_lateness",
        arguments=(),
        meaning=(
            "From when the last scheduled tick was due until its snapshot was complete: late ticks before it, and the "
            "time that it waited for the venues. 0 for the first tick of a run."
        ),
        partly_known="never",
        unknown="the snapshot does not state when its tick was due, as in a backtest",
        collects=(TickLateness,),
        reader=lambda history, _: known(history.collectors.of(TickLateness).seconds),
    ),
    _condition(
        name="heartbeat.age",
        arguments=(NAME,),
        meaning=(
            "Time since the last heartbeat of this name (`ksctl deadman heartbeat`). One that declares its progress "
            "counts only if that has changed since the one before. A planned stop of a bot needs a flag: "
            '`heartbeat.age("bot") >= 60.0 && !flag.set("bot-stopped")`.'
        ),
        partly_known="none was ever sent: it is at least the time since the scope watches it",
        unknown="never, in a run",
        collects=(WatchedHeartbeats,),
        reader=lambda history, view, name: history.collectors.of(WatchedHeartbeats).age(view, name),
    ),
    BoolSignal(
        name="alert.active",
        arguments=(replace(NAME, example="HostDown"), LABELS),
        meaning=(
            "Whether an alert of this name with these labels fires and has not ended, by the last notification of a "
            "monitoring system (Alertmanager's webhook, version 4). A silence there is no resolution."
        ),
        partly_known="never",
        unknown="no receiver of alerts is running, or it was not known to work for longer than `max_gap`",
        collects=(),
        needs_equity=False,
        reader=_alert_active,
    ),
    FLAG_SET,
    BoolSignal(
        name="clock.within",
        arguments=(BEGIN, END, ZONE, DAYS),
        meaning=(
            "Whether the local time is in [from, to), which may go over midnight; `from` equal to `to` is a whole day. "
            "A time that clocks are advanced over does not occur; one that they are set back to occurs twice."
        ),
        partly_known="never",
        unknown="never",
        collects=(),
        needs_equity=False,
        reader=lambda _, view, begin, end, zone, days: is_within(view.as_of, begin, end, zone, days),
    ),
)


def flags_read(references: Iterable[tuple[str, tuple[Value, ...]]]) -> frozenset[str]:
    """The names of the flags that these signals, by name and arguments, read."""
    return frozenset(str(arguments[0]) for name, arguments in references if name == FLAG_SET.name)
