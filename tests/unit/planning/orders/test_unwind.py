"""Unwinding: a close's slices, price bounds and pace, and the positions that stay."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from msgspec.structs import replace

from killswitch.graph.nodes import CorrelationGroupRule
from killswitch.graph.unwinding import (
    OF_CAUSE,
    PLAIN,
    ImpactRule,
    SlippageRule,
    SpotRule,
    UnwindingRule,
)
from killswitch.model.decision import Rung, Unwinding
from killswitch.model.instant import SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Instrument, Liquidity, Position
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.orders.unwind import Unwound, declared_unwinding, most_urgent, unwind, without_pace
from killswitch.planning.targets.ranking import Ranked, candidates
from killswitch.planning.targets.selection import SelectedTarget
from killswitch.valuation.scope_view import ScopeView
from tests.graphs import graph, policy_set
from tests.worlds import START, account, operator_event, position, rules, snapshot

D = Decimal
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
BY_IMPACT = ImpactRule("square_root", D("0.005"), None, "whole")
BY_SHARE = ImpactRule("square_root", D("0.005"), D("0.1"), "whole")


def scope_of(*accounts: AccountSnapshot, instruments: Sequence[Instrument] = ()) -> ScopeView:
    """The accounts as one scope; the instruments are every account's."""
    known = {(a.account, i.symbol): i for a in accounts for i in (*instruments, *(a.instruments or ()))}
    return ScopeView(to_micros(START), True, accounts, known, None)


def close_all(view: ScopeView, rule: UnwindingRule = PLAIN) -> Unwound:
    """A close of everything in the scope, in the order of the snapshot."""
    book = candidates(view, None)
    return unwind(view, [SelectedTarget(Ranked(c, n, 1.0), D(0)) for n, c in enumerate(book, start=1)], rule)


def one_long(contracts: str, rule: UnwindingRule, liquidity: Liquidity | None, **limits: str) -> Unwound:
    held = position(BTC, "long", contracts=contracts, mark_price="100", notional=contracts)
    market = account("100000", [held], liquidity=None if liquidity is None else (liquidity,))
    return close_all(scope_of(market, instruments=[rules(BTC, **limits)]), rule)


def slice_sizes(found: Unwound) -> list[Decimal]:
    return [intent.contracts for intent in found.intents]


def test_slices_are_the_largest_with_an_accepted_expected_impact() -> None:
    """(0.5% ÷ 5%)² of a day's 1,000 contracts is 10: 25 contracts go in 10, 10 and 5."""
    market = Liquidity(BTC, volume=D(1000), over=86400.0, volatility=0.05)
    found = one_long("25", UnwindingRule("u", impact=BY_IMPACT), market)
    assert slice_sizes(found) == [D(10), D(10), D(5)]
    assert found.remarks == ()
    assert [intent.rank for intent in found.intents] == [1, 1, 1]


def test_the_smallest_of_impact_participation_and_the_venues_maximum_applies() -> None:
    """Impact allows 10, a tenth of 40 bids 4, the venue 3: each binds when it is the smallest."""
    market = Liquidity(BTC, bid_depth=D(40), ask_depth=D(5), volume=D(1000), over=86400.0, volatility=0.05)
    rule = UnwindingRule("u", impact=BY_SHARE)
    assert slice_sizes(one_long("8", rule, market)) == [D(4), D(4)]
    assert slice_sizes(one_long("8", rule, market, max_amount="3")) == [D(3), D(3), D(2)]
    deep = Liquidity(BTC, bid_depth=D(400), volume=D(1000), over=86400.0, volatility=0.05)
    assert slice_sizes(one_long("20", rule, deep)) == [D(10), D(10)]


def test_a_short_is_measured_against_what_is_offered() -> None:
    """A buy trades against the asks: a tenth of 20 of them, whatever the bids are."""
    held = position(BTC, "short", contracts="4", mark_price="100", notional="400")
    market = Liquidity(BTC, bid_depth=D(1000), ask_depth=D(20), volume=D(10**6), over=60.0, volatility=0.01)
    view = scope_of(account("1", [held], liquidity=(market,)), instruments=[rules(BTC)])
    assert slice_sizes(close_all(view, UnwindingRule("u", impact=BY_SHARE))) == [D(2), D(2)]


