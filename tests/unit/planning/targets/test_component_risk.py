"""Ranking and cutting by component risk: from recorded returns, and by the declared fallback where they are unknown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.graph.actions.close import Close
from killswitch.graph.nodes import Graph, PolicySet
from killswitch.graph.resolution.references import BUILT_IN
from killswitch.model.decision import Decision
from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.snapshot import Position, Snapshot
from killswitch.model.store import SAMPLES, HistoryRow
from killswitch.planning.interpreter import Interpreter
from killswitch.risk.covariance import shrunk_covariance, variance
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.worlds import account, after, position, rules, snapshot

RULE = BUILT_IN["component-risk"]
BY_RISK = close("both", "0.5", ranking="component-risk", spread="by_rank")
SYMBOLS = ("A", "B", "C", "D")


def policy(*actions: Close, **more: object) -> PolicySet:
    made: Graph = graph(
        (FALL_15M,), (trigger("fall", 0, 0.05),), (stage("trim", 1, 0, actions=actions),), rankings=(RULE,), **more
    )
    return policy_set(made)


def walk(seed: int, minutes: int) -> Iterator[dict[str, float]]:
    """Prices a minute apart: A, B and C follow a market by their betas, D goes its own way."""
    random = Random(seed)
    now = dict.fromkeys(SYMBOLS, 100.0)
    for _ in range(minutes):
        market = random.gauss(0, 1e-3)
        yield dict(now)
        for symbol, beta in zip(SYMBOLS, (1.0, 2.0, 0.5, 0.0), strict=True):
            now[symbol] *= 1 + beta * market + random.gauss(0, 3e-4)


def book(prices: dict[str, float], sides: str, sizes: Sequence[str], lost: str = "0") -> list[Position]:
    """One position of each symbol; `lost` is the first's P&L."""
    return [
        position(
            symbol, "long" if side == "L" else "short", lost if symbol == "A" else "0",
            contracts=size, mark_price=f"{prices[symbol]:.6f}",
        )
        for symbol, side, size in zip(SYMBOLS, sides, sizes, strict=False)
    ]  # fmt: skip


RULES = tuple(rules(symbol, amount_step="0.000001", min_amount="0.000001") for symbol in SYMBOLS)


def price_path(seed: int, minutes: int, sides: str = "LLSS", sizes: Sequence[str] = ("10",) * 4) -> list[Snapshot]:
    """Quiet minutes, and a last one in which A has lost a tenth of the equity."""
    days = [
        snapshot(after(minutes=i), account("100000", book(prices, sides, sizes), instruments=RULES))
        for i, prices in enumerate(walk(seed, minutes))
    ]
    *_, last = walk(seed, minutes + 1)
    return [*days, snapshot(after(minutes=minutes), account("90000", book(last, sides, sizes, "-10000")))]


def decision_on(policies: PolicySet, snapshots: Sequence[Snapshot]) -> Decision:
    interpreter = Interpreter(policies)
    (decision,) = [each for seen in snapshots for each in interpreter.tick(seen).decisions]
    return decision


def left(decision: Decision, snapshots: Sequence[Snapshot]) -> dict[str, Decimal]:
    """Symbol → contracts to be left."""
    held = {p.symbol: p.contracts for p in snapshots[-1].accounts[0].positions or ()}
    return held | {intent.symbol: intent.target for intent in decision.intents}


def exposures(snapshots: Sequence[Snapshot], contracts: dict[str, Decimal]) -> list[float]:
    """Signed notionals at the last marks."""
    return [
        float(contracts[p.symbol] * (p.mark_price or 0)) * (1 if p.side == "long" else -1)
        for p in snapshots[-1].accounts[0].positions or ()
    ]


def covariance(snapshots: Sequence[Snapshot]) -> list[list[float]]:
    """The covariance of the returns between the snapshots, computed independently."""
    marks = [[float(p.mark_price or 0) for p in s.accounts[0].positions or ()] for s in snapshots]
    return shrunk_covariance([[b[i] / a[i] - 1 for a, b in pairwise(marks)] for i in range(len(marks[0]))])


def test_positions_rank_by_their_share_of_variance_and_hedges_last() -> None:
    """B with twice the market's moves ranks first; the short that hedges it is last, with a share below zero."""
    snapshots = price_path(1, 120, "LLSS", ("10", "10", "10", "1"))
    order = decision_on(policy(close("both", "0.5", ranking="component-risk")), snapshots).intents
    assert [intent.symbol for intent in order] == ["B", "A", "D", "C"]
    shares = {intent.symbol: float(intent.score or "nan") for intent in order}
    assert shares["C"] < 0 < shares["D"] < shares["A"] < shares["B"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)


