"""Ranges as rows of bands, in text and as SVG."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from killswitch.render.range_chart import CELLS, RangeBand, RangeRow, range_figure, range_lines

ROWS = (
    RangeRow("normal", 'fall("1h")', (RangeBand(0.07, 0.14, 1), RangeBand(0.14, 0.4, 2))),
    RangeRow("level 2", 'fall("1h")', (RangeBand(0.14, 0.4, 2),)),
    RangeRow("level 2", "a <&> b", ()),
)
SVG = "{http://www.w3.org/2000/svg}"


def test_a_cell_is_the_level_at_its_value() -> None:
    """Up to 40% in 40 cells: 6% is below 7%, 7% reaches it, and 14% is the fourteenth cell."""
    head, *lines = range_lines(ROWS, 0.4)
    cells = [line[-CELLS:] for line in lines]
    assert cells == ["·" * 6 + "1" * 7 + "2" * 27, "·" * 13 + "2" * 27, "·" * 40]
    assert head.endswith("10%       20%       30%       40%")
    assert [line.startswith(group) for line, group in zip(lines, ("normal", "level 2", "       "), strict=True)] == [
        True
    ] * 3


def test_the_figure_has_the_bands_to_scale() -> None:
    """In both drawings a band is as wide as its share of the whole, and every text is escaped."""
    figure = range_figure("falls & levels", ROWS, 0.4)
    for drawing in (figure.wide, figure.narrow):
        root = ET.fromstring(drawing)
        assert root.get("aria-label") == "falls & levels"
        frames = [each for each in root.iter(f"{SVG}rect") if each.get("fill") == "none"]
        bands = [each for each in root.iter(f"{SVG}rect") if each.get("fill") != "none"]
        assert (len(frames), len(bands)) == (3, 3)
        whole = float(frames[0].get("width", "0"))
        assert abs(float(bands[0].get("width", "0")) / whole - 0.07 / 0.4) < 0.002
        texts = [each.text for each in root.iter(f"{SVG}text")]
        assert "level 2: a <&> b" in texts and {"1", "2", "0%", "40%"} <= set(texts)


def test_a_drawing_fits_its_width() -> None:
    """Nothing is drawn beyond the right edge."""
    for drawing in (range_figure("falls", ROWS, 0.4).wide, range_figure("falls", ROWS, 0.4).narrow):
        root = ET.fromstring(drawing)
        width = float(root.get("viewBox", "0 0 0 0").split()[2])
        for each in root.iter(f"{SVG}rect"):
            assert float(each.get("x", "0")) + float(each.get("width", "0")) <= width
