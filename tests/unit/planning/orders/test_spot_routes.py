"""Spot routes: the market a holding is sold on, the size of a second hop, and what is never sold (C9, C12, C19)."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.graph.actions.close import Close
from killswitch.graph.unwinding import DEFAULT_SPOT, SlippageRule, SpotRule, UnwindingRule
from killswitch.model.snapshot import Balance, Instrument, Position
from killswitch.planning.interpreter import Interpreter, Outcome
from killswitch.planning.orders.unwind import Unwound, unwind
from killswitch.planning.spot_routes import SpotRoute, base_of, is_never_sold, route
from killswitch.planning.targets.ranking import Ranked, candidates
from killswitch.planning.targets.selection import SelectedTarget
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.unit.planning.orders.test_unwind import close_all, scope_of
from tests.worlds import START, account, after, position, rules, snapshot

D = Decimal
SPOT = UnwindingRule("u", spot=SpotRule(("BTC", "ETH"), ("USDT", "USDC"), ("BNB",)))
MARKETS = {
    ("BTC", "USDT"): "BTC/USDT",
    ("ETH", "USDT"): "ETH/USDT",
    ("X", "BTC"): "X/BTC",
    ("X", "ETH"): "X/ETH",
    ("Y", "USDC"): "Y/USDC",
    ("Z", "ETH"): "Z/ETH",
    ("V", "BNB"): "V/BNB",
}


@pytest.mark.parametrize(
    ("name", "symbol", "state", "way"),
    [
        ("its own market brings money", "BTC/USDT", "open", SpotRoute("BTC/USDT")),
        ("a market of unknown state is not taken for shut", "Q/USDT", None, SpotRoute("Q/USDT")),
        ("a declared stable is money", "Y/USDT", "delisted", SpotRoute("Y/USDC")),
        ("no market against money: over the first of via", "X/BTC", "open", SpotRoute("X/BTC", "BTC/USDT", "BTC")),
        ("C12: a halted market has a way around it", "X/USDT", "halted", SpotRoute("X/BTC", "BTC/USDT", "BTC")),
        ("the first of via that has both markets", "Z/USDT", "delisted", SpotRoute("Z/ETH", "ETH/USDT", "ETH")),
        ("no route: its own, and the venue's word", "W/USDT", "halted", SpotRoute("W/USDT")),
        ("what via does not name is no way", "V/BNB", "open", SpotRoute("V/BNB")),
        ("a name that does not say its quote", "GOLD", "open", SpotRoute("GOLD")),
    ],
)
def test_a_holding_is_sold_on_the_market_that_brings_money(
    name: str, symbol: str, state: str | None, way: SpotRoute
) -> None:
    """Each case by its name."""
    assert route(symbol, state, "USDT", MARKETS, SPOT.spot) == way, name


@pytest.mark.parametrize("symbol", ["BTC/USDT:USDT", "BTC_USDT", "BTC-USDT", "BTC/USDT", "BTC"])
def test_the_base_asset_is_read_from_every_way_of_writing_a_symbol(symbol: str) -> None:
    """With slash, underscore or dash, and alone."""
    assert base_of(symbol) == "BTC"


def test_stable_coins_and_the_blacklist_are_kept_in_spot_accounts_only() -> None:
    """A perpetual on a kept asset is a bet on it, and not a holding."""
    assert is_never_sold("spot", "USDC/USDT", SPOT.spot)
    assert is_never_sold("spot", "BNB/USDT", SPOT.spot)
    assert not is_never_sold("spot", "BTC/USDT", SPOT.spot)
    assert not is_never_sold("swap", "BNB/USDT:USDT", SPOT.spot)


def orders_of(
    held: Sequence[Position], *instruments: Instrument, rule: UnwindingRule = SPOT, balances: Sequence[Balance] = ()
) -> Unwound:
    market = account("100000", held, market="spot", balances=tuple(balances))
    return close_all(scope_of(market, instruments=instruments), rule)


X_IN_BTC = position("X/BTC", "long", contracts="1000", mark_price="0.0002", notional="10000")
BTC_HELD = position("BTC/USDT", "long", contracts="3", mark_price="50000", notional="150000")


def orders_beside_holding(kept: Position, *instruments: Instrument, rule: UnwindingRule = SPOT) -> Unwound:
    """X, listed against BTC, is sold; `kept` is held too, and no decision is about it."""
    view = scope_of(account("100000", [X_IN_BTC, kept], market="spot"), instruments=instruments)
    return unwind(view, [SelectedTarget(Ranked(candidates(view, None)[0], 1, 1.0), D(0))], rule)


def test_c19_a_second_hop_sells_the_proceeds_and_keeps_the_earlier_holding() -> None:
    """1,000 X at 0.0002 BTC are 0.2 BTC; the 3 BTC that are held stay."""
    rule = UnwindingRule("u", slippage=(SlippageRule(("X",), D("0.03")), SlippageRule(None, D("0.01"))), spot=SPOT.spot)
    found = orders_beside_holding(BTC_HELD, rules("X/BTC", amount_step="1"), rules("BTC/USDT"), rule=rule)
    first, hop = found.intents
    assert (first.symbol, first.side, first.contracts, first.target) == ("X/BTC", "sell", D(1000), D(0))
    assert (first.purpose, first.after, first.band) == ("reduce", None, D("0.03"))
    assert (hop.symbol, hop.side, hop.contracts, hop.target) == ("BTC/USDT", "sell", D("0.2"), D(3))
    assert (hop.purpose, hop.after, hop.band, hop.reduce_only) == ("hop", 0, D("0.01"), False)


def test_c19_the_second_hop_uses_the_market_where_the_proceeds_are_listed() -> None:
    """The bitcoin is held as BTC/USDC, where its arrival is visible: it is sold there though BTC/USDT is open too."""
    listed = position("BTC/USDC", "long", contracts="3", mark_price="50000", notional="150000")
    found = orders_beside_holding(listed, rules("X/BTC", amount_step="1"), rules("BTC/USDT"), rules("BTC/USDC"))
    assert [(i.symbol, i.target) for i in found.intents] == [("X/BTC", D(0)), ("BTC/USDC", D(3))]


def test_c19_a_complete_close_of_the_intermediate_asset_sells_the_proceeds_too() -> None:
    """The 3 BTC are sold too, and that close continues until no bitcoin is left: a second hop would be too much."""
    found = orders_of([X_IN_BTC, BTC_HELD], rules("X/BTC", amount_step="1"), rules("BTC/USDT"))
    assert [(i.symbol, i.contracts, i.target, i.purpose) for i in found.intents] == [
        ("X/BTC", D(1000), D(0), "reduce"),
        ("BTC/USDT", D(3), D(0), "reduce"),
    ]
    assert found.remarks == ()


def test_c19_where_the_intermediate_asset_is_trimmed_the_proceeds_stay_and_are_reported() -> None:
    """Half of the 3 BTC is decided on, and no order sells more than that: 0.2 BTC of X stay bitcoin."""
    market = account("100000", [X_IN_BTC, BTC_HELD], market="spot")
    view = scope_of(market, instruments=[rules("X/BTC", amount_step="1"), rules("BTC/USDT")])
    x, btc = (Ranked(each, place, 1.0) for place, each in enumerate(candidates(view, None), start=1))
    found = unwind(view, [SelectedTarget(x, D(0)), SelectedTarget(btc, D("1.5"))], SPOT)
    assert [(i.symbol, i.contracts, i.target) for i in found.intents] == [
        ("X/BTC", D(1000), D(0)),
        ("BTC/USDT", D("1.5"), D("1.5")),
    ]
    assert found.remarks == ("the proceeds of X/BTC stay BTC: BTC/USDT is trimmed by this decision",)


def test_a_hop_comes_after_the_last_part_of_the_first_one() -> None:
    """A first hop of 400, 400 and 200 by the venue's maximum: the second one is one intent, after number 2."""
    limited = rules("X/BTC", amount_step="1", max_amount="400")
    found = orders_of([X_IN_BTC], limited, rules("BTC/USDT"))
    assert [i.contracts for i in found.intents] == [D(400), D(400), D(200), D("0.2")]
    assert found.intents[3].after == 2


