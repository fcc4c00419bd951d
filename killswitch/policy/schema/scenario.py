"""The `Scenario` document: what happens to a book, and what the policies must do about it; and the `Invariant`.

Both are tests next to the policies, which `ksctl test` runs and `ksctl prove` proves. They are no part of a deployed
policy set: neither its digest nor a run depends on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field

from killswitch.model.words import Cause, LockMode
from killswitch.policy.schema.cross_key_checks import Breach, Path, items, mapping, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, MistakeError, Part, Scalar
from killswitch.policy.schema.scalars import (
    Duration,
    DurationOrZero,
    MarketKind,
    Name,
    Number,
    Price,
    Text,
    Word,
    pattern_json,
    quoted,
    whole_number,
)

_START = re.compile(r"(\d{4}-\d{2}-\d{2})[ T](\d{2}:\d{2}(?::\d{2})?) ([A-Za-z][A-Za-z0-9_+/-]*)", re.ASCII)
_START_FIX = "write date, time and an IANA time zone, such as 2026-03-02 09:00 Europe/Berlin, or 2026-03-02 08:00 UTC"


def start_time(value: object) -> datetime:
    """The instant (UTC) of a local date and time with its zone, such as `2026-03-02 09:00 Europe/Berlin`.

    A local time that clocks skip, or that occurs twice, is a mistake: it names no instant.
    """
    found = _START.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise MistakeError("KS7001", f"{quoted(value)} is not a start with its zone", _START_FIX)
    try:
        zone = ZoneInfo(found[3])
        local = datetime.fromisoformat(f"{found[1]}T{found[2]}").replace(tzinfo=zone)
    except (OSError, ValueError) as error:
        raise MistakeError("KS7001", f"{quoted(value)} is not a start with its zone", _START_FIX) from error
    if not 1971 <= local.year < 2500:
        raise MistakeError("KS7001", f"{quoted(value)} is outside the years 1971 to 2499", _START_FIX)
    first, second = local.astimezone(UTC), local.replace(fold=1).astimezone(UTC)
    if first != second:
        skips = first.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None)
        what = "clocks skip it there" if skips else "it occurs twice there"
        raise MistakeError("KS7001", f"{quoted(value)} names no instant: {what}", "write the start in UTC")
    return first


def series_text(value: object) -> str:
    """The text of a series; a number alone is a series of one value, which never changes."""
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, bool) or value is None or isinstance(value, dict | list | str):
        fix = "write values and steps with spaces between them, such as 10000 -1%x5 =x3 stale"
        raise MistakeError("KS7002", f"{quoted(value)} is not a series", fix)
    return str(value)


def signal_series_text(value: object) -> str:
    """The text of a series of a signal; `true` and `false` are truths in YAML."""
    return str(value).lower() if isinstance(value, bool) else series_text(value)


StartTime = Annotated[datetime, Scalar(start_time, pattern_json(_START.pattern, "2026-03-02 09:00 Europe/Berlin"))]
SeriesText = Annotated[str, Scalar(series_text, {"type": ["string", "number"]})]
SignalSeriesText = Annotated[str, Scalar(signal_series_text, {"type": ["string", "number", "boolean"]})]


TRUTHS = ("true", "false", "unknown", "held", "confirmed")


def trigger_truth(value: object) -> str:
    """What a trigger is, as a word; `true` and `false` are truths in YAML."""
    word = str(value).lower() if isinstance(value, bool) else value
    if word not in TRUTHS:
        raise MistakeError("KS2004", f"{quoted(value)} is not one of {', '.join(TRUTHS)}", "write one of them")
    return str(word)


TriggerTruth = Annotated[str, Scalar(trigger_truth, {"enum": [True, False, *TRUTHS[2:]]})]


class ScenarioTrade(Part):
    """A change of contracts that was no plain order of a bot or a person."""

    at: DurationOrZero
    """When, from the start: a step at which the contracts change."""
    by: Literal["stop", "liquidation", "adl"]
    """By a stop or another order with a trigger price, or by the venue, which liquidates or deleverages (ADL)."""


class ScenarioPosition(Part):
    """A position. Its price moves as written, or as the account's equity requires."""

    symbol: Word
    """The symbol, as venues call it."""
    side: Literal["long", "short"]
    """The side."""
    contracts: SeriesText
    """A series of contracts; a change is a trade at the price of its step, with its fill."""
    price: SeriesText
    """A series of mark prices. Of an account whose equity is a series of several values, the first position with a
    single price moves such that equity is as written."""
    contract_size: Price | None = None
    """Base units of a contract. Left out: 1."""
    amount_step: Price | None = None
    """The venue's step of quantities, in contracts. Left out: the venue does not state it."""
    price_step: Price | None = None
    """The step of prices, to which catastrophe stops are rounded. Left out: unknown, so that none can be placed."""
    liquidation: SeriesText | None = None
    """A series of liquidation prices. Left out: unknown."""
    margin: SeriesText | None = None
    """A series of its margin. Left out: unknown."""
    trades: tuple[ScenarioTrade, ...] = ()
    """Which changes of its contracts were stops, or by the venue. Left out: none."""


