"""Correlation groups of a scope: declared and estimated, their hysteresis, what is in doubt, and what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from msgspec import json as msgjson

from killswitch.graph.nodes import CorrelationGroupRule, SignalRef
from killswitch.lab.bars import read_market
from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import Position
from killswitch.planning.targets.ranking import candidates, group_places, in_group_order, rank
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.risk.correlation import (
    Correlated,
    by_interval,
    complete_linkage,
    correlated,
    group_of,
    pair,
    residual,
    robust,
)
from killswitch.risk.covariance import shrunk_covariance_array
from killswitch.signals.arguments import EstimatedCorrelations, SymbolGroup
from killswitch.signals.history.group_estimates import EstimatedGroups, GroupEstimates, parts_of
from killswitch.signals.history.prices import PriceSamples
from killswitch.signals.history.rows import HistoryState, encode_row
from killswitch.signals.history.scope import History
from killswitch.signals.signal_values import ColumnReader
from killswitch.valuation.scope_view import ScopeView
from tests.graphs import DEFAULT_RANKING
from tests.worlds import account, after, position

RULE = EstimatedCorrelations(5 * MINUTE, 24 * HOUR, 250, "winsorised")
COINS = SymbolGroup("coins", ("*_USDT",), (), RULE)
RESIDUAL = SymbolGroup(
    "coins", ("*_USDT",), (), EstimatedCorrelations(5 * MINUTE, 24 * HOUR, 250, "winsorised", "H_USDT")
)
STEPS = 25 * 12
"""Five-minute steps of 25 hours."""


def history(group: SymbolGroup = COINS) -> History:
    needs = {"window": RULE.window, "every": RULE.every}
    return History(
        (),
        HOUR,
        EquityTerms(10 * MINUTE, 0.001, 60 * SECOND),
        {PriceSamples: [needs], GroupEstimates: [{"group": group}]},
    )


def walks(loadings: Mapping[str, float], steps: int = STEPS, seed: int = 3) -> dict[str, list[float]]:
    """Prices with returns of `loading` × a common move + the rest of its own: correlations are products of loadings."""
    drawn = np.random.default_rng(seed).normal(0, 2e-3, (len(loadings) + 1, steps))
    moves = {
        symbol: loading * drawn[0] + np.sqrt(1 - loading**2) * drawn[i]
        for i, (symbol, loading) in enumerate(loadings.items(), start=1)
    }
    return {symbol: (100 * np.cumprod(1 + each)).tolist() for symbol, each in moves.items()}


def view(step: float, prices: Mapping[str, float], quality: str = "ok", **sizes: str) -> ScopeView:
    """One contract of each symbol, or `sizes`, long; a size below zero is short."""
    rows = [
        position(symbol, "short" if size < 0 else "long", "0", contracts=str(abs(size)),
                 mark_price=f"{price:.9f}", notional=f"{abs(size) * Decimal(repr(price)):f}")
        for symbol, price in prices.items()
        if (size := Decimal(sizes.get(symbol.split("_")[0], "1")))
    ]  # fmt: skip
    known = rows if quality == "ok" else None
    return ScopeView(to_micros(after(minutes=5 * step)), True, (account("100000", known, quality=quality),), {}, None)


def watch(
    of: History, prices: Mapping[str, Sequence[float]], begin: int = 0, end: int = STEPS, **sizes: str
) -> ScopeView:
    """Observe these prices, five minutes apart; the last view."""
    last = None
    for step in range(begin, end):
        last = view(step, {symbol: each[step] for symbol, each in prices.items()}, **sizes)
        of.observe(last)
    assert last is not None
    return last


def bounded(values: np.ndarray) -> np.ndarray:
    """The values within median ± 4 × 1.4826 × MAD."""
    middle = np.median(values)
    bound = 4 * 1.4826 * np.median(np.abs(values - middle))
    found: np.ndarray = np.clip(values, middle - bound, middle + bound)
    return found


def parts(of: History, group: SymbolGroup, symbols: Iterable[str], *, together: bool) -> tuple[tuple[str, ...], ...]:
    return parts_of(group, symbols, of.groups, together=together)


# Which symbols are a group


def test_pattern_has_what_it_spells_and_nothing_else() -> None:
    group = SymbolGroup("some", ("BTC_USDT", "*DOGE*", "X*Y"))
    assert [each for each in ("BTC_USDT", "BTC_USDTX", "1000DOGE_USDT", "XY", "X.Y", "XYZ") if group.has(each)] == [
        "BTC_USDT", "1000DOGE_USDT", "XY", "X.Y",
    ]  # fmt: skip


@pytest.mark.parametrize("together", [True, False])
def test_group_without_correlations_is_all_of_its_symbols(together: bool) -> None:
    group = SymbolGroup("majors", ("A", "B"))
    assert parts_of(group, "CBA", None, together=together) == (("A", "B"),)
    assert parts_of(group, "C", None, together=together) == ()


def test_declared_numbers_form_groups_and_pairs_without_one_are_in_doubt() -> None:
    """A–B is 0.8, A–C 0.3 keeps C out of their group, and nothing is known of D."""
    group = SymbolGroup("some", ("A", "B", "C", "D"), (("A", "B", 0.8), ("A", "C", 0.3)))
    assert parts_of(group, "ABC", None, together=True) == (("A", "B"), ("C",))
    assert parts_of(group, "ABD", None, together=True) == (("A", "B", "D"),)
    assert parts_of(group, "ABD", None, together=False) == (("A", "B"), ("D",))
    assert parts_of(group, "ABC", None, together=False) == (("A", "B"), ("C",))


def test_estimated_groups_are_those_of_the_factor_behind_the_prices() -> None:
    """A and B move with one factor at 0.98² = 0.96, C alone."""
    of = history()
    watch(of, walks({"A_USDT": 0.98, "B_USDT": 0.98, "C_USDT": 0.0}))
    assert parts(of, COINS, ("A_USDT", "B_USDT", "C_USDT"), together=True) == (("A_USDT", "B_USDT"), ("C_USDT",))
    assert parts(of, COINS, ("A_USDT", "B_USDT", "C_USDT"), together=False) == (("A_USDT", "B_USDT"), ("C_USDT",))


def test_estimate_is_that_of_the_returns_of_the_window() -> None:
    """Of the prices of the last 24 hours at the last full hour, by NumPy: the samples of 288 returns."""
    of, prices = history(), walks({"A_USDT": 0.9, "B_USDT": 0.9})
    watch(of, prices)
    assert of.groups is not None
    found = of.groups.estimated(COINS)
    assert found is not None
    last = (found.at - to_micros(after())) // (5 * MINUTE)
    assert last == 24 * 12
    (one,) = found.pairs
    returns = [np.diff(np.round(each, 9)) / np.round(each, 9)[:-1] for each in map(np.array, prices.values())]
    one_row, other_row = (bounded(each[last - 288 : last]) for each in returns)
    assert (one.returns, one.value) == (288, pytest.approx(np.corrcoef(one_row, other_row)[0, 1], abs=1e-4))


def test_residual_to_the_hub_separates_what_the_hub_holds_together() -> None:
    """A and B follow the hub at 0.95: together at 0.90, and without it they have nothing in common."""
    prices = walks({"H_USDT": 1.0, "A_USDT": 0.95, "B_USDT": 0.95})
    names = tuple(prices)
    plain, residual = history(), history(RESIDUAL)
    watch(plain, prices)
    watch(residual, prices)
    assert parts(plain, COINS, names, together=False) == (("A_USDT", "B_USDT", "H_USDT"),)
    assert parts(residual, RESIDUAL, names, together=True) == (("A_USDT",), ("B_USDT",), ("H_USDT",))


# In doubt


@pytest.mark.parametrize("steps", [1, 240])
def test_symbols_of_too_few_returns_are_together_for_limits_and_apart_for_netting(steps: int) -> None:
    """Less than 24 hours have fewer than 250 returns of five minutes: nothing is known."""
    of = history()
    watch(of, walks({"A_USDT": 0.0, "B_USDT": 0.0}), end=steps)
    assert parts(of, COINS, ("A_USDT", "B_USDT"), together=True) == (("A_USDT", "B_USDT"),)
    assert parts(of, COINS, ("A_USDT", "B_USDT"), together=False) == (("A_USDT",), ("B_USDT",))


def test_frozen_price_is_in_doubt() -> None:
    prices = walks({"A_USDT": 0.9, "B_USDT": 0.9}) | {"C_USDT": [100.0] * STEPS}
    of = history()
    watch(of, prices)
    assert parts(of, COINS, tuple(prices), together=False) == (("A_USDT", "B_USDT"), ("C_USDT",))
    assert group_of("C_USDT", parts(of, COINS, tuple(prices), together=True)) != ("C_USDT",)


def test_share_of_a_group_in_doubt_counts_together_and_its_net_as_makes_it_larger() -> None:
    """Long 60 and 30 that are correlated, short 10 of which nothing is known: all of the gross, and a net of 90."""
    group = SymbolGroup("some", ("A", "B", "C"), (("A", "B", 0.9),))
    share, net = SignalRef("exposure.group_share", (group,)), SignalRef("exposure.group_net", (group,))
    seen = view(0, {"A": 60.0, "B": 30.0, "C": 10.0}, C="-1")
    of = history()
    of.observe(seen)
    columns = ColumnReader([share, net]).read(of, seen)
    assert (columns.lo[0], columns.lo[1]) == (pytest.approx(1.0), pytest.approx(90.0))


# When they change


def test_groups_change_at_most_once_an_hour() -> None:
    """After the estimate of the 24th hour A moves alone: nothing changes in 55 minutes, and a day later they part."""
    of, prices = history(), walks({"A_USDT": 0.98, "B_USDT": 0.98})
    alone = np.random.default_rng(5).normal(0, 2e-3, (2, 600))
    later = {
        symbol: [0.0] * 289 + (100 * np.cumprod(1 + row)).tolist() for symbol, row in zip(prices, alone, strict=True)
    }
    watch(of, prices, end=289)
    assert of.groups is not None
    first = of.groups.estimated(COINS)
    watch(of, later, 289, 300)
    assert of.groups.estimated(COINS) == first
    watch(of, later, 300, 600)
    assert parts(of, COINS, ("A_USDT", "B_USDT"), together=True) == (("A_USDT",), ("B_USDT",))


def test_restart_keeps_what_was_together() -> None:
    """Between 0.6 and 0.7 a pair is together or apart as it was, so that the state is stored and restored."""
    of, prices = history(), walks({"A_USDT": 0.98, "B_USDT": 0.98})
    watch(of, prices)
    stored = msgjson.decode(msgjson.encode(of.state()), type=HistoryState)
    again = history()
    again.restore(stored, [encode_row(row) for row in of.rows], [])
    assert again.groups is not None
    assert of.groups is not None
    assert again.groups.estimated(COINS) == of.groups.estimated(COINS)


def test_reload_with_other_thresholds_keeps_what_was_together() -> None:
    """A set that joins at 0.99 continues with the groups as they are: they part below `leave` only."""
    of, prices = history(), walks({"A_USDT": 0.98, "B_USDT": 0.98})
    watch(of, prices)
    edited = SymbolGroup("coins", ("*_USDT",), (), RULE, join=0.99)
    again = history(edited)
    again.restore(
        msgjson.decode(msgjson.encode(of.state()), type=HistoryState), [encode_row(row) for row in of.rows], []
    )
    again.observe(view(STEPS, {symbol: each[-1] for symbol, each in prices.items()}))
    assert parts(again, edited, ("A_USDT", "B_USDT"), together=True) == (("A_USDT", "B_USDT"),)


def test_group_that_nobody_declares_any_more_is_not_restored() -> None:
    of = history()
    watch(of, walks({"A_USDT": 0.9}), end=2)
    assert of.groups is not None
    other = GroupEstimates([{"group": SymbolGroup("others", ("*",), (), RULE)}], HOUR)
    other.restore(msgjson.encode(of.groups.state()))
    assert other.estimated(COINS) is None


def test_position_that_is_opened_between_two_estimates_is_placed_at_once() -> None:
    of, prices = history(), walks({"A_USDT": 0.98, "B_USDT": 0.98, "C_USDT": 0.0})
    watch(of, {symbol: prices[symbol] for symbol in ("A_USDT", "B_USDT")})
    of.observe(view(STEPS, {symbol: each[-1] for symbol, each in prices.items()}))
    assert of.groups is not None
    found = of.groups.estimated(COINS)
    assert found is not None
    assert group_of("C_USDT", found.together) == ("A_USDT", "B_USDT", "C_USDT")
    assert found.apart == (("A_USDT", "B_USDT"), ("C_USDT",))


def test_account_that_cannot_be_read_takes_no_symbol_out_of_its_group() -> None:
    of, prices = history(), walks({"A_USDT": 0.98, "B_USDT": 0.98})
    watch(of, prices)
    assert of.groups is not None
    before = of.groups.estimated(COINS)
    of.observe(view(STEPS + 12, {}, quality="down"))
    after_it = of.groups.estimated(COINS)
    assert before is not None
    assert after_it is not None
    assert (after_it.together, after_it.apart) == (before.together, before.apart)


# The order of closing


def test_group_of_the_worst_position_closes_first_and_whole() -> None:
    """By rank C, A, B, D: the group of C and D is first, though B ranks before D."""
    rule = CorrelationGroupRule("some", ("A", "B", "C", "D"), 5, (("A", "B", 0.9), ("C", "D", 0.9), ("A", "C", 0.0),
                                ("A", "D", 0.0), ("B", "C", 0.0), ("B", "D", 0.0)))  # fmt: skip
    rows: list[Position] = [
        position(symbol, "long", loss, notional="100", margin="10") for symbol, loss in
        (("A", "-30"), ("B", "-20"), ("C", "-40"), ("D", "-10"), ("E", "-50"))
    ]  # fmt: skip
    seen = ScopeView(0, True, (account("1000", rows),), {}, None)
    ranked = rank(DEFAULT_RANKING, candidates(seen, None))
    ordered = [each.candidate.position.symbol for each in in_group_order(ranked, [rule])]
    assert ordered == ["C", "D", "A", "B", "E"]
    assert group_places("EDCBA", [rule], None) == {"D": (5, 1), "C": (5, 1), "B": (5, 3), "A": (5, 3)}


# Measured claims: crash folders


def returns_of(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Times, and the returns of each symbol between the common bars of a folder."""
    series = {each.symbol: (np.array(each.opened), np.array(each.close)) for each in read_market(folder).series}
    common = sorted(set.intersection(*(set(at.tolist()) for at, _ in series.values())))
    closes = {symbol: close[np.isin(at, common)] for symbol, (at, close) in series.items()}
    return np.array(common[1:]), {symbol: each[1:] / each[:-1] - 1 for symbol, each in closes.items()}


