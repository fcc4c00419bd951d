"""The numbers that a template shows next to those of the record. Expected values are computed by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from killswitch.incident.record.closed_positions import ClosedPosition
from killswitch.incident.record.document import EquityCurve, Incident, IncidentBook, NewestExposure, RunbookFacts
from killswitch.incident.record.filters import percent
from killswitch.incident.record.loss import Loss
from killswitch.incident.record.order_outcomes import Bound
from killswitch.incident.record.verdict import verdict
from killswitch.incident.report.rendering import report_markdown, runbook
from killswitch.incident.report.template_fields import COMPUTED
from killswitch.incident.report.templates import template_variables
from killswitch.model.decision import Book, BookChange
from killswitch.planning.exposures import Exposures, OpenExposure
from tests.incidents import filled_store, whole_incident

D = Decimal


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incident]:
    from killswitch.incident.incident_builder import incident_of
    from killswitch.incident.record.checklist import StartedAs
    from killswitch.incident.record.incident_decisions import find_incident

    written = filled_store(tmp_path_factory.mktemp("incident"))
    whole_incident(written)
    found = incident_of(written.store, find_incident(written.store, None), StartedAs("store.sqlite"))
    yield known(found)
    written.store.close()


def known(found: Incident) -> Incident:
    """The incident with round numbers: 8 of 10 contracts sold at 99 against a mark of 100, in 1.5 s."""
    sent = datetime.fromisoformat("2024-01-01T00:00:00+00:00")
    order = replace(
        found.orders[0], amount=D(10), filled=D(8), rung=0, side="sell", arrival_mark=D(100), price=D(99),
        sent_at=sent, answered_at=sent + timedelta(seconds=1.5),
        final=True, bound=Bound(D("0.01"), sent=False, slipped=D("0.01"), kept=True),
    )  # fmt: skip
    position = ClosedPosition(
        "main", "BTC", "long", start=D(20), target=D(0), filled=D(8), left=D(5), others=D(7), seen_at=None, dust=None,
        worth=None,
    )  # fmt: skip
    book = BookChange(Book(D(30_000), D(0), None), Book(D(12_000), D(-2_000), None))
    firing = replace(found.firings[0], equity=D(10_000), currency="USDT", book=book, loss=Loss(D("0.2")))
    money = replace(found.money, realised=D(-200), fees=D(15), cost=D(50), currency="USDT")
    course = EquityCurve(points=(), peak=125.0, lowest=90.0, last=95.0, sparkline="")
    owned = Exposures(sent, "USDT", (OpenExposure("account", "main"), OpenExposure("strategy", "grid", realised=D(3))))
    books = (IncidentBook("opened", owned), IncidentBook("newest", replace(owned, parts=owned.parts[:1])))
    return replace(
        found, firings=(firing,), orders=(order,), positions=(position,), money=money, course=course, books=books,
        newest=NewestExposure(sent, D(-2_000), D(12_000), "USDT"),
    )  # fmt: skip


SHOWN: dict[str, tuple[str, str]] = {
    "nothing is left, and what is held now is known": ("{{ incident.is_settled }}", "yes"),
    "both positions are gone": ("{{ incident.shown }}", "the venue shows 2 of 2 positions closed"),
    "no lock was breached": ("{{ incident.fight if incident.fight else 'none' }}", "none"),
    "100 to 95 after a fall from 125": (
        "{{ incident.verdict }}",
        "AT TARGET, -3,000.00 USDT, -24.0%, 1 order, closed in 69 s",
    ),
    "50 of 10,000": ("{{ incident.cost_share|percent(2) }}", "0.50%"),
    "-200 - 15": ("{{ incident.money.net|money }}", "-215.00"),
    "30,000 of 10,000": ("{{ incident.firings[0].leverage|fixed(1) }}", "3.0"),
    "30,000 - 12,000": ("{{ firing.book.cut|money(firing.currency) }}", "18,000.00 USDT"),
    "2,000 more short, as the venue shows": ("{{ incident.newest.net_now }}", "short 2,000.00 USDT"),
    "18,000 of 30,000": ("{{ firing.book.cut_share|percent }}", "60.0%"),
    "30,000 long and short": ("{{ firing.net_before }}", "0.00 USDT"),
    "2,000 more short, if it was sent": ("{{ firing.net_after }}", "short 2,000.00 USDT"),
    "long realised -110": ("{{ 'yes' if '-110.00 USDT' in incident.sides_chart }}", "yes"),
    "5 of 20 are left": (
        "{{ incident.positions_chart }}",
        "BTC long on main ██████░░░░░░░░░░░░░░░░░░ 20 before, 5 now (25%)",
    ),
    "it is not at target": ("{{ 'yes' if 'not at target yet' in incident.closing_chart }}", "yes"),
    "1 of 100, 5 in money": ("{{ incident.slippage_chart }}", f"1 BTC long {'█' * 24} 1.000%, 5.00 USDT"),
    "to the venue": ("{{ 'yes' if 'It sent 1 order;' in incident.venue_text }}", "yes"),
    "to people": ("{{ 'yes' if 'Realised -200.00 USDT before fees' in incident.stakeholder_text }}", "yes"),
    "the step after 0": ("{{ incident.orders[0].step }}", "1"),
    "10 - 8": ("{{ incident.orders[0].unfilled|amount }}", "2"),
    "8 of 10": ("{{ incident.orders[0].filled_share|percent(0) }}", "80%"),
    "sold 1 of 100 below the mark": ("{{ incident.orders[0].slipped|percent(3) }}", "1.000%"),
    "1% slipped, 1% declared": ("{{ incident.orders[0].bound_outcome }}", "kept, sent without a bound"),
    "1.5 s": ("{{ incident.orders[0].answered_after|fixed }} s", "1.5 s"),
    "20 - 5": ("{{ incident.positions[0].closed|amount }}", "15"),
    "15 of 20": ("{{ incident.positions[0].closed_share|percent }}", "75.0%"),
    "realised P&L, then none": (
        "{% for each in incident.books %}{{ 'yes' if each.has_realised else 'no' }} {% endfor %}",
        "yes no ",
    ),
    "nothing of the books is unknown": (
        "{% for each in incident.books %}{{ 'yes' if each.has_unknown else 'no' }} {% endfor %}",
        "no no ",
    ),
    "an account is not a part of accounts": ("{{ 'part' if incident.is_part else 'whole' }}", "whole"),
    "125 to 90": ("{{ incident.course.fall|percent }}", "28.0%"),
    "100 to 95": ("{{ incident.course.change|percent }}", "-5.0%"),
}


def shown(incident: Incident, folder: Path, template: str) -> str:
    (folder / "own.md.j2").write_text(template, encoding="utf-8")
    return runbook(incident, incident.firings[0].stage, RunbookFacts("own", str(folder), "own.md.j2")).markdown


@pytest.mark.parametrize("case", SHOWN, ids=str)
def test_a_template_shows_a_computed_number(case: str, incident: Incident, tmp_path: Path) -> None:
    """As a field of the record that it is computed from."""
    template, expected = SHOWN[case]
    assert shown(incident, tmp_path, template) == expected


def test_every_computed_number_has_a_case() -> None:
    """A new one is not left without an expected value."""
    names = {name for fields in COMPUTED.values() for name in fields}
    untested = [name for name in names if not any(f".{name}" in template for template, _ in SHOWN.values())]
    assert untested == [], "add a case of each to SHOWN, with a value computed by hand"


UNKNOWN: dict[str, tuple[str, Callable[[Incident], Incident]]] = {
    "the cost": ("{{ incident.cost_share }}", lambda it: replace(it, money=replace(it.money, cost=None))),
    "the currency of the equity": (
        "{{ incident.cost_share }}", lambda it: replace(it, firings=(replace(it.firings[0], currency="BTC"),)),
    ),
    "the equity": ("{{ firing.leverage }}", lambda it: replace(it, firings=(replace(it.firings[0], equity=None),))),
    "no equity": ("{{ firing.leverage }}", lambda it: replace(it, firings=(replace(it.firings[0], equity=D(0)),))),
    "the book": ("{{ firing.leverage }}", lambda it: replace(it, firings=(replace(it.firings[0], book=None),))),
    "the book, of which a part is shown": (
        "{{ firing.book.cut_share }}", lambda it: replace(it, firings=(replace(it.firings[0], book=None),)),
    ),
    "the fees": ("{{ incident.money.net }}", lambda it: replace(it, money=replace(it.money, fees=None))),
    "the filled part": ("{{ incident.orders[0].unfilled }}", lambda it: order(it, filled=None)),
    "an order of nothing": ("{{ incident.orders[0].filled_share }}", lambda it: order(it, amount=D(0))),
    "the rung": ("{{ incident.orders[0].step }}", lambda it: order(it, rung=None)),
    "the price": ("{{ incident.orders[0].slipped }}", lambda it: order(it, price=None)),
    "the side": ("{{ incident.orders[0].slipped }}", lambda it: order(it, side=None)),
    "the mark": ("{{ incident.orders[0].slipped }}", lambda it: order(it, arrival_mark=None)),
    "the answer": ("{{ incident.orders[0].answered_after }}", lambda it: order(it, answered_at=None)),
    "what is left": (
        "{{ incident.positions[0].closed_share }}",
        lambda it: replace(it, positions=(replace(it.positions[0], left=None),)),
    ),
    "the curve": ("{{ incident.course.fall }}", lambda it: replace(it, course=None)),
    "a curve without a value": (
        "{{ incident.course.fall }}", lambda it: replace(it, course=EquityCurve((), 0.0, 0.0, 0.0, "")),
    ),
}  # fmt: skip


def order(incident: Incident, **fields: Any) -> Incident:
    """The incident with other fields of its order."""
    return replace(incident, orders=(replace(incident.orders[0], **fields),))


@pytest.mark.parametrize("case", UNKNOWN, ids=str)
def test_a_number_computed_from_an_unknown_one_is_unknown(case: str, incident: Incident, tmp_path: Path) -> None:
    """Never zero, and no division by zero."""
    template, without = UNKNOWN[case]
    assert shown(without(incident), tmp_path, template) == "unknown"


def test_a_buy_above_the_mark_has_slipped(incident: Incident, tmp_path: Path) -> None:
    """Bought at 101 against 100 is a cost of 1%, and at 99 a gain."""
    for price, expected in ((D(101), "1.0%"), (D(99), "-1.0%")):
        bought = order(incident, side="buy", price=price)
        assert shown(bought, tmp_path, "{{ incident.orders[0].slipped|percent }}") == expected


def test_computed_numbers_hide_no_field_and_are_not_written_to_the_record(incident: Incident) -> None:
    """`incident/v1` has its own fields only."""
    for record, fields in COMPUTED.items():
        assert set(fields).isdisjoint(record.__struct_fields__)
    assert "filled_share" not in msgspec.json.encode(incident).decode()


def test_decisions_divide_the_lists_of_the_incident(incident: Incident) -> None:
    """Each firing has the orders, endings and positions of its own decision."""
    other = replace(incident.firings[0], decision="other")
    two = replace(incident, firings=(incident.firings[0], other), orders=(*incident.orders,) * 2)
    two = replace(two, orders=(two.orders[0], replace(two.orders[1], decision="other", number=2)))
    first, second = template_variables(two).decisions
    assert ([it.number for it in first.orders], [it.number for it in second.orders]) == ([two.orders[0].number], [2])


def test_a_percentage_has_as_many_decimals_as_asked() -> None:
    """One by default; a text and an unknown share are accepted."""
    assert (percent(D("0.01234"), 2), percent(0.5), percent("0.25", 0), percent(None, 2)) == (
        "1.23%", "50.0%", "25%", "unknown",
    )  # fmt: skip
    with pytest.raises(ValueError, match="0 to 20 decimals, not 21"):
        percent(0.5, 21)


def test_the_table_of_a_book_with_strategies_has_its_columns(incident: Incident) -> None:
    """Each row has as many cells as the head: a column in a text of the template would be escaped as one of data."""
    unknown = OpenExposure("strategy", "carry", unknown="a fill is missing", realised_unknown="a fill is missing")
    owned = incident.books[0].book
    books = (IncidentBook("opened", replace(owned, parts=(*owned.parts, unknown))),)
    lines = report_markdown(replace(incident, books=books)).splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("| of | name |"))
    assert lines[head] == "| of | name | gross | net | unrealised P&L | realised P&L | unknown |"
    assert [line.count("|") for line in lines[head : head + 5]] == [8] * 5
    assert lines[head + 4].endswith("| unknown | a fill is missing |")


def test_a_gain_since_the_peak_has_its_sign(incident: Incident) -> None:
    """From 125 to 150 is 20%, of an equity of 10,000 at 100: 2,500. Where losses are expected, a bare number is one."""
    course = EquityCurve(points=(), peak=125.0, lowest=90.0, last=150.0, sparkline="")
    assert verdict(replace(incident, course=course)) == "AT TARGET, +2,500.00 USDT, +20.0%, 1 order, closed in 69 s"
