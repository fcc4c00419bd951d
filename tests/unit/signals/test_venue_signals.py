"""Signals of venues: latency quantiles, rate limits, the clock, deleveraging, withdrawals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.model.instant import HOUR, MINUTE, SECOND
from killswitch.model.snapshot import AccountSnapshot, Health, LimitUse, Snapshot, Withdrawals
from tests.worlds import account, after, position, snapshot
from tests.worlds.firings import Scenario
from tests.worlds.signals import values_after, values_of

INFINITE = math.inf
UNKNOWN = (-INFINITE, INFINITE)


def seen(*, adl: int | None = None, **more: Any) -> AccountSnapshot:
    """An account with one position, whose rank may be known."""
    held = position("BTC", "long", "0", contracts="2", notional="100000", adl_rank=adl)
    return account("100000", [held], **more)


def polls(latencies: Sequence[float | None], every: int = 1, **more: Any) -> list[Snapshot]:
    """A snapshot a second, or each `every` seconds, with these latencies."""
    return [
        snapshot(after(seconds=every * i), seen(observed_at=after(seconds=every * i), health=Health(each), **more))
        for i, each in enumerate(latencies)
    ]


def limits(*used: str, limit: str = "2400") -> Health:
    return Health(limits=tuple(LimitUse(f"limit-{i}", Decimal(each), Decimal(limit)) for i, each in enumerate(used)))


def errors(requests: int, errors: int = 0, timeouts: int = 0) -> Health:
    return Health(requests=requests, errors=errors, timeouts=timeouts)


# venue.latency_quantile


def test_a_quantile_follows_its_window_over_many_polls() -> None:
    """Of 1,500 polls a second apart those of the last minute count, both ends included, whatever was forgotten."""
    latencies = np.random.default_rng(3).integers(1, 1000, 1500).tolist()
    expected = float(np.percentile(latencies[-61:], 90))
    found = values_after("venue.latency_quantile", [0.9, MINUTE], polls(latencies))
    assert found == pytest.approx((expected, expected), abs=1e-9)


def test_the_quantile_of_latencies_is_interpolated() -> None:
    """1 to 100 ms, 0.99: the place is 98.01, so that it is 99 + 0.01 × (100 − 99), in any order."""
    low, high = values_after("venue.latency_quantile", [0.99, HOUR], polls(range(1, 101)))
    assert (low, high) == pytest.approx((99.01, 99.01), abs=1e-9)
    backwards = values_after("venue.latency_quantile", [0.99, HOUR], polls(range(100, 0, -1)))
    assert backwards == pytest.approx((99.01, 99.01), abs=1e-9)


@given(st.lists(st.integers(0, 60_000_000), min_size=100, max_size=130), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_quantiles_are_those_of_numpy(micros: list[int], q: float) -> None:
    """Type 7 is NumPy's default, and that of PERCENTILE.INC in spreadsheets."""
    found = values_after("venue.latency_quantile", [q, HOUR], polls([each / 1000 for each in micros]))
    assert found[0] == found[1] == pytest.approx(float(np.quantile(np.array(micros) / 1000, q)), abs=1e-9)


@pytest.mark.parametrize(("q", "samples"), [(0.99, 100), (0.95, 20), (0.9, 10), (0.999, 1000)])
def test_a_quantile_needs_as_many_polls_as_its_tail_is_rare(q: float, samples: int) -> None:
    """With fewer than 1 ÷ (1 − q) polls it would be the largest of a few."""
    assert values_after("venue.latency_quantile", [q, HOUR], polls([5.0] * (samples - 1))) == UNKNOWN
    assert values_after("venue.latency_quantile", [q, HOUR], polls([5.0] * samples)) == (5, 5)


