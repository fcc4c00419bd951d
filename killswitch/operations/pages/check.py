"""The page of `ksctl venues check`: the verdict, the findings, and their tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from killswitch.model.inspection import KeyRights
from killswitch.operations.pages.venues import capability_table
from killswitch.planning.closability import Closability
from killswitch.preflight.account_check import AccountCheck, Check, Verdict
from killswitch.preflight.findings import rounded_up
from killswitch.ratelimit.worst_case import CloseEstimate
from killswitch.render.document import Facts, Items, Page, Part, Section, Table
from killswitch.render.formats import count_of, money

MAX_SHOWN = 40
"""Maximum positions with remarks in the text; the JSON has all."""


def check_page(check: Check) -> Page:
    """The whole check; its verdict comes last, where a terminal shows it."""
    counts = Counter(each.verdict for each in check.accounts)
    parts = [f"{counts[verdict]} {text}" for verdict, text in _SUMMED.items() if counts[verdict]]
    total = f"{count_of(len(check.accounts), 'account')}: {', '.join(parts)}. Nothing was changed."
    return Page("Check", sections=(*(_account(each, check) for each in check.accounts), Section("", (total,))))


_SUMMED: Final[Mapping[Verdict, str]] = {"failed": "failed", "warnings": "with warnings", "ok": "ok"}


def _account(account: AccountCheck, check: Check) -> Section:
    where = account.exchange or account.adapter
    system = "" if account.environment == "production" else f", {account.environment}"
    kind = f"{account.adapter}, {where}, {account.market}{system}"
    findings = Facts(
        tuple(
            (f"{each.severity:7}", f"{each.about}: {each.text}{f'; {each.way_out}' if each.way_out else ''}")
            for each in account.findings
        )
    )
    return Section(
        f"{account.account} at {account.venue} ({kind}): {account.verdict.upper()}",
        (
            Items(tuple(_facts(account))),
            findings,
            *_capabilities(account),
            *_outlooks(account),
            *_polling(account, check),
            *_closing(account),
        ),
    )


def _facts(account: AccountCheck) -> Iterator[str]:
    acts = "acts when run with --live" if account.execution == "live" else "observed only"
    yield f"{acts}; {_numbers(account)}"
    if account.quality == "ok":
        yield _modes(account)
    if account.rights is not None:
        yield f"key: {_rights(account.rights)}"


def _capabilities(account: AccountCheck) -> Iterator[Part]:
    if account.capabilities:
        by = "as the venue and the adapter report" if account.told_by == "inspection" else "as far as the adapter shows"
        yield capability_table(account.capabilities, caption=f"Capabilities, {by}")


def _numbers(account: AccountCheck) -> str:
    if account.quality is None:
        return "not read"
    if account.quality != "ok":
        return account.quality
    positions = "positions unknown" if account.positions is None else count_of(account.positions, "position")
    orders = "orders unknown" if account.orders is None else count_of(account.orders, "resting order")
    return f"equity {money(account.equity, account.currency)}, {positions}, {orders}"


def _modes(account: AccountCheck) -> str:
    duration = "unknown" if account.reading_ms is None else f"{account.reading_ms:,.0f} ms"
    skew = "unknown" if account.clock_skew_ms is None else f"{account.clock_skew_ms:+,.0f} ms"
    status = "" if account.status is None else f", status {account.status}"
    return (
        f"a snapshot takes {duration}, the venue's clock {skew}{status}; "
        f"position mode {account.position_mode or 'unknown'}, margin mode {account.margin_mode or 'unknown'}"
    )


def _rights(rights: KeyRights) -> str:
    names = {True: "yes", False: "no", None: "unknown"}
    shown = [
        f"{name} {names[can]}"
        for name, can in (
            ("read", rights.read), ("trade", rights.trade), ("withdraw", rights.withdraw),
            ("transfer", rights.transfer), ("bound to addresses", rights.bound_to_addresses),
        )
    ]  # fmt: skip
    if rights.expires_at is not None:
        shown.append(f"expires {rights.expires_at:%Y-%m-%d}")
    return ", ".join(shown) + (f" ({rights.note})" if rights.note else "")


def _outlooks(account: AccountCheck) -> Iterator[Part]:
    if account.outlooks is None:
        return
    remarked = [each for each in account.outlooks if each.hindrances]
    remarked.sort(key=lambda each: all(one.severity == "note" for one in each.hindrances))
    if not remarked:
        count = len(account.outlooks)
        some, as_is = ("The position", "it is") if count == 1 else (f"All {count} positions", "they are")
        yield f"{some} can be closed as {as_is}." if count else "No position is open."
        return
    shown = remarked[:MAX_SHOWN]
    caption = f"Positions with remarks, of {len(account.outlooks)}"
    left_out = [f"… and {len(remarked) - MAX_SHOWN} more: --output json"] if len(remarked) > MAX_SHOWN else []
    kinds = dict.fromkeys((one.kind, one.meaning) for each in shown for one in each.hindrances)
    notes = (*left_out, *(f"{kind}: {meaning}" for kind, meaning in kinds if meaning))
    yield Table(("position", "contracts", "orders", "", ""), tuple(_rows(shown)), caption=caption, notes=notes)


def _rows(outlooks: Sequence[Closability]) -> Iterator[tuple[str, str, str, str, str]]:
    """One row per remark on a position; the same remark on several positions is one row.

    Warnings about several positions come first, notes about several last.
    """
    outlooks_by_remark: dict[_Remark, list[Closability]] = {}
    for outlook in outlooks:
        for each in outlook.hindrances:
            outlooks_by_remark.setdefault((each.severity, each.kind, each.text), []).append(outlook)
    yield from _of_several(outlooks_by_remark, "warning")
    for outlook in outlooks:
        place = (f"{outlook.symbol} {outlook.side}", f"{outlook.contracts:f}", str(outlook.orders))
        for each in outlook.hindrances:
            if len(outlooks_by_remark[each.severity, each.kind, each.text]) == 1:
                yield (*place, _kind(each.severity, each.kind), each.text)
                place = ("", "", "")
    yield from _of_several(outlooks_by_remark, "note")


_Remark = tuple[str, str, str]
"""Severity, kind and text of a hindrance."""


def _of_several(
    outlooks_by_remark: Mapping[_Remark, Sequence[Closability]], shown_severity: str
) -> Iterator[tuple[str, str, str, str, str]]:
    for (severity, kind, text), outlooks in outlooks_by_remark.items():
        if severity == shown_severity and len(outlooks) > 1:
            names = ", ".join(f"{each.symbol} {each.side} {each.contracts:f}" for each in outlooks)
            orders = str(sum(each.orders for each in outlooks))
            yield (count_of(len(outlooks), "position"), "", orders, _kind(severity, kind), f"{text}: {names}")


def _kind(severity: str, kind: str) -> str:
    return kind if severity == "warning" else f"({kind})"


def _polling(account: AccountCheck, check: Check) -> Iterator[Part]:
    if not account.reading:
        return
    rows = tuple(
        (
            cost.limit,
            f"{cost.takes:,.0f} of {cost.allowed:,} in {cost.per:g} s",
            f"{cost.for_reading:,} are for polling",
            f"least tick {rounded_up(cost.least):g} s" if cost.least else "",
            f"{_units(cost.refreshes)} of it for dead-man timers" if cost.refreshes else "",
            f"shared by {cost.accounts} accounts" if cost.accounts > 1 else "",
            _used(account, cost.limit),
        )
        for cost in account.reading
    )
    caption = f"Polling at a tick of {check.interval:g} s"
    yield Table(("limit", "takes", "", "", "", "", ""), rows, caption=caption)


def _units(units: float) -> str:
    """A number above zero is never shown as 0."""
    return f"{units:,.0f}" if units >= 1 else "less than 1"


def _used(account: AccountCheck, name: str) -> str:
    used = (account.used or {}).get(name)
    return "" if used is None else f"{used:,} used now, by the venue's count"


def _closing(account: AccountCheck) -> Iterator[Part]:
    if account.closing is None:
        return
    rows = [("everything", "", *_estimate(account.closing.everything))]
    worst = account.closing.worst_stage
    if worst is not None:
        paced = " at its own pace" if worst.paced else ""
        which = f"{worst.policy}/{worst.stage} on {worst.scope}"
        rows.append((f"worst stage{paced}", which, *_estimate(worst.reckoning)))
    caption = "Closing, by the venue's limits alone (assuming that every order fills at once)"
    yield Table(("", "", "orders", "cancels", "requests", "seconds", "bound by"), tuple(rows), caption=caption)


def _estimate(found: CloseEstimate) -> tuple[str, str, str, str, str]:
    seconds = "over a day" if found.seconds is None else f"{found.seconds:,.1f}"
    return f"{found.orders:,}", f"{found.cancels:,}", f"{found.requests:,}", seconds, found.bound_by or "nothing"