class ScenarioOrder(Part):
    """A resting order, which is there during the whole scenario."""

    id: Word
    """Its id at the venue."""
    symbol: Word
    """Its symbol."""
    side: Literal["buy", "sell"]
    """Whether it buys or sells."""
    amount: Price
    """Its contracts."""
    price: Price | None = None
    """Its limit price. Left out: it has none."""
    trigger_price: Price | None = None
    """The price at which it becomes active. Left out: it is active."""
    reduce_only: bool | None = None
    """Whether it can only reduce a position. Left out: unknown."""


class ScenarioFlow(Part):
    """Money that enters or leaves an account at a step."""

    at: DurationOrZero
    """When, from the start."""
    kind: Literal["deposit", "withdrawal", "transfer", "funding", "fee", "unexplained"]
    """What the venue's row calls it; `unexplained` has no row."""
    amount: Number
    """The amount in the account's currency: above 0 it enters, below 0 it leaves."""


class ScenarioHealth(Part):
    """Series of what polling the venue measured."""

    latency: SeriesText | None = None
    """Milliseconds for which the venue took to answer. Left out: unknown."""
    requests: SeriesText | None = None
    """Requests of a poll. Left out: unknown."""
    errors: SeriesText | None = None
    """Failed requests. Left out: unknown."""
    timeouts: SeriesText | None = None
    """Requests without an answer in time. Left out: unknown."""
    malformed: SeriesText | None = None
    """Answers that could not be read. Left out: unknown."""
    rate_limited: SeriesText | None = None
    """Requests that the venue refused as too many. Left out: unknown."""
    clock_skew: SeriesText | None = None
    """Milliseconds by which the venue's clock is ahead. Left out: unknown."""


class ScenarioAccount(Part):
    """An account and its series. A series of one value never changes; all others have the same number of steps."""

    venue: Word
    """The venue."""
    market: MarketKind
    """What it trades."""
    currency: Word
    """The currency of its amounts."""
    equity: SeriesText
    """A series of equity. With a single value, positions and flows move it; `stale`, `down` and `malformed` are steps
    at which the venue could not be read."""
    positions: tuple[ScenarioPosition, ...] | None = None
    """Its positions; `[]` is a flat account. Left out: they are unknown."""
    orders: tuple[ScenarioOrder, ...] = ()
    """Its resting orders. Left out: none."""
    flows: tuple[ScenarioFlow, ...] = ()
    """Money that enters or leaves. Left out: none."""
    watch: dict[str, SeriesText] | None = None
    """Series of mark prices of symbols that it watches without holding them, by symbol. Left out: none."""
    free: SeriesText | None = None
    """A series of free margin. Left out: unknown."""
    margin_used: SeriesText | None = None
    """A series of used margin. Left out: unknown."""
    maintenance_margin: SeriesText | None = None
    """A series of maintenance margin. Left out: unknown."""
    health: ScenarioHealth | None = None
    """What polling measured. Left out: unknown."""