def test_a_cut_by_rank_reduces_the_losing_side_and_not_its_hedge() -> None:
    """Half of the gross is cut from the longs; the short that hedges them stays nearly whole."""
    snapshots = price_path(2, 120, "LLSS", ("10", "10", "10", "1"))
    decision = decision_on(policy(BY_RISK), snapshots)
    assert decision.reason is None
    kept = left(decision, snapshots)
    assert kept["C"] > 9
    assert kept["B"] < 5


sizes = st.lists(st.integers(1, 50).map(str), min_size=4, max_size=4)


@given(st.integers(0, 10_000), st.text("LS", min_size=4, max_size=4), sizes, st.sampled_from(("0.1", "0.5", "0.8")))
def test_the_cut_is_as_declared_and_leaves_no_more_variance_than_a_proportional_one(
    seed: int, sides: str, held: list[str], fraction: str
) -> None:
    """To the lot, for every book; nothing below zero or above what was held."""
    snapshots = price_path(seed, 70, sides, held)
    decision = decision_on(policy(replace(BY_RISK, fraction=Decimal(fraction))), snapshots)
    before = {p.symbol: p.contracts for p in snapshots[-1].accounts[0].positions or ()}
    kept = left(decision, snapshots)
    assert all(0 <= kept[symbol] <= before[symbol] for symbol in SYMBOLS)
    gross = sum(map(abs, exposures(snapshots, before)))
    wanted = gross * (1 - float(fraction))
    lots = 4 * 1e-6 * 110 + 1e-8 * gross
    assert wanted - lots <= sum(map(abs, exposures(snapshots, kept))) <= wanted + lots
    now = covariance(snapshots)
    in_proportion = [(1 - float(fraction)) * x for x in exposures(snapshots, before)]
    # a book with nearly no variance stays so, except for the lots
    slack = 4 * (1e-6 * 110) ** 2 * max(row[i] for i, row in enumerate(now))
    assert variance(exposures(snapshots, kept), now) <= variance(in_proportion, now) * (1 + 1e-6) + slack


def test_too_little_history_cuts_every_position_alike_with_the_reason() -> None:
    """29 returns where 30 are asked for: ranked by the declared formula, and the reason names both."""
    snapshots = price_path(3, 29)
    decision = decision_on(policy(BY_RISK), snapshots)
    assert set(left(decision, snapshots).values()) == {Decimal(5)}
    assert decision.intents[0].symbol == "A"  # the loser, by the formula `normalised`
    assert decision.reason == (
        "the component risk is unknown (all its symbols together have only 29 returns, and the ranking "
        "asks for 30): ranked as normalised; the same part of every position is closed, not the worst ranked first"
    )


def test_a_recently_opened_position_makes_the_risk_unknown() -> None:
    """Its symbol has no returns; the others' do not replace them."""
    snapshots = price_path(4, 120, "LLS", ("10",) * 3)
    last = snapshots[-1].accounts[0]
    fresh = position("NEW", "short", "0", contracts="1", mark_price="100")
    held = [*(last.positions or ()), fresh]
    snapshots[-1] = snapshot(snapshots[-1].as_of, account("90000", held, instruments=(*RULES, rules("NEW"))))
    decision = decision_on(policy(BY_RISK), snapshots)
    assert decision.reason is not None
    assert "only 0 returns" in decision.reason


def test_an_unknown_exposure_makes_the_risk_unknown() -> None:
    """A position without a mark has no exposure; every position is cut alike."""
    snapshots = price_path(5, 120)
    last = snapshots[-1].accounts[0]
    blind = [
        position(p.symbol, p.side, str(p.unrealized_pnl), contracts="10") if p.symbol == "B" else p
        for p in last.positions or ()
    ]
    snapshots[-1] = snapshot(snapshots[-1].as_of, account("90000", blind))
    decision = decision_on(policy(BY_RISK), snapshots)
    assert decision.reason is not None
    assert "the value of B is unknown" in decision.reason
    assert "the selected gross is not wholly known: the same part" in decision.reason
    assert set(left(decision, snapshots).values()) == {Decimal(5)}


def test_marks_that_never_moved_rank_nothing() -> None:
    """Without variance there is no share of it."""
    still = [
        snapshot(
            after(minutes=i),
            account("100000", book(dict.fromkeys(SYMBOLS, 100.0), "LLSS", ("1",) * 4), instruments=RULES),
        )
        for i in range(90)
    ]
    fall = snapshot(
        after(minutes=90), account("90000", book(dict.fromkeys(SYMBOLS, 100.0), "LLSS", ("1",) * 4, "-10000"))
    )
    decision = decision_on(policy(BY_RISK), [*still, fall])
    assert decision.reason is not None
    assert "its symbols did not move" in decision.reason


