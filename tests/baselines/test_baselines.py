"""Recorded stores, recordings, plans and documents give the same output as when they were recorded."""

from __future__ import annotations

import pytest

from tests.baselines.comparison import Baseline, baselines, difference


@pytest.mark.parametrize("baseline", [pytest.param(each, id=f"{each.name}: {each.sentence}") for each in baselines()])
def test_the_present_output_equals_the_recorded_one(baseline: Baseline) -> None:
    """For an intended change, run `python -m tests.baselines record NAME`; README.md states when that is allowed."""
    found = baseline.differences()
    assert not found, "\n".join(found)


def test_a_difference_shows_its_first_place_and_whether_only_prose_differs() -> None:
    """A changed sentence is distinguished from a changed number."""
    kept = '{"at": 1, "text": "closing stands still"}\n{"at": 2, "text": "so"}\n'
    assert difference(kept, kept.replace("still", "now")).startswith("1 line differs, in words only\n")
    assert difference(kept, kept.replace("2", "3")).splitlines() == [
        "1 line differs", '    - {"at": 2, "text": "so"}', '    + {"at": 3, "text": "so"}',
    ]  # fmt: skip
