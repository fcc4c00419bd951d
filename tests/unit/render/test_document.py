"""A page as text, Markdown and HTML: each form has every part, within its width, and no text becomes markup."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.render.document import (
    Code,
    Facts,
    Figure,
    Footnotes,
    Items,
    Page,
    Prose,
    Section,
    Table,
    markdown,
    section,
    table_lines,
    text,
)
from killswitch.render.html import html
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


SOURCE = Page("Source", sections=(Section("p.yaml:4", (Code(("4 | a: <b>  ```", "  |    ^^^")), Items(("fix: c",)))),))


def test_lines_of_a_file_keep_their_columns_in_every_form() -> None:
    """Text cuts them at the edge and wraps none; Markdown fences them, with more backticks than they have."""
    assert text(SOURCE) == "p.yaml:4\n  4 | a: <b>  ```\n    |    ^^^\n  fix: c"
    assert text(SOURCE, 12) == "p.yaml:4\n  4 | a: <b…\n    |    ^^^\n  fix: c"
    assert "````\n4 | a: <b>  ```\n  |    ^^^\n````" in markdown(SOURCE)
    assert "<pre>4 | a: &lt;b&gt;  ```\n  |    ^^^</pre>" in html(SOURCE)


def test_prose_has_its_own_heading_and_no_other_html() -> None:
    """Its Markdown is text and Markdown as it is; as HTML its heading is the title, and HTML in it stays text."""
    source = "# A *runbook*\n\n<b>x</b>\n\n- [x] done"
    shown = Page("", sections=(Section("", (Prose(source),)),))
    assert text(shown) == markdown(shown) == source
    page = html(shown)
    assert "<title>A runbook</title>" in page
    assert page.count("<h1") == 1
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert '<li class="done">' in page


@pytest.mark.parametrize("width", [420, 1280])
def test_a_table_of_nine_columns_is_cut_neither_on_a_phone_nor_on_a_desktop(tmp_path: Path, width: int) -> None:
    """On a phone each row is a card, in which each value has the name of its column; in prose as well."""
    head = ("fired", "stage", "why", "loss", "closed", "gross", "verified", "hedge then", "cost")
    row = ("2024-01-01T04:13:00Z", "2 close-losing-side", "equity.drawdown over 1h 13.07% >= 10%", "LONG",
           "ETH_USDT long 28,983.20, ADA_USDT long 27,922.92, DOT_USDT long 13,950.14", "200,576.65 → 102,370.91",
           "at once", "open (100%)", "75.92")  # fmt: skip
    shown = Page(
        "",
        sections=(
            Section(
                "",
                (Table(head, (row,), (8,)), Prose("\n".join(table_lines(Table(head, (row,)))))),
            ),
        ),
    )
    measured = measured_in_browser(html(shown), tmp_path, width)
    assert (measured["page"] <= width, measured["cut"]) == (True, 0)
    assert html(shown).count('data-label="hedge then"') == 2


IDS = ("aaaaaaaa1111", "aaaaaaaa1222", "bbbbbbbb1111")
DAYS = ("2024-01-01", "2024-01-01", "2024-01-02")
ORDERS = Table(
    ("order", "at", "what", "remarks", "fee"),
    tuple((id_, f"{day}T05:16:00Z", "sell the position", "-", "1.00 USDT") for id_, day in zip(IDS, DAYS, strict=True)),
    expendable=(4, 3),
    ids=(0,),
)


def test_a_narrow_terminal_leaves_out_columns_dates_and_the_rest_of_ids() -> None:
    """First a column without a value, then the least important; ids keep what is unique, other days their date."""
    shown = Page("", sections=(Section("", (ORDERS,)),))
    assert (
        text(shown, 63)
        == """\
order       at                    what               fee
aaaaaaaa11  05:16:00Z             sell the position  1.00 USDT
aaaaaaaa12  05:16:00Z             sell the position  1.00 USDT
bbbbbbbb11  2024-01-02T05:16:00Z  sell the position  1.00 USDT
Left out: remarks and the date 2024-01-01; `-o wide` shows all."""
    )
    assert "fee" not in text(shown, 45).splitlines()[0]
    assert all(id_ in text(shown) for id_ in IDS)


def test_only_a_single_row_becomes_a_line_per_column() -> None:
    """Of several rows the last columns are left out, where no other is expendable; a word is never broken."""
    long = ("a" * 20, "b" * 20, "c" * 20)
    one, two = (Page("", sections=(Section("", (Table(("x", "y", "z"), (long,) * rows),)),)) for rows in (1, 2))
    assert text(one, 50).splitlines() == [f"{name}  {word}" for name, word in zip("xyz", long, strict=True)]
    assert text(two, 50).splitlines() == [
        f"x{' ' * 21}y", *[f"{long[0]}  {long[1]}"] * 2, "Left out: z; `-o wide` shows all.",
    ]  # fmt: skip


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
