"""The equity curve on a terminal: every low is in it, at full width, and a short incident is enlarged."""

from __future__ import annotations

from datetime import timedelta
from math import isnan

import pytest

from killswitch.incident.record.document import EquityPoint
from killswitch.render.curve_panels import COLUMNS, drawn_points, panel_lines, panels
from tests.worlds import after

OPENED = after(hours=2)


def points(*pairs: tuple[float, float]) -> list[EquityPoint]:
    """Points by seconds after the first firing, and value."""
    return [EquityPoint(OPENED + timedelta(seconds=at), value) for at, value in pairs]


def test_the_line_has_the_full_width_and_the_times_of_its_ends() -> None:
    """Whatever the number of points; the times are those of the first and the last one."""
    drawn = panel_lines(points(*((at, 100.0 - at / 60) for at in range(-600, 3600, 60))), OPENED, 116)
    cells, ends = drawn.split("\n")
    assert (len(cells), len(ends)) == (116, 116)
    assert (ends[:8], ends[-8:]) == ("01:50:00", "02:59:00")


def test_the_low_of_a_single_tick_is_shown() -> None:
    """One second of 3,600 at half the value: its cell is the lowest, and its neighbours are not."""
    every = points(*((at, 50.0 if at == 1800 else 100.0) for at in range(3600)))
    cells = panel_lines(every, OPENED).split("\n")[0]
    assert len(cells) == COLUMNS
    assert [number for number, cell in enumerate(cells) if cell == "▁"] == [1800 * COLUMNS // 3599]


def test_a_cell_between_two_ticks_has_the_value_of_the_earlier_one() -> None:
    """Three ticks on a wide line: 100 until the second at half the time, then 50."""
    cells = panel_lines(points((0, 100.0), (10, 50.0), (20, 50.0)), OPENED, 20).split("\n")[0]
    assert cells == "█" * 10 + "▁" * 10


def test_a_gap_stays_blank() -> None:
    """Nothing is known in an hour without points between minutes with ticks each second."""
    near = [(float(at), 100.0 + at % 2) for at in range(60)]
    cells = panel_lines(points(*near, *((at + 3600, value) for at, value in near)), OPENED).split("\n")[0]
    assert cells[0] != " "
    assert cells[-1] != " "
    assert cells[5:70] == " " * 65


def test_a_short_incident_is_shown_once_more_enlarged() -> None:
    """Fifteen seconds after an hour: the second panel begins as long before the firing, and has every tick since."""
    every = points(*((float(at), 100.0) for at in range(-3600, 0, 15)), *((float(at), 99.0 - at) for at in range(16)))
    whole, near = panels(every, OPENED)
    assert (whole.points, whole.is_enlarged) == (tuple(every), False)
    assert near.is_enlarged
    assert [each.at for each in near.points] == [
        OPENED - timedelta(seconds=15), *(OPENED + timedelta(seconds=at) for at in range(16)),
    ]  # fmt: skip
    lines = panel_lines(every, OPENED).split("\n")
    assert len(lines) == 4
    assert "enlarged" in lines[3]


@pytest.mark.parametrize("lasted", [600, 7200])
def test_an_incident_that_is_long_against_the_time_before_it_has_one_panel(lasted: int) -> None:
    """From an eighth of the whole curve on, nothing is enlarged."""
    every = points(*((float(at), 100.0) for at in range(-3600, lasted, 15)))
    assert len(panels(every, OPENED)) == 1


def test_a_flat_curve_and_two_points_can_be_drawn() -> None:
    """No division by a span of zero, in value or in time."""
    assert "▁" in panel_lines(points((0, 100.0), (1, 100.0)), OPENED)
    assert "▁" in panel_lines(points((0, 100.0), (0, 100.0)), OPENED)


def blanks(*at: float) -> list[float]:
    """The seconds at which the line of these points is broken."""
    drawn, values = drawn_points(points(*((each, 100.0 - each) for each in at)))
    first = drawn[0]
    kept = [(time - first) / 1e6 + at[0] for time, value in zip(drawn, values, strict=True) if not isnan(value)]
    assert kept == pytest.approx(list(at))
    return [(time - first) / 1e6 + at[0] for time, value in zip(drawn, values, strict=True) if isnan(value)]


def test_a_drawn_line_is_broken_where_nothing_was_read() -> None:
    """A tick a second, and no answer for 40 s: nobody knows what equity was between, and no line says it."""
    assert blanks(*range(31), *range(71, 100)) == [50.5]
    assert blanks(*range(100)) == []


def test_points_that_are_kept_further_apart_before_a_firing_break_no_line() -> None:
    """Every 15 s in the hour before, every second in the two minutes after."""
    assert blanks(*range(-3600, 0, 15), *range(120)) == []


def test_a_point_between_two_blanks_stays_joined_to_the_next() -> None:
    """A line of one point is not seen, and what it shows may be the lowest."""
    assert blanks(*range(31), 70, *range(110, 140)) == [50.0]
    assert blanks(0, 100, 200) == []
