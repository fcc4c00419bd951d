"""One target for each position: of equal ones the most urgent; also with second hops, and beside hedges."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Literal

import pytest
from msgspec.structs import replace

from killswitch.graph.unwinding import UnwindingRule
from killswitch.model.decision import Decision, Intent, Rung, Unwinding
from killswitch.model.instant import SECOND
from killswitch.model.snapshot import AccountSnapshot, Closing, Residual
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.targets.merge import Aim, merge, targets_of, with_intents
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.worlds import START, account, position, rules, snapshot

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


def test_a_second_hop_follows_its_first_hop_and_refers_to_its_new_index() -> None:
    """Both decisions sell A and X over BTC; the first asks for less of A and X, the second for B: hops follow."""
    first = decided("one", intent("A", "5"), intent("X/BTC", "5"), intent("BTC/USDT", "3", purpose="hop", after=1))
    second = decided("two", intent("A"), intent("X/BTC"), intent("BTC/USDT", "3", purpose="hop", after=1), intent("B"))
    loser, winner = merge([first, second], {})
    assert shape(loser) == []
    assert winner == second
    kept, other = merge([first, decided("two", intent("A"))], {})
    assert shape(kept) == [("X/BTC", "reduce", None), ("BTC/USDT", "hop", 0)]
    assert shape(other) == [("A", "reduce", None)]


def test_a_hop_does_not_compete_with_a_close_of_the_same_asset() -> None:
    """A hop leaves the earlier BTC holding: a decision that closes the bitcoin itself is not held back."""
    over = decided("one", intent("X/BTC"), intent("BTC/USDT", "3", purpose="hop", after=0))
    own = decided("two", intent("BTC/USDT", "1"))
    assert targets_of([over]) == {("main", "X/BTC", "long"): Aim(D(0), level=1)}
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


def test_a_hedge_is_not_merged() -> None:
    """It reduces no position, so it neither takes an order from a close nor loses one to it."""
    stand_in = decided("hedge", intent("BTC", purpose="hedge"), kind="hedge")
    own = decided("close", intent("BTC", "2"))
    assert merge([stand_in, own], {("main", "BTC", "long"): Aim(D(0), level=1)}) == (stand_in, decided("close"))
    assert targets_of([stand_in]) == {}
    another = decided("another", intent("BTC", purpose="hedge"), kind="hedge")
    assert merge([stand_in, another, own], {}) == (stand_in, another, own)


def test_removing_an_account_removes_its_hops_and_reindexes_the_others() -> None:
    """The intents of `main` are removed; the hop of `other` refers to the new index of its first one."""
    whole = decided(
        "one", intent("X/BTC"), intent("BTC/USDT", purpose="hop", after=0),
        intent("Y/BTC", account="other"), intent("BTC/USDT", purpose="hop", after=2, account="other"),
    )  # fmt: skip
    left = with_intents(whole, lambda each: each.account == "other")
    assert [(i.account, i.symbol, i.after) for i in left.intents] == [
        ("other", "Y/BTC", None),
        ("other", "BTC/USDT", 0),
    ]
    assert with_intents(whole, lambda _: True) is whole


SLOW = Unwinding("slow", (), 1, 600.0)
BOUNDED = Unwinding("bounded", (Rung("limit_ioc"), Rung("market")))


@pytest.mark.parametrize(
    ("one", "two", "winner"),
    [
        ((SLOW, 1), (None, 1), "two"),
        ((None, 1), (SLOW, 3), "one"),
        ((SLOW, 3), (BOUNDED, 1), "two"),
        ((BOUNDED, 1), (None, 1), "two"),
        ((None, 1), (None, 3), "two"),
        ((None, 3), (None, 1), "one"),
        ((SLOW, 2), (SLOW, 2), "one"),
    ],
)
def test_of_equal_targets_the_most_urgent_is_executed(
    one: tuple[Unwinding | None, int], two: tuple[Unwinding | None, int], winner: str
) -> None:
    """By pace, then ladder, then level, then order of arrival; whichever of them is listed first."""
    both = [
        replace(decided(name, intent("BTC")), unwinding=manner, level=level)
        for name, (manner, level) in (("one", one), ("two", two))
    ]
    assert [decision.id for decision in merge(both, {}) if decision.intents] == [winner]
    (second,) = merge([both[1]], targets_of([both[0]]))
    assert bool(second.intents) == (winner == "two")


def test_an_operator_close_in_progress_is_as_urgent_as_any_stage_of_its_pace() -> None:
    """Its decision has no level, and no stage orders the same again; only the pace of a drill is too slow for one."""
    operator_close = replace(decided("hand", intent("BTC"), kind="manual"), level=0)
    stage_3 = replace(decided("stage", intent("BTC")), level=3)
    assert [each.intents for each in merge([stage_3], targets_of([operator_close]))] == [()]
    drill = replace(operator_close, unwinding=SLOW)
    assert merge([stage_3], targets_of([drill])) == (stage_3,)


def test_a_smaller_target_takes_precedence_over_urgency() -> None:
    """A slow, complete close is not left half open for a faster half."""
    whole = replace(decided("whole", intent("BTC")), unwinding=SLOW)
    half = decided("half", intent("BTC", "5"))
    assert [bool(decision.intents) for decision in merge([half, whole], {})] == [False, True]


def test_an_immediate_close_of_level_three_does_not_wait_for_the_pace_of_level_one() -> None:
    """A slow close of everything is in progress at the crash: the stage that closes at once gets its orders."""
    slow = UnwindingRule("slow", max_orders_per_minute=1, pause=600 * SECOND)
    fast = UnwindingRule("fast")
    policy = graph(
        (FALL_15M,), (trigger("fall", 0, 0.05), trigger("crash", 0, 0.2)),
        (
            stage("ease", 1, 0, actions=(close("both", unwinding="slow"),)),
            stage("out", 3, 1, actions=(close("both", unwinding="fast"),)),
        ),
    )  # fmt: skip
    interpreter = Interpreter(replace(policy_set(policy), unwindings=(fast, slow)))

    def book(pnl: str) -> AccountSnapshot:
        held = position("BTC", "long", pnl, contracts="1000", mark_price="1", notional="1000")
        return account(str(1000 + D(pnl)), [held], instruments=(rules("BTC", max_amount="10"),))

    interpreter.tick(snapshot(START, book("0")))
    [ease] = interpreter.tick(snapshot(START + timedelta(seconds=10), book("-60"))).decisions
    in_progress = (Closing(ease.id, "closing", (Residual("main", "BTC", "long", D(990)),), scope=ease.scope),)
    crash = snapshot(START + timedelta(seconds=20), book("-300"), closings=in_progress)
    [out] = interpreter.tick(crash).decisions
    assert (out.level, sum(each.contracts for each in out.intents)) == (3, 1000)


def test_c23_one_holding_is_sold_once_whichever_market_each_decision_uses() -> None:
    """Three decisions halve one holding, on its own market, over BTC and over ETH: one of them sells the half."""
    own = decided("own", intent("X/USDT", "50"))
    over_btc = decided("btc", intent("X/BTC", "50", purpose="hop"), intent("BTC/USDT", "0", purpose="hop", after=0))
    over_eth = decided("eth", intent("X/ETH", "50", purpose="hop"))
    assert [shape(each) for each in merge([over_btc, over_eth, own], {})] == [shape(over_btc), [], []]
    for first in (own, over_btc, over_eth):
        for second in (own, over_btc, over_eth):
            in_progress = targets_of([replace(first, id="before")])
            assert merge([second], in_progress)[0].intents == ()
            assert merge([second], targets_of([decided("none")])) == (second,)


def test_holdings_of_one_asset_that_are_not_sold_elsewhere_are_separate_targets() -> None:
    """Where a venue lists two classes of share under one base, closing the one does not stand for the other."""
    one, two = decided("one", intent("BRK-A")), decided("two", intent("BRK-B"))
    assert merge([one, two], {}) == (one, two)


def leaving(id_: str, target: str, kind: Literal["manual", "hedge"] | None = None) -> Decision:
    """Leave `target` contracts of BTC."""
    order = Intent("main", "BTC", "long", "sell", Decimal(1), Decimal(target), False, 1)
    return Decision(
        id=id_, as_of=START, policy=id_, policy_set="sha256:test", scope="account/main", mode="enforce", stage="s",
        level=1, previous_level=0, intents=(order,), kind=kind,
    )  # fmt: skip


@pytest.mark.parametrize("kept", [leaving("k", "5", "manual"), replace(leaving("k", "5"), mode="observe")])
def test_an_operator_close_and_an_observing_one_are_not_reduced(kept: Decision) -> None:
    """Though others leave less of the same position; among those the smallest target has it."""
    for order in ((0, 1, 2), (2, 1, 0)):
        given = [(kept, leaving("two", "2"), leaving("one", "1"))[place] for place in order]
        found = {each.id: each for each in merge(given, {})}
        assert found["k"] == kept
        assert [len(found[name].intents) for name in ("two", "one")] == [0, 1]
