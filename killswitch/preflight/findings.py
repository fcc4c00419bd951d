"""Findings of an account check: severity, subject, text and way out. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from functools import partial
from typing import Final, Literal

from msgspec import Struct

from killswitch.graph.resolution.accounts import unencrypted
from killswitch.model.inspection import KeyRights
from killswitch.model.snapshot import AccountSnapshot, Quality
from killswitch.model.unanswered import CLOCK_OFF
from killswitch.model.venue import RateLimitedError
from killswitch.planning.closability import Closability
from killswitch.planning.orders.slices import DERIVATIVES
from killswitch.preflight.inspection import InspectedAccount, error_text
from killswitch.preflight.key_rights import WITHDRAWS, WITHDRAWS_WAY_OUT
from killswitch.preflight.worst_cases import WorstCase
from killswitch.ratelimit.poll_cost import PollCost
from killswitch.render.formats import count_of

MAX_SNAPSHOT_AGE = timedelta(minutes=1)
"""Maximum age of a current snapshot."""
SKEW_WARNS, SKEW_FAILS = 500.0, 5_000.0
"""Milliseconds. Venues reject a signed request whose time is too far off: Binance and Bybit one of more than 1 s
ahead, or 5 s old by default (`recvWindow`). Latency adds to that, so half of the narrower bound is a warning; beyond
the wider bound most venues reject every request, including a close. If the venue accepted the snapshot request, it
allows more, and the finding stays a warning."""
SET_CLOCK: Final = "set this machine's clock by NTP (chrony, systemd-timesyncd)"
EXPIRES_SOON = timedelta(days=14)

Severity = Literal["failed", "warning", "note"]


class Finding(Struct, frozen=True):
    """One finding: what it is about, and what to do."""

    severity: Severity
    about: str
    text: str
    way_out: str = ""


_failed = partial(Finding, "failed")
_warning = partial(Finding, "warning")
_note = partial(Finding, "note")


class CheckRequirements(Struct, frozen=True):
    """Requirements: the polling interval, and the seconds that a full close may take."""

    interval: float
    within: float
    now: datetime


class DocumentFacts(Struct, frozen=True):
    """Context of the account in the documents.

    `watched`: whether a policy scope includes it. `duplicates`: other documents of the same account. `timers`: why `run
    --live` would refuse its dead-man timer.
    """

    watched: bool
    duplicates: tuple[str, ...] = ()
    timers: tuple[str, ...] = ()


def account_findings(
    inspected: InspectedAccount,
    outlooks: Sequence[Closability] | None,
    costs: Sequence[PollCost],
    closing: WorstCase | None,
    requirements: CheckRequirements,
    facts: DocumentFacts,
) -> tuple[Finding, ...]:
    """All findings in reading order.

    If the venue rejects the key, findings that need the key are left out.
    """
    if inspected.rejection is not None:
        return (*_rejected_key(inspected), *_clock(inspected), *_document_findings(inspected, facts))
    down = inspected.snapshot is not None and inspected.snapshot.quality == "down"
    # If the venue is down, the notes repeat the cause for each request.
    notes = inspected.inspection.notes if inspected.inspection is not None and not down else ()
    return (
        *_connection(inspected, requirements.now),
        *_clock(inspected),
        *_rights(inspected, requirements.now),
        *_modes(inspected),
        *_document_findings(inspected, facts),
        *_positions(inspected.known, outlooks),
        *_polling(inspected, costs, requirements.interval),
        *_closing(inspected.known, closing, requirements.within),
        *(_note("venue", note) for note in notes),
    )


def skew_of(inspected: InspectedAccount) -> float | None:
    """Milliseconds that the clock of the venue is ahead of this machine."""
    if inspected.inspection is not None and inspected.inspection.clock_skew_ms is not None:
        return inspected.inspection.clock_skew_ms
    health = None if inspected.snapshot is None else inspected.snapshot.health
    return None if health is None else health.clock_skew_ms


def mode_of(inspected: InspectedAccount, name: Literal["position_mode", "margin_mode"]) -> str | None:
    mode: str | None = getattr(inspected.inspection, name, None)
    return mode or getattr(inspected.known, name, None)


_UNREAD: Final = {
    "down": "check the address, the credentials, the network and the status page of the venue, and repeat this command",
    "stale": "the venue returns old numbers: wait for new ones before you trust the account",
    "malformed": "the answer of the venue cannot be parsed: keep the account at execution: observe until it can",
}
_WAIT = "wait that long, check what else sends requests from this address or with this key, and repeat this command"


def _rejected_key(inspected: InspectedAccount) -> Iterator[Finding]:
    yield _failed(
        "key",
        f"the venue rejects it (wrong secret, revoked, wrong address or system): {inspected.rejection}",
        "compare it with the value that the document's credentials point to, character by character; or create a "
        "new key for this system of the venue and store it there",
    )  # fmt: skip


def _way_out(inspected: InspectedAccount, quality: Quality, why: str) -> str:
    if quality == "malformed":
        return _parse_advice(inspected, why)
    return _WAIT if isinstance(inspected.failure, RateLimitedError) else _UNREAD[quality]


def _parse_advice(inspected: InspectedAccount, reason: str) -> str:
    """What to do about an answer that cannot be parsed."""
    spec = inspected.document.spec
    if re.search(rf"(?<![\w/:]){re.escape(spec.currency)}(?![\w/:])", reason):
        return "" if "write a currency" in reason else "name a currency that the account holds"
    if spec.endpoint is not None:
        return f"it does not look like {spec.exchange or inspected.venue}: check the endpoint"
    return _UNREAD["malformed"]


def _connection(inspected: InspectedAccount, now: datetime) -> Iterator[Finding]:
    if inspected.refused is not None:
        own = f"account {inspected.name}"
        yield _failed("account", inspected.refused.removeprefix(f"{own}: ").removeprefix(f"{own}, "))
        return
    if clock_rejection(inspected) is not None:
        return  # the clock is the cause and has a finding of its own
    seen = inspected.snapshot
    is_unreadable = seen is not None and inspected.known is None
    why = "" if seen is None else seen.reason or "no reason given"
    way_out = _UNREAD["down"] if seen is None or not is_unreadable else _way_out(inspected, seen.quality, why)
    # After a rejected inspection, the snapshot may fail at once for the same reason.
    error = why if inspected.failure is None else error_text(inspected.failure)
    same = is_unreadable and inspected.inspection_error is not None and error in inspected.inspection_error
    if inspected.inspection_error is not None:
        yield _failed("venue", f"inspection failed: {inspected.inspection_error}", way_out if same else _UNREAD["down"])
    if seen is not None and is_unreadable:
        reason, advice = ("same reason", "") if same else (why, way_out)
        yield _failed("venue", f"it is {seen.quality}: {reason}", advice)
    if inspected.known is not None:
        yield from _snapshot_findings(inspected.known, now)
    status = None if inspected.inspection is None else inspected.inspection.status
    if status not in (None, "ok"):
        yield _warning("venue", f"the venue reports its status as {status}", "check the status page of the venue")


def _snapshot_findings(seen: AccountSnapshot, now: datetime) -> Iterator[Finding]:
    """Findings on a snapshot with quality ok."""
    if seen.reason is not None:
        yield _warning("venue", f"incomplete snapshot: {seen.reason}", "repeat this command")
    if seen.observed_at is not None and abs(now - seen.observed_at) > MAX_SNAPSHOT_AGE:
        when = f"{seen.observed_at:%Y-%m-%d %H:%M} UTC"
        way_out = "check the clocks, and that no cache answers in place of the venue"
        yield _failed("venue", f"the snapshot is dated {when}", way_out)


def clock_rejection(inspected: InspectedAccount) -> str | None:
    """The error of the venue if it rejects requests because of their time."""
    seen = inspected.snapshot
    reasons = (inspected.inspection_error, None if seen is None or seen.quality == "ok" else seen.reason)
    return next((why for why in reasons if why and CLOCK_OFF in why), None)


_TOO_FAR: Final = "venues reject signed requests this far from their time, usually from 5 s"
_ACCEPTED: Final = (
    "the venue accepted these requests; others reject them, and ages and trading hours are off by the same time"
)


def _clock(inspected: InspectedAccount) -> Iterator[Finding]:
    skew, refused = skew_of(inspected), clock_rejection(inspected)
    if skew is not None and not math.isfinite(skew):
        yield _failed("clock", "the clock of the venue is unreadable", "check the endpoint")
        skew = None
    side = "" if skew is None else "ahead of" if skew > 0 else "behind"
    text = "" if skew is None else f"the venue's clock is {abs(skew):,.0f} ms {side} this one"
    if refused is not None:
        with_skew = f"{text}, and it rejects requests because of it"
        unknown = "the venue rejects requests because of their time"
        yield _failed("clock", f"{with_skew if text else unknown}: {refused}", SET_CLOCK)
    elif skew is not None and abs(skew) > SKEW_FAILS:
        finding, why = (_failed, _TOO_FAR) if inspected.known is None else (_warning, _ACCEPTED)
        yield finding("clock", f"{text}: {why}", SET_CLOCK)
    elif skew is not None and abs(skew) > SKEW_WARNS:
        why = "some venues reject a request that is 1 s ahead, or 5 s late including latency"
        yield _warning("clock", f"{text}: {why}", SET_CLOCK)


def _rights(inspected: InspectedAccount, now: datetime) -> Iterator[Finding]:
    spec = inspected.document.spec
    if inspected.refused is not None:
        return
    rights = KeyRights() if inspected.inspection is None else inspected.inspection.rights
    # The adapter may have credentials of its own; without any, no right is unknown.
    if spec.credentials or rights.withdraw:
        yield from _withdrawing(rights, allowed=spec.allow_withdrawal_keys)
    if not spec.credentials:
        return
    if rights.read is False:
        yield _failed("key", "it may not read", "grant it the read right at the venue")
    if rights.trade is False:
        live = spec.execution == "live"
        text = "it may not trade: it cannot close positions"
        yield Finding("failed" if live else "note", "key", text, "grant it the trade right, and no other")
    elif rights.trade is None:
        # The right must be known before the account is armed.
        weight: Severity = "warning" if spec.execution == "live" else "note"
        yield Finding(weight, "key", "whether it may trade is unknown", "check the key at the venue")
    if rights.transfer:
        yield _note("key", "it may transfer between accounts, which only `top_up_margin` needs")
    if rights.bound_to_addresses is False:
        yield _note("key", "it works from any address", "restrict it to the address of this machine at the venue")
    if rights.expires_at is not None and rights.expires_at - now < EXPIRES_SOON:
        over = rights.expires_at <= now
        when = f"it {'expired' if over else 'expires'} at {rights.expires_at:%Y-%m-%d %H:%M} UTC"
        yield Finding("failed" if over else "warning", "key", when, "create a new one")


def _withdrawing(rights: KeyRights, *, allowed: bool) -> Iterator[Finding]:
    if rights.withdraw and not allowed:
        yield _failed("key", f"it {WITHDRAWS}", WITHDRAWS_WAY_OUT)
    elif rights.withdraw:
        yield _note("key", "it may withdraw, which the Account document allows")
    elif rights.withdraw is None and not allowed:
        why = f" ({rights.note})" if rights.note else ""
        yield _warning(
            "key", f"whether it may withdraw is unknown{why}",
            "check the key at the venue; allow_withdrawal_keys: true confirms that you did, or accept it",
        )  # fmt: skip


def _modes(inspected: InspectedAccount) -> Iterator[Finding]:
    market = inspected.document.spec.market
    if inspected.known is not None and market in DERIVATIVES and mode_of(inspected, "position_mode") is None:
        yield _warning(
            "modes", "the position mode is unknown: the venue rejects a close in the wrong mode",
            "set it at the venue (one-way or hedge) and check that the key may read it",
        )  # fmt: skip


def _document_findings(inspected: InspectedAccount, facts: DocumentFacts) -> Iterator[Finding]:
    if facts.duplicates:
        yield _warning(
            "account",
            f"{', '.join(facts.duplicates)} {'has' if len(facts.duplicates) == 1 else 'have'} the same exchange, "
            "market, address and credentials: one book is polled, counted and closed more than once",
            "keep one of the documents, or use a separate key for each account",
        )  # fmt: skip
    keys = " and ".join(unencrypted(inspected.document.spec))
    if keys:
        live = inspected.document.spec.execution == "live"
        yield Finding(
            "failed" if live else "warning", "account",
            ("`run --live` would not start: " if live else "") + f"{keys} sends its credentials beyond this machine "
            "without TLS",
            "use https:// (wss://), or set allow_unencrypted: true if the network itself is trusted",
        )  # fmt: skip
    for why in facts.timers:
        yield _failed("dead man", f"`run --live` would not start: {why}")
    if not facts.watched:
        yield _warning("policies", "no policy watches this account", "widen the scope.match of a policy, or add one")


def _positions(known: AccountSnapshot | None, outlooks: Sequence[Closability] | None) -> Iterator[Finding]:
    if known is None:
        return
    if known.positions is None:
        yield _failed("positions", "they are unknown: no position can be closed", "check the read rights of the key")
        return
    uncloseable = [each for each in outlooks or () if any(one.severity == "warning" for one in each.hindrances)]
    if uncloseable:
        names = ", ".join(each.symbol for each in uncloseable[:5]) + (", …" if len(uncloseable) > 5 else "")
        yield _warning(
            "positions",
            f"{len(uncloseable)} of {len(known.positions)} cannot be closed as they are, or may not be: {names}",
            "; ".join(_ways_out(uncloseable)),
        )  # fmt: skip
    if known.equity is None:
        yield _warning("equity", "it is unknown: no policy can measure a drawdown", "check the read rights of the key")
    if known.orders is None:
        yield _warning("orders", "resting orders are unknown: what blocks a close is unknown")


def _ways_out(uncloseable: Sequence[Closability]) -> Iterator[str]:
    """Each way out once, in the order of the positions."""
    ways = [one.way_out for each in uncloseable for one in each.hindrances if one.severity == "warning" and one.way_out]
    yield "see the table of positions"
    yield from dict.fromkeys(ways)


def _polling(inspected: InspectedAccount, costs: Sequence[PollCost], interval: float) -> Iterator[Finding]:
    if inspected.refused is None and not inspected.adapter.traits.limits:
        yield _note("limits", "the adapter declares no request limits: requests are not metered")
    slow = [cost for cost in costs if cost.too_fast]
    if slow:
        worst = max(slow, key=lambda cost: cost.least)
        least = f"{rounded_up(worst.least):g} s"
        what = "Polling and refreshing dead-man timers" if worst.refreshes else "Polling"
        shared = f", which {worst.accounts} accounts share" if worst.accounts > 1 else ""
        fits = worst.for_reading - worst.refreshes >= worst.a_reading > 0 or not worst.refreshes
        yield _warning(
            "reading",
            f"a tick of {interval:g} s is too fast here: "
            + (f"{least} is the minimum. " if fits else "refreshing timers leaves no room for polling. ")
            + f"{what} would take {worst.takes:,.0f} of {worst.limit} in {worst.per:g} s{shared}, and "
            f"{worst.for_reading:,} of {worst.allowed:,} are for polling",
            ", or ".join(
                each for each in (
                    f"run with --interval {rounded_up(worst.least):g}s" if fits else "",
                    "lengthen `refresh`" if worst.refreshes else "",
                    "lower closing_share",
                ) if each
            ),
        )  # fmt: skip


def _closing(known: AccountSnapshot | None, closing: WorstCase | None, within: float) -> Iterator[Finding]:
    if known is None or closing is None:
        return
    worst = closing.everything
    if worst.seconds is not None and worst.seconds <= within:
        return
    duration = "more than a day" if worst.seconds is None else f"{worst.seconds:,.0f} s"
    bound = f", bound by {worst.bound_by}" if worst.bound_by else ""
    yield _warning(
        "closing",
        f"closing everything takes {duration} at best ({count_of(worst.requests, 'request')}{bound}), "
        f"more than {within:g} s",
        "ask the venue for higher limits, split the account, or run from separate addresses",
    )  # fmt: skip


def rounded_up(seconds: float) -> float:
    """Seconds rounded up to tenths."""
    return float(Decimal(repr(round(seconds, 9))).quantize(Decimal("0.1"), ROUND_CEILING))
