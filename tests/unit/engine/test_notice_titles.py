"""Titles of notices: every kind of alert has a short one of its own, which the text does not repeat."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.engine.alerts import AlertState, advance
from killswitch.engine.notice_titles import OPTIONAL, TITLES, alert_title
from killswitch.model.alert import Alert, Alerts
from killswitch.model.instant import SECOND

MOST = 60
"""Characters of a title: a phone shows about as many on its first line."""
KEY = re.compile(
    r"""(?:Alert\(|alert_if\(|_finding\(|key(?:,\ text)?\ =|key(?:,\ fault,\ why)?\ =|side\ =\ key\s+return)
    \s*f?"([a-z-]+)[/"]""",
    re.VERBOSE,
)


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("outage/main", "account main cannot be read"),
        ("closing/main/uncloseable/BTC/USDT:USDT", "a position on account main is not closed yet"),
        ("closing/main/stalled", "the close on account main has a problem"),
        ("policies/broken", "the policy files do not compile"),
        ("console", "output to the console is lost"),
        ("outage/{0.__class__}", "account {0.__class__} cannot be read"),
        ("new-part/main", ""),
    ],
)
def test_the_title_is_that_of_the_longest_beginning_of_the_key(key: str, title: str) -> None:
    """A name of a user is only inserted; a kind without a title has none."""
    assert alert_title(key) == title


def test_every_kind_of_alert_in_the_program_has_a_title(repository: Path) -> None:
    """The first parts of keys, as the sources write them."""
    sources = [path.read_text(encoding="utf-8") for path in (repository / "killswitch").rglob("*.py")]
    kinds = {kind for source in sources for kind in KEY.findall(source)}
    assert {"outage", "locks", "breach", "shortfall", "console"} <= kinds
    untitled = sorted(kinds - {key.partition("/")[0] for key in TITLES})
    assert untitled == [], "add a title of each to TITLES of killswitch/engine/notice_titles.py"
    assert max(map(len, TITLES.values())) <= MOST


def test_every_kind_that_a_part_judges_is_optional(repository: Path) -> None:
    """Otherwise a run without the part would end its alerts."""
    judged = {
        kind
        for path in (repository / "killswitch").rglob("*.py")
        for kind in judged_kinds(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert {"outage", "locks", "console", "recording"} <= judged
    named = sorted(judged - OPTIONAL)
    assert named == [], "add each to OPTIONAL, or to OF_ACCOUNT, of killswitch/engine/notice_titles.py"
    assert sorted(OPTIONAL - {key.partition("/")[0] for key in TITLES}) == []


def judged_kinds(tree: ast.Module) -> Iterator[str]:
    """The first parts of the keys that the properties `judges` of a module return."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "judges":
            texts = [
                each for statement in node.body if isinstance(statement, ast.Return) for each in ast.walk(statement)
            ]
            written = [each.value for each in texts if isinstance(each, ast.Constant)]
            yield from (value.partition("/")[0] for value in written if isinstance(value, str))


def test_the_end_of_an_alert_says_so_in_its_title() -> None:
    """The title of what began, after the word for the end; the texts stay in the text."""
    alert = Alert("outage/main", "page", "no answer", over="account main can be read again", measure=(Decimal(0),))
    (begun,), state = advance(AlertState(), Alerts((alert,)), 0)
    (ended,), _ = advance(state, Alerts(), 72 * SECOND)
    assert (begun.title, ended.title) == ("account main cannot be read", "over: account main cannot be read")
    assert (begun.text, ended.text) == ("no answer", "account main can be read again, after 72 s")