def test_polls_older_than_the_window_do_not_count() -> None:
    """[t − 2m, t], both ends included: 900 ms at exactly two minutes before counts, a second later not any more."""
    slow_then_fast = [900.0] + [10.0] * 120
    assert values_after("venue.latency_quantile", [0.9999, 2 * MINUTE], polls(slow_then_fast)) == UNKNOWN
    at_edge = values_after("venue.latency_quantile", [0.99, 2 * MINUTE], polls(slow_then_fast))
    assert at_edge[0] == pytest.approx(10.0)  # the place is 118.8 of 0 to 120, below the largest
    alone = values_after("venue.latency_quantile", [0.5, SECOND], polls([900.0, 10.0]))
    assert alone == pytest.approx((455.0, 455.0))
    assert values_after("venue.latency_quantile", [0.5, SECOND], polls([900.0, 10.0, 10.0])) == (10, 10)


def test_a_pass_between_two_ticks_does_not_count_the_same_poll_again() -> None:
    """An account that did not push repeats its last answer, with its latency."""
    first, second = polls([100.0, 200.0])
    woken = Snapshot(after(seconds=0.5), first.accounts, "killswitch.snapshot/v1", scheduled=False)
    assert values_after("venue.latency_quantile", [0.5, HOUR], [first, woken, woken, second]) == (150, 150)


def test_an_account_without_enough_polls_leaves_the_quantile_open_above() -> None:
    """It is at least that of the others, as for every largest value."""
    both = [
        snapshot(
            after(seconds=second), seen(health=Health(50.0)),
            seen(name="second", health=Health(90.0) if second == 0 else None),
        )
        for second in range(4)
    ]  # fmt: skip
    assert values_after("venue.latency_quantile", [0.5, HOUR], both) == (50, INFINITE)


def test_the_samples_outlive_a_restart() -> None:
    """100 polls before it and none lost: the value is the one of a run without it."""
    recording = polls(range(1, 101))
    stored = values_after("venue.latency_quantile", [0.99, HOUR], recording, restart=True)
    assert stored == values_after("venue.latency_quantile", [0.99, HOUR], recording)


# venue.limit_headroom


@pytest.mark.parametrize(
    ("accounts", "expected"),
    [
        pytest.param([limits("600", "1800")], (0.25, 0.25), id="the limit that is used most"),
        pytest.param([limits("0")], (1, 1), id="nothing used"),
        pytest.param([limits("2500")], (0, 0), id="more used than allowed is nothing left"),
        pytest.param([limits("600"), limits("1200")], (0.5, 0.5), id="the account that has the least left"),
        pytest.param([limits("600"), Health()], (0, 0.75), id="one does not state it: at most the others"),
        pytest.param([Health(), None], UNKNOWN, id="none states it"),
        pytest.param([limits("1", limit="0")], UNKNOWN, id="a limit of 0 is none"),
    ],
)
def test_headroom_is_that_of_the_limit_that_is_used_most(
    accounts: Sequence[Health | None], expected: tuple[float, float]
) -> None:
    """1 − used ÷ limit, the least of all; a limit that is not stated makes it less, never more."""
    shown = [seen(name=f"a{i}", health=health) for i, health in enumerate(accounts)]
    assert values_after("venue.limit_headroom", [], [snapshot(after(), *shown)]) == pytest.approx(expected)


# venue.clock_skew


@pytest.mark.parametrize(
    ("skews", "expected"),
    [
        pytest.param([-800.0], (800, 800), id="behind"),
        pytest.param([20.0, -30.0], (30, 30), id="the largest in either direction"),
        pytest.param([20.0, None], (20, INFINITE), id="one is missing: at least the others"),
        pytest.param([None], UNKNOWN, id="none is known"),
        pytest.param([math.nan], UNKNOWN, id="no number"),
    ],
)
def test_clock_skew_has_no_direction(skews: Sequence[float | None], expected: tuple[float, float]) -> None:
    """A clock 800 ms behind is as wrong as one 800 ms ahead."""
    shown = [seen(name=f"a{i}", health=Health(clock_skew_ms=each)) for i, each in enumerate(skews)]
    assert values_after("venue.clock_skew", [], [snapshot(after(), *shown)]) == expected


