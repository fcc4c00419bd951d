"""`--reason` accepts a declared cause or free text; free text never prevents a close."""

from __future__ import annotations

from typing import get_args

import pytest

from killswitch.cli.operate.reasons import MEANINGS, reason_of, scope_warning
from killswitch.model.words import Cause


def test_every_declared_cause_is_offered() -> None:
    """The vocabulary of the records is the one that an operator can use."""
    assert set(MEANINGS) == set(get_args(Cause))


@pytest.mark.parametrize(
    ("reason", "cause", "text"),
    [
        ("market", "market", "market"),
        ("market: prices run away", "market", "prices run away"),
        ("Exchange breach: keys are gone", "exchange-breach", "keys are gone"),
        ("exchange_breach", "exchange-breach", "exchange-breach"),
        ("dead man: bots are silent", "dead-man", "bots are silent"),
        ("drill:", "drill", "drill"),
        ("regulatory: by order: no. 7", "regulatory", "by order: no. 7"),
    ],
)
def test_a_reason_that_starts_with_a_declared_cause_has_that_cause(reason: str, cause: str, text: str) -> None:
    """There is no remark, and the text after the colon is recorded."""
    parsed = reason_of(reason)
    assert (parsed.cause, parsed.text, parsed.remark) == (cause, text, None)


@pytest.mark.parametrize(
    ("reason", "suggestion"),
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
def test_free_text_counts_as_an_operators_reason_with_the_causes_listed(reason: str, suggestion: str | None) -> None:
    """A close never fails for a missing cause; a near miss gets a suggestion."""
    parsed = reason_of(reason)
    assert (parsed.cause, parsed.text) == ("operator", reason)
    assert parsed.remark is not None
    assert all(word in parsed.remark for word in MEANINGS)
    assert parsed.remark.endswith(suggestion) if suggestion else "Did you mean" not in parsed.remark


def test_an_exchange_breach_on_one_account_gets_a_warning() -> None:
    """A scope that leaves positions open at the venue gets a warning, and is not refused."""
    assert "the rest of the account stays open" in (scope_warning("exchange-breach", "account/main") or "")
    assert scope_warning("exchange-breach", None) is None
    assert scope_warning("market", "account/main") is None
