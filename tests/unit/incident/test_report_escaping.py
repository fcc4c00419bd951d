"""Values from outside cannot break a page: symbols, reasons and names are escaped, whatever they contain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from msgspec.structs import replace

from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.document import Person, RunbookFacts
from killswitch.incident.record.filters import code, escape, fenced, plain
from killswitch.incident.record.incident_decisions import find_incident, keep_runbooks
from killswitch.incident.record.source_places import PolicyText, WrittenAt
from killswitch.incident.report.rendering import report, runbook
from killswitch.incident.report.templates import RenderingError
from killswitch.model.decision import Notice
from killswitch.render.document import Figure, Page, Prose, Section
from killswitch.render.html import html
from tests import incidents
from tests.incidents import FIRST, POLICY, SET, FilledStore, entry, filled_store
from tests.worlds import after

HOSTILE = (
    "<script>alert(1)</script>", "a|b|c", "`", "``` \n# heading", "x\n\n| a | b |\n|---|---|", "[x](javascript:1)",
    "![x](http://evil.example/x.png)", "&lt;b&gt;", "\\", "\\|", "---", "- [x] done", "1. one", "# one", "> quote",
    "<!-- -->", "]]>", "\u202egnp.exe", "\x00\x1b[31m", "{{ incident }}", "{% raw %}", "*b* _i_ ~~s~~", "http://x.example",
    "<http://evil.example>", "</td></tr></table>", "=", "~~~", "\t- x",
)  # fmt: skip

PARSER = MarkdownIt("commonmark", {"html": False}).enable("table")


class PageStructure(HTMLParser):
    """The elements of a page, their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def block_types(markdown: str) -> list[str]:
    """The types of the blocks of a Markdown text, without their contents."""
    return [token.type for token in PARSER.parse(markdown)]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_is_text_in_every_place(value: str) -> None:
    """In a paragraph, list, table cell and heading, the blocks are those of a harmless word."""
    for frame in ("{}", "a {} b", "- {}", "# {}", "| a | b |\n|---|---|\n| {} | x |\n", "**{}**: x"):
        for written in (escape(value), code(value)):
            assert block_types(frame.format(written)) == block_types(frame.format("word")), (frame, str(written))


@given(st.text())
def test_any_text_stays_one_cell_with_the_same_words(value: str) -> None:
    """A cell with any text renders to one cell with the same words, except blanks and control characters."""
    tokens = PARSER.parse(f"| a | b |\n|---|---|\n| {escape(value)} | x |\n")
    assert [token.type for token in tokens] == block_types("| a | b |\n|---|---|\n| word | x |\n")
    inline = [token for token in tokens if token.type == "inline"][2]
    assert {child.type for child in inline.children or []} <= {"text", "text_special"}
    assert "".join(child.content for child in inline.children or []) == plain(value)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_code_block_contains_any_text(value: str) -> None:
    """The fence is longer than any run of backticks inside, so no text leaves the block."""
    assert block_types(f"{fenced(value)}\n") == ["fence"]


@pytest.fixture
def poisoned(tmp_path: Path) -> Iterator[FilledStore]:
    """An incident in which every value from outside is hostile."""
    written = filled_store(tmp_path)
    bad = "x|<script>alert(1)</script>\n# y `z` [l](javascript:1)"
    line = WrittenAt(bad, 1, bad)
    written.store.put_live(f"places/{SET}", msgspec.json.encode({POLICY: PolicyText(line, {"trim": line}, {})}))
    person = Person(bad, bad, bad)
    keep_runbooks(written.store, SET, {POLICY: {"trim": RunbookFacts("trim-top-risk", contacts=(person,))}})
    decision = incidents.firing(
        FIRST, after(), "trim", 1, 0, incidents.intent(bad, "sell", "1", "0"), scope=f"account/{bad}", policy=POLICY,
        author=bad,
    )  # fmt: skip
    written.tick(after(), [decision], [entry(FIRST, "planned", after(), bad, contracts="1", target="0")],
                 notices=[Notice(after(), POLICY, f"account/{bad}", "warning", "page", bad)])  # fmt: skip
    for each in (
        entry(FIRST, "sending", after(seconds=1), bad, side=bad, amount="1", position="1"),
        entry(FIRST, "rejected", after(seconds=2), bad, reason=bad, text=bad),
        entry(FIRST, "finished", after(seconds=3), None, status=bad, reason=bad),
    ):
        written.store.append(each)
    yield written
    written.store.close()


