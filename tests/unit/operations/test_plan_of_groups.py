"""What `plan`, `status` and `explain` say of correlation groups, schedules and declared hedges."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from killswitch.graph.nodes import CorrelationGroupRule, PolicySet, RankingRule
from killswitch.graph.unwinding import UnwindingRule
from killswitch.incident.record.firing import schedule_lines
from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.snapshot import AccountSnapshot
from killswitch.operations.pages.decision import decided
from killswitch.operations.preview import Preview, preview
from killswitch.planning.interpreter import Interpreter
from killswitch.render.document import section_text
from killswitch.signals.arguments import EstimatedCorrelations, HedgeLegs, LegOfHedge
from tests.graphs import DEFAULT_RANKING, FALL_15M, close, graph, policy_set, stage, trigger
from tests.shown import plan_text
from tests.worlds import account, after, position, rules, snapshot

D = Decimal
BY_RISK = RankingRule("component-risk", "component-risk", DEFAULT_RANKING.weights, 4 * HOUR, MINUTE, 30, "normalised")
COINS = CorrelationGroupRule(
    "coins", ("*_USDT",), 1, (), EstimatedCorrelations(5 * MINUTE, 24 * HOUR, 250, "winsorised")
)
PAIR = HedgeLegs("pair", (LegOfHedge("main", "BTC_USDT", D(1)), LegOfHedge("main", "ETH_USDT", D(1))))


def made(**more: Any) -> PolicySet:
    """Half of everything at a fall of 5%, by the risk of what is left, in two parts of each position, 12 a minute."""
    cut = close("both", "0.5", ranking="component-risk", order="risk_first", unwinding="calm")
    policy = graph(
        (FALL_15M,), (trigger("fall", 0, 0.05),), (stage("cut", 1, 0, actions=(cut,)),),
        rankings=(BY_RISK, DEFAULT_RANKING), groups=(COINS,), **more,
    )  # fmt: skip
    return replace(policy_set(policy), unwindings=(UnwindingRule("calm", max_orders_per_minute=12, slices=2),))


def book(minute: int, equity: str = "100000", pnl: str = "0") -> AccountSnapshot:
    """Long 10 BTC and short 8 ETH that move together, from minute to minute by turns up and down."""
    mark = 100 + (minute % 2) * 0.1 + (minute % 3) * 0.05
    rows = [
        position("BTC_USDT", "long", pnl, contracts="10", mark_price=f"{mark:.2f}", notional=f"{10 * mark:.2f}"),
        position("ETH_USDT", "short", "0", contracts="8", mark_price=f"{mark:.2f}", notional=f"{8 * mark:.2f}"),
    ]
    return account(equity, rows, instruments=[rules("BTC_USDT"), rules("ETH_USDT")])


def shown(policies: PolicySet, minutes: int = 40) -> Preview:
    interpreter = Interpreter(policies)
    for minute in range(minutes):
        interpreter.tick(snapshot(after(minutes=minute), book(minute)))
    last = snapshot(after(minutes=minutes), book(minutes, "90000", "-10000"))
    return preview(policies, last, interpreter, "scripted", frozenset({"main"}))


def test_plan_says_when_orders_go_and_the_variance_on_the_way() -> None:
    """Two parts of each of two positions at 12 a minute: four orders in 15 s, which shrink the book as a whole."""
    found = shown(made())
    (decision,) = found.decisions
    assert decision.schedule is not None
    assert decision.schedule.at == (0.0, 5.0, 10.0, 15.0)
    assert sorted(intent.symbol for intent in decision.intents[:2]) == ["BTC_USDT", "ETH_USDT"]
    text = plan_text(found)
    assert "schedule: 4 orders in 15 s, at 0, 5, 10, 15 s after the first" in text
    assert "schedule: On the way the variance is at most " in text
    assert "schedule: Correlated groups: BTC_USDT, ETH_USDT" in text
    assert "4 orders in 15 s" in section_text(decided(decision, found.snapshot))


def test_plan_and_status_show_an_estimate_in_doubt() -> None:
    """After 40 minutes nothing is known: both are together for limits, and apart for netting."""
    found = shown(made())
    (machine,) = found.machines
    (group,) = machine.groups
    assert (group.together, group.apart) == ((("BTC_USDT", "ETH_USDT"),), (("BTC_USDT",), ("ETH_USDT",)))
    text = plan_text(found)
    assert "Correlation groups" in text
    assert "BTC_USDT and ETH_USDT: unknown, too few returns" in text


def test_schedule_is_unknown_without_returns_and_absent_without_orders() -> None:
    found = shown(made(), minutes=3)
    (decision,) = found.decisions
    lines = list(schedule_lines(decision))
    assert "The variance on the way is unknown, because no returns of the whole book are recorded" in lines
    assert list(schedule_lines(replace(decision, intents=(), schedule=None))) == []


def test_plan_suggests_what_takes_out_the_net_of_a_hedge() -> None:
    found = shown(made(hedges=(PAIR,)))
    text = plan_text(found)
    assert "Hedges" in text
    assert "sell 2 BTC_USDT on main, which reduces it" in text
    assert [each.net for each in found.hedges] == [D(2)]


def test_plan_without_hedges_and_groups_has_no_such_section() -> None:
    text = plan_text(shown(replace(made(), graphs=(replace(made().graphs[0], groups=()),))))
    assert "Correlation groups" not in text
    assert "Hedges" not in text
