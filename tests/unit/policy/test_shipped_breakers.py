"""The shipped circuit breakers: each trips on what it is for, not on its false alarm, and not on unknown data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.graph.compile import compile_policies
from killswitch.graph.nodes import Graph, PolicySet
from killswitch.lab.recording import replay
from killswitch.model.decision import Decision, Notice
from killswitch.model.effects import ProcessExit
from killswitch.model.snapshot import Position, Snapshot, WatchedPrice
from killswitch.planning.interpreter import Interpreter
from killswitch.policy.loader import load
from tests.worlds import START, account, after, flow, operator_event, position, rules, snapshot

Recording = Callable[[], Sequence[Snapshot]]


@pytest.fixture(scope="module")
def breakers(repository: Path) -> Callable[[str], PolicySet]:
    """One breaker of `breakers-six`, or the policy of `capital-breaker` or `circuit-breaker`."""
    folders = [repository / "policies" / name for name in ("breakers-six", "capital-breaker", "circuit-breaker")]
    found, problems = compile_policies(load(folders).documents)
    assert found is not None and problems == ()

    def of(name: str) -> PolicySet:
        return replace(found, graphs=tuple(each for each in found.graphs if each.policy == name))

    return of


def at(when: datetime, equity: str | None, held: Sequence[Position] | None = None, **more: object) -> Snapshot:
    if equity is None:
        return snapshot(when, account(None, None, quality="down", reason="no answer"))
    more |= {"instruments": (rules("A"), rules("B"))}
    return snapshot(when, account(equity, held, observed_at=when, **more))  # type: ignore[arg-type]  # fields


def long(notional: str, *, lost: str = "0", entry: str = "100", mark: str = "100", symbol: str = "A") -> Position:
    return position(symbol, "long", lost, notional=notional, mark_price=mark, entry_price=entry, contracts="100")


def falling(*equities: str) -> list[Snapshot]:
    """Prices move the equity of a book of one position, a minute apart."""
    first = Decimal(equities[0])
    return [
        at(after(minutes=minute), each, [long("10000", lost=str(Decimal(each) - first))])
        for minute, each in enumerate(equities)
    ]


def with_position(equity: str, *, hedged: bool) -> list[Snapshot]:
    """A position that lost 30% of 10,000: the account fell with it, or another leg gained as much."""
    legs = [long("7000", lost="-3000", mark="70")]
    if hedged:
        legs.append(
            position("B", "short", "3000", notional="7000", mark_price="70", entry_price="100", contracts="100")
        )
    short = position("B", "short", "0", notional="10000", mark_price="100")
    before = [long("10000"), *([short] if hedged else [])]
    calm = [at(after(minutes=minute), "100000", before) for minute in range(0, 1500, 5)]
    return [*calm, *(at(after(minutes=1500 + number), equity, legs) for number in range(4))]


def leveraged(*levels: float) -> list[Snapshot]:
    return [at(after(minutes=minute), "10000", [long(str(10000 * level))]) for minute, level in enumerate(levels)]


def concentrated(*shares: float) -> list[Snapshot]:
    return [
        at(after(minutes=minute), "10000", [long(str(10000 * part), symbol=f"S{i}") for i, part in enumerate(shares)])
        for minute in range(12)
    ]


def volatile(step: float) -> list[Snapshot]:
    """A day of five-minute prices of a watched symbol that go up and down by so much."""
    found = []
    for number in range(290):
        when = START + number * timedelta(minutes=5)
        price = Decimal(str(round(50_000 * (1 + step * (number % 2)), 2)))
        watched = (WatchedPrice("BTC/USDT:USDT", mark_price=price, at=when),)
        found.append(at(when, "10000", [long("10000")], watched=watched))
    return [*found, *(replace_time(found[-1], minutes) for minutes in range(5, 15, 5))]


def replace_time(last: Snapshot, minutes: int) -> Snapshot:
    when = last.as_of + timedelta(minutes=minutes)
    (seen,) = last.accounts
    price = WatchedPrice("BTC/USDT:USDT", mark_price=Decimal(50_000 + 10 * minutes), at=when)
    return snapshot(when, replace(seen, observed_at=when, watched=(price,)))


CASES: dict[str, tuple[Recording, Recording]] = {
    # 15.5% at once; and after 20% gained, 14% from there are no loss from the start
    "portfolio-loss": (lambda: falling("100000", "84500"), lambda: falling("100000", "120000", "103000")),
    "drawdown-24h": (lambda: falling("100000", "125000", "99000"), lambda: falling("100000", "82000")),
    # D13, D19: one leg of a hedge lost 30%, and the account nothing
    "position-loss": (
        lambda: with_position("97000", hedged=False), lambda: with_position("100000", hedged=True),
    ),
    # a position that lost 20% is none
    "position-loss-alert": (
        lambda: with_position("97000", hedged=True),
        lambda: [at(after(minutes=minute), "98000", [long("8000", lost="-2000", mark="80")]) for minute in range(4)],
    ),
    "leverage": (lambda: leveraged(1, 3.1, 3.1, 3.1), lambda: leveraged(2.9, 3.017, 2.9, 3.017, 2.9)),
    "concentration": (lambda: concentrated(0.5, 0.25, 0.25), lambda: concentrated(0.34, 0.33, 0.33)),
    # 0.4% every five minutes is 130% a year; 0.05% is 16%
    "volatility": (lambda: volatile(0.004), lambda: volatile(0.0005)),
    "capital-breaker": (
        lambda: falling("10000", "9800", "9650", "9580", "9450"), lambda: falling("10000", "9800", "9650", "9580"),
    ),
}  # fmt: skip


def decisions(policies: PolicySet, recording: Sequence[Snapshot]) -> list[Decision]:
    return [each for each in replay(policies, recording) if isinstance(each, Decision)]


@pytest.mark.parametrize("name", CASES)
def test_a_breaker_trips_on_what_it_is_for_and_not_on_its_false_alarm(
    breakers: Callable[[str], PolicySet], name: str
) -> None:
    """Once each; while the account cannot be read nothing trips."""
    trips, calm = (make() for make in CASES[name])
    made = [each for each in decisions(breakers(name), trips) if each.stage == "tripped" and each.kind != "reset"]
    assert len(made) == 1
    assert decisions(breakers(name), calm) == []
    missing = [*trips[:1], *(at(trips[0].as_of + timedelta(minutes=minute), None) for minute in range(1, 90))]
    assert decisions(breakers(name), missing) == []


@pytest.mark.parametrize("name", ["position-loss-alert", "concentration"])
def test_an_alert_locks_and_closes_nothing(breakers: Callable[[str], PolicySet], name: str) -> None:
    """It is recorded and notified."""
    (decision,) = decisions(breakers(name), CASES[name][0]())
    assert (decision.lock, decision.intents, decision.cancels) == (None, (), ())


def test_the_pair_of_three_and_five_percent_warns_twice_and_ends_the_process(
    breakers: Callable[[str], PolicySet],
) -> None:
    """10,000 → 9,800 → 9,650 (warning at 3%) → 9,580 (warning at 4%) → 9,450 (trip, exit 1)."""
    found = list(replay(breakers("capital-breaker"), CASES["capital-breaker"][0]()))
    warned = [(each.as_of, each.text) for each in found if isinstance(each, Notice) and "reached" in each.text]
    assert [(when, text.partition(" of")[0]) for when, text in warned] == [
        (after(minutes=2), "trip has reached 60%"), (after(minutes=3), "trip has reached 80%"),
    ]  # fmt: skip
    (decision,) = [each for each in found if isinstance(each, Decision)]
    assert decision.as_of == after(minutes=4)
    assert any(isinstance(effect, ProcessExit) for effect in decision.effects)


def test_d18_a_reset_of_the_capital_breaker_counts_what_is_left_as_the_capital(
    breakers: Callable[[str], PolicySet],
) -> None:
    """After the trip at 9,450 neither the reset nor a loss of 4% from there trips again; 5.1% of it does, once."""
    interpreter, made = Interpreter(breakers("capital-breaker")), list[tuple[str, str | None]]()
    begun = [*CASES["capital-breaker"][0](), at(after(minutes=9), "9450", [])]
    reset = snapshot(
        after(minutes=10), account("9450", [], observed_at=after(minutes=10)),
        events=[operator_event("reset", after(minutes=10))],
    )  # fmt: skip
    later = [
        at(after(minutes=11 + minute), each, [long("10000", lost=str(Decimal(each) - 9450))])
        for minute, each in enumerate(["9450", "9075", "8968", "8968"])
    ]
    for seen in [*begun, reset, *later]:
        for each in interpreter.tick(seen).decisions:
            made.append((f"{(each.as_of - START).seconds // 60}", each.kind))
    assert made == [("4", None), ("10", "reset"), ("13", None)]


def without(*fields: str) -> list[Snapshot]:
    """Minutes in which the account is read, and its position lacks what a breaker is computed from."""
    held = replace(long("40000", lost="-3000"), **dict.fromkeys(fields))
    return [at(after(minutes=minute), "10000", [held]) for minute in range(90)]


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        ("leverage", without("notional", "mark_price")), ("concentration", without("notional", "mark_price")),
        ("position-loss", without("unrealized_pnl", "entry_price")),
        ("position-loss-alert", without("unrealized_pnl", "entry_price")),
        ("volatility", [at(after(minutes=5 * number), "10000", [long("10000")]) for number in range(300)]),
        ("portfolio-loss", falling("100000", "95000") + [at(after(minutes=2 + n), None) for n in range(90)]),
        ("drawdown-24h", falling("100000", "90000") + [at(after(minutes=2 + n), None) for n in range(90)]),
        ("capital-breaker", [at(after(minutes=n), None) for n in range(90)]),
    ],
)  # fmt: skip
def test_a_breaker_whose_input_is_unknown_holds_and_says_so(
    breakers: Callable[[str], PolicySet], name: str, recording: Sequence[Snapshot]
) -> None:
    """The position has no value or profit, the symbol is not watched, the account is away: no trip, and a page after
    the grace."""
    policies = breakers(name)
    policies = replace(policies, graphs=tuple(_with_short_grace(each) for each in policies.graphs))
    found = list(replay(policies, recording))
    assert [each for each in found if isinstance(each, Decision)] == []
    assert any("unknown" in each.text for each in found if isinstance(each, Notice))


def _with_short_grace(graph: Graph) -> Graph:
    return replace(graph, triggers=tuple(replace(each, grace=60_000_000) for each in graph.triggers))


@pytest.mark.parametrize(
    ("equities", "fired"),
    [
        (("100000", "97000"), ["warn"]), (("100000", "96000", "95000"), ["warn", "trip"]),
        (("100000", "94000"), ["trip"]), (("100000", "120000", "98000"), []), (("100000", "97100"), []),
    ],
)  # fmt: skip
def test_the_pair_of_stages_fires_at_3_and_5_percent_from_the_start(
    breakers: Callable[[str], PolicySet], equities: tuple[str, ...], fired: list[str]
) -> None:
    """D10: not from the peak, so that 18% below 120,000 is 2% below the start. While it is away nothing fires."""
    recording = falling(*equities)
    away = [at(after(minutes=len(equities) + minute), None) for minute in range(90)]
    assert [each.stage for each in decisions(breakers("circuit-breaker"), [*recording, *away])] == fired
    assert decisions(breakers("circuit-breaker"), [*recording[:1], *away]) == []


def test_d3_a_withdrawal_trips_no_loss_breaker(breakers: Callable[[str], PolicySet]) -> None:
    """Half of the money leaves, with the row of the ledger: no loss from start, capital or peak."""
    row = flow("w1", after(minutes=1), "-5000")
    recording = [at(after(minutes=0), "10000", []), at(after(minutes=1), "5000", [], flows=[row])]
    recording += [at(after(minutes=minute), "5000", []) for minute in range(2, 20)]
    for name in ("portfolio-loss", "drawdown-24h", "capital-breaker", "circuit-breaker"):
        assert decisions(breakers(name), recording) == []
