"""A backtest samples as a live run does, or not at all: bars that cannot serve a sampling are an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from killswitch.cli import ksctl
from killswitch.lab.sampling import SamplingError, named_symbols, require_served
from tests.backtests import MINUTE, book, market, run, written
from tests.worlds.firings import POLICY, policy_of

VOLATILE = "signal: market.volatility, symbol: {symbol}, window: {window}, every: {every}, at_least: {at_least}"


def volatile(every: str = "1m", symbol: str = "A", at_least: str = "1", window: str = "10m") -> str:
    return VOLATILE.format(every=every, symbol=symbol, at_least=at_least, window=window)


def policy_text(trigger: str) -> str:
    """The policy of `policy_of`, as text."""
    scope = "{each: account, match: {}}"
    return POLICY.format(
        trigger=trigger, scope=scope, max_gap="10m", on_unknown="hold", grace="1s", spec="",
        close="{side: both, fraction: 100%}",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("every", "interval", "fix"),
    [
        ("1m", MINUTE, None),
        ("5m", MINUTE, None),
        ("5m", 5 * MINUTE, None),
        ("1m", 5 * MINUTE, "write `every: 5m` or another multiple of 5m, or give bars of 1m"),
        ("7m", 5 * MINUTE, "write `every: 10m` or another multiple of 5m, or give bars of 7m"),
    ],
)
def test_bars_serve_samples_at_a_multiple_of_their_length(every: str, interval: int, fix: str | None) -> None:
    """Any other sampling is an error with its place and a way out, and no rescaling."""
    policies = policy_of(volatile(every, window="30m"))
    if fix is None:
        require_served(policies, "bars", interval)
        return
    with pytest.raises(SamplingError) as error:
        require_served(policies, "bars", interval)
    (found,) = error.value.diagnostics
    assert (found.code, found.severity, found.fix) == ("KS3090", "error", fix)
    assert "triggers: {it: {signal: market.volatility" in found.source_line
    assert f'market.volatility("A", "30m", "{every}")' in found.message


def test_the_samples_of_a_reset_are_checked_too() -> None:
    """The condition of an automatic reset reads signals as a trigger does."""
    calm = 'reset: {auto: {when: \'market.volatility("A", "10m", "1m") < 1.0\', for: 5m}}'
    policies = written(policy_text("signal: equity.drawdown, window: 10m, at_least: 5%").replace("reset: manual", calm))
    with pytest.raises(SamplingError) as error:
        require_served(policies, "bars", 5 * MINUTE)
    assert "name: close-everything" in error.value.diagnostics[0].source_line


def test_a_backtest_refuses_bars_that_cannot_serve_a_sampling() -> None:
    """Bars of a minute and samples every 90 s; the book without protection needs no samples."""
    bars = market(A=[100.0] * 20)
    with pytest.raises(SamplingError, match="or give bars of 1m30s"):
        run(policy_of(volatile("90s")), bars, book({"A": 1000}))
    assert run(policy_of(volatile("90s")), bars, book({"A": 1000}), rule="none").complete


def test_the_command_shows_where_the_sampling_is_written(tmp_path: Path) -> None:
    """The generated crash has bars of a minute: the diagnostic, and exit code 1."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(policy_text(volatile("30s", "BTC_USDT")), encoding="utf-8")
    result = CliRunner().invoke(ksctl, ["backtest", "--policies", str(policy), "--crash", "7"], prog_name="ksctl")
    assert result.exit_code == 1
    assert f"{policy}:10:14: error KS3090: the bars of crash-7, 1m long, cannot serve" in result.output
    assert "fix: write `every: 1m` or another multiple of 1m, or give bars of 30s" in result.output
    assert "1 error, 0 warnings in the policies; nothing was run" in result.output


def test_a_backtest_watches_the_symbols_that_signals_name() -> None:
    """B is not held, and its volatility fires; so does the difference of a market's price between venues, by name."""
    calm, wild = [100.0] * 20, [100.0 * (1.02 if i % 2 else 1.0) for i in range(20)]
    bars = market(A=calm, B=wild)
    assert run(policy_of(volatile(symbol="B")), bars, book({"A": 1000})).firings
    assert not run(policy_of(volatile(symbol="A")), bars, book({"A": 1000})).firings
    gap = policy_of("signal: market.venue_gap, base: B/USDT, at_least: 1%")
    assert named_symbols(gap, ["A_USDT", "B_USDT", "B/USDT:USDT"]) == ("B_USDT", "B/USDT:USDT")


def test_a_backtest_watches_the_hub_and_the_instruments_of_a_net_exposure() -> None:
    """Its betas need their prices, whether or not they are held."""
    shown = (
        "net_exposure: {hub: A_USDT, window: 4h, sample: 1m, least: 10, if_unknown: nothing, "
        "instruments: [{account: desk, instrument: C_USDT, at_most: 100 USDT}]}"
    )
    policies = policy_of("signal: equity.drawdown, window: 1h, at_least: 5%", spec=shown)
    assert named_symbols(policies, ["A_USDT", "B_USDT", "C_USDT"]) == ("A_USDT", "C_USDT")


def test_a_backtest_ticks_every_bar_for_a_signal_of_markets() -> None:
    """Skipping quiet bars would skip samples: the run is the same with and without it."""
    prices = [100.0] * 40 + [100.0 * (1.05 if i % 2 else 1.0) for i in range(20)] + [100.0] * 40
    bars = market(A=prices)
    policies, held = policy_of(volatile()), book({"A": 100_000})
    fast, slow = run(policies, bars, held), run(policies, bars, held, is_skipping=False)
    assert fast == slow
    assert fast.firings
