"""One position, one target: also where a holding goes over two markets, and beside hedges."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from killswitch.model.decision import Decision, Intent
from killswitch.planning.merge import merge, only, targets_of
from tests.worlds import START

D = Decimal


def intent(
    symbol: str,
    target: str = "0",
    *,
    purpose: Literal["reduce", "hop", "hedge"] = "reduce",
    after: int | None = None,
    account: str = "main",
) -> Intent:
    return Intent(account, symbol, "long", "sell", D(1), D(target), False, 1, purpose=purpose, after=after)


def decided(id_: str, *intents: Intent, kind: Literal["manual", "hedge"] | None = None) -> Decision:
    return Decision(
        id=id_, as_of=START, policy=id_, policy_set="sha256:test", scope="account/main", mode="enforce", stage="s",
        level=1, previous_level=0, intents=intents, kind=kind,
    )  # fmt: skip


def shape(decision: Decision) -> list[tuple[str, str, int | None]]:
    return [(each.symbol, each.purpose, each.after) for each in decision.intents]


def test_a_second_hop_goes_where_the_first_goes_and_names_its_new_place() -> None:
    """Both decisions sell A and X over BTC; the first asks for less of A and X, the second for B: hops follow."""
    first = decided("one", intent("A", "5"), intent("X/BTC", "5"), intent("BTC/USDT", "3", purpose="hop", after=1))
    second = decided("two", intent("A"), intent("X/BTC"), intent("BTC/USDT", "3", purpose="hop", after=1), intent("B"))
    loser, winner = merge([first, second], {})
    assert shape(loser) == []
    assert winner == second
    kept, other = merge([first, decided("two", intent("A"))], {})
    assert shape(kept) == [("X/BTC", "reduce", None), ("BTC/USDT", "hop", 0)]
    assert shape(other) == [("A", "reduce", None)]


def test_a_hop_has_no_target_that_an_order_for_the_position_could_be_measured_against() -> None:
    """What the hop leaves of BTC is what was there: a decision that closes the bitcoin itself is not held back."""
    over = decided("one", intent("X/BTC"), intent("BTC/USDT", "3", purpose="hop", after=0))
    own = decided("two", intent("BTC/USDT", "1"))
    assert targets_of([over]) == {("main", "X/BTC", "long"): D(0)}
    assert merge([over, own], {}) == (over, own)


def test_a_sale_on_another_market_is_left_to_the_smallest_target_too() -> None:
    """X is listed on a halted market and sold on X/BTC: one decision sells it, with the hop behind it."""
    half = decided(
        "half", intent("X/BTC", "5", purpose="hop"), intent("BTC/USDT", "0", purpose="hop", after=0), intent("A")
    )
    whole = decided("whole", intent("X/BTC", "0", purpose="hop"), intent("BTC/USDT", "0", purpose="hop", after=0))
    left, right = merge([half, whole], {})
    assert shape(left) == [("A", "reduce", None)]
    assert right == whole


def test_a_hedge_is_left_as_it_is() -> None:
    """It reduces no position, so it neither takes an order from a close nor loses one to it."""
    stand_in = decided("hedge", intent("BTC", purpose="hedge"), kind="hedge")
    own = decided("close", intent("BTC", "2"))
    assert merge([stand_in, own], {("main", "BTC", "long"): D(0)}) == (stand_in, decided("close"))
    assert targets_of([stand_in]) == {}
    another = decided("another", intent("BTC", purpose="hedge"), kind="hedge")
    assert merge([stand_in, another, own], {}) == (stand_in, another, own)


def test_taking_an_account_out_takes_its_hops_and_keeps_the_places_of_the_others() -> None:
    """The intents of `main` go; the hop of `other` names the place that its first one has now."""
    whole = decided(
        "one", intent("X/BTC"), intent("BTC/USDT", purpose="hop", after=0),
        intent("Y/BTC", account="other"), intent("BTC/USDT", purpose="hop", after=2, account="other"),
    )  # fmt: skip
    left = only(whole, lambda each: each.account == "other")
    assert [(i.account, i.symbol, i.after) for i in left.intents] == [
        ("other", "Y/BTC", None),
        ("other", "BTC/USDT", 0),
    ]
    assert only(whole, lambda _: True) is whole