def test_a_slice_is_at_least_the_venues_minimum() -> None:
    """A tenth of 5 is below the venue's minimum of 2: the slices are 2, with a remark."""
    market = Liquidity(BTC, bid_depth=D(5), volume=D(10**6), over=60.0, volatility=0.01)
    found = one_long("6", UnwindingRule("u", impact=BY_SHARE), market, min_amount="2", amount_step="1")
    assert slice_sizes(found) == [D(2), D(2), D(2)]
    assert found.remarks == (f"the slices of {BTC} are larger than declared",)


def test_a_market_without_trades_is_cut_into_a_hundred_slices_and_not_a_million() -> None:
    """Nothing was traded: the size of the slices grows, so that there are at most a hundred."""
    market = Liquidity(BTC, volume=D(0), over=60.0, volatility=0.05)
    found = one_long("1000", UnwindingRule("u", impact=BY_IMPACT), market)
    assert slice_sizes(found) == [D(10)] * 100
    assert found.remarks == (f"the slices of {BTC} are larger than declared",)


def test_with_unknown_liquidity_the_position_is_one_order_with_a_remark() -> None:
    """No liquidity, or an impossible one: whole, with a remark; known bounds still apply."""
    rule = UnwindingRule("u", impact=BY_SHARE)
    none = one_long("25", rule, None)
    assert (slice_sizes(none), none.remarks) == ([D(25)], (f"the liquidity of {BTC} is unknown: not sliced by it",))
    odd = Liquidity(BTC, bid_depth=D("NaN"), volume=D(-1), over=60.0, volatility=0.05)
    remark = f"the volume or volatility and depth and volume of {BTC} is unknown: not sliced by it"
    found = one_long("25", rule, odd)
    assert (slice_sizes(found), found.remarks) == ([D(25)], (remark,))
    depth_only = one_long("25", rule, Liquidity(BTC, bid_depth=D(100)))
    assert slice_sizes(depth_only) == [D(10), D(10), D(5)]
    assert depth_only.remarks == (f"the volume or volatility of {BTC} is unknown: not sliced by it",)


def test_the_bound_of_the_first_matching_class_is_on_every_intent() -> None:
    """By symbol, by base asset, or any; and none where no class covers the symbol."""
    book = [position(s, "long", contracts="1", mark_price="100", notional="100") for s in (BTC, ETH, "XRP/USDT:USDT")]
    view = scope_of(account("1", book), instruments=[rules(p.symbol) for p in book])
    classes = (SlippageRule((BTC,), D("0.005")), SlippageRule(("ETH", "BTC"), D("0.01")))
    rule = UnwindingRule("u", slippage=classes, ladder=(Rung("market"),))
    assert [intent.band for intent in close_all(view, rule).intents] == [D("0.005"), D("0.01"), None]
    every = replace(rule, slippage=(*classes, SlippageRule(None, D("0.02"))))
    assert close_all(view, every).intents[2].band == D("0.02")


def test_the_unwinding_of_a_decision_is_its_ladder_and_its_pace() -> None:
    """As in the rule, a pause in seconds; None for market orders as fast as the venue permits."""
    rule = UnwindingRule(
        "careful", max_orders_per_minute=60, pause=2 * SECOND,
        ladder=(Rung("limit_ioc", D(2), 3), Rung("market")),
    )  # fmt: skip
    ladder = (Rung("limit_ioc", D(2), 3), Rung("market"))
    assert declared_unwinding(rule) == Unwinding("careful", ladder, 60, 2.0, is_sliced=False)
    assert declared_unwinding(PLAIN) is None
    assert declared_unwinding(OF_CAUSE["exchange-breach"]) == Unwinding("exchange-breach", is_sliced=False)


def test_of_several_unwindings_the_one_with_the_fewest_bounds_applies() -> None:
    """Then the faster one, then the one with the shorter pause, then the first."""
    ladder = (Rung("market"),)
    bounded, both = UnwindingRule("bounded", ladder=ladder), UnwindingRule("both", (), 60, ladder=ladder)
    slow, fast = UnwindingRule("slow", (), 10), UnwindingRule("fast", (), 600)
    assert most_urgent([both, bounded]) is bounded
    assert most_urgent([both, bounded, PLAIN]) is PLAIN
    assert most_urgent([slow, fast]) is fast
    assert most_urgent([UnwindingRule("long", pause=2), UnwindingRule("short", pause=1)]).name == "short"
    assert most_urgent([bounded, replace(bounded, name="other")]).name == "bounded"
    assert most_urgent([]) is PLAIN


