"""`ksctl report`: what it prints, in which form, and how it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from markdown_it import MarkdownIt

from killswitch.cli.live.report import report
from tests import incidents
from tests.incidents import FIRST, SECOND, HandWritten, hand_written, rows
from tests.worlds import after


@pytest.fixture
def written(tmp_path: Path) -> Iterator[HandWritten]:
    made = hand_written(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def ended(written: HandWritten) -> HandWritten:
    """A whole incident, and the history of the minute before it."""
    written.tick(after(seconds=-1), rows=rows(after(seconds=-60), [1000.0 - number for number in range(120)]))
    incidents.whole_incident(written)
    return written


def told(written: HandWritten, *arguments: str) -> Result:
    return CliRunner().invoke(report, [*arguments, "--store", str(written.path)], catch_exceptions=False)


def sections(markdown: str) -> dict[str, str]:
    """Heading of the second level → what stands under it."""
    parts = re.split(r"^## (.+)$", markdown, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def cells(section: str) -> list[list[str]]:
    """The rows of the first table, without its head."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_a_report_holds_everything_that_the_engineer_on_call_needs(ended: HandWritten) -> None:
    """The eleven sections, the policy's line, every order, the ticks that are proved, and the next commands."""
    markdown = told(ended).stdout
    found = sections(markdown)
    assert list(found) == [
        "What happened and why", "Equity", "Timeline", "Orders", "Still open", "Checklist", "Next commands",
        "Contacts", "Findings",
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
    assert found["Still open"].strip() == "Nothing that was acted on: the venue shows 2 positions at target."
    ticks = re.findall(r"^- \[(.)\] \*\*(.+?)\*\*", found["Checklist"], flags=re.MULTILINE)
    assert ticks == [
        ("x", "Positions confirmed closed"), ("x", "Exchange reconciliation"), ("x", "P&L recorded"),
        (" ", "Notifications sent"), ("x", "Audit complete"), (" ", "Root cause found"),
        (" ", "Recovery plan agreed"), (" ", "Debrief held"),
    ]  # fmt: skip
    assert f"ksctl explain {SECOND}" in found["Next commands"]


def test_the_page_needs_no_other_file_and_runs_nothing(ended: HandWritten) -> None:
    """One document with its style and its drawings inside: no script, no address, a viewport for phones."""
    html = told(ended, "--format", "html").stdout
    assert html.startswith("<!doctype html>")
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "prefers-color-scheme:dark" in html
    assert html.count("<svg") == 2
    assert re.findall(r"<(script|link|img|iframe|object|form)\b", html) == []
    outside = set(re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", html))
    assert all(each.startswith("#") for each in outside), outside
    assert '<tr class="level level-3">' in html, "the row of the stage is marked"
    assert '<li class="done">' in html


def test_wide_tables_are_cards_on_a_phone(ended: HandWritten) -> None:
    """Of four columns too: the name of a signal is not broken in the middle of a word."""
    page = told(ended, "--format", "html").stdout
    heads = {
        tuple(re.findall(r"<th>(.*?)</th>", table)): "cards" in opened
        for opened, table in re.findall(r"<table([^>]*)>(.*?)</thead>", page, flags=re.DOTALL)
    }
    assert heads["trigger", "value", "fires at", "true since"]
    assert not heads["at (UTC)", "level", "what"]


def test_the_markdown_is_markdown(ended: HandWritten) -> None:
    """Tables are tables, commands are blocks of code, and no value is taken for HTML."""
    tokens = MarkdownIt("commonmark").enable("table").parse(told(ended).stdout)
    kinds = [token.type for token in tokens]
    assert kinds.count("table_open") == 5
    assert "html_block" not in kinds
    assert {token.info for token in tokens if token.type == "fence"} == {"equity", "sh"}


def test_an_incident_is_found_by_the_beginning_of_any_of_its_ids(ended: HandWritten) -> None:
    """The first decision's, or a later one's, as `history` shows them."""
    assert told(ended, FIRST[:5]).stdout == told(ended, SECOND[:5]).stdout == told(ended).stdout


def test_what_is_not_there_is_refused_with_what_is(ended: HandWritten) -> None:
    """Exit 1 and one line, no traceback."""
    refused = told(ended, "zz")
    assert refused.exit_code == 1
    assert refused.stderr == f"Error: no incident starts with zz; the newest are {FIRST} (drawdown on account/main)\n"


def test_an_empty_store_says_that_nothing_has_happened(written: HandWritten) -> None:
    """There is nothing to report, and the list says so."""
    assert told(written).exit_code == 1
    assert "nothing has fired" in told(written).stderr
    assert told(written, "list").stdout == "No incident is recorded on this store.\n"


def test_the_list_has_a_line_for_each_incident_newest_first(ended: HandWritten) -> None:
    """When, policy, scope, highest level, state, orders and cost."""
    ended.tick(after(hours=1), [incidents.firing("ee" * 10, after(hours=1), "trim", 1, 0)])
    head, newest, oldest = told(ended, "list").stdout.splitlines()
    assert head.split() == ["opened", "incident", "policy", "scope", "highest", "level", "state", "orders", "cost"]
    assert newest.split()[:6] == ["2024-01-01T01:00:00Z", "ee" * 10, "drawdown", "account/main", "1", "trim"]
    assert newest.split()[6:] == ["open", "-", "-"]
    assert oldest.split()[4:] == ["3", "close-everything", "closed", "3", "18.00", "USDT"]


def test_json_is_the_record(ended: HandWritten) -> None:
    """One object, with the format's name, amounts as texts."""
    found = json.loads(told(ended, "--output", "json").stdout)
    assert (found["format"], found["id"], found["money"]["cost"]) == ("killswitch.incident/v1", FIRST, "18.00")
    assert [json.loads(line)["id"] for line in told(ended, "list", "--output", "json").stdout.splitlines()] == [FIRST]


def test_a_report_can_be_written_to_a_file(ended: HandWritten, tmp_path: Path) -> None:
    """The file holds what stdout would have; a folder that is not there is said in words."""
    done = told(ended, "--out", str(tmp_path / "r.md"))
    assert (done.exit_code, done.stdout) == (0, "")
    assert (tmp_path / "r.md").read_text(encoding="utf-8").strip() == told(ended).stdout.strip()
    refused = told(ended, "--out", str(tmp_path / "none" / "r.md"))
    assert refused.exit_code == 1
    assert "cannot write" in refused.stderr


def test_reporting_changes_no_byte_of_the_store(ended: HandWritten) -> None:
    """Read-only, beside a runner or without one."""
    ended.store.close()
    before = {path.name: path.read_bytes() for path in ended.path.parent.iterdir()}
    told(ended, "--format", "html")
    told(ended, "list")
    assert {path.name: path.read_bytes() for path in ended.path.parent.iterdir()} == before


def test_what_happened_on_another_day_says_which(written: HandWritten) -> None:
    """A reset two days later is no reset at a quarter past midnight."""
    written.tick(after(), [incidents.firing(FIRST, after(), "trim", 1, 0)])
    written.tick(after(days=2, minutes=15), [incidents.reset(after(days=2, minutes=15))])
    assert "| 2024-01-03 00:15:00 |  | reset by ada: it is over |" in told(written).stdout
