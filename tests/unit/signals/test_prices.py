"""Prices are sampled on a grid of time, and a return is taken where two samples have all required symbols."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec import json as msgjson

from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, CorporateAction, WatchedPrice
from killswitch.model.store import SAMPLES, HistoryTrim
from killswitch.planning.interpreter import Interpreter
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.signals.history.prices import PriceSamples, StoredSamples
from killswitch.signals.history.rows import StoredUnitValueRow, encode_row
from killswitch.signals.history.samples import SampleSeries, expected_returns
from killswitch.signals.history.scope import History
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, after, fill, position, rules, snapshot
from tests.worlds.firings import policy_of

BTC, ETH = ("main", "BTC"), ("main", "ETH")
HELD = {"window": HOUR, "every": MINUTE}


def seen(seconds: float, *accounts: AccountSnapshot, scheduled: bool = True) -> ScopeView:
    return ScopeView(to_micros(after(seconds=seconds)), scheduled, accounts, {}, None)


def marked(seconds: float, **marks: str | None) -> ScopeView:
    """A scope that holds each symbol at this mark."""
    held = [
        position(symbol, "long", "0", **({} if mark is None else {"mark_price": mark}))
        for symbol, mark in marks.items()
    ]
    return seen(seconds, account("1", held))


def watching(price: str, *, at: float, printed: float | None = None, **more: Any) -> ScopeView:
    """A scope that watches BTC and holds nothing; `printed`: the venue time of the price, in seconds."""
    row = WatchedPrice("BTC", mark_price=Decimal(price), at=None if printed is None else after(seconds=printed))
    return seen(at, account("1", watched=(row,), observed_at=after(seconds=at), **more))


def sampled(*views: ScopeView, needs: Any = (HELD,), max_gap: int = 10 * MINUTE) -> PriceSamples:
    prices, before = PriceSamples(needs, max_gap), None
    for view in views:
        prices.observe(view, before)
        before = view
    return prices


def returns(
    prices: PriceSamples, now: float, *keys: tuple[str, str], window: int = HOUR, every: int = MINUTE
) -> list[list[float]]:
    return prices.returns(keys, to_micros(after(seconds=now)), window, every)


def of_btc(*views: ScopeView, now: float = 600, **more: Any) -> list[float]:
    return returns(sampled(*views, **more), now, BTC)[0]


def test_the_first_observation_of_a_minute_is_the_sample() -> None:
    """Ticks of ten seconds make one sample a minute, and a late tick skips none."""
    views = [marked(at, BTC=str(100 + at)) for at in (0, 10, 59, 61, 110, 120.5)]
    assert of_btc(*views, now=121) == [pytest.approx(0.61), pytest.approx(220.5 / 161 - 1)]


def test_a_return_needs_every_mark() -> None:
    """A symbol that was not held yet, or has no mark, leaves no return of any symbol."""
    prices = sampled(
        marked(0, BTC="100"),
        marked(60, BTC="110", ETH="10"),
        marked(120, BTC="121", ETH="11"),
        marked(180, BTC="121", ETH=None),
    )
    assert returns(prices, 180, BTC, ETH) == [[pytest.approx(0.1)], [pytest.approx(0.1)]]
    assert len(returns(prices, 180, BTC)[0]) == 3


def test_returns_of_accounts_polled_at_different_moments_are_aligned_by_the_grid() -> None:
    """Two accounts are polled some seconds apart: their samples of one grid point are of one return."""

    def view(minute: int, mark: str) -> ScopeView:
        row = [position("BTC", "long", "0", mark_price=mark)]
        at = after(minutes=minute, seconds=9)
        one = account("1", row, name="one", observed_at=after(minutes=minute, seconds=3))
        return ScopeView(to_micros(at), True, (one, account("1", row, name="two", observed_at=at)), {}, None)

    prices = sampled(view(0, "100"), view(1, "110"), view(2, "99"))
    found = returns(prices, 150, ("one", "BTC"), ("two", "BTC"))
    assert found == [pytest.approx([0.1, -0.1]), pytest.approx([0.1, -0.1])]


def test_no_return_spans_a_gap() -> None:
    """A move over a gap in the observations covers another length of time."""
    views = marked(0, BTC="100"), marked(600, BTC="110"), marked(1201, BTC="220"), marked(1260, BTC="242")
    assert of_btc(*views, now=1260) == [pytest.approx(0.1), pytest.approx(0.1)]


def test_a_return_may_be_longer_than_the_gap_if_the_price_was_watched_meanwhile() -> None:
    """With samples an hour apart and ticks every 5 minutes nothing is missed: max_gap is about observations."""
    views = [marked(300 * i, BTC=str(100 + i)) for i in range(25)]
    needs = ({"window": 3 * HOUR, "every": HOUR},)
    prices = sampled(*views, needs=needs)
    assert returns(prices, 7200, BTC, window=3 * HOUR, every=HOUR)[0] == pytest.approx([0.12, 124 / 112 - 1])
    with_gap = sampled(*views[:13], *views[16:], needs=needs)
    assert returns(with_gap, 7200, BTC, window=3 * HOUR, every=HOUR)[0] == pytest.approx([0.12])


def test_a_symbol_that_was_gone_for_longer_than_the_gap_begins_anew() -> None:
    """A position that is opened again 11 minutes later has no return over these."""
    views = [marked(60 * i, **({"BTC": "100"} if i < 3 else {"BTC": "150"} if i >= 14 else {})) for i in range(16)]
    assert of_btc(*views, now=900) == [0.0, 0.0, 0.0]
    views = [marked(60 * i, **({"BTC": "100"} if i < 3 else {"BTC": "150"} if i >= 6 else {})) for i in range(8)]
    assert of_btc(*views, now=900) == [0.0, 0.0, 0.5, 0.0]


def test_only_the_window_counts_and_older_samples_are_forgotten() -> None:
    """The window's start is included."""
    prices = sampled(*(marked(60 * i, BTC=str(100 + i)) for i in range(10)))
    assert len(returns(prices, 540, BTC, window=2 * MINUTE)[0]) == 2
    assert len(returns(prices, 540, BTC)[0]) == 9
    short = sampled(
        *(marked(60 * i, BTC=str(100 + i)) for i in range(10)), needs=({"window": MINUTE, "every": MINUTE},)
    )
    assert len(returns(short, 540, BTC)[0]) == 3