class ScenarioEvent(Part):
    """A command of an operator, which the step at its time processes."""

    at: DurationOrZero
    """When, from the start; a step of the scenario."""
    kind: Literal["reset", "lock", "unlock", "close", "flag"]
    """The command."""
    scope: Text | None = None
    """Its scope, such as account/main. Left out: the portfolio."""
    author: Text
    """Who gives it."""
    reason: Text
    """Why."""
    cause: Cause | None = None
    """The cause of a close. Left out: none is declared."""
    force: bool = False
    """Whether a reset disregards the time before which nobody resets. Left out: it does not."""
    lock: LockMode | None = None
    """The mode of the lock that a lock or a close writes. Left out: none."""
    until: Duration | None = None
    """The end of the lock or the flag, from the start. Left out: none."""
    flag: Word | None = None
    """The flag that it sets or clears. Left out: it is no command about a flag."""
    set: bool | None = None
    """Whether it sets the flag, or clears it. Left out: it is no command about a flag."""


class ScenarioRestart(Part):
    """The runner ends after a step, and starts again with what it has stored."""

    at: DurationOrZero
    """The last step before it ends, from the start."""
    outage: Duration
    """How long nothing is measured: a multiple of `every`. The first step at or after its end is the first of the new
    run."""


class ScenarioHearing(Part):
    """A span of time in which the watcher of a dead-man's switch hears heartbeats, or cannot."""

    start: Annotated[DurationOrZero, Field(alias="from")]
    """When the first heartbeat comes, from the start; the next ones follow at the switch's `every`."""
    until: DurationOrZero
    """The last moment at which one may come, from the start."""
    way: Annotated[int, whole_number(1, 100)] | None = None
    """By which of the switch's ways, counted from 1. Left out: by all of them."""
    progress: Literal["moves", "same"] | None = None
    """Whether the progress that they carry changes with each. Left out: they carry none."""
    error: Text | None = None
    """Why the way cannot be read in this time, in place of heartbeats. Left out: it can."""


FIRING = "fires"
SUBJECTS = (
    FIRING, "resets", "decides", "notice", "in_force", "trigger", "lock_in_force", "stops", "may_open", "switch",
)  # fmt: skip
"""The keys of which an expectation has exactly one: what it is about."""
OF_DECISIONS = ("lock", "lock_of", "orders", "cancels", "notifies", "reason", "source")
"""Keys of an expectation about a decision."""