# positions.adl_rank


@pytest.mark.parametrize(
    ("accounts", "expected"),
    [
        pytest.param([seen(adl=4, adl_ranks=4)], (1, 1), id="4 of 4"),
        pytest.param([seen(adl=1, adl_ranks=5)], (0.2, 0.2), id="1 of 5"),
        pytest.param([seen(adl=3, adl_ranks=4), seen(name="b", adl=3, adl_ranks=5)], (0.75, 0.75), id="the highest"),
        pytest.param([seen(adl=2, adl_ranks=4), seen(name="b", adl=None, adl_ranks=4)], (0.5, 1), id="one unknown"),
        pytest.param([seen(adl=2, adl_ranks=4), seen(name="b", quality="down")], (0.5, 1), id="one account missing"),
        pytest.param([seen(adl=2)], UNKNOWN, id="the venue's highest is unknown"),
        pytest.param([seen(adl=9, adl_ranks=4)], (1, 1), id="above the highest is the highest"),
        pytest.param([account("100000", [])], (0, 0), id="empty book"),
        pytest.param([account("100000", None)], UNKNOWN, id="positions unknown"),
    ],
)
def test_the_rank_is_a_share_of_the_venues_highest(
    accounts: Sequence[AccountSnapshot], expected: tuple[float, float]
) -> None:
    """Binance counts to 4, Bybit and OKX to 5; at 1 a position is among the first to be deleveraged."""
    assert values_after("positions.adl_rank", [], [snapshot(after(), *accounts)]) == expected


def test_an_empty_book_has_no_rank() -> None:
    """Nothing can be deleveraged."""
    assert values_of("positions.adl_rank", []) == (0, 0)


# venue.withdrawals_suspended


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        pytest.param([{"BTC": False, "USDT": True}], (1, 1), id="one asset"),
        pytest.param([{"BTC": False}], (0, 0), id="none"),
        pytest.param([{}], (0, 0), id="the venue states it, of no asset"),
        pytest.param([None], (0, 1), id="not stated"),
        pytest.param([{"BTC": False}, None], (0, 1), id="one account does not state it"),
        pytest.param([{"BTC": True}, None], (1, 1), id="one suspended is enough"),
    ],
)
def test_a_suspension_of_one_asset_at_one_venue_counts(
    stated: Sequence[dict[str, bool] | None], expected: tuple[float, float]
) -> None:
    """True if any account states one; false only if all state that there is none."""
    shown = [
        seen(name=f"a{i}", withdrawals=None if each is None else tuple(Withdrawals(*it) for it in each.items()))
        for i, each in enumerate(stated)
    ]
    assert values_after("venue.withdrawals_suspended", [], [snapshot(after(), *shown)]) == expected


def test_an_account_that_cannot_be_read_states_no_withdrawals() -> None:
    """The last known state of a venue that is down is not its state now."""
    down = seen(quality="down", withdrawals=(Withdrawals("BTC", True),))
    assert values_after("venue.withdrawals_suspended", [], [snapshot(after(), down)]) == (0, 1)


# When they fire


def each_minute(*accounts: AccountSnapshot) -> list[Snapshot]:
    return [snapshot(after(minutes=minute), each) for minute, each in enumerate(accounts)]


SUSPENDED, NOT_SUSPENDED = (seen(withdrawals=(Withdrawals("BTC", each),)) for each in (True, False))
WITHOUT_HEALTH = each_minute(*[seen()] * 3)
DOWN = seen(quality="down", reason="no answer")


def aged(*observed: float | None) -> list[Snapshot]:
    """A snapshot each minute of an answer that was observed then, in minutes; None: without a time."""
    ages = [None if each is None else after(minutes=each) for each in observed]
    return each_minute(*(seen(observed_at=at) for at in ages))


