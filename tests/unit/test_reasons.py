"""What `--reason` takes: a declared word, or a person's own words, which never keep a close from happening."""

from __future__ import annotations

from typing import get_args

import pytest

from killswitch.cli.operate.reasons import MEANINGS, reason_of, scope_warning
from killswitch.model.words import Cause


def test_every_declared_word_is_offered() -> None:
    """The vocabulary of the records is the one that a person can use."""
    assert set(MEANINGS) == set(get_args(Cause))


@pytest.mark.parametrize(
    ("written", "cause", "text"),
    [
        ("market", "market", "market"),
        ("market: prices run away", "market", "prices run away"),
        ("Exchange breach: keys are gone", "exchange-breach", "keys are gone"),
        ("exchange_breach", "exchange-breach", "exchange-breach"),
        ("drill:", "drill", "drill"),
        ("regulatory: by order: no. 7", "regulatory", "by order: no. 7"),
    ],
)
def test_a_declared_word_begins_the_reason(written: str, cause: str, text: str) -> None:
    """Nothing is remarked, and the text after the colon is what is recorded."""
    found = reason_of(written)
    assert (found.cause, found.text, found.remark) == (cause, text, None)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("markt", "'market'?"),
        ("markt: too fast", "'market: …'?"),
        ("market falls", "'market: …'?"),
        ("exchange-breech: keys", "'exchange-breach: …'?"),
        ("system failure of the router", "'system-failure: …'?"),
        ("looked at it", None),
        ("r", None),
    ],
)
def test_other_words_count_as_an_operators_with_the_words_listed(written: str, meant: str | None) -> None:
    """A close never fails for want of a word; a near miss is asked about."""
    found = reason_of(written)
    assert (found.cause, found.text) == ("operator", written)
    assert found.remark is not None
    assert all(word in found.remark for word in MEANINGS)
    assert found.remark.endswith(meant) if meant else "Did you mean" not in found.remark


def test_a_breach_of_the_venue_deserves_more_than_one_account() -> None:
    """A scope that leaves something open there is remarked, not refused."""
    assert "the rest of the account stays open" in (scope_warning("exchange-breach", "account/main") or "")
    assert scope_warning("exchange-breach", None) is None
    assert scope_warning("market", "account/main") is None