def test_signals_may_sample_on_several_grids() -> None:
    """Each has its own: every second minute of a price that another signal reads each minute."""
    views = [marked(60 * i, BTC=str(100 * 2**i)) for i in range(7)]
    prices = sampled(*views, needs=(HELD, {"window": HOUR, "every": 2 * MINUTE, "symbol": "BTC"}))
    assert returns(prices, 360, BTC, every=2 * MINUTE) == [[3.0, 3.0, 3.0]]
    assert returns(prices, 360, BTC) == [[1.0] * 6]


def test_the_grid_begins_at_the_epoch() -> None:
    """Ticks that begin at another second of the minute make the same samples of the same observations."""
    views = [marked(30 + 20 * i, BTC=str(100 + i)) for i in range(10)]
    later = views[3:]
    assert of_btc(*views, now=300)[-1] == of_btc(*later, now=300)[-1]


def test_a_price_that_is_not_positive_is_no_sample() -> None:
    """Zero and below are no prices."""
    assert of_btc(marked(0, BTC="0"), marked(60, BTC="100"), marked(120, BTC="-1")) == []


def test_a_frozen_print_has_no_return() -> None:
    """The venue answers, and its price is the same print: no return of zero is made of that."""
    frozen = [watching("100", at=60 * i, printed=30) for i in range(4)]
    assert of_btc(*frozen, now=240) == []
    fresh = [watching("100", at=60 * i, printed=60 * i) for i in range(4)]
    assert of_btc(*fresh, now=240) == [0.0, 0.0, 0.0]
    unstated = [watching("100", at=60 * i) for i in range(4)]
    assert of_btc(*unstated, now=240) == [0.0, 0.0, 0.0]


def test_the_price_after_a_night_is_no_return_of_the_session() -> None:
    """An exchange with sessions answers all night with its last print: the jump at the open is no return."""
    night = [watching("100", at=60 * i, printed=min(60 * i, 120)) for i in range(60)]
    morning = [watching("120", at=3600, printed=3600), watching("121.2", at=3660, printed=3660)]
    assert of_btc(*night, *morning, now=3660) == pytest.approx([0.0, 0.01])  # 60 s → 120 s, and after the open


