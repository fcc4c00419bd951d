"""The twelve named worlds of the rule that tells a loss from a flow."""

from __future__ import annotations

import pytest

from tests.worlds.named import NAMED


@pytest.mark.parametrize("name", NAMED)
def test_a_named_world_ends_as_its_truth_says(name: str) -> None:
    """It closes where the loss is real, in the time that the world allows, and nowhere else."""
    problems = NAMED[name].complaints(name)
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def test_all_twelve_are_there() -> None:
    """Each number of the page has at least one world."""
    assert {each.number for each in NAMED.values()} == set(range(1, 13))