def test_the_returns_survive_a_restart() -> None:
    """Recorded returns are restored from the stored rows: the same decision, and no remark."""
    snapshots = price_path(6, 120)
    whole = decision_on(policy(BY_RISK), snapshots)
    first, rows = Interpreter(policy(BY_RISK)), list[HistoryRow]()
    for each in snapshots[:100]:
        first.tick(each)
        rows += first.rows()
    second = Interpreter(policy(BY_RISK))
    second.restore(
        first.states(), lambda _policy, scope, since: [row for row in rows if row.scope == scope and row.at >= since]
    )
    decisions = [decision for each in snapshots[100:] for decision in second.tick(each).decisions]
    assert [decision.intents for decision in decisions] == [whole.intents]
    assert [decision.reason for decision in decisions] == [None]


def test_prices_are_recorded_only_where_a_ranking_reads_them() -> None:
    """The samples are a row of their own, and the stored rows of every other policy are unchanged."""
    stored = {}
    for name, ranking in (("default", BUILT_IN["default"]), ("component-risk", RULE)):
        made = graph((FALL_15M,), (trigger("fall", 0, 0.05),), (), rankings=(ranking,))
        interpreter = Interpreter(policy_set(made))
        interpreter.tick(price_path(7, 2)[0])
        stored[name] = {row.scope: row.blob for row in interpreter.rows()}
    assert stored["default"].keys() == {"account/main"}
    assert stored["component-risk"]["account/main"] == stored["default"]["account/main"]
    assert stored["component-risk"][f"account/main{SAMPLES}"].count(b"100.0") == 4


def test_a_cut_by_rank_closes_the_worst_completely_by_any_other_ranking() -> None:
    """60% of 4,000 by loss: the worst, the next, and four tenths of the third."""
    worst = close("both", "0.6", spread="by_rank")
    made = policy_set(graph((FALL_15M,), (trigger("fall", 0, 0.05),), (stage("trim", 1, 0, actions=(worst,)),)))
    calm = [position(s, "long", "0", contracts="10", notional="1000") for s in SYMBOLS]
    fell = [
        position(s, "long", str(loss), contracts="10", notional="1000")
        for s, loss in zip(SYMBOLS, (-1000, -4000, -3000, -2000), strict=True)
    ]
    snapshots = [
        snapshot(after(minutes=0), account("100000", calm, instruments=RULES)),
        snapshot(after(minutes=1), account("90000", fell)),
    ]
    decision = decision_on(made, snapshots)
    assert left(decision, snapshots) == {"B": 0, "C": 0, "D": Decimal(6), "A": Decimal(10)}
    assert [(intent.rank, intent.symbol) for intent in decision.intents] == [(1, "B"), (2, "C"), (3, "D")]


def test_everything_by_rank_is_everything() -> None:
    """Also a position worth nothing at its mark, and one of unknown value; without a remark."""
    everything = close("both", "1", spread="by_rank")
    made = policy_set(graph((FALL_15M,), (trigger("fall", 0, 0.05),), (stage("trim", 1, 0, actions=(everything,)),)))
    for odd in ({"notional": "0"}, {}):
        calm = [position("A", "long", "0", contracts="10", notional="1000"), position("B", "long", "0", **odd)]
        fell = [position("A", "long", "-9000", contracts="10", notional="1000"), position("B", "long", "0", **odd)]
        snapshots = [
            snapshot(after(minutes=0), account("100000", calm, instruments=RULES)),
            snapshot(after(minutes=1), account("91000", fell)),
        ]
        decision = decision_on(made, snapshots)
        assert ({each.symbol for each in decision.intents}, decision.reason) == ({"A", "B"}, None)


def test_mandatory_reductions_count_towards_the_cut_by_rank() -> None:
    """A cap of 20% of 4,000 takes 200 of each, 800 together; the other 400 of a cut by 30% come from the worst."""
    capped = close("both", "0.3", spread="by_rank", share_cap=Decimal("0.2"))
    made = policy_set(graph((FALL_15M,), (trigger("fall", 0, 0.05),), (stage("trim", 1, 0, actions=(capped,)),)))
    calm = [position(s, "long", "0", contracts="10", notional="1000") for s in SYMBOLS]
    fell = [
        position(s, "long", str(loss), contracts="10", notional="1000")
        for s, loss in zip(SYMBOLS, (-1000, -4000, -3000, -2000), strict=True)
    ]
    snapshots = [
        snapshot(after(minutes=0), account("100000", calm, instruments=RULES)),
        snapshot(after(minutes=1), account("90000", fell)),
    ]
    assert left(decision_on(made, snapshots), snapshots) == {"A": 8, "B": 4, "C": 8, "D": 8}


def test_the_windows_of_built_in_component_risk_fit_its_returns() -> None:
    """Four hours of minutes, at least sixty of them."""
    assert (RULE.window, RULE.sample, RULE.least, RULE.if_unknown) == (4 * HOUR, MINUTE, 30, "normalised")