def test_a_print_that_is_a_little_late_has_a_return() -> None:
    """Of an illiquid mark, minutes old by nature."""
    views = [watching(str(100 + i), at=120 * i, printed=120 * i - 90) for i in range(3)]
    assert of_btc(*views, now=300) == pytest.approx([0.01, 102 / 101 - 1])


def test_a_pass_that_repeats_an_account_adds_nothing() -> None:
    """A push of another account wakes the runner after a grid point: the old answer is not of this moment."""
    old = account("1", [position("BTC", "long", "0", mark_price="100")], observed_at=after(seconds=50))
    new = account("1", [position("BTC", "long", "0", mark_price="110")], observed_at=after(seconds=65))
    views = seen(50, old), seen(61, old, scheduled=False), seen(65, new)
    assert of_btc(*views) == pytest.approx([0.1])


@pytest.mark.parametrize(
    "split",
    [
        pytest.param({"corporate_actions": (CorporateAction("s", after(), "BTC", Decimal(10)),)}, id="reported"),
        pytest.param({"instruments": (rules("BTC", contract_size="10"),)}, id="size of the contract"),
    ],
)
def test_a_split_is_no_return(split: dict[str, Any]) -> None:
    """The price is a tenth after it, and nothing was lost."""
    first = watching("100", at=0, instruments=(rules("BTC"),))
    views = first, watching("10", at=60, **split), watching("11", at=120)
    assert of_btc(*views) == pytest.approx([0.1])


def test_a_contract_of_another_size_at_the_same_price_was_not_split() -> None:
    """The venue changed the size of its contract, not the unit that it quotes."""
    first = watching("100", at=0, instruments=(rules("BTC"),))
    other = watching("101", at=60, instruments=(rules("BTC", contract_size="10"),))
    assert of_btc(first, other) == pytest.approx([0.01])


def test_a_position_that_was_split_is_no_return() -> None:
    """Ten times the contracts at a tenth of the price and no fill: the venue renamed the coin."""
    before = seen(0, account("1", [position("BTC", "long", "0", contracts="3", mark_price="100")]))
    now = [position("BTC", "long", "0", contracts="30", mark_price="10")]
    assert of_btc(before, seen(60, account("1", now))) == []
    bought = [fill("f", after(seconds=30), "BTC", "buy", "27", "10")]
    assert of_btc(before, seen(60, account("1", now, fills=bought))) == pytest.approx([-0.9])


def test_an_account_that_is_not_available_is_not_observed() -> None:
    """Its numbers are the last known ones."""
    bad = account("1", [position("BTC", "long", "0", mark_price="500")], quality="stale")
    assert of_btc(marked(0, BTC="100"), seen(60, bad), marked(120, BTC="110")) == pytest.approx([0.1])


@pytest.mark.parametrize(
    ("now", "expected"),
    [(0, 60), (30, 59), (59.999999, 59), (60, 60)],
)
def test_expected_returns_are_those_between_grid_points(now: float, expected: int) -> None:
    """An hour of minutes has 61 grid points at a full minute, 60 between two of them."""
    assert expected_returns(to_micros(after(seconds=now)), HOUR, MINUTE) == expected


TERMS = EquityTerms(10 * MINUTE, 0.001, 60 * SECOND)


def history() -> History:
    return History([15 * MINUTE], HOUR, TERMS, {PriceSamples: [HELD]})


def test_samples_survive_a_reset_and_a_restart() -> None:
    """A reset re-bases the account's money; the moves of markets remain valid. Samples are stored as rows."""
    watched = history()
    rows, samples = [], []
    for minute in range(5):
        watched.observe(marked(60 * minute, BTC=str(100 * 2**minute)))
        rows.append(encode_row(watched.rows[-1]))
        assert watched.prices is not None
        samples.append(msgjson.decode(msgjson.encode(watched.prices.new_samples()), type=list[StoredSamples]))
        if minute == 2:
            watched.rebase(accept=True)
    again = history()
    again.restore(watched.state(), rows, samples)
    for each in (watched, again):
        assert len(each.rows) == 3
        assert each.prices is not None
        assert returns(each.prices, 240, BTC) == [[1.0, 1.0, 1.0, 1.0]]
        each.observe(marked(300, BTC="800"))
        assert returns(each.prices, 300, BTC) == [[1.0, 1.0, 1.0, 1.0, -0.5]]