class ScenarioExpectation(Part):
    """What happens at a step, or what is in force after it. It has exactly one of the keys `fires`, `resets`,
    `decides`, `notice`, `in_force`, `trigger`, `lock_in_force`, `stops`, `may_open` and `switch`."""

    at: DurationOrZero
    """When, from the start: a step of the scenario."""
    policy: Name | None = None
    """The policy. Left out: the only one of the scenario."""
    scope: Text | None = None
    """The scope. Left out: the only one of the policy in this scenario."""
    fires: Name | None = None
    """The stage that fires at this step. Left out: it is about something else."""
    resets: Name | None = None
    """The stage that is reset at this step. Left out: it is about something else."""
    decides: Literal["manual", "suspicion", "hedge", "breach", "unlock"] | None = None
    """The decision at this step that is no stage: `manual` by an operator, `suspicion` a lock while it is not known
    whether a fall was a loss. Left out: it is about something else."""
    notice: Literal["unknown", "unexplained", "uncorroborated", "nothing_selected", "blocked", "warning"] | None = None
    """The kind of a notice at this step; it is expected of all that have its policy, scope and `text`. Left out: it is
    about something else."""
    in_force: Name | None = None
    """The stage in force after this step, or `none`. Left out: it is about something else."""
    trigger: Name | None = None
    """The trigger whose truth `is` after this step. Left out: it is about something else."""
    is_: Annotated[TriggerTruth | None, Field(alias="is")] = None
    """What the trigger is: `true`, `false` or `unknown` by its values now, `held` while it counts as true, `confirmed`
    once it has been true for its confirmation. Left out: it is about no trigger."""
    lock_in_force: Literal["reduce_only", "all", "none"] | None = None
    """The lock of the whole scope that decisions have written, after this step. Left out: it is about something
    else."""
    stops: tuple[Text, ...] | None = None
    """What is done about the catastrophe stops of the account in `scope` at this step, in any order: `sell 1
    BTC/USDT:USDT at 80`, `cancel ID`, `none for BTC/USDT:USDT: REASON`, or `unknown`; empty where nothing is. Left out:
    it is about something else."""
    switch: Name | None = None
    """The dead-man's switch whose `phase` is compared after this step. Left out: it is about something else."""
    phase: Literal["pending", "armed", "fired"] | None = None
    """What the watcher of the switch concludes: `pending`, it was never heard; `armed`; or `fired`. Left out: it is
    about no switch."""
    may_open: Text | None = None
    """The share of its limits that the account in `scope` may open after this step, on the way back after a reset:
    `7.67%` with three digits, `nothing`, or `everything`. Left out: it is about something else."""
    lock: Literal["reduce_only", "all", "none"] | None = None
    """The lock that the decision writes. Left out: not compared."""
    lock_of: tuple[Text, ...] | None = None
    """The parts of the scope that the lock is of, such as `long in BTC/USDT:USDT`, `short` or `ETH/USDT:USDT`. Left
    out: with `lock` it is of the whole scope, and without it is not compared."""
    orders: tuple[Text, ...] | None = None
    """All orders of the decision, such as `sell 2 BTC/USDT:USDT`, in any order. Left out: not compared."""
    cancels: tuple[Word, ...] | None = None
    """The ids of all orders that the decision cancels. Left out: not compared."""
    source: Literal["LONG", "SHORT", "MIXED", "UNKNOWN"] | None = None
    """The side that lost, by the decision. Left out: not compared."""
    notifies: tuple[Name, ...] | None = None
    """Routes that the message reaches, among others; `root` is the root of a `NotificationTree`. Left out: not
    compared."""
    reason: Text | None = None
    """A part of the decision's reason, or of what it leaves exposed to the market, as its message says it. Left out:
    not compared."""
    text: tuple[Text, ...] = ()
    """Parts of what a person reads: of the title or a line of the message. Left out: not compared."""


class ScenarioSpec(Part):
    """What happens, step by step, and what is expected."""

    policies: Annotated[tuple[Name, ...], AtLeastOne()]
    """The policies that are tested, by name; no other is evaluated."""
    pending: Text | None = None
    """Why the scenario is not expected to pass yet: it is loaded and counted apart, and not run. Left out: it runs."""
    starts: StartTime | None = None
    """The time of the first step, with its zone. Left out: there is a recording."""
    every: Duration | None = None
    """The time between two steps. Left out: there are `times`, or a recording."""
    times: Annotated[tuple[DurationOrZero, ...] | None, AtLeastOne()] = None
    """The times of the steps, from the start, such as [0s, 2m, 62m]. Left out: steps are `every` time apart."""
    pushes: tuple[DurationOrZero, ...] = ()
    """The times of steps that a push of the venue caused: they are evaluated, and count no tick. Left out: none."""
    signals: dict[str, SignalSeriesText] | None = None
    """Series of signals, such as `'equity.drawdown("1h")': 0%x3 7.5% unknown`: their values, whatever the book is.
    Left out: all signals are computed from the accounts."""
    accounts: dict[str, ScenarioAccount] | None = None
    """The accounts, by name. Left out: there is a recording."""
    recording: Text | None = None
    """A recording instead of series: a file of snapshots, relative to the scenario. Left out: there are accounts."""
    heard: dict[str, tuple[ScenarioHearing, ...]] | None = None
    """What the watchers of dead-man's switches with `at_venue: false` hear, by switch. Left out: nothing."""
    events: tuple[ScenarioEvent, ...] = ()
    """Commands of operators. Left out: none."""
    restarts: tuple[ScenarioRestart, ...] = ()
    """Restarts of the runner. Left out: none."""
    notices: Literal["all", "pages", "none"] = "pages"
    """Which notices fail the scenario if nothing expects them: `all` that are sent, those that page that something is
    wrong, or none. A notice at a step at which its policy fires on its scope belongs to that firing. Left out: those
    that page."""
    expect: tuple[ScenarioExpectation, ...] = ()
    """What is expected; every other firing or decision is a failure, and every other notice by `notices`. Left out:
    nothing fires."""


