"""A page as text, Markdown and HTML: each form has every part, within its width, and no text becomes markup."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.render.document import (
    Facts,
    Figure,
    Footnotes,
    Items,
    Page,
    Section,
    Table,
    html,
    markdown,
    section,
    text,
)
from tests.browser import measured_in_browser

HASH = "sha256:" + "0" * 64
PAGE = Page(
    "Look",
    facts=Facts((("Store", "ks.sqlite"), ("Policy", "folder", HASH))),
    summary=("It is fine.",),
    sections=(
        Section(
            "Accounts",
            (
                "One account.",
                Table(
                    ("name", "equity"), (("main", "9.50"), ("b", "10.25")), (1,), "At <paper>", ("[1] a_b is *down*",)
                ),
                Items(("a lock", "a page")),
                Figure("Equity", "<svg>wide</svg>", "<svg>narrow</svg>"),
            ),
        ),
        Section("", ("Nothing else.",)),
        Section("Every row", (Items(("hidden",)),), folded=True),
    ),
    warning="This is partial.",
    notes=("A note.",),
)


def test_the_text_has_facts_summary_and_sections_below_each_other() -> None:
    """Numbers are right-aligned, a caption indents its table, charts are absent, folded sections are named."""
    assert (
        text(PAGE)
        == f"""\
This is partial.

Store   ks.sqlite
Policy  folder
        {HASH}

It is fine.

Accounts
  One account.

  At <paper>
    name  equity
    main    9.50
    b      10.25
    [1] a_b is *down*
  a lock
  a page

Nothing else.

Omitted here, but included in --output json, markdown and html: Every row."""
    )


def test_markdown_has_every_part_but_charts_with_its_markup_escaped() -> None:
    """Folded sections and notes are included; values of several lines are one item."""
    assert (
        markdown(PAGE)
        == f"""\
# Look

**This is partial.**

- Store: ks.sqlite
- Policy: folder; {HASH}

It is fine.

## Accounts

One account.

### At \\<paper\\>

| name | equity |
| --- | ---: |
| main | 9.50 |
| b | 10.25 |

\\[1\\] a_b is \\*down\\*

- a lock
- a page

Nothing else.

## Every row

- hidden

## Notes

- A note."""
    )


def test_html_has_every_part_escaped_and_both_drawings() -> None:
    """Only charts are inserted as they are."""
    shown = html(PAGE)
    for part in ("This is partial.", f"folder<br>{HASH}", "<li>a lock</li>", "<h3>At &lt;paper&gt;</h3>",
                 "<td>b</td>", '<td class="number">10.25</td>', "<p>[1] a_b is *down*</p>", "<svg>wide</svg>",
                 "<svg>narrow</svg>", "<details><summary><h2>Every row</h2></summary>", "<p>Nothing else.</p>",
                 "<p>A note.</p>"):  # fmt: skip
        assert part in shown


@pytest.mark.parametrize(("columns", "line"), [(120, " " * 8 + HASH), (79, " " * 8 + HASH), (75, "  " + HASH)])
def test_a_word_that_does_not_fit_beside_its_name_is_moved_below_it(columns: int, line: str) -> None:
    """Other words are wrapped beside the name; none is broken or lost."""
    lines = text(Page("", Facts((("Name", "a " * 60), ("Policy", "folder", HASH)))), columns).splitlines()
    assert lines[-1] == line
    assert max(map(len, lines)) <= columns
    assert " ".join(lines).split() == ["Name", *["a"] * 60, "Policy", "folder", HASH]


@pytest.mark.parametrize("width", [360, 1280])
def test_a_page_of_long_words_does_not_scroll_sideways(tmp_path: Path, width: int) -> None:
    """In names, values, titles, lists and paragraphs; tables scroll in their own boxes."""
    long = "a" * 300
    parts = (long, Items((long,)), Facts(((long, long),)), Table((long,), ((long,),), caption=long, notes=(long,)))
    shown = html(Page(long, Facts(((long, long),)), (long,), (Section(long, parts),), warning=long, notes=(long,)))
    assert measured_in_browser(shown, tmp_path, width)["page"] <= width


def test_a_foreign_text_is_one_line_without_control_characters() -> None:
    """A line break or an escape sequence of a venue cannot forge a line or control the terminal."""
    hostile = "gone\nProblems\n  none\x1b[2J"
    shown = text(
        Page(
            "", Facts((("venue", hostile),)), (hostile,),
            (Section(hostile, (hostile, Items((hostile,)), Facts(((hostile, hostile),)),
                               Table((hostile,), ((hostile,),), caption=hostile, notes=(hostile,)))),),
        )
    )  # fmt: skip
    assert "\x1b" not in shown
    assert not any(line.strip() in ("Problems", "none") for line in shown.splitlines())


def test_a_section_without_content_is_left_out() -> None:
    """Parts without lines, rows or text do not count."""
    assert list(section("Problems", Items(()), Facts(()), Table(("a",), ()), None, "")) == []
    assert list(section("Problems", Items(()), Items(("one",)))) == [Section("Problems", (Items(("one",)),))]


def test_a_long_reason_of_several_cells_is_one_footnote() -> None:
    """A short one stays in its cell."""
    footnotes = Footnotes()
    long = "the venue refused the connection, again"
    assert [footnotes.mark(each) for each in ("down", long, long)] == ["down", "[1]", "[1]"]
    assert footnotes.notes == (f"[1] {long}",)