SCENARIOS: dict[str, Scenario] = {
    "venue.age": Scenario(
        "signal: venue.age, at_least: 90s",
        each_minute(
            seen(observed_at=after()), *(seen(quality=each, observed_at=None) for each in ("down", "stale"))
        ),
        aged(0, 0, 2, 2),  # one answer a minute late
        aged(None, None, None),
    ),
    "venue.latency": Scenario(
        "signal: venue.latency, at_least: 2000ms, confirm: 1m",
        each_minute(*(seen(health=Health(each)) for each in (50.0, 2000.0, 2500.0))),
        each_minute(*(seen(health=Health(each)) for each in (50.0, 5000.0, 50.0, 5000.0))),  # one slow poll
        WITHOUT_HEALTH,
    ),
    "venue.error_rate": Scenario(
        "signal: venue.error_rate, at_least: 20%",
        each_minute(seen(health=errors(10)), seen(health=errors(10, 1)), seen(health=errors(10, 1, 1))),
        each_minute(seen(health=errors(100, 10, 9)), seen(health=errors(100, 19))),  # 19 of a busy minute
        each_minute(*[seen(health=errors(0))] * 3),  # nothing was asked: 0 of 0
    ),
    "venue.malformed": Scenario(
        "signal: venue.malformed, at_least: 2",
        each_minute(seen(health=Health(malformed=1)), seen(health=Health(malformed=2))),
        each_minute(*[seen(health=Health(malformed=1, errors=5, timeouts=5))] * 3),  # refusals are well formed
        WITHOUT_HEALTH,
    ),
    "venue.consecutive_failures": Scenario(
        "signal: venue.consecutive_failures, at_least: 3",
        each_minute(seen(), DOWN, DOWN, DOWN),
        each_minute(DOWN, DOWN, seen(), DOWN, DOWN),  # a good answer between them
        None,
    ),
    "venue.latency_quantile": Scenario(
        "signal: venue.latency_quantile, q: 90%, window: 5m, at_least: 500ms",
        polls([600.0] * 12, every=10),  # the tenth poll
        polls([50.0] * 11 + [5000.0], every=10),  # one slow poll of twelve is no slow venue
        polls([None] * 40, every=10),
        at=after(seconds=90),
    ),
    "venue.limit_headroom": Scenario(
        "signal: venue.limit_headroom, below: 10%, confirm: 2m",
        each_minute(*[seen(health=limits("2300"))] * 4),
        each_minute(*[seen(health=limits(each)) for each in ("100", "2300", "600", "100")]),  # a burst of a minute
        each_minute(*[seen(health=Health())] * 3),
        at=after(minutes=2),
    ),
    "venue.clock_skew": Scenario(
        "signal: venue.clock_skew, at_least: 500ms",
        each_minute(seen(health=Health(clock_skew_ms=3)), seen(health=Health(clock_skew_ms=-800))),
        each_minute(*[seen(health=Health(latency_ms=400, clock_skew_ms=200))] * 3),  # half of the latency
        each_minute(*[seen(health=Health())] * 3),
        at=after(minutes=1),
    ),
    "positions.adl_rank": Scenario(
        "when: positions.adl_rank >= 1.0 && exposure.leverage >= 2.0",
        each_minute(seen(adl=3, adl_ranks=4), account("40000", seen(adl=4).positions, adl_ranks=4)),
        each_minute(*[seen(adl=4, adl_ranks=4)] * 3),  # a profitable position at 1×
        each_minute(*[account("40000", seen().positions, adl_ranks=4)] * 3),
        at=after(minutes=1),
    ),
    "venue.withdrawals_suspended": Scenario(
        "signal: venue.withdrawals_suspended, is: true, confirm: 2m",
        each_minute(*[SUSPENDED] * 4),
        each_minute(SUSPENDED, NOT_SUSPENDED, SUSPENDED, NOT_SUSPENDED),  # maintenance of a wallet
        each_minute(*[seen()] * 3),
        at=after(minutes=2),
    ),
}  # fmt: skip