class ScenarioDocument(VersionedPart):
    """A scenario: a test of policies. It is no part of a deployed policy set."""

    kind: Literal["Scenario"]
    spec: ScenarioSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """Series or a recording; one subject for each expectation."""
        spec = spec_of(written)
        yield from _source(spec)
        for number, each in enumerate(items(spec.get("expect"))):
            if isinstance(each, dict):
                yield from _expectation(("spec", "expect", number), each)
        for number, each in enumerate(items(spec.get("events"))):
            event = mapping(each)
            if event.get("kind") == "flag" and not {"flag", "set"} <= event.keys():
                fix = "write `flag: NAME` and `set: true`, or false"
                yield Breach("KS7005", ("spec", "events", number, "kind"), "the command names no flag", fix)


def _source(spec: dict[str, object]) -> Iterator[Breach]:
    if "recording" in spec:
        for key in ("accounts", "starts", "every", "restarts", "times", "pushes", "signals"):
            if key in spec:
                fix = f"remove `{key}`, or remove `recording`"
                yield Breach("KS7003", ("spec", key), f"`{key}` next to a recording, which has its own", fix)
        return
    if {"every", "times"} <= spec.keys():
        yield Breach("KS7003", ("spec", "times"), "`times` next to `every`", "remove one of the two")
    if {"restarts", "times"} <= spec.keys():
        yield Breach("KS7003", ("spec", "restarts"), "`restarts` need steps of one length", "write `every` for `times`")
    for key in ("starts", "every", "accounts"):
        if key not in spec and not (key == "every" and "times" in spec):
            yield Breach("KS7003", ("spec",), f"`{key}` is missing", f"add `{key}`, or name a `recording`")
    if spec.get("accounts") == {}:
        yield Breach("KS7003", ("spec", "accounts"), "there is no account", "add an account with its `equity`")


def _expectation(at: Path, written: dict[str, object]) -> Iterator[Breach]:
    found = [key for key in SUBJECTS if key in written]
    if len(found) != 1:
        what = f"`{found[1]}` next to `{found[0]}`" if found else "it says nothing that can be compared"
        yield Breach("KS7004", (*at, found[1]) if found else at, what, f"write exactly one of {', '.join(SUBJECTS)}")
        return
    (subject,) = found
    if ("is" in written) != (subject == "trigger"):
        fix = "write `trigger: NAME` with `is: true`, false, unknown, held or confirmed"
        yield Breach(
            "KS7004", (*at, "is") if "is" in written else (*at, subject), "`trigger` and `is` belong together", fix
        )
    if ("phase" in written) != (subject == "switch"):
        fix = "write `switch: NAME` with `phase: pending`, armed or fired"
        place = (*at, "phase") if "phase" in written else (*at, subject)
        yield Breach("KS7004", place, "`switch` and `phase` belong together", fix)
    of_decisions = ("fires", "resets", "decides")
    for key in (*OF_DECISIONS, "text"):
        allowed = (*of_decisions, "notice") if key in ("text", "notifies") else of_decisions
        if key in written and subject not in allowed:
            fix = f"remove it, or write one of {', '.join(allowed)}"
            yield Breach("KS7004", (*at, key), f"`{key}` has no meaning with `{subject}`", fix)


class InvariantSpec(Part):
    """What is always true, and of which policies."""

    policies: Annotated[tuple[Name, ...], AtLeastOne()]
    """The policies that it is about, by name; each is proved on its own."""
    holds: Text
    """The property in CEL, over the signals and `stage.level`, the level in force (0 for none). It is judged after the
    firing of each evaluation, and violated where it is surely false."""
    because: Text | None = None
    """Why it matters, in a sentence for people. Left out: nothing is printed."""


class InvariantDocument(VersionedPart):
    """A property of policies that `ksctl prove` proves. It is no part of a deployed policy set."""

    kind: Literal["Invariant"]
    spec: InvariantSpec
