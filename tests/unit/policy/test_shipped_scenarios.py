"""The scenarios of the shipped policy sets pass, and show every trigger, clause, stage, reset and route of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from killswitch.cli import ksctl

SETS = (
    "breakers-six", "capital-breaker", "circuit-breaker", "freqtrade-protections", "futures-component-risk",
    "futures-concentrated", "futures-degross", "futures-directional", "futures-drawdown",
    "one-exchange-directional", "one-exchange-hedged", "several-exchanges", "slow-bleed", "slow-bleed-published",
    "spot-drawdown", "venue-trouble",
)  # fmt: skip


def test_every_shipped_set_is_listed(repository: Path) -> None:
    """A new set has scenarios, and is tested with the others."""
    folders = sorted(folder.name for folder in (repository / "policies").iterdir() if folder.is_dir())
    assert folders == list(SETS)


@pytest.mark.parametrize("name", SETS)
def test_the_scenarios_of_a_shipped_set_pass_and_cover_all_of_it(repository: Path, name: str) -> None:
    """Clauses included, on exact fractions."""
    arguments = ["test", str(repository / "policies" / name), "--jobs", "1", "--fail-under", "100%", "-o", "json"]
    result = CliRunner().invoke(ksctl, arguments)
    assert result.exit_code == 0, (result.stdout, result.stderr)
    answer = json.loads(result.stdout)
    assert answer["counts"]["passed"] == len(answer["scenarios"]) > 0
    assert {point["kind"] for point in answer["coverage"]["points"]} >= {"trigger", "stage", "reset", "route"}
