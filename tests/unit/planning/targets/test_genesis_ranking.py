"""The ranking `genesis`: exposure × volatility × loss, by hand-worked numbers."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest
from msgspec import Struct

from killswitch.graph.nodes import RankingRule
from killswitch.graph.resolution.references import BUILT_IN
from killswitch.model.instant import HOUR, MINUTE, to_micros
from killswitch.model.snapshot import Instrument, Position
from killswitch.model.words import ReferenceCurrency
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.targets.ranking import Ranked, by_genesis, candidates
from killswitch.signals.history.prices import PriceSamples
from killswitch.signals.history.scope import EquityTerms, History
from killswitch.valuation.scope_view import PnlKey, ScopeView
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.worlds import account, after, position, rules, snapshot

RULE = RankingRule("genesis", "genesis", (), HOUR, sample=MINUTE, least=3)
MARKS = {"A": (100.0, 102.0, 99.96, 99.96), "B": (100.0, 101.0, 99.99, 99.99), "C": (100.0, 101.5, 99.9775, 99.9775)}
"""A minute apart: three returns r, −r, 0, whose sample standard deviation is r: 2%, 1% and 1.5%."""


class Held(Struct, frozen=True):
    """A position: its notional and its P&L at the last minute (0 before), None where unknown."""

    notional: str | None
    pnl: str | None
    since: int = 0
    """The first minute at which it is held."""


BOOK = {"A": Held("2000", "-2000"), "B": Held("3000", "-4000"), "C": Held("5000", "500")}


def held(book: Mapping[str, Held], minute: int) -> list[Position]:
    return [
        position(
            symbol, "long", each.pnl if minute == 3 else "0", contracts="10", mark_price=str(MARKS[symbol][minute]),
            **({} if each.notional is None else {"notional": each.notional}),
        )
        for symbol, each in book.items()
        if minute >= each.since
    ]  # fmt: skip


def ranked(book: Mapping[str, Held]) -> tuple[list[tuple[str, float]], tuple[str, ...]]:
    """Symbol and score in the order of closing, and the remarks. No instrument gives a contract's size."""
    needs = {PriceSamples: [{"window": HOUR, "every": MINUTE}]}
    history = History((), HOUR, EquityTerms(10 * MINUTE, 0.001, MINUTE), needs)
    for minute in range(4):
        view = ScopeView(to_micros(after(minutes=minute)), True, (account("1000000", held(book, minute)),), {}, None)
        history.observe(view)
    delta: dict[PnlKey, Decimal] = {
        ("main", symbol, "long"): Decimal(each.pnl) for symbol, each in book.items() if each.pnl is not None
    }
    found, remarks = by_genesis(RULE, candidates(view, delta), history)
    return [(symbol(each), each.score) for each in found], remarks


def symbol(row: Ranked) -> str:
    return row.candidate.position.symbol


def test_the_score_is_exposure_times_volatility_times_loss() -> None:
    """B: 0.3 · (1%/2%) · (4,000/4,000) = 0.15; A: 0.2 · 1 · 0.5 = 0.1; C gained: 0.5 · 0.75 · 0 = 0."""
    scores, remarks = ranked(BOOK)
    assert scores == [("B", pytest.approx(0.15)), ("A", pytest.approx(0.1)), ("C", 0.0)]
    assert remarks == ()


def test_a_position_that_gained_never_outranks_one_that_lost() -> None:
    """A lost a cent, B nothing; C is nearly the whole gross, and gained."""
    scores, _ = ranked({"A": Held("100", "-0.01"), "B": Held("100", "0"), "C": Held("9800", "500")})
    assert scores == [("A", pytest.approx(0.01)), ("B", 0.0), ("C", 0.0)]


def test_without_a_loss_positions_rank_by_the_sum_of_the_factors() -> None:
    """Every product is 0. C: 0.5 + 0.75 = 1.25, A: 0.2 + 1 = 1.2, B: 0.3 + 0.5 = 0.8; not the order of the alphabet."""
    scores, _ = ranked({name: Held(each.notional, "0") for name, each in BOOK.items()})
    assert scores == [("C", 0.0), ("A", 0.0), ("B", 0.0)]


