"""Unknown keys of a close: no fix makes it close more than was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.accounts.opening import PolicyProblemsError, read_policies
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from tests.e2e.processes import POLICY


def found(tmp_path: Path, key: str, after: str = "close: {side: both, fraction: 100%") -> Diagnostic:
    """What is said of the key next to `fraction: 100%`."""
    assert after in POLICY
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.replace(after, f"{after}, {key}: 'position.margin_loss >= 0.5'"), encoding="utf-8")
    with pytest.raises(PolicyProblemsError) as error:
        read_policies((path,))
    return next(each for each in error.value.diagnostics if f"`{key}`" in each.message)


@pytest.mark.parametrize("key", ["only_if", "onlyif", "only", "when", "if", "filter", "condition", "Only-If"])
def test_words_for_what_is_closed_are_answered_with_where(tmp_path: Path, key: str) -> None:
    """A misspelt restriction is written as one, and never taken out."""
    diagnostic = found(tmp_path, key)
    assert diagnostic.message == f"unknown key `{key}`, did you mean `where`?"
    assert diagnostic.fix == "write `where`"


@pytest.mark.parametrize("key", ["except", "exclude", "excluding", "without"])
def test_words_for_assets_that_stay_are_answered_with_except_assets(tmp_path: Path, key: str) -> None:
    """The key that means the same."""
    assert found(tmp_path, key).fix == "write `except_assets`"


@pytest.mark.parametrize("key", ["unless", "keep_if", "keep", "skip", "hold_if"])
def test_words_for_what_stays_open_are_answered_with_the_opposite(tmp_path: Path, key: str) -> None:
    """`where` selects what is closed: the same condition there would close the opposite."""
    diagnostic = found(tmp_path, key)
    assert diagnostic.message == f"unknown key `{key}`"
    assert (diagnostic.fix or "").startswith("write its opposite, `where: '…'`")


@pytest.mark.parametrize(
    "key", ["only_if", "onlyif", "when", "unless", "except", "keep_if", "zorp", "hedge", "reduce_to"]
)
def test_no_unknown_key_of_a_close_is_to_be_removed(tmp_path: Path, key: str) -> None:
    """Without it the close might close everything, validated and without a warning."""
    assert "remove" not in (found(tmp_path, key).fix or "")
