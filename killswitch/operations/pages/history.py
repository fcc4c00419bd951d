"""The page of `ksctl history`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal

from killswitch.incident.record.results import Result
from killswitch.model.decision import Decision, Notice
from killswitch.operations.pages.wording import amount_in, dated_notice, headline
from killswitch.planning.notices import NOT_CARRIED_OUT
from killswitch.planning.operator.closes import OPERATOR
from killswitch.planning.operator.flags import FLAG_CHANGE
from killswitch.planning.operator.pauses import PAUSE_CHANGE
from killswitch.render.document import Items, Page, Section, Table, section
from killswitch.render.formats import count_of, duration_text, instant

NOTICES_SEARCHED = 1_000
"""Number of the newest notices that are searched for those of changes of equity, of flags and of pauses."""
SHORT_SECONDS = 60.0
"""Durations below this many seconds have a fraction."""


def history_page(
    found: Sequence[tuple[Decision, Result]], notices: Sequence[Notice] = (), limit: int = NOTICES_SEARCHED
) -> Page:
    """One row per decision, newest first; then one line per notice of an unexplained change of equity, of a flag, of
    a pause and of a refused command, at most `limit` of each."""
    parts = (
        ("Unexplained changes of equity", [each for each in notices if each.kind == "unexplained"][:limit]),
        ("Flags", [each for each in notices if _is_of(each, FLAG_CHANGE) and each.policy == OPERATOR][:limit]),
        ("Pauses of policies", [each for each in notices if _is_of(each, PAUSE_CHANGE)][:limit]),
        ("Refused commands", [each for each in notices if is_of_refusal(each)][:limit]),
    )
    more = (each for title, them in parts for each in section(title, Items(tuple(map(dated_notice, them)))))
    return Page("History", sections=(_decisions(found), *more))


def _is_of(notice: Notice, change: str) -> bool:
    """Whether a notice is of a command of this kind, or of the end of what one has set."""
    return (notice.subject or "").startswith(change)


def is_of_refusal(notice: Notice) -> bool:
    """Whether a notice is of a close, a lock or a saved plan that was refused."""
    return notice.policy == OPERATOR and notice.title == NOT_CARRIED_OUT


def _decisions(found: Sequence[tuple[Decision, Result]]) -> Section:
    if not found:
        return Section("", ("No decision is recorded on this store.",))
    rows = tuple((instant(each.as_of), each.id, headline(each), *_result(each, result)) for each, result in found)
    sums = ("realised", "fees", "slippage", "delay cost")
    head = ("as of", "decision", "what", "result", "traded", *sums, "took", "remarks")
    return Section("", (Table(head, rows, expendable=(8, 7, 6, 9, 4, 10), ids=(1,)),))


def _result(decision: Decision, result: Result) -> tuple[str, ...]:
    if decision.kind == "reset" or not result.orders:
        of_lock = "locked" if decision.is_hold and result.locked_at else result.standing
        of_reset = "unlocked" if decision.is_unlock else "reset"
        return (of_reset if decision.kind == "reset" else of_lock, *["-"] * 7)
    return (
        result.standing,
        count_of(result.closed, "position") if result.closed else "-",
        _sum(result, "realised", result.realised),
        _sum(result, "fees", result.fees),
        _sum(result, "slippage", result.slippage),
        _sum(result, "delay", result.delay),
        "-" if result.totals.took is None else _duration(result.totals.took),
        "; ".join(_remarks(result)) or "-",
    )


def _sum(result: Result, what: str, value: Decimal | None) -> str:
    """A sum; if it is only partly known, the sum of the known orders."""
    missing = next((each for each in result.missing if each.what == what), None)
    if value is not None or missing is None or missing.known is None:
        return amount_in(result.currencies, value)
    return f"unknown ({amount_in(result.currencies, missing.known)} without {count_of(len(missing.orders), 'order')})"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < SHORT_SECONDS else duration_text(timedelta(seconds=seconds))


def _remarks(result: Result) -> Iterator[str]:
    """Short remarks on irregularities; `ksctl report` has the details."""
    totals, positions = result.totals, result.positions
    if result.unsent:
        yield f"nothing sent on {', '.join(result.unsent)}"
    for count, noun, before, after in (
        (totals.unknown - totals.abandoned, "order", "", " without a final status"),
        (totals.abandoned, "order", "", " never confirmed"),
        (totals.exceeded, "order", "", " beyond the slippage bound"),
        (sum(bool(each.dust) for each in positions), "position", "dust left in ", ""),
        (sum(bool(each.others) for each in positions), "position", "", " changed by others"),
        (sum(bool(each.other_decisions) for each in positions), "position", "", " closed by other decisions"),
    ):
        if count > 0:
            yield f"{before}{count_of(count, noun)}{after}"