def test_an_unknown_volatility_counts_as_the_largest_and_is_remarked() -> None:
    """B is held for two samples only, one return where three are asked for: 0.3 · 1 · 1 = 0.3."""
    scores, remarks = ranked({**BOOK, "B": Held("3000", "-4000", since=2)})
    assert scores[0] == ("B", pytest.approx(0.3))
    assert remarks == (
        "the volatility of B is unknown (fewer than 3 returns were recorded): it counts as the book's largest",
    )


def test_an_unknown_notional_counts_as_the_largest_known_share() -> None:
    """Of the 8,000 known C has 0.625, so A scores 0.625 · 1 · 0.5; B has 0.375 · 0.5 · 1."""
    scores, _ = ranked({**BOOK, "A": Held(None, "-2000")})
    assert scores == [("A", pytest.approx(0.3125)), ("B", pytest.approx(0.1875)), ("C", 0.0)]


def test_an_unknown_loss_counts_as_the_largest_also_without_other_losses() -> None:
    """B's P&L is unknown: 0.3 · 0.5 · 1; A lost nothing and C gained: 0."""
    scores, _ = ranked({**BOOK, "A": Held("2000", "0"), "B": Held("3000", None)})
    assert scores == [("B", pytest.approx(0.15)), ("A", 0.0), ("C", 0.0)]


def test_a_policy_closes_by_genesis_and_its_decision_names_the_unknown_volatility() -> None:
    """From snapshot to orders: A and B lost 2,000 and 4,000 of 100,000, B is held since one minute."""
    made = graph(
        (FALL_15M,), (trigger("fall", 0, 0.05),),
        (stage("trim", 1, 0, actions=(close("both", "0.5", ranking="genesis"),)),), rankings=(RULE,),
    )  # fmt: skip
    book = {"A": Held("2000", "-2000"), "B": Held("3000", "-4000", since=2)}
    interpreter = Interpreter(policy_set(made))
    instruments: list[Instrument] = [rules(name) for name in book]
    decisions = [
        decision
        for minute in range(4)
        for decision in interpreter.tick(
            snapshot(
                after(minutes=minute),
                account("100000" if minute < 3 else "94000", held(book, minute), instruments=instruments),
            )
        ).decisions
    ]
    assert [[intent.symbol for intent in decision.intents] for decision in decisions] == [["B", "A"]]
    assert decisions[0].reason == (
        "the volatility of B is unknown (fewer than 3 returns were recorded): it counts as the book's largest"
    )


def test_the_built_in_genesis_ranking_uses_four_hours_of_minute_returns() -> None:
    """The marks that component risk uses."""
    rule = BUILT_IN["genesis"]
    assert (rule.formula, rule.window, rule.sample, rule.least, rule.weights) == ("genesis", 4 * HOUR, MINUTE, 30, ())


def test_exposures_of_accounts_in_different_currencies_are_compared_in_the_scopes() -> None:
    """10 BTC of 50,000 beside 5,000 USDT: 500,000 of 505,000 are 100/101. Both lost 100, both volatilities unknown."""
    reference = ReferenceCurrency("USDT", 2, Decimal("0.01"), (("BTC", Decimal(50_000)),))
    coins = account("20", [position("COIN", "long", notional="10")], name="coins", currency="BTC")
    money = account("9000", [position("FIAT", "long", notional="5000")], name="money", currency="USDT")
    view = ScopeView(0, True, (money, coins), {}, None, None, reference)
    delta: dict[PnlKey, Decimal] = {
        ("coins", "COIN", "long"): Decimal(-100), ("money", "FIAT", "long"): Decimal(-100),
    }  # fmt: skip
    found, _ = by_genesis(RULE, candidates(view, delta), None)
    assert [(symbol(each), each.score) for each in found] == [
        ("COIN", pytest.approx(100 / 101)), ("FIAT", pytest.approx(1 / 101)),
    ]  # fmt: skip
