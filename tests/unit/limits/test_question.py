"""The question of a bot and the answer of the gate: what is refused unread, and what survives JSON."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import pytest

from killswitch.limits.question import (
    GateVerdict,
    LegVerdict,
    OrderAsked,
    Question,
    UnknownLimit,
    decode_question,
    decode_report,
    decode_verdict,
    encode_question,
    encode_verdict,
)

ORDER = {"symbol": "BTC/USDT:USDT", "side": "sell", "amount": "0.10", "unit": "base"}


def question(**order: object) -> bytes:
    return json.dumps({"id": "q1", "account": "main", "orders": [ORDER | order]}).encode()


def test_amounts_are_read_exactly_from_text_and_from_numbers() -> None:
    """0.1 as a JSON number is the decimal 0.1, not the nearest binary fraction."""
    assert decode_question(question()).orders[0].amount == Decimal("0.10")
    assert decode_question(question(amount=0.1)).orders[0].amount == Decimal("0.1")


@pytest.mark.parametrize(
    "wrong",
    [{"reduceonly": True}, {"side": "long"}, {"unit": "lots"}, {"amount": "much"}, {"reduce_only": "yes"}],
)
def test_what_is_misspelt_is_refused(wrong: dict[str, object]) -> None:
    """An unknown key is no order without it: a misspelt flag would make an exit of what is none."""
    with pytest.raises(msgspec.ValidationError):
        decode_question(question(**wrong))


def test_an_amount_without_its_unit_is_refused() -> None:
    """No unit is assumed."""
    order = {key: value for key, value in ORDER.items() if key != "unit"}
    with pytest.raises(msgspec.ValidationError, match="unit"):
        decode_question(json.dumps({"id": "q", "account": "main", "orders": [order]}).encode())


def test_question_and_verdict_survive_json() -> None:
    """Numbers are texts, and lists are never null."""
    asked = Question("q1", "main", (OrderAsked("A", "buy", Decimal("1.50"), "contracts", price=Decimal("9.9")),))
    assert decode_question(encode_question(asked)) == asked
    verdict = GateVerdict(
        "q1", False, "order_size", "too large", legs=(LegVerdict("entry", Decimal("1.5")),), checked=("order_size",),
        denied_by=("order_size", "leverage"), unknown=(UnknownLimit("leverage", "equity"),),
    )  # fmt: skip
    written = encode_verdict(verdict)
    assert decode_verdict(written) == verdict
    assert json.loads(written)["conflicts"] == []
    assert json.loads(written)["legs"][0]["contracts"] == "1.5"


def test_a_report_names_an_outcome_that_is_known() -> None:
    """A time-out is no outcome: the order may exist."""
    assert decode_report(b'{"question": "q1", "outcome": "not_sent"}').leg is None
    with pytest.raises(msgspec.ValidationError):
        decode_report(b'{"question": "q1", "outcome": "timeout"}')