def test_c12_a_halted_holding_is_sold_on_another_market_and_counted_by_its_fills() -> None:
    """X/USDT is halted: X is sold on X/BTC, where no position shows the rest of it, and the bitcoin on BTC/USDT."""
    halted = position("X/USDT", "long", contracts="1000", mark_price="10", notional="10000")
    other_markets = (rules("X/USDT", state="halted"), rules("X/BTC", amount_step="1"), rules("BTC/USDT"))
    balances = [Balance("BTC", D(3), D(50000))]
    found = orders_of([halted], *other_markets, balances=balances)
    first, hop = found.intents
    assert (first.symbol, first.purpose, first.after, first.contracts) == ("X/BTC", "hop", None, D(1000))
    assert (hop.symbol, hop.after, hop.contracts) == ("BTC/USDT", 0, D("0.2"))  # 10,000 at 50,000
    assert hop.target == 0  # the balance has the price; positions have the holdings, as in closing
    assert found.blocked == ()


def test_proceeds_of_unknown_size_have_no_invented_number() -> None:
    """The price of X in bitcoin is unknown: the hop exists, inexact and without a size."""
    blind = position("X/BTC", "long", contracts="1000")
    found = orders_of([blind], rules("X/BTC", amount_step="1"), rules("BTC/USDT"))
    assert (found.intents[1].contracts, found.intents[1].exact) == (D(0), False)


def test_a_mark_in_bitcoin_is_not_used_as_money() -> None:
    """X is listed at 0.0002 against BTC, whose market is halted: its price on X/ETH is unknown, and so is the size."""
    listed = position("X/BTC", "long", contracts="1000", mark_price="0.0002")
    other_markets = (rules("X/BTC", state="halted"), rules("X/ETH", amount_step="1"), rules("ETH/USDT"))
    found = orders_of([listed], *other_markets, balances=[Balance("ETH", D(1), D(2000))])
    assert [(i.symbol, i.contracts, i.exact) for i in found.intents] == [
        ("X/ETH", D(1000), True),
        ("ETH/USDT", D(0), False),
    ]


