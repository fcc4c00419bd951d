"""What recorded stores, recordings, plans and documents gave when they were recorded, they give today."""

from __future__ import annotations

import pytest

from tests.baselines.comparing import Baseline, baselines, difference


@pytest.mark.parametrize("baseline", [pytest.param(each, id=f"{each.name}: {each.sentence}") for each in baselines()])
def test_what_was_recorded_is_what_is_made_today(baseline: Baseline) -> None:
    """`python -m tests.baselines record NAME` writes anew what was meant to change; README.md says when that may be."""
    found = baseline.differences()
    assert not found, "\n".join(found)


def test_a_difference_shows_its_first_place_and_whether_it_is_in_words_only() -> None:
    """A sentence for people that reads otherwise is told apart from a number that is another."""
    kept = '{"at": 1, "text": "closing stands still"}\n{"at": 2, "text": "so"}\n'
    assert difference(kept, kept.replace("still", "now")).startswith("1 line differs, in words only\n")
    assert difference(kept, kept.replace("2", "3")).splitlines() == [
        "1 line differs", '    - {"at": 2, "text": "so"}', '    + {"at": 3, "text": "so"}',
    ]  # fmt: skip
