"""The named worlds of the rule that distinguishes a loss from a flow."""

from __future__ import annotations

import pytest

from tests.worlds.catalogue import NAMED


@pytest.mark.parametrize("name", NAMED)
def test_a_named_world_has_its_right_outcome(name: str) -> None:
    """It closes where the loss is real, in the time that the world allows, and nowhere else."""
    problems = NAMED[name].complaints(name)
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def test_every_number_has_a_named_world() -> None:
    """No number is left out."""
    assert {each.number for each in NAMED.values()} == set(range(1, 21))
