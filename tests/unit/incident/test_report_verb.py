"""`ksctl report`: its output in each format, and its refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from markdown_it import MarkdownIt

from killswitch.cli.live.report import report
from tests import incidents
from tests.incidents import FIRST, SECOND, FilledStore, rows
from tests.worlds import after


@pytest.fixture
def ended_incident(written: FilledStore) -> FilledStore:
    """A whole incident, and the history of the minute before it."""
    written.tick(after(seconds=-1), rows=rows(after(seconds=-60), [1000.0 - number for number in range(120)]))
    incidents.whole_incident(written)
    return written


def invoke(written: FilledStore, *arguments: str) -> Result:
    return CliRunner().invoke(report, [*arguments, "--store", str(written.path)], catch_exceptions=False)


def sections(markdown: str) -> dict[str, str]:
    """Heading of the second level → its section."""
    parts = re.split(r"^## (.+)$", markdown, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def cells(section: str) -> list[list[str]]:
    """The rows of the first table, without its header."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_a_report_has_every_section_that_the_on_call_engineer_needs(ended_incident: FilledStore) -> None:
    """The verdict, the sections, the policy's line, every order, the proved checklist items, and the next commands."""
    markdown = invoke(ended_incident).stdout
    found = sections(markdown)
    assert list(found) == [
        "Still open", "Net exposure, stage by stage", "In short", "What happened and why", "Equity", "Timeline",
        "Orders", "Checklist", "Next commands", "Texts to send", "Contacts", "Findings",
    ]  # fmt: skip
    assert markdown.startswith(f"# Incident {FIRST}: close-everything on account/main\n")
    assert "`- name: close-everything` (policies/p.yaml:20)" in found["What happened and why"]
    assert "The loss is **LONG**: long 80.0%, short 20.0% over 15m." in found["What happened and why"]
    assert "106.38 at its highest" in found["Equity"]
    assert [row[:3] for row in cells(found["Timeline"])][:2] == [
        ["00:00:00", "", "trigger fall became true"], ["00:00:00", "1", "level 1 trim fired (fall confirmed)"],
    ]  # fmt: skip
    assert cells(found["Orders"])[2] == [
        "3", "00:01:02", "buy 5", "ETH short", "main", "5", "51", "50", "5.00", "0.00", "1.00", "filled",
        f"`ks{SECOND[:4]}ETH`",
    ]  # fmt: skip
    assert found["Still open"].strip() == "Nothing that was to be reduced: the venue shows 2 of 2 positions closed."
    ticks = re.findall(r"^- \[(.)\] \*\*(.+?)\*\*", found["Checklist"], flags=re.MULTILINE)
    assert ticks == [
        ("x", "Positions confirmed closed"), ("x", "Exchange reconciliation"), ("x", "P&L recorded"),
        (" ", "Notifications sent"), ("x", "Audit complete"), (" ", "Root cause found"),
        (" ", "Recovery plan agreed"), (" ", "Debrief held"),
    ]  # fmt: skip
    assert f"ksctl explain {SECOND}" in found["Next commands"]