def test_a_poisoned_incident_renders_to_harmless_pages(poisoned: FilledStore) -> None:
    """No element, link or attribute comes from a value: report and runbook hold only those of the templates."""
    found = incident_of(
        poisoned.store, find_incident(poisoned.store, None), StartedAs("store.sqlite", ("a b; rm -rf",))
    )
    for rendered in (report(found), runbook(found, "trim", RunbookFacts("trim-top-risk"))):
        structure = PageStructure(rendered.html)
        tags = {tag for tag, _ in structure.elements}
        assert tags & {"script", "img", "iframe", "a", "object", "form", "link"} == set()
        assert not [name for _, attributes in structure.elements for name in attributes if name.startswith("on")]
        assert "<script>alert(1)</script>" in structure.text, "it is shown as the text that it is"
        assert sum(tag == "h1" for tag, _ in structure.elements) == 1
        assert_tables_are_even(rendered.markdown)


def assert_tables_are_even(markdown: str) -> None:
    """Every row of a table has as many cells as its header: a parser would silently drop further ones."""
    width = 0
    for line in markdown.splitlines():
        bars = re.sub(r"\\.", "", line).count("|") if line.startswith("|") else 0
        assert 0 in (bars, width) or bars == width, line
        width = bars


def test_a_page_without_a_chart_keeps_the_sparkline() -> None:
    """The sparkline of characters stays if nothing can be drawn, and is removed if there is a chart."""
    text = "# T\n\n```equity\n▁▂▃\n```\n"
    assert "▁▂▃" in html(Page("", sections=(Section("", (Prose(text),)),)))
    figures = (("equity", Figure("", "<svg>1</svg>", "<svg>2</svg>")),)
    drawn = html(Page("", sections=(Section("", (Prose(text, figures),)),)))
    assert "▁▂▃" not in drawn
    assert drawn.count("<svg>") == 2


def test_numbers_are_not_escaped() -> None:
    """A minus sign and a decimal point need no escape."""
    assert escape(Decimal("-5.00")) == "-5.00"
    assert escape("BTC/USDT:USDT") == "BTC/USDT:USDT"
    assert escape(None) == "unknown"


def test_values_joined_by_a_template_are_escaped_one_by_one(poisoned: FilledStore, tmp_path: Path) -> None:
    """With `~`, with join, in a loop and from a choice: each value stays text."""
    (tmp_path / "own.md.j2").write_text(
        "| a | b | c | d |\n|---|---|---|---|\n"
        "| {{ incident.policy|code ~ incident.scope }} | {{ incident.swept|join('+') }} "
        "| {% for each in incident.swept %}{{ each ~ '/' ~ each }}{% endfor %} "
        "| {{ incident.scope if incident.scope in [incident.scope] else '|' }} |\n",
        encoding="utf-8",
    )
    found = incident_of(poisoned.store, find_incident(poisoned.store, None), StartedAs("s"))
    found = replace(found, swept=(found.scope, found.scope))
    rendered = runbook(found, "trim", RunbookFacts("own", str(tmp_path), "own.md.j2"))
    assert_tables_are_even(rendered.markdown)
    structure = PageStructure(rendered.html)
    assert {tag for tag, _ in structure.elements} & {"script", "a"} == set()
    assert structure.text.count("<script>alert(1)</script>") == 8
    assert "&lt;" not in structure.text, "escaped once, not twice"


@pytest.mark.parametrize(
    "template",
    ["{{ 'a' * 999999999 }}", "{{ incident.id.upper() }}", "{{ 9 ** 9 ** 9 }}", "{{ incident.nope }}", "{{ nope }}",
     "{{ ''.__class__ }}", "{{ incident.__class__.__mro__ }}", "{% include '../secret.md.j2' %}",
     "{% for i in range(9) %}{% endfor %}", "{{ incident.id|tojson }}"],
)  # fmt: skip
def test_a_template_can_only_show_values(poisoned: FilledStore, tmp_path: Path, template: str) -> None:
    """Even a template that was never validated is refused with its place and a reason."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret.md.j2").write_text("secret", encoding="utf-8")
    (tmp_path / "folder" / "own.md.j2").write_text(template, encoding="utf-8")
    found = incident_of(poisoned.store, find_incident(poisoned.store, None), StartedAs("s"))
    with pytest.raises(RenderingError):
        runbook(found, "trim", RunbookFacts("own", str(tmp_path / "folder"), "own.md.j2"))
