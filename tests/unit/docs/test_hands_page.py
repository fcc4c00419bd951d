"""docs/hands.md says of each declared reason what the program does."""

from __future__ import annotations

from pathlib import Path

from killswitch.policy.causes import WORDS
from tests.unit.docs.pages import sections


def test_the_page_lists_every_declared_reason_as_it_is_carried_out(repository: Path) -> None:
    """Word, meaning and manner are those of the vocabulary, in its order."""
    page = (repository / "docs" / "hands.md").read_text(encoding="utf-8")
    (rows,) = sections(page)["The reason decides how"].tables
    assert [(row["word"], row["when"], row["carried out"]) for row in rows] == [
        (f"`{word}`", words.meaning, words.urgency) for word, words in WORDS.items()
    ]
