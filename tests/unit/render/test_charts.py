"""Charts: what is drawn, what thinning keeps of long series, and that foreign text cannot leave its element."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from killswitch.render.chart import ChartMark, area_chart, line_chart
from killswitch.render.chart_layers import extremes, stack_sample

SVG = "{http://www.w3.org/2000/svg}"
MINUTE = 60_000_000
Chart = Callable[..., str]
START = 1_621_382_400_000_000
"""2021-05-19T00:00Z"""


def instants(count: int) -> list[int]:
    return [START + number * MINUTE for number in range(count)]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_a_chart_is_one_element_without_a_size_of_its_own() -> None:
    """The page sets the width; the title is for screen readers; no prologue, no metadata."""
    svg = line_chart("Equity", instants(3), {"staged": [1.0, 2.0, 3.0]}, unit="USDT")
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert "viewBox" in root.attrib
    assert {"width", "height"}.isdisjoint(root.attrib)
    assert root[0].tag == f"{SVG}title"
    assert root[0].text == "Equity"
    assert not list(root.iter(f"{SVG}metadata"))


def test_names_units_and_marks_are_text() -> None:
    """A search in the page finds them."""
    svg = line_chart(
        "Equity", instants(3), {"staged": [1, 2, 3], "none": [1, 2, 1]}, unit="USDT",
        marks=[ChartMark(START + MINUTE, "close-everything", 3)],
    )  # fmt: skip
    assert {"staged", "none", "USDT", "close-everything"} <= set(texts(svg))


@pytest.mark.parametrize("chart", [line_chart, area_chart])
@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a$\\frac{1}$", "_hidden", "永続", "Word0x", "\x07&\"'"])
def test_a_hostile_name_is_escaped(chart: Chart, name: str) -> None:
    """Markup, mathematics, letters that no font has and control characters are drawn as text."""
    svg = chart(name, instants(2), {name: [1, 2]}, unit=name, marks=[ChartMark(START, name, 1)])
    readable = name.replace("\x07", " ")
    assert texts(svg).count(readable) == 3
    assert not list(ET.fromstring(svg).iter(f"{SVG}script"))


def test_the_same_data_make_the_same_text() -> None:
    """No date and no randomness."""
    drawn = {line_chart("t", instants(50), {"a": [float(i % 7) for i in range(50)]}, unit="") for _ in range(3)}
    assert len(drawn) == 1


def test_a_month_of_minutes_stays_small() -> None:
    """43,200 points make less than 100 KB for each line, and less than 200 KB for a stack of two."""
    values = [math.sin(number / 9) * number for number in range(43_200)]
    assert len(line_chart("t", instants(43_200), {"a": values}, unit="USDT")) < 100_000
    assert len(area_chart("t", instants(43_200), {"a": values, "b": values}, unit="USDT")) < 200_000


def test_thinning_keeps_the_lowest_and_the_highest() -> None:
    """A crash of one bar in a month remains visible."""
    values = [100.0] * 43_200
    values[20_001], values[30_003] = 3.0, 170.0
    times, kept = extremes(instants(43_200), values, 100)
    assert len(kept) <= 400
    assert dict(zip(times, kept, strict=True))[START + 20_001 * MINUTE] == 3.0
    assert dict(zip(times, kept, strict=True))[START + 30_003 * MINUTE] == 170.0
    assert (times[0], times[-1]) == (START, START + 43_199 * MINUTE)
    assert times == sorted(times)


def test_a_gap_stays_a_gap() -> None:
    """NaN and infinities break the line, in short series and in thinned ones."""
    assert math.isnan(extremes(instants(3), [1.0, math.inf, 2.0], 10)[1][1])
    values = [1.0] * 1000
    values[500] = math.nan
    assert any(math.isnan(value) for value in extremes(instants(1000), values, 10)[1])


def test_a_stack_keeps_the_moment_of_the_greatest_sum() -> None:
    """All layers are sampled at the same instants, that one among them."""
    first, second = [10.0] * 5000, [-10.0] * 5000
    second[2500] = -90.0
    times, layers = stack_sample(instants(5000), [first, second], 50)
    row = times.index(START + 2500 * MINUTE)
    assert [layer[row] for layer in layers] == [10.0, -90.0]


def test_fractions_are_in_percent() -> None:
    """A drawdown axis reads 5%, not 0.05."""
    svg = line_chart("t", instants(2), {"a": [0.0, 0.1]}, unit="fraction")
    assert {"0%", "10%"} <= set(texts(svg))


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("chart", [line_chart, area_chart])
def test_an_empty_series_and_a_single_point_can_be_drawn(chart: Chart, count: int) -> None:
    """A run stopped at once still has a page."""
    assert ET.fromstring(chart("t", instants(count), {"a": [5.0] * count}, unit="USDT")).tag == f"{SVG}svg"


def test_a_series_of_another_length_is_refused() -> None:
    """The message names it."""
    with pytest.raises(ValueError, match="a: 1 values for 2 instants"):
        line_chart("t", instants(2), {"a": [1.0]}, unit="")


def test_axis_labels_have_the_precision_of_their_grid_lines() -> None:
    """A fall from 105 by 8.4 has a line every 1.5: without a decimal they would read 98, 99, 100, 102, 104, 105."""
    svg = line_chart(
        "Value", instants(100), {"a": [105.04 - 0.085 * number for number in range(100)]}, unit="first firing = 100",
        size=(10.0, 3.4),
    )  # fmt: skip
    beside = [float(each) for each in texts(svg) if each.replace(".", "").isdigit()]
    apart = {round(later - before, 6) for before, later in pairwise(beside)}
    assert len(beside) >= 4
    assert len(apart) == 1


def test_areas_differ_without_colour() -> None:
    """Three areas of one side have three hatchings in the drawing and in the legend, and their names inside."""
    series = {name: [30.0] * 60 for name in ("BTC", "ETH", "XRP")}
    svg = area_chart("Positions", instants(60), series, unit="USDT")
    patterns = {pattern.find(f"{SVG}path").attrib["d"] for pattern in ET.fromstring(svg).iter(f"{SVG}pattern")}  # type: ignore[union-attr] # each has one
    assert len(patterns) == len(series) - 1, "the first has none"
    assert [texts(svg).count(name) for name in series] == [2, 2, 2]


def test_an_area_without_room_has_its_name_in_the_legend_only() -> None:
    """An area of a hundredth of the height cannot hold a line of text."""
    svg = area_chart("Positions", instants(60), {"BTC": [99.0] * 60, "ETH": [1.0] * 60}, unit="USDT")
    assert [texts(svg).count(name) for name in ("BTC", "ETH")] == [2, 1]


def test_a_colour_that_means_a_side_is_that_of_its_areas() -> None:
    """Areas above zero have the first colour, areas below the second."""
    svg = area_chart(
        "t", instants(60), {"BTC": [5.0] * 60, "ETH": [-5.0] * 60}, unit="", colours=("#111111", "#222222")
    )
    assert [svg.count(f"fill: {colour}") > 0 for colour in ("#111111", "#222222")] == [True, True]
    only_long = area_chart("t", instants(60), {"BTC": [5.0] * 60}, unit="", colours=("#111111", "#222222"))
    assert "#222222" not in only_long