@pytest.mark.parametrize(
    "folder", ["2023-08-17_binance-spot_3m", "2021-05-19_binance-spot_1m", "2022-05-11_okx-swap_5m"]
)
def test_groups_outlive_the_worst_hour_of_a_crash(shared: Path, folder: str) -> None:
    """One hour after the worst hour the mean winsorised correlation is 0.68 to 0.86, and no group has come apart."""
    at, returns = returns_of(shared / "data" / "market" / folder)
    per_hour = HOUR // int(np.median(np.diff(at)))
    mean = np.mean(list(returns.values()), axis=0)
    worst = int(np.argmin(np.convolve(mean, np.ones(per_hour), "valid"))) + per_hour
    day = 24 * per_hour

    def pairs_at(end: int) -> dict[tuple[str, str], Correlated]:
        rows = {each: robust(row[end - day : end].tolist(), "winsorised") for each, row in returns.items()}
        return {pair(a, b): correlated(rows[a], rows[b], "winsorised", 250) for a, b in combinations(sorted(rows), 2)}

    before, later = pairs_at(worst - per_hour), pairs_at(worst + per_hour)
    values = [each.value for each in later.values() if each.value is not None]
    assert 0.67 <= float(np.mean(values)) <= 0.87
    groups = complete_linkage(returns, by_interval(before, together=True), 0.7, 0.6)
    after_it = complete_linkage(returns, by_interval(later, together=True), 0.7, 0.6, groups)
    assert all(set(group) <= set(group_of(group[0], after_it)) for group in groups)


