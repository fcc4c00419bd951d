"""The drawings and the texts of a report: bars by hand, and what an unknown part of them says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.closed_positions import ClosedPosition
from killswitch.incident.record.document import Incident, SidePnl
from killswitch.incident.record.incident_decisions import find_incident
from killswitch.incident.report.charts import chart_figures, closing_bars, position_bars, side_bars, slippage_bars
from killswitch.incident.report.rendering import report
from killswitch.incident.report.texts import stakeholder_text, venue_text
from killswitch.render.bar_chart import CELLS, BarLimit, ChartBar, bar_figure, bar_lines
from tests.incidents import FIRST, filled_store, whole_incident

D = Decimal


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incident]:
    written = filled_store(tmp_path_factory.mktemp("incident"))
    whole_incident(written)
    yield incident_of(written.store, find_incident(written.store, None), StartedAs("store.sqlite"))
    written.store.close()


def with_one_order(found: Incident, **more: object) -> Incident:
    """One position of 10 contracts, whose order was sent 2 s after the decision and sold at 99 instead of 100."""
    at = found.firings[0].at
    order = replace(
        found.orders[0], decision=FIRST, account="main", symbol="BTC", position_side="long", side="sell",
        sent_at=at + timedelta(seconds=2), amount=D(10), filled=D(10), price=D(99), arrival_mark=D(100), slippage=D(10),
        number=1, bound=None, final=True, client_order_id="ks1",
    )  # fmt: skip
    position = ClosedPosition(
        "main", "BTC", "long", start=D(10), target=D(0), filled=D(10), left=D(0), others=D(0),
        seen_at=at + timedelta(seconds=75), dust=None, worth=None,
    )  # fmt: skip
    return replace(found, orders=(order,), positions=(replace(position, **more),), left=())


def test_the_time_to_the_target_runs_from_the_first_order_and_misses_the_target_of_a_minute(incident: Incident) -> None:
    """Sent after 2 s and flat after 75 s: over the 60 s, which the words and the colour say."""
    (bar,) = closing_bars(with_one_order(incident))
    assert (bar.begins, bar.value, bar.tone) == (2.0, 75.0, "bad")
    assert bar.text == "at target after 75.0 s"


def test_a_position_that_is_not_at_target_has_no_end(incident: Incident) -> None:
    """It is not drawn as closed."""
    (bar,) = closing_bars(with_one_order(incident, left=D(4)))
    assert (bar.value, bar.text) == (None, "first order after 2.0 s, not at target yet")


@pytest.mark.parametrize(
    ("left", "value", "text"),
    [(D(4), 0.4, "10 before, 4 now (40%)"), (D(0), 0.0, "10 before, 0 now (0%)"), (None, None, "held 10, now unknown")],
)
def test_a_position_is_drawn_in_front_of_what_was_held(
    incident: Incident, left: Decimal | None, value: float | None, text: str
) -> None:
    """4 of 10 are 40%; what the venue has not shown is unknown and not nought."""
    (bar,) = position_bars(with_one_order(incident, left=left))
    assert (bar.value, bar.text, bar.whole) == (value, text, 1.0)


def test_slippage_is_a_share_of_the_mark_when_the_order_was_sent(incident: Incident) -> None:
    """Sold at 99 with the mark at 100: 1%, and 10 in money."""
    (bar,) = slippage_bars(with_one_order(incident))
    assert bar.value == pytest.approx(0.01)
    assert bar.text.startswith("1.000%, 10.00")


def test_an_unknown_side_has_no_bar(incident: Incident) -> None:
    """A sum with an unknown part is unknown."""
    sides = (SidePnl("long", D(-30), None), SidePnl("short", D(5), D(4)))
    assert [(each.value, each.tone) for each in side_bars(replace(incident, sides=sides))] == [
        (-30.0, "bad"), (None, "plain"), (5.0, "good"), (4.0, "good"),
    ]  # fmt: skip


BARS = st.lists(
    st.builds(ChartBar, st.text("ab", min_size=1, max_size=5), st.none() | st.floats(-1e6, 1e6), st.just("x")),
    min_size=1, max_size=8,
)  # fmt: skip


@given(BARS, st.none() | st.builds(BarLimit, st.floats(0, 1e6), st.just("target")))
def test_every_bar_is_a_line_of_the_same_width(rows: list[ChartBar], limit: BarLimit | None) -> None:
    """Whatever the values: a name, as many cells, and the text; the largest bar is the longest."""
    lines = bar_lines(rows, limit)[: len(rows)]
    names = max(len(each.name) for each in rows)
    assert {len(line) for line in lines} == {names + 2 + CELLS + 2 + 1}
    filled = [len(re.findall("[█▒]", line)) for line in lines]
    sizes = [0.0 if each.value is None else abs(each.value) for each in rows]
    assert filled[sizes.index(max(sizes))] == max(filled)


def test_a_name_in_a_drawing_is_text() -> None:
    """A symbol of a venue is escaped in both drawings."""
    figure = bar_figure("c", [ChartBar("<script>", 1.0, "a & b")])
    for drawn in (figure.wide, figure.narrow):
        assert "<script>" not in drawn
        assert "&lt;script&gt;" in drawn


def test_a_page_has_each_drawing_instead_of_its_characters(incident: Incident) -> None:
    """The page shows SVG, the Markdown the lines."""
    found = replace(with_one_order(incident), sides=(SidePnl("long", D(-30), D(-20)),))
    rendered = report(found)
    assert set(chart_figures(found)) == {"sides", "positions", "closing", "slippage"}
    for name in chart_figures(found):
        assert f"```{name}\n" in rendered.markdown
    assert "█" not in rendered.html
    assert "target 60 s" in rendered.html


def test_the_text_to_a_venue_asks_about_what_is_unknown(incident: Incident) -> None:
    """It lists the orders whose status is unknown, and asks nothing about the others."""
    found = with_one_order(incident)
    assert "We know the final status of each." in venue_text(found)
    unclear = replace(found, orders=(replace(found.orders[0], final=False),))
    assert "We do not know the final status of 1 order." in venue_text(unclear)
    assert "  - ks1, BTC, sent at " in venue_text(unclear)


def test_the_texts_of_a_drill_say_that_it_is_one(incident: Incident) -> None:
    """In the subject, because somebody may read nothing else."""
    from killswitch.incident.record.document import DeclaredReason

    found = replace(incident, reason=DeclaredReason("drill", "DRILL", "Nothing was wrong."))
    assert venue_text(found).startswith("Subject: DRILL, emergency close on account main")
    assert stakeholder_text(found).startswith("Subject: DRILL: ")