def test_the_html_page_is_self_contained_and_runs_no_script(ended_incident: FilledStore) -> None:
    """One document with inline style and charts: no script, no address, a viewport for phones."""
    html = invoke(ended_incident, "--format", "html").stdout
    assert html.startswith("<!doctype html>")
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "prefers-color-scheme:dark" in html
    assert html.count("<svg") == 2 * 5  # the curve and four drawings, for a desktop and a phone
    assert re.findall(r"<(script|link|img|iframe|object|form)\b", html) == []
    outside = set(re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", html))
    assert all(each.startswith("#") for each in outside), outside
    assert '<tr class="level level-3">' in html, "the row of the stage is marked"
    assert '<li class="done">' in html


def test_wide_tables_are_cards_on_a_phone(ended_incident: FilledStore) -> None:
    """Also with four columns: the name of a signal is not broken inside a word."""
    page = invoke(ended_incident, "--format", "html").stdout
    heads = {
        tuple(re.findall(r"<th>(.*?)</th>", table)): "cards" in opened
        for opened, table in re.findall(r"<table([^>]*)>(.*?)</thead>", page, flags=re.DOTALL)
    }
    assert heads["trigger", "value", "fires at", "true since"]
    assert not heads["at (UTC)", "level", "what"]


def test_the_markdown_parses_to_tables_and_code_blocks(ended_incident: FilledStore) -> None:
    """Tables are tables, commands are code blocks, and no value becomes HTML."""
    tokens = MarkdownIt("commonmark").enable("table").parse(invoke(ended_incident).stdout)
    kinds = [token.type for token in tokens]
    assert kinds.count("table_open") == 6
    assert "html_block" not in kinds
    assert {token.info for token in tokens if token.type == "fence"} == {
        "equity", "sides", "positions", "closing", "slippage", "text", "sh",
    }  # fmt: skip


def test_an_incident_is_found_by_a_prefix_of_any_of_its_ids(ended_incident: FilledStore) -> None:
    """The id of its first decision or of a later one, as `history` shows them."""
    assert (
        invoke(ended_incident, FIRST[:5]).stdout
        == invoke(ended_incident, SECOND[:5]).stdout
        == invoke(ended_incident).stdout
    )


def test_an_unknown_incident_is_refused_with_the_existing_ones(ended_incident: FilledStore) -> None:
    """Exit 1 and one line, without a traceback."""
    refused = invoke(ended_incident, "zz")
    assert refused.exit_code == 1
    assert refused.stderr == f"Error: no incident starts with zz; the newest are {FIRST} (drawdown on account/main)\n"


def test_an_empty_store_says_that_nothing_has_happened(written: FilledStore) -> None:
    """The report is refused, and the list says the same."""
    assert invoke(written).exit_code == 1
    assert "nothing has fired" in invoke(written).stderr
    assert invoke(written, "list").stdout == "No incident is recorded on this store.\n"


def test_the_list_has_a_line_for_each_incident_newest_first(ended_incident: FilledStore) -> None:
    """When, policy, scope, highest level, state, orders and cost."""
    ended_incident.tick(after(hours=1), [incidents.firing("ee" * 10, after(hours=1), "trim", 1, 0)])
    head, newest, oldest = invoke(ended_incident, "list").stdout.splitlines()
    assert head.split() == ["opened", "incident", "policy", "scope", "highest", "level", "state", "orders", "cost"]
    assert newest.split()[:6] == ["2024-01-01T01:00:00Z", "ee" * 10, "drawdown", "account/main", "1", "trim"]
    assert newest.split()[6:] == ["open", "-", "-"]
    assert oldest.split()[4:] == ["3", "close-everything", "closed", "3", "18.00", "USDT"]


def test_json_output_is_the_record(ended_incident: FilledStore) -> None:
    """One object with the format's name, and amounts as strings."""
    found = json.loads(invoke(ended_incident, "--output", "json").stdout)
    assert (found["format"], found["id"], found["money"]["cost"]) == ("killswitch.incident/v1", FIRST, "18.00")
    assert [
        json.loads(line)["id"] for line in invoke(ended_incident, "list", "--output", "json").stdout.splitlines()
    ] == [FIRST]


def test_a_report_can_be_written_to_a_file(ended_incident: FilledStore, tmp_path: Path) -> None:
    """The file has the text of stdout; a missing folder is an error message."""
    result = invoke(ended_incident, "--out", str(tmp_path / "r.md"))
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "r.md").read_text(encoding="utf-8").strip() == invoke(ended_incident).stdout.strip()
    refused = invoke(ended_incident, "--out", str(tmp_path / "none" / "r.md"))
    assert refused.exit_code == 1
    assert "cannot write" in refused.stderr


def test_reporting_changes_no_byte_of_the_store(ended_incident: FilledStore) -> None:
    """The verb only reads, with or without a runner."""
    ended_incident.store.close()
    before = {path.name: path.read_bytes() for path in ended_incident.path.parent.iterdir()}
    invoke(ended_incident, "--format", "html")
    invoke(ended_incident, "list")
    assert {path.name: path.read_bytes() for path in ended_incident.path.parent.iterdir()} == before


def test_a_moment_on_another_day_shows_its_date(written: FilledStore) -> None:
    """A reset two days later must not look like a reset at a quarter past midnight."""
    written.tick(after(), [incidents.firing(FIRST, after(), "trim", 1, 0)])
    written.tick(after(days=2, minutes=15), [incidents.reset(after(days=2, minutes=15))])
    assert "| 2024-01-03 00:15:00 |  | reset by ada: it is over |" in invoke(written).stdout