def correlations_after_the_worst_hour(folder: Path, hub: str | None = None) -> tuple[list[float], list[float]]:
    """One hour after the worst hour, of 24 hours: the winsorised and the shrunk correlations of all pairs.

    `hub`: the winsorised ones are those of what is left of the others without it.
    """
    at, returns = returns_of(folder)
    per_hour = HOUR // int(np.median(np.diff(at)))
    mean = np.mean(list(returns.values()), axis=0)
    end = int(np.argmin(np.convolve(mean, np.ones(per_hour), "valid"))) + 2 * per_hour
    rows = {each: row[end - 24 * per_hour : end].tolist() for each, row in returns.items()}
    found = shrunk_covariance_array(np.array(list(rows.values())))
    matrix = (1 - found.weight) * found.sample + found.weight * found.mean * np.eye(len(rows))
    scale = np.sqrt(np.diag(matrix))
    shrunk = (matrix / np.outer(scale, scale))[np.triu_indices(len(rows), 1)].tolist()
    others = {each: row for each, row in rows.items() if each != hub}
    if hub is not None:
        others = {each: left for each, row in others.items() if (left := residual(row, rows[hub])) is not None}
    bounded_rows = {each: robust(row, "winsorised") for each, row in others.items()}
    values = [
        correlated(bounded_rows[a], bounded_rows[b], "winsorised", 250).value
        for a, b in combinations(sorted(others), 2)
    ]
    return [each for each in values if each is not None], shrunk