def test_time_without_a_runner_is_a_gap() -> None:
    """A restart 20 minutes later makes no return of that time."""
    watched = history()
    watched.observe(marked(0, BTC="100"))
    assert watched.prices is not None
    again = history()
    again.restore(watched.state(), [], [watched.prices.new_samples()])
    for at, price in ((1200, "150"), (1260, "165")):
        again.observe(marked(at, BTC=price))
    assert again.prices is not None
    assert returns(again.prices, 1260, BTC) == [pytest.approx([0.1])]


def test_marks_in_rows_of_an_earlier_version_are_samples() -> None:
    """A version that stored them with unit values is followed by this one."""
    watched = history()
    watched.observe(marked(120, BTC="110"))
    rows = [
        StoredUnitValueRow(to_micros(after(seconds=at)), 1.0, None, [("main", "BTC", price)])
        for at, price in ((0, 100.0), (60, 105.0))
    ]
    state = watched.state()
    state.collected.clear()
    again = history()
    again.restore(state, rows)
    again.observe(marked(120, BTC="110.25"))
    assert again.prices is not None
    assert returns(again.prices, 120, BTC) == [pytest.approx([0.05, 0.05])]


def test_samples_of_a_long_window_are_kept_and_other_rows_are_not() -> None:
    """A ratio of volatilities over a day, and a drawdown over 20 minutes: each tick goes on to trim what is older."""
    text = 'when: \'equity.drawdown("20m") >= 0.5 && market.volatility_ratio("BTC", "1h", "24h", "5m") >= 2.0\''
    interpreter = Interpreter(policy_of(text))
    for minute in (0, 1):
        held = [position("BTC", "long", "0", mark_price="100", notional="100")]
        interpreter.tick(snapshot(after(minutes=minute), account("1000", held)))
        scopes = [row.scope for row in interpreter.rows()]
        assert scopes == ["account/main", *([f"account/main{SAMPLES}"] if minute == 0 else [])]
    now = to_micros(after(minutes=1))
    kept = 24 * HOUR + 2 * 5 * MINUTE
    assert interpreter.keep_since(now) == now - kept
    assert interpreter.trim() == HistoryTrim(now - kept, now - 20 * MINUTE)
    interpreter.tick(snapshot(after(minutes=2), account("1000", [])))
    later = to_micros(after(minutes=2))
    assert interpreter.trim() == HistoryTrim(now - 20 * MINUTE, later - 20 * MINUTE)


def test_common_returns_of_a_younger_position_begin_with_its_first_sample() -> None:
    """BTC has returns of 1, 2, 3 and 4%; ETH is opened at the third sample, so that only the last two are common."""
    btc = ("100", "101", "103.02", "106.1106", "110.355024")
    eth = (None, None, "50", "51", "49.98")
    views = [
        marked(60 * i, **{"BTC": one} | ({} if other is None else {"ETH": other}))
        for i, (one, other) in enumerate(zip(btc, eth, strict=True))
    ]
    assert returns(sampled(*views), 240, BTC, ETH) == [pytest.approx([0.03, 0.04]), pytest.approx([0.02, -0.02])]


@pytest.mark.parametrize(("last", "are_same"), [("51", True), ("51.01", False)])
def test_what_is_computed_once_for_two_scopes_depends_on_every_sample(last: str, are_same: bool) -> None:
    """Two accounts with the same samples share their covariance; one other price makes it another one."""
    found = []
    for price in ("51", last):
        prices = sampled(
            *(marked(60 * i, BTC=one, ETH=two) for i, (one, two) in enumerate((("1", "50"), ("2", price))))
        )
        series = [each for key in (BTC, ETH) if (each := prices.series(key, MINUTE)) is not None]
        found.append(SampleSeries.together(series, to_micros(after(seconds=60)), HOUR))
    assert found[0] is not None
    assert (found[0] == found[1]) is are_same