def test_c9_proceeds_below_the_minimum_stay_and_are_reported_as_dust() -> None:
    """0.0000002 BTC cannot be sold: the first hop is made, the second is not, and nobody is paged."""
    little = position("X/BTC", "long", contracts="1", mark_price="0.0000002", notional="0.01")
    found = orders_of([little], rules("X/BTC", amount_step="1"), rules("BTC/USDT"))
    assert [i.symbol for i in found.intents] == ["X/BTC"]
    assert [(b.symbol, b.dust) for b in found.blocked] == [("X/BTC", True)]
    assert "below the minimum of BTC/USDT" in found.blocked[0].why


def test_assets_that_an_unwinding_keeps_are_not_sold_by_an_operator_close_either() -> None:
    """A stable coin and a kept asset stay as they are, and the decision says so."""
    held = [
        position(s, "long", contracts="5", mark_price="1", notional="5") for s in ("USDC/USDT", "BNB/USDT", "BTC/USDT")
    ]
    found = orders_of(held, *(rules(p.symbol) for p in held))
    assert [i.symbol for i in found.intents] == ["BTC/USDT"]
    assert found.remarks == ("kept, as declared: USDC/USDT, BNB/USDT",)
    assert found.left["main", "USDC/USDT", "long"] == 5


def fall(action: Close, *rule: UnwindingRule, symbols: Sequence[str]) -> Outcome:
    """A stage with this action on a spot account that holds the symbols and has fallen by 20%."""
    policy = graph((FALL_15M,), (trigger("fall", 0, 0.1),), (stage("sell", 1, 0, actions=(action,)),))
    interpreter = Interpreter(replace(policy_set(policy), unwindings=rule))

    def holding(pnl: str) -> list[Position]:
        return [
            position(s, "long", pnl if s == symbols[0] else "0", contracts="5", mark_price="1", notional="5")
            for s in symbols
        ]

    listed = [rules(symbol) for symbol in symbols]
    interpreter.tick(snapshot(START, account("1000", holding("0"), market="spot", instruments=listed)))
    return interpreter.tick(snapshot(after(minutes=1), account("800", holding("-200"), market="spot")))


def orders_of_stage(action: Close, *rule: UnwindingRule, symbols: Sequence[str]) -> list[str]:
    return [intent.symbol for decision in fall(action, *rule, symbols=symbols).decisions for intent in decision.intents]


def test_stable_coins_are_sold_by_a_stage_only_if_it_names_them_and_no_document_forbids_it() -> None:
    """Of USDC and BTC only the bitcoin goes; `symbols: [USDC]` sells the coin, and a document keeps it even then."""
    held = ["USDC/USDT", "BTC/USDT"]
    assert DEFAULT_SPOT.stables == ("USDT", "USDC", "FDUSD")
    assert orders_of_stage(close("both"), symbols=held) == ["BTC/USDT"]
    assert orders_of_stage(close("both", symbols=("USDC",)), symbols=held) == ["USDC/USDT"]
    declared = close("both", symbols=("USDC", "BTC"), unwinding="u")
    assert orders_of_stage(declared, SPOT, symbols=held) == ["BTC/USDT"]


def test_an_asset_that_one_action_may_sell_is_not_kept_because_a_more_urgent_unwinding_applies() -> None:
    """`careful` sells stable coins too, and `fast` executes the stage: the coin is sold, fast, and nothing is kept."""
    careful = UnwindingRule("careful", max_orders_per_minute=10, spot=SpotRule((), ()))
    policy = graph(
        (FALL_15M,), (trigger("fall", 0, 0.1),),
        (stage("out", 3, 0, actions=(close("both", unwinding="careful"), close("both", unwinding="fast"))),),
    )  # fmt: skip
    interpreter = Interpreter(replace(policy_set(policy), unwindings=(careful, UnwindingRule("fast"))))
    listed = (rules("USDC/USDT"),)
    for minute, pnl in enumerate(("0", "-200")):
        coin = position("USDC/USDT", "long", pnl, contracts="100", mark_price="1", notional="100")
        holder = account(str(1000 + D(pnl)), [coin], market="spot", instruments=listed)
        found = interpreter.tick(snapshot(after(minutes=minute), holder))
    [decision] = found.decisions
    assert [(intent.symbol, intent.contracts) for intent in decision.intents] == [("USDC/USDT", 100)]
    assert decision.unwinding is not None
    assert (decision.unwinding.name, decision.reason) == ("fast", None)


def test_a_book_of_kept_assets_only_is_not_a_stage_that_selects_nothing() -> None:
    """There is nothing to sell, so the stage fires and latches instead of paging at every tick."""
    found = fall(close("both"), symbols=["USDC/USDT"])
    assert [(d.level, d.intents) for d in found.decisions] == [(1, ())]
    assert found.notices == ()
