"""Answers with one wrong field, at every venue of this project; a share of them, evenly spread and the same each time.

Each venue takes its turn; a few fields of each are changed in `test_guarantees`, by turns as well. All of them are in
`python -m tests.wire.mutants [VENUE…]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from killswitch.conformance.answers import wrong_query_results
from killswitch.conformance.mutations import MISSING, Mutation, mutations, sample
from killswitch.conformance.order_answers import complaints_of, wrong_order_results
from killswitch.model.venue import FateUnknownError, OrderRejectedError, OrderReport, OrderState, VenueDownError
from tests.conformance.mutation_harnesses import mutation_harnesses
from tests.rotation import taking_turns

HARNESSES = mutation_harnesses()
KNOWN: Mapping[str, tuple[str, ...]] = {
    # Kraken lists rows under their ids: a row that is left out looks like one that does not exist. So does an order
    # without our name, since the venue may list other orders, too.
    "kraken": (
        "POST /0/private/BalanceEx result.ZUSD missing", "POST /0/private/BalanceEx result.XXBT missing",
        "POST /0/private/ClosedOrders result.closed.O2", "POST /0/private/OpenOrders result.open no fields",
        "POST /0/private/OpenOrders result.open.O1 missing", "POST /0/private/OpenOrders result.open.O1.opentm true",
    ),
    # What ccxt's parser makes of a damaged row: another side, no row, another state. Its rows are all there is.
    "generic": (
        "GET /api/v4/spot/account_book 0", "GET /api/v4/spot/currency_pairs 0", "GET /api/v4/spot/my_trades 0",
        "GET /api/v4/spot/accounts  a row again with zeros",
    ),
}  # fmt: skip
"""Venue → changes, by the beginning of their texts, that are read wrongly and cannot be told from a right answer."""


@pytest.mark.parametrize("venue", taking_turns(HARNESSES, "a wrong field"))
def test_a_wrong_field_of_an_answer_is_never_a_wrong_number(venue: str) -> None:
    """Every fact is unchanged or unknown, or the poll fails with a reason; no position vanishes or turns."""
    harness = HARNESSES[venue]()
    tried, found = harness.run(wrong_query_results(harness, most=harness.mutations))
    wrong = [it for it in found if not str(it.mutation).startswith(KNOWN.get(venue, ()))]
    assert tried > harness.mutations // 2
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("venue", taking_turns([name for name in HARNESSES if name != "generic"], "a damaged answer"))
def test_a_damaged_answer_to_an_executed_request_is_never_a_refusal_nor_another_fill(venue: str) -> None:
    """Of a submit, a batch and a cancel: the same report, or an unknown status; a refusal would send it again."""
    harness = HARNESSES[venue]()
    tried, wrong = harness.run(wrong_order_results(harness, most=harness.mutations))
    assert tried["submit"] > harness.mutations // 2
    assert "cancel" in tried
    assert not wrong, "\n".join(map(str, wrong))


def test_an_adapter_that_takes_every_damaged_answer_for_a_refusal_is_detected() -> None:
    """The check itself: for such an adapter each damaged answer to an order is a complaint."""
    done = report("open", "0")
    assert complaints_of(done, OrderRejectedError("other", "nonsense"), is_done=True)
    assert complaints_of(done, VenueDownError("down"), is_done=True)
    assert not complaints_of(done, VenueDownError("down"), is_done=False)
    assert not complaints_of(done, FateUnknownError("unknown"), is_done=True)
    assert complaints_of(report("filled", "2"), report("expired", "0"), is_done=True)
    assert not complaints_of(report("filled", "2"), done, is_done=True)
    assert complaints_of(None, None, is_done=False)


def report(state: OrderState, filled: str) -> OrderReport:
    return OrderReport("1", "ks1", "BTC", state, Decimal(2), Decimal(filled))


ANSWER: dict[str, Any] = {"rows": [{"size": "1.5", "side": "buy", "open": True}], "at": 7, "more": {}}


def test_every_field_is_changed_in_every_way_that_its_kind_has() -> None:
    """Ten ways for a number, seven for a word, eight for a list of rows, five for a boolean, four for a row."""
    found = mutations({"question": ANSWER})
    by_path = {path: sorted(it.kind for it in found if it.path == path) for path in {it.path for it in found}}
    assert by_path["rows", 0, "size"] == sorted(
        [
            "null",
            "missing",
            "a word",
            "true",
            "an object",
            "a list",
            "nothing written",
            "no number",
            "beyond measure",
            "negative",
        ]
    )
    assert by_path["rows", 0, "side"] == sorted(
        ["null", "missing", "a word", "true", "an object", "a list", "nothing written"]
    )
    assert by_path["rows",] == sorted(
        ["null", "missing", "an object", "a word", "a list of nothing", "empty", "the same row twice",
         "a row again with zeros"]
    )  # fmt: skip
    assert by_path["rows", 0] == sorted(["null", "no fields", "a list", "a word"])
    assert by_path["rows", 0, "open"] == sorted(["null", "missing", "a word", "an object", "a list"])


def test_a_repeated_row_belongs_to_the_answer_that_is_changed() -> None:
    """One route may answer about several markets: the row is one of its own."""
    found = {it.kind: it for it in mutations({"question": [{"size": "1.5"}]}) if not it.path}
    assert found["the same row twice"].change("question", [{"size": "3.5"}]) == [{"size": "3.5"}] * 2
    assert found["a row again with zeros"].change("question", [{"size": "3.5"}]) == [{"size": "3.5"}, {"size": "0"}]


def test_a_change_applies_to_its_own_question_and_field() -> None:
    """The original answer is not modified."""
    change = Mutation("question", ("rows", 0, "size"), "missing", MISSING).change
    assert change("question", ANSWER) == {**ANSWER, "rows": [{"side": "buy", "open": True}]}
    assert change("another", ANSWER) == ANSWER
    assert change("question", {"rows": []}) == {"rows": []}
    assert "size" in ANSWER["rows"][0]


def test_a_share_is_spread_over_all_of_them() -> None:
    """Five of ten are each second one; none is tried twice."""
    found = [Mutation("question", (number,), "null", None) for number in range(10)]
    assert [it.path[0] for it in sample(found, 5)] == [0, 2, 4, 6, 8]
    assert sample(found, 100) == found
