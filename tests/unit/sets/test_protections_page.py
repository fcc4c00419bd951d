"""docs/protections.md names what exists: signals, kinds and shipped sets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from killswitch.policy.kinds import KINDS, TESTS
from killswitch.signals.catalogue import BY_NAME
from tests.unit.docs.pages import sections
from tools.reference.protections import DANGERS, signals_of_sets


def test_every_danger_names_a_kind_of_document_and_signals_of_the_catalogue() -> None:
    """A signal that is renamed, or a kind that is removed, is found here."""
    assert {each.kind for each in DANGERS} <= KINDS.keys()
    families = {name.partition(".")[0] for name in BY_NAME}
    named = {name for each in DANGERS for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", each.how)}
    assert named and {name for name in named if name.partition(".")[0] in families} <= BY_NAME.keys()
    assert len({each.what for each in DANGERS}) == len(DANGERS)


def test_every_kind_of_document_has_a_row(repository: Path) -> None:
    """A new kind has one by its own description until a danger names it."""
    page = (repository / "docs" / "protections.md").read_text(encoding="utf-8")
    (table,) = sections(page)["By what goes wrong"].tables
    kinds = {re.sub(r"\[([^\]]*)\].*", r"\1", row["document"]) for row in table}
    assert kinds >= KINDS.keys() - TESTS


@pytest.mark.parametrize(
    ("danger", "shipped", "not_shipped"),
    [
        ("The account falls within minutes or an hour", "futures-degross", "breakers-six"),
        ("It falls all day, and no hour shows it", "breakers-six", "futures-degross"),
        ("It bleeds for days", "one-exchange-hedged", "futures-degross"),
        ("The venue answers late, wrongly or not at all", "venue-trouble", "slow-bleed"),
    ],
)
def test_a_set_is_named_where_it_reads_the_signal_over_such_a_time(
    danger: str, shipped: str, not_shipped: str, repository: Path
) -> None:
    """A set with windows of an hour does not answer a day that only ever goes down."""
    page = (repository / "docs" / "protections.md").read_text(encoding="utf-8")
    (table,) = sections(page)["By what goes wrong"].tables
    (row,) = [each for each in table if each["what can go wrong"] == danger]
    assert f"`{shipped}`" in row["shipped in"]
    assert f"`{not_shipped}`" not in row["shipped in"]


def test_the_signals_of_a_set_are_those_of_its_triggers(repository: Path) -> None:
    """spot-drawdown reads the drawdown of an hour, and nothing else but what its reset asks."""
    assert signals_of_sets(repository / "policies")["spot-drawdown"] == {("equity.drawdown", 1)}