def test_shrinkage_dissolves_every_group_one_hour_after_the_worst_hour(shared: Path) -> None:
    """2023-08-17: the winsorised mean is 0.68 or more; shrunk it is 0.22 to 0.23, and no pair is at 0.7."""
    values, shrunk = correlations_after_the_worst_hour(shared / "data" / "market" / "2023-08-17_binance-spot_3m")
    assert float(np.mean(values)) >= 0.67
    assert float(np.mean(shrunk)) == pytest.approx(0.225, abs=0.02)
    assert max(shrunk) < 0.7


def test_what_is_left_without_bitcoin_is_no_group(shared: Path) -> None:
    """The mean is 0.31 to 0.41, and no pair at 0.7."""
    folder = shared / "data" / "market" / "2023-08-17_binance-spot_3m"
    values, _ = correlations_after_the_worst_hour(folder, "BTC_USDT")
    assert 0.2 <= float(np.mean(values)) <= 0.5
    assert max(values) < 0.7


def test_state_of_another_version_is_refused_as_damaged() -> None:
    of = GroupEstimates([{"group": COINS}], HOUR)
    with pytest.raises(ValueError, match="Expected"):
        of.restore(b'{"groups": 3}')
    assert of.estimated(COINS) is None
    assert EstimatedGroups(0).symbols == frozenset()
