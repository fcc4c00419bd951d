"""The page of `ksctl shadow report`, which is the text for a comment, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from killswitch.incident.record.close_causes import order_texts
from killswitch.model.decision import Decision
from killswitch.model.effects import Orders
from killswitch.operations.pages.wording import effect_line
from killswitch.render.document import Facts, Items, Page, Section, Table, section
from killswitch.render.formats import count_of, duration_text, instant
from killswitch.runner.shadow.comparison import ShadowReport, StageCount

MOST_ROWS: Final = 50
"""Maximum firings and differences that are listed; the JSON has all."""
MOST_ORDERS: Final = 3
"""Maximum orders of a firing that are listed."""


def shadow_page(reports: Sequence[ShadowReport]) -> Page:
    """One part for each shadow set: a sentence for each stage, then what would have been done and what differs."""
    if not reports:
        return Page("Shadow", sections=(Section("", ("No policy set is or was in shadow on this store.",)),))
    return Page(
        "Shadow", summary=tuple(map(set_sentence, reports)), sections=tuple(each for r in reports for each in _set(r))
    )


def set_sentence(report: ShadowReport) -> str:
    """Which set was in shadow for how long, and how often it differed."""
    record = report.record
    which = "the set that was deployed before" if record.reason == "previous" else "the candidate"
    state = "is" if record.is_active else "was"
    known = "; partly known, see its gaps" if report.is_partly_known else ""
    differing = count_of(len(report.differences), "difference") if report.differences else "no difference"
    seen = f"{duration_text(timedelta(seconds=report.seconds))} ({count_of(report.ticks, 'tick')})"
    return f"{record.id}, {which} of {record.origin.source}, {state} in shadow for {seen}: {differing}{known}."


def _set(report: ShadowReport) -> Iterator[Section]:
    record, origin = report.record, report.record.origin
    facts = (
        ("Set", record.digest[:19] or "not compiled"),
        ("Source", " ".join(filter(None, (origin.source, origin.ref, origin.commit)))),
        (
            "In shadow",
            f"{instant(record.begun_at)} to {instant(report.until)}{', goes on' if record.is_active else ''}",
        ),
        *((("Gaps", text),) if (text := _gaps(report)) else ()),
        *((("Problem", record.problem),) if record.problem else ()),
        *((("Unknown", report.unread),) if report.unread else ()),
    )
    yield Section(
        f"Shadow set {record.id}", (Facts(facts), Items(tuple(stage_sentence(it, report) for it in report.counts)))
    )
    rows = tuple(
        (instant(it.as_of), f"{it.stage or '-'} of {it.policy} on {it.scope}", str(it.level), _would(it))
        for it in report.firings[:MOST_ROWS]
    )
    more = _more(len(report.firings), "firing")
    yield from section(
        "What it would have done", Table(("when", "stage", "level", "what"), rows, expendable=(2,)), more
    )
    differing = tuple(
        (instant(it.as_of), f"{it.stage or '-'} of {it.policy} on {it.scope}", it.what, it.deployed or it.shadow or "-")
        for it in report.differences[:MOST_ROWS]
    )
    head = ("when", "stage", "difference", "decision")
    yield from section(
        "Where it differs from the deployed set", Table(head, differing, ids=(3,)),
        _more(len(report.differences), "difference"),
    )  # fmt: skip


def stage_sentence(count: StageCount, report: ShadowReport) -> str:
    """How often a stage would have fired, next to how often it did."""
    within = duration_text(timedelta(seconds=report.seconds))
    other = "the deployed set never" if not count.deployed else f"the deployed set fired it {_times(count.deployed)}"
    mine = f"would have fired {_times(count.shadow)}" if count.shadow else "would never have fired"
    return f"{count.stage} of {count.policy} on {count.scope} {mine} in {within}; {other}"


def _times(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count} times"


def _gaps(report: ShadowReport) -> str:
    """The times that it has not seen, and what the deployed set fired in them."""
    parts = [_gap(*each) for each in report.gaps[-3:]]
    earlier = len(report.gaps) - len(parts)
    text = ("; ".join(parts) + (f" and {earlier} earlier" if earlier else "")) if parts else ""
    if report.missed:
        text += f"{'; ' if text else ''}{count_of(report.missed, 'snapshot')} lost"
    if report.unseen:
        text += f"{'; ' if text else ''}{count_of(len(report.unseen), 'decision')} of the deployed set not seen"
    return text


def _gap(begin: datetime, end: datetime) -> str:
    return f"{instant(begin)} to {instant(end)} not seen ({duration_text(end - begin)})"


def _would(decision: Decision) -> str:
    orders = order_texts(decision.intents)
    parts = [
        *orders[:MOST_ORDERS],
        *((f"{len(orders) - MOST_ORDERS} orders more",) if len(orders) > MOST_ORDERS else ()),
    ]
    parts += [effect_line(effect) for effect in decision.effects if not isinstance(effect, Orders)]
    return "; ".join(parts) or "nothing"


def _more(count: int, noun: str) -> Items:
    left = count - MOST_ROWS
    return Items((f"{count_of(left, noun)} more: --output json has all",) if left > 0 else ())
