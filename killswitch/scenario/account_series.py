"""Resolves the accounts of a scenario: the values of every series by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise

from killswitch.graph.problems import Findings
from killswitch.policy.schema.scenario import ScenarioAccount, ScenarioPosition, ScenarioSpec, ScenarioTrade
from killswitch.policy.yaml.source_map import Path
from killswitch.render.formats import count_of
from killswitch.scenario.cases import AccountSeries, MoneyFlow, PositionSeries, RestingOrder, Steps, TradeBy
from killswitch.scenario.given_signals import GivenSeries
from killswitch.scenario.series import ParsedSeries, SeriesItem, Value, parse_series, values

HEALTH = {
    "latency": "latency_ms",
    "requests": "requests",
    "errors": "errors",
    "timeouts": "timeouts",
    "malformed": "malformed",
    "rate_limited": "rate_limited",
    "clock_skew": "clock_skew_ms",
}
"""The keys of `health`, and the fields of a snapshot that they are."""
AMOUNTS = ("free", "margin_used", "maintenance_margin")
OF_POSITION = ("contracts", "price", "liquidation", "margin")
ONE = Decimal(1)


def account_series(
    spec: ScenarioSpec, given: Mapping[Path, GivenSeries], found: Findings
) -> tuple[tuple[AccountSeries, ...], Steps]:
    """The accounts with their values, and the steps; every problem is reported in `found`.

    `given`: the series of signals, by their paths.
    """
    accounts = spec.accounts or {}
    parsed = dict(_parsed(accounts, found))
    steps = Steps(_count(parsed, given, spec.times, found), spec.every or 0, spec.times or ())
    if found.diagnostics:
        return (), steps
    return tuple(_account(name, account, parsed, steps, found) for name, account in accounts.items()), steps


def _parsed(accounts: Mapping[str, ScenarioAccount], found: Findings) -> Iterator[tuple[Path, ParsedSeries]]:
    """Every series by its path, with the problems inside its text reported."""
    for path, text in _texts(accounts):
        series = parse_series(text, unread=path[-1] == "equity")
        found.within(path, series.problems)
        if not series.problems:
            yield path, series


def _texts(accounts: Mapping[str, ScenarioAccount]) -> Iterator[tuple[Path, str]]:
    for name, account in accounts.items():
        at: Path = ("spec", "accounts", name)
        yield (*at, "equity"), account.equity
        for key in AMOUNTS:
            if (text := getattr(account, key)) is not None:
                yield (*at, key), text
        for key in HEALTH:
            if account.health is not None and (text := getattr(account.health, key)) is not None:
                yield (*at, "health", key), text
        for symbol, text in (account.watch or {}).items():
            yield (*at, "watch", symbol), text
        for number, position in enumerate(account.positions or ()):
            for key in OF_POSITION:
                if (text := getattr(position, key)) is not None:
                    yield (*at, "positions", number, key), text


def _count(
    parsed: Mapping[Path, ParsedSeries], given: Mapping[Path, GivenSeries], times: Sequence[int] | None,
    found: Findings,
) -> int:  # fmt: skip
    """The number of steps, which all series with a number of their own share."""
    every: dict[Path, ParsedSeries | GivenSeries] = {**parsed, **given}
    exact = {path: series.steps for path, series in every.items() if series.steps is not None}
    if times is not None:
        exact["spec", "times"] = len(times)
        if times[0] != 0 or any(later <= earlier for earlier, later in pairwise(times)):
            fix = "begin with 0s, and write each time after the one before it"
            found.error("KS7011", ("spec", "times"), "these times are in no order", fix)
    steps = max(exact.values(), default=1)
    for path, count in exact.items():
        if count != steps:
            longest = next(each for each, number in exact.items() if number == steps)
            message = (
                f"it has {count_of(count, 'step')}, and `{longest[-1]}` in line {found.place(longest).line} has {steps}"
            )
            found.error("KS7010", path, message, "end it with `=x*`, or write as many steps")
    for path, series in every.items():
        if series.steps is None and series.least > steps:
            message = f"it has at least {count_of(series.least, 'step')}, and the scenario has {steps}"
            found.error("KS7010", path, message, "write fewer steps")
    if steps < 2 and parsed and times is None and not found.diagnostics:
        found.error("KS7010", next(iter(parsed)), "the scenario has a single step", "write a series of several values")
    return steps


def _account(
    name: str, account: ScenarioAccount, parsed: Mapping[Path, ParsedSeries], clock: Steps, found: Findings
) -> AccountSeries:
    at: Path = ("spec", "accounts", name)
    equity, steps = parsed[*at, "equity"], clock.count
    by_step = values(equity, steps)
    moves = any(item.kind in ("number", "change", "share") for item in equity.items[1:]) or _repeats_change(equity)
    unread = {step: each for step, each in enumerate(by_step) if isinstance(each, str)}
    absent = frozenset(step for step, each in enumerate(by_step) if each is None)
    first = next((item.value for item in equity.items if item.kind == "number"), None)
    if first is None:
        found.error("KS7010", (*at, "equity"), "equity has no number", "begin with a number")
    series = by_step if moves else None
    return AccountSeries(
        name, account.venue, account.market, account.currency,  # type: ignore[arg-type] # the schema has checked the market
        series, first or Decimal(0), unread, absent,
        None if account.positions is None else _positions(
            at, account.positions, parsed, clock, found, moves=moves
        ),
        tuple(
            RestingOrder(each.id, each.symbol, each.side, each.amount, each.price, each.trigger_price, each.reduce_only)
            for each in account.orders
        ),
        tuple(_flows(at, account, clock, found)),
        {key: values(parsed[*at, key], steps) for key in AMOUNTS if (*at, key) in parsed},
        {HEALTH[key]: values(parsed[*at, "health", key], steps) for key in HEALTH if (*at, "health", key) in parsed},
        {symbol: _watched(at, symbol, account, parsed, steps, found) for symbol in account.watch or ()},
    )  # fmt: skip


def _repeats_change(series: ParsedSeries) -> bool:
    return any(item.kind in ("change", "share") for item in series.items)


def _positions(
    at: Path, positions: tuple[ScenarioPosition, ...], parsed: Mapping[Path, ParsedSeries], clock: Steps,
    found: Findings, *, moves: bool,
) -> tuple[PositionSeries, ...]:  # fmt: skip
    steps = clock.count
    made: list[PositionSeries] = []
    has_carrier = False
    for number, each in enumerate(positions):
        path: Path = (*at, "positions", number)
        if (each.symbol, each.side) in [(it.symbol, it.side) for it in made]:
            message = f"the {each.side} in `{each.symbol}` is written twice"
            found.error("KS7012", (*path, "symbol"), message, "write one position with all its contracts")
        prices, contracts = parsed[*path, "price"], parsed[*path, "contracts"]
        _require(prices.items, (*path, "price"), "a price", found, allows_zero=False, allows_absent=True)
        _require(contracts.items, (*path, "contracts"), "contracts", found, allows_zero=True, allows_absent=False)
        carries = moves and prices.is_constant and not has_carrier
        has_carrier |= carries
        by_step = values(prices, steps)
        for key, numbers in (("price", by_step), ("contracts", values(contracts, steps))):
            least = min((value for value in numbers if isinstance(value, Decimal)), default=ONE)
            if least < 0 or (least == 0 and key == "price"):
                found.error("KS7010", (*path, key), f"it falls to {least:f}", "write a smaller change")
        first, held = prices.items[0].value, values(contracts, steps)
        made.append(
            PositionSeries(
                each.symbol, each.side, held, None if carries else by_step, first,
                each.contract_size or ONE, each.amount_step, each.price_step,
                None if each.liquidation is None else values(parsed[*path, "liquidation"], steps),
                None if each.margin is None else values(parsed[*path, "margin"], steps),
                dict(_trades(path, each.trades, held, clock, found)),
            )
        )  # fmt: skip
    return tuple(made)


def _watched(
    at: Path, symbol: str, account: ScenarioAccount, parsed: Mapping[Path, ParsedSeries], steps: int, found: Findings
) -> list[Value]:
    path: Path = (*at, "watch", symbol)
    if any(each.symbol == symbol for each in account.positions or ()):
        message = f"`{symbol}` is among the positions, whose `price` is its price"
        found.error("KS7012", path, message, "remove it from `watch`", key=True)
    prices = values(parsed[path], steps)
    if any(isinstance(each, Decimal) and each <= 0 for each in prices):
        found.error("KS7010", path, "the price falls to zero or below", "write a smaller change")
    return prices


def _trades(
    at: Path, trades: tuple[ScenarioTrade, ...], contracts: list[Value], clock: Steps, found: Findings
) -> Iterator[tuple[int, TradeBy]]:
    """What the contracts change by, by step; a trade at a step without a change contradicts the series."""
    for number, each in enumerate(trades):
        path: Path = (*at, "trades", number)
        step = clock.step(each.at)
        if not step:
            between = step is None and each.at < clock.last
            message = "the trade is between two steps" if between else "there is no change at this step"
            found.error("KS7011", (*path, "at"), message, "write the time of a step at which the contracts change")
            continue
        before, after = _held(contracts[step - 1]), _held(contracts[step])
        if before == after or (after > before and each.by != "stop"):
            what = "the contracts do not change at this step" if before == after else f"the {each.by} opens contracts"
            found.error("KS7012", (*path, "at"), what, "write the time of a step at which they become fewer")
        else:
            yield step, each.by


def _held(contracts: Value) -> Decimal:
    return contracts if isinstance(contracts, Decimal) else Decimal(0)


def _require(
    items: tuple[SeriesItem, ...], path: Path, what: str, found: Findings, *, allows_zero: bool, allows_absent: bool
) -> None:
    """Report a series that does not begin with a number, and one that is absent where it must not be."""
    if items[0].kind != "number" or (items[0].value == 0 and not allows_zero):
        found.error("KS7010", path, f"{what} begins with a number", "write a number above 0 first")
    elif not allows_absent and any(item.kind == "absent" for item in items):
        found.error("KS7010", path, f"{what} cannot be unknown", "leave `positions` out if they are unknown")


def _flows(at: Path, account: ScenarioAccount, clock: Steps, found: Findings) -> Iterator[MoneyFlow]:
    for number, each in enumerate(account.flows):
        path: Path = (*at, "flows", number)
        step = clock.step(each.at)
        if step is None:
            message = "money moves between two steps" if each.at < clock.last else "the scenario has ended by then"
            found.error("KS7011", (*path, "at"), message, "write the time of a step")
        elif step == 0:
            found.error("KS7011", (*path, "at"), "money moves at the first step", "write a later step")
        elif (each.kind == "deposit" and each.amount <= 0) or (each.kind == "withdrawal" and each.amount >= 0):
            fix = "write a deposit above 0 and a withdrawal below 0"
            found.error("KS7012", (*path, "amount"), f"a {each.kind} of {each.amount:f}", fix)
        else:
            yield MoneyFlow(step, each.kind, each.amount)
