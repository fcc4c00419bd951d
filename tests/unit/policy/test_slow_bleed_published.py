"""The published guard in four layers: each fires on its loss, and its side gate and cap limit only what they should."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.graph.compile import compile_policies
from killswitch.graph.nodes import PolicySet
from killswitch.lab.recording import replay
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Snapshot, WatchedPrice
from killswitch.planning.interpreter import Interpreter
from killswitch.policy.loader import load
from tests.worlds import account, after, operator_event, position, rules, snapshot

DAY = 24 * 60
BTC = "BTC/USDT:USDT"


@pytest.fixture(scope="module")
def policies(repository: Path) -> PolicySet:
    found, problems = compile_policies(load([repository / "policies" / "slow-bleed-published"]).documents)
    assert found is not None and problems == ()
    return found


def at(minute: float, profits: dict[str, int], btc: str | None = None, *, margin: int = 100_000) -> Snapshot:
    """100,000 and the profits of legs of 10,000: `+A` is long A, `-B` short B. `btc`: the watched price."""
    held = [
        position(
            name[1:], "long" if name[0] == "+" else "short", str(profit), contracts="10", notional="10000",
            mark_price="1000", margin=str(margin),
        )
        for name, profit in profits.items()
    ]  # fmt: skip
    when = after(minutes=minute)
    watched = None if btc is None else (WatchedPrice(BTC, mark_price=Decimal(btc), at=when),)
    equity = str(100_000 + sum(profits.values()))
    known = [rules(name[1:]) for name in profits]
    return snapshot(when, account(equity, held, observed_at=when, instruments=known, watched=watched))


def fired(policies: PolicySet, recording: Iterable[Snapshot]) -> list[tuple[str, list[str]]]:
    """(stage, symbols that are closed) of each firing."""
    found = [each for each in replay(policies, list(recording)) if isinstance(each, Decision) and each.stage]
    return [(each.stage or "", [intent.symbol for intent in each.intents]) for each in found if each.intents]


def test_l0_closes_the_position_that_lost_8_percent_of_equity(policies: PolicySet) -> None:
    """8,000 of 92,000 are 8.7%; the other long is kept. 5,000 of 95,000 are 5.3%."""
    calm = [at(minute, {"+A": 0, "+B": 0}) for minute in range(0, 50, 5)]
    assert fired(policies, [*calm, at(50, {"+A": -8000, "+B": 0})])[0] == ("bleed-l0", ["A"])
    assert not [each for each in fired(policies, [*calm, at(50, {"+A": -5000, "+B": 0})]) if each[0] == "bleed-l0"]


def test_d13_d19_l0_strips_a_leg_of_a_hedge_which_is_why_it_is_not_the_default(policies: PolicySet) -> None:
    """The account lost nothing; the long leg is closed, and the short one is left without it."""
    calm = [at(minute, {"+A": 0, "-B": 0}) for minute in range(0, 50, 5)]
    assert fired(policies, [*calm, at(50, {"+A": -9000, "-B": 9000})]) == [("bleed-l0", ["A"])]


def test_l3_fires_on_four_positions_of_one_side_and_not_on_three(policies: PolicySet) -> None:
    """−6 of a margin of 100 each, 0.02% of equity in all; three of the four are closed."""
    four = {"+A": -6, "+B": -6, "+C": -6, "+D": -6}
    ((stage, symbols),) = fired(policies, [at(0, dict.fromkeys(four, 0), margin=100), at(5, four, margin=100)])
    assert (stage, len(symbols)) == ("bleed-l3", 3)
    three = {"+A": -6, "+B": -6, "+C": -6, "-D": -6}
    assert fired(policies, [at(0, dict.fromkeys(three, 0), margin=100), at(5, three, margin=100)]) == []


def week(btc_then: str, btc_now: str) -> list[Snapshot]:
    """Eight days in which BTC goes from one price to the other on the third, then a loss of 5.5% in steps."""
    legs = {"+A": 0, "+B": 0, "+C": 0, "+D": 0}
    still = [at(minute, legs, btc_then if minute < 3 * DAY else btc_now) for minute in range(0, 8 * DAY, 10)]
    lost = {"+A": -1000, "+B": -1200, "+C": -1500, "+D": -1800}
    return [*still, *(at(8 * DAY + minute, lost, btc_now) for minute in range(0, 10, 2))]


def test_l2_closes_the_three_fastest_losers_when_its_gate_is_open(policies: PolicySet) -> None:
    """BTC is 1% lower than a week ago, and longs lost 5.5%: D, C and B, not A."""
    assert fired(policies, week("50000", "49500")) == [("bleed-l2", ["D", "C", "B"])]


@pytest.mark.parametrize("now", ["50000", "50500"], ids=["a still market", "a market that rose"])
def test_l2_does_not_fire_while_its_gate_is_shut(policies: PolicySet, now: str) -> None:
    """7d = 0 does not pass, nor does a rise."""
    assert fired(policies, week("50000", now)) == []


def test_l2_does_not_fire_while_its_gate_is_unknown(policies: PolicySet) -> None:
    """BTC is not on the watch list."""
    legs = {"+A": 0, "+B": 0, "+C": 0, "+D": 0}
    still = [at(minute, legs) for minute in range(0, 3 * DAY, 10)]
    lost = {"+A": -1000, "+B": -1200, "+C": -1500, "+D": -1800}
    assert fired(policies, [*still, *(at(3 * DAY + minute, lost) for minute in range(0, 10, 2))]) == []


def test_l4_fires_on_6_percent_below_the_days_open_without_a_gate(policies: PolicySet) -> None:
    """6.5% after two days: three of four longs. 5.5% do not fire it."""
    legs = {"+A": 0, "+B": 0, "+C": 0, "+D": 0}
    still = [at(minute, legs) for minute in range(0, 2 * DAY + 60, 10)]
    lost = {"+A": -1100, "+B": -1400, "+C": -1800, "+D": -2200}
    assert fired(policies, [*still, at(2 * DAY + 61, lost)]) == [("bleed-l4", ["D", "C", "B"])]
    assert fired(policies, [*still, at(2 * DAY + 61, {**lost, "+D": -1200})]) == []


def test_d12_the_catastrophe_layer_closes_a_thirteenth_position_of_a_day(policies: PolicySet) -> None:
    """14 positions lose 8.7% of equity one after another, 20 minutes apart, and each is closed; the caps are 12."""
    recording = [
        each
        for number in range(14)
        for each in (at(20 * number, {f"+S{number:02}": 0}), at(20 * number + 10, {f"+S{number:02}": -8000}))
    ]
    closed = [symbol for stage, symbols in fired(policies, recording) if stage == "bleed-l0" for symbol in symbols]
    assert closed == [f"S{number:02}" for number in range(14)]


def test_d12_only_the_catastrophe_layer_is_neither_counted_nor_capped(repository: Path) -> None:
    """L0 has no cap; the others share one of twelve positions."""
    text = (repository / "policies" / "slow-bleed-published" / "policy.yaml").read_text(encoding="utf-8")
    layers = {part.split("metadata: {name: ")[1][:8]: part for part in text.split("---") if "kind: Policy" in part}
    assert "daily_cap: " not in layers["bleed-l0"] and "cap_group: " not in layers["bleed-l0"]
    capped = [part for name, part in layers.items() if name != "bleed-l0"]
    assert ["daily_cap: 12, cap_group: slow-bleed," in part for part in capped] == [True] * 3


def test_d12_the_layers_share_one_cap_and_the_catastrophe_layer_closes_beyond_it(policies: PolicySet) -> None:
    """L3 closes three of four 8 hours apart, and L4 three when the day's loss is 6%: twelve, and then none in 24 h.

    A position that then loses 8% of equity is closed by L0 all the same.
    """
    interpreter, closed = Interpreter(policies), list[tuple[int, str, int]]()

    def look(minute: int, profits: dict[str, int]) -> None:
        made = interpreter.tick(at(minute, profits, margin=100)).decisions
        closed.extend((minute, each.stage or "", len(each.intents)) for each in made if each.intents)

    for number in range(6):
        begin = number * 4 * 60
        look(begin, dict.fromkeys(("+A", "+B", "+C", "+D"), 0))
        look(begin + 5, dict.fromkeys(("+A", "+B", "+C", "+D"), -6))
        reset = operator_event("reset", after(minutes=begin + 10), id_=f"r{number}")
        calm = at(begin + 10, dict.fromkeys(("+A", "+B", "+C", "+D"), 0), margin=100)
        interpreter.tick(replace(calm, events=(reset,)))
    assert closed == [(5, "bleed-l3", 3), (245, "bleed-l3", 3), (485, "bleed-l3", 3), (725, "bleed-l3", 3)]
    look(1300, {"+A": 0, "+B": 0})
    look(1305, {"+A": -8700, "+B": 0})
    assert closed[4:] == [(1305, "bleed-l0", 1)]


def test_no_layer_closes_while_its_input_is_unknown(policies: PolicySet) -> None:
    """The account is away for half a day; or it is read, and no position has a profit or a margin."""
    calm = [at(minute, {f"+{name}": 0 for name in "ABCD"}) for minute in range(0, 50, 5)]
    away = [
        snapshot(after(minutes=minute), account(None, None, quality="down", reason="no answer"))
        for minute in range(50, 12 * 60, 5)
    ]
    assert fired(policies, [*calm, *away]) == []
    bare = [replace(each, unrealized_pnl=None, margin=None) for each in calm[0].accounts[0].positions or ()]
    blind = [
        snapshot(each.as_of, replace(calm[0].accounts[0], positions=tuple(bare), observed_at=each.as_of))
        for each in away[:20]
    ]
    assert fired(policies, [*calm, *blind]) == []


def test_l4_counts_from_the_days_open_and_not_from_the_peak(policies: PolicySet) -> None:
    """A gain of 8% and 6% of it given back on one day: no loss since the open, so that no layer acts."""
    course = [0] * 10 + [8000] * 5 + [2000] * 10
    recording = [at(DAY + 5 * place, {"+A": profit, "+B": 0}) for place, profit in enumerate(course)]
    assert [stage for stage, _ in fired(policies, recording) if stage == "bleed-l4"] == []