def test_force_removes_delays_and_price_bounds_and_keeps_the_kept_assets() -> None:
    """Only the routes and the kept assets of the rule remain."""
    kept = SpotRule(("BTC",), ("USDT",), ("XMR",))
    careful = UnwindingRule(
        "careful",
        ("market",),
        60,
        5,
        BY_IMPACT,
        (SlippageRule(None, D("0.01")),),
        (Rung("market"),),
        spot=kept,
    )
    assert without_pace(careful) == UnwindingRule("careful", ("market",), spot=kept)


def test_an_operator_close_follows_the_correlation_groups_in_their_order() -> None:
    """Group order first, then rank inside the group; symbols of no group come last, each on its own."""
    groups = (CorrelationGroupRule("majors", ("A", "C"), 1), CorrelationGroupRule("alts", ("B",), 0))
    held = [position(s, "long", f"-{n}", contracts="1") for n, s in enumerate("ABCD", start=1)]
    interpreter = Interpreter(policy_set(graph((), (), (), groups=groups)))
    found = interpreter.tick(snapshot(START, account("100", held), events=[operator_event("close", START)]))
    assert [intent.symbol for intent in found.decisions[0].intents] == ["B", "C", "A", "D"]


# The legs of a hedge


def pair(margin_mode: str | None = None) -> ScopeView:
    """Short 8 ranked first, long 10 after it, of one base asset, and something else between them."""
    held: list[Position] = [
        position("BTC/USDT:USDT-260327", "short", contracts="8", mark_price="100", notional="800"),
        position(ETH, "long", contracts="1", mark_price="10", notional="10"),
        position(BTC, "long", contracts="10", mark_price="100", notional="1000"),
    ]
    return scope_of(account("1", held, margin_mode=margin_mode), instruments=[rules(p.symbol) for p in held])


def test_c25_opposite_legs_exchange_places_so_that_the_net_stays_down() -> None:
    """The long, on the heavier side, takes the first place and the short the last; positions between them stay."""
    found = close_all(pair("portfolio"))
    assert [(i.symbol, i.rank) for i in found.intents] == [(BTC, 1), (ETH, 2), ("BTC/USDT:USDT-260327", 3)]


def test_c25_positions_of_two_accounts_are_netted_over_the_scope_except_under_portfolio_margin() -> None:
    """A short of 8 here and a long of 10 there hedge each other; an account margined by itself nets its own only."""
    short = [position(BTC, "short", contracts="8", mark_price="100", notional="800")]
    long = [position(BTC, "long", contracts="10", mark_price="100", notional="1000")]
    for margin_mode, first in ((None, "there"), ("portfolio", "here")):
        accounts = [
            account("1", short, name="here", margin_mode=margin_mode),
            account("1", long, name="there", margin_mode=margin_mode),
        ]
        found = close_all(scope_of(*accounts, instruments=[rules(BTC)]))
        assert found.intents[0].account == first


def test_c25_sliced_legs_take_turns() -> None:
    """In slices of 5 the exposure goes 2, −3, 2, −3, 0 instead of down to −8."""
    view = pair()
    depth = [Liquidity(i, bid_depth=D(50), ask_depth=D(50)) for i in (BTC, "BTC/USDT:USDT-260327")]
    thin = ScopeView(
        view.as_of, True, [account("1", view.accounts[0].positions, liquidity=tuple(depth))], view.instruments, None
    )
    found = close_all(thin, UnwindingRule("u", impact=replace(BY_SHARE, participation=D("0.1"))))
    sizes = [(i.symbol == BTC, i.contracts) for i in found.intents if i.symbol != ETH]
    net, exposures = D(2), []
    for is_long, size in sizes:
        net -= size if is_long else -size
        exposures.append(net)
    assert max(map(abs, exposures)) == 3
    assert exposures[-1] == 0


def test_c25_with_an_unknown_net_legs_are_closed_by_rank_with_a_remark() -> None:
    """Without the contract size of one leg the exposure is unknown."""
    view = pair()
    unknown = dict(view.instruments)
    unknown["main", BTC] = Instrument(BTC, amount_step=D("0.001"))
    found = close_all(ScopeView(view.as_of, True, view.accounts, unknown, None))
    assert [i.rank for i in found.intents] == [1, 2, 3]
    assert found.remarks == ("the net exposure of BTC is unknown: its legs are closed by rank",)
