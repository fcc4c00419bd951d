"""Spread, depth, age and gaps of the prices of a snapshot, states of markets, and whether venues agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import HOUR, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Balance, Liquidity, Rate, Snapshot, WatchedPrice
from killswitch.model.words import ReferenceCurrency
from killswitch.signals.arguments import Value
from killswitch.signals.sessions import WEEKDAYS, TradingSession
from killswitch.signals.signal_values import ColumnReader
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, after, position, rules, snapshot
from tests.worlds.firings import Scenario, firings, policy_of, unknowns
from tests.worlds.signals import history_of

Interval = tuple[float, float]
UNKNOWN = (-math.inf, math.inf)
NOW = after(seconds=100)
HELD = [position("A", "long", "0", mark_price="100", notional="1000")]
USD = ReferenceCurrency("USD", 1, Decimal("0.01"))


def row(symbol: str = "A", *, at: float | None = 100, **prices: str) -> WatchedPrice:
    """Prices of a watched symbol, `at` seconds."""
    numbers = {key: Decimal(price) for key, price in prices.items()}
    return WatchedPrice(symbol, at=None if at is None else after(seconds=at), **numbers)


def watching(*rows: WatchedPrice, venue: str = "paper", quality: str = "ok", **more: Any) -> AccountSnapshot:
    """An account that holds nothing."""
    name = more.pop("name", f"at-{venue}")
    return account("1000", more.pop("positions", ()), watched=rows, venue=venue, quality=quality, name=name, **more)


def down(venue: str = "paper") -> AccountSnapshot:
    return account("1000", venue=venue, name=f"at-{venue}", quality="down", reason="no answer")


def seen(*accounts: AccountSnapshot, stale_after: int | None = None, usd: bool = False) -> ScopeView:
    instruments = {(each.account, rule.symbol): rule for each in accounts for rule in each.instruments or ()}
    reference = USD if usd else None
    return ScopeView(to_micros(NOW), True, accounts, instruments, stale_after, reference=reference)


def read(name: str, arguments: Sequence[Value], view: ScopeView) -> tuple[Interval, str | None]:
    reference = SignalRef(name, tuple(arguments))
    history = history_of([reference])
    history.observe(view)
    columns = ColumnReader([reference]).read(history, view)
    return (columns.lo[0], columns.hi[0]), columns.text[0] if columns.text else None


def value(name: str, arguments: Sequence[Value], *accounts: AccountSnapshot, **more: Any) -> Interval:
    return read(name, arguments, seen(*accounts, **more))[0]


def exactly(number: float) -> object:
    return pytest.approx((number, number), rel=1e-9)


def at_least(number: float, most: float = math.inf) -> object:
    return pytest.approx((number, most), rel=1e-9)


# Spread


@pytest.mark.parametrize(
    ("bid", "ask", "expected"),
    [
        ("7290", "7293", 3 / 7291.5),  # 0.0411%
        ("100", "100", 0.0),
        ("101", "100", 0.0),  # crossed: at least 0
    ],
)
def test_spread(bid: str, ask: str, expected: float) -> None:
    """(ask − bid) ÷ their middle."""
    assert value("market.spread", ("A",), watching(row(bid=bid, ask=ask))) == exactly(expected)


@pytest.mark.parametrize("rows", [[], [row(bid="100")], [row(ask="100")], [row(bid="0", ask="1")], [row("B", bid="1")]])
def test_spread_without_a_side_is_unknown(rows: list[WatchedPrice]) -> None:
    """In an auction the sides vanish: that is no spread of 0."""
    assert value("market.spread", ("A",), watching(*rows)) == UNKNOWN


def test_spread_of_a_position_and_of_the_watch_list() -> None:
    """The position's own prices first; both sides are of one answer."""
    held = position("A", "long", "0", bid="100", ask="101")
    one_sided = position("A", "long", "0", bid="100")
    listed = row(bid="90", ask="110")
    assert value("market.spread", ("A",), watching(listed, positions=[held])) == exactly(1 / 100.5)
    assert value("market.spread", ("A",), watching(listed, positions=[one_sided])) == exactly(0.2)


def test_spread_of_several_venues_is_the_widest() -> None:
    """A venue that cannot be read, or has one side, may have a wider one; a second account of a venue fills in."""
    narrow, wide = row(bid="100", ask="101"), row(bid="100", ask="103")
    assert value("market.spread", ("A",), watching(narrow), watching(wide, venue="x")) == exactly(3 / 101.5)
    assert value("market.spread", ("A",), watching(narrow), down("x")) == at_least(1 / 100.5, 2.0)
    assert value("market.spread", ("A",), watching(narrow), watching(row(bid="1"), venue="x")) == at_least(1 / 100.5, 2)
    assert value("market.spread", ("A",), watching(narrow), watching(row(bid="1"), name="other")) == exactly(1 / 100.5)
    assert value("market.spread", ("A",), watching(narrow), watching(row("B"), venue="x")) == exactly(1 / 100.5)


def test_insane_prices_are_unknown() -> None:
    """A price of a hundred digits is a fault of the answer, no price."""
    assert value("market.spread", ("A",), watching(row(bid="1", ask="1e99"))) == UNKNOWN


def test_worst_spread() -> None:
    """Of what is held; at least that of the others while a side is missing; 0 for an empty book."""
    one = position("A", "long", "0", bid="100", ask="101")
    two = position("B", "short", "0", bid="50", ask="52")
    blind = position("C", "short", "0", bid="50")
    assert value("market.worst_spread", (), watching(positions=[one, two])) == exactly(2 / 51)
    assert value("market.worst_spread", (), watching(positions=[one, two, blind])) == at_least(2 / 51, 2.0)
    assert value("market.worst_spread", (), watching()) == (0.0, 0.0)
    assert value("market.worst_spread", (), watching(positions=None)) == UNKNOWN


# Depth


def deep(within: str | None = "0.01", **more: Any) -> AccountSnapshot:
    """30 contracts of 0.1 bid and 20 asked, at 99 and 101."""
    book = Liquidity("A", Decimal(30), Decimal(20), None if within is None else Decimal(within))
    listed = row(bid="99", ask="101", mark_price="100")
    return watching(listed, liquidity=(book,), instruments=(rules("A", contract_size="0.1"),), **more)


@pytest.mark.parametrize(
    ("side", "within", "expected"),
    [
        ("bid", 0.01, exactly(297.0)),
        ("ask", 0.01, exactly(202.0)),
        ("bid", 0.02, at_least(297.0)),  # as much or more within twice the distance
        ("bid", 0.005, at_least(0.0, 297.0)),  # as much or less within half of it
    ],
)
def test_depth_is_the_value_of_what_rests_within_the_fraction(side: str, within: float, expected: object) -> None:
    """Contracts × size × best price; the depth within another fraction is bounded by the one that the venue states."""
    assert value("market.depth", ("A", side, within), deep()) == expected


def test_depth_that_no_venue_states_is_unknown() -> None:
    """No row, no distance, no size of the contract; of two venues the least counts."""
    assert value("market.depth", ("A", "bid", 0.01), watching(row(bid="99"))) == UNKNOWN
    assert value("market.depth", ("A", "bid", 0.01), deep(within=None)) == UNKNOWN
    shallow = Liquidity("A", Decimal(1), Decimal(1), Decimal("0.01"))
    other = watching(row(bid="99"), venue="x", liquidity=(shallow,), instruments=(rules("A"),))
    assert value("market.depth", ("A", "bid", 0.01), deep(), other) == exactly(99.0)
    assert value("market.depth", ("A", "bid", 0.01), deep(), down("x")) == at_least(0.0, 297.0)


def test_depth_cover_is_of_the_position_that_is_closed_into_the_side() -> None:
    """297 of bids for a long position of 1,000; nothing short is bought back: there is more than enough."""
    held = [position("A", "long", "0", notional="1000"), position("B", "short", "0", notional="500")]
    assert value("market.depth_cover", ("A", "bid", 0.01), deep(positions=held)) == exactly(0.297)
    assert value("market.depth_cover", ("A", "ask", 0.01), deep(positions=held)) == (math.inf, math.inf)
    assert value("market.depth_cover", ("A", "bid", 0.02), deep(positions=held)) == at_least(0.297)
    unpriced = [position("A", "long", "0")]
    assert value("market.depth_cover", ("A", "bid", 0.01), deep(positions=unpriced)) == UNKNOWN
    assert value("market.depth_cover", ("A", "bid", 0.01), watching(positions=held)) == UNKNOWN


# Age, gap, crossed


@pytest.mark.parametrize(
    ("at", "expected"), [(40, (60.0, 60.0)), (100, (0.0, 0.0)), (130, (0.0, 0.0)), (None, UNKNOWN)]
)
def test_price_age(at: float | None, expected: Interval) -> None:
    """Since the venue's time of the mark; one in the future is not older than now, and one without time is unknown."""
    assert value("market.price_age", ("A",), watching(row(at=at, mark_price="1"))) == expected


def test_price_age_of_a_position() -> None:
    """Its own time, or the one that the account states for all."""
    own = position("A", "long", "0", mark_price="1", mark_at=after(seconds=70))
    common = position("A", "long", "0", mark_price="1")
    assert value("market.price_age", ("A",), watching(positions=[own], marked_at=NOW)) == exactly(30.0)
    assert value("market.price_age", ("A",), watching(positions=[common], marked_at=after(seconds=90))) == exactly(10.0)
    assert value("market.price_age", ("A",), watching(positions=[common])) == UNKNOWN
    assert value("market.price_age", ("A",), watching(row(at=40))) == UNKNOWN  # no mark
    assert value("market.price_age", ("A",), watching(row(at=40, mark_price="1")), down("x")) == at_least(60.0)


@pytest.mark.parametrize(
    ("prices", "pair", "expected"),
    [
        ({"mark_price": "7300", "index_price": "7302"}, ("mark", "index"), 2 / 7302),  # 0.0274%
        ({"mark_price": "100", "last_price": "80"}, ("mark", "last"), 0.25),
        ({"index_price": "80", "last_price": "100"}, ("last", "index"), 0.25),
        ({"mark_price": "100"}, ("mark", "mark"), 0.0),
    ],
)
def test_price_gap(prices: dict[str, str], pair: tuple[str, str], expected: float) -> None:
    """|a − b| ÷ b."""
    assert value("market.price_gap", ("A", *pair), watching(row(**prices))) == exactly(expected)


def test_price_gap_of_one_answer() -> None:
    """The mark of a position and the index of a watched price are of different moments: neither is compared."""
    held = position("A", "long", "0", mark_price="100")
    listed = row(index_price="90")
    assert value("market.price_gap", ("A", "mark", "index"), watching(listed, positions=[held])) == UNKNOWN


@pytest.mark.parametrize(
    ("accounts", "expected"),
    [
        ([watching(row(bid="101", ask="100"))], (1.0, 1.0)),
        ([watching(row(bid="100", ask="100"))], (0.0, 0.0)),
        ([watching(row(bid="100"))], (0.0, 1.0)),
        ([watching()], (0.0, 1.0)),
        ([down()], (0.0, 1.0)),
        ([watching(row(bid="101", ask="100")), down("x")], (1.0, 1.0)),
        ([watching(row(bid="99", ask="100")), down("x")], (0.0, 1.0)),
        ([watching(row(bid="99", ask="100")), watching(row("B"), venue="x")], (0.0, 0.0)),
    ],
)
def test_crossed(accounts: list[AccountSnapshot], expected: Interval) -> None:
    """A bid above the ask; equal ones are not crossed; unknown without a side."""
    assert value("market.crossed", ("A",), *accounts) == expected


# Venues


def quoted(*prices: str | None, at: Sequence[float] = (100, 100, 100), symbol: str = "BTC/USDT:USDT") -> list[Any]:
    """A venue for each price; None: it is down."""
    names = [f"v{i}" for i in range(len(prices))]
    return [
        down(venue) if price is None else watching(row(symbol, at=when, mark_price=price), venue=venue)
        for venue, price, when in zip(names, prices, at, strict=False)
    ]


@pytest.mark.parametrize(
    ("prices", "at", "expected"),
    [
        (("100", "101", "95"), (100, 100, 100), exactly(0.05)),
        (("100", "102"), (100, 100), exactly(2 / 101)),
        (("100", "100"), (100, 95), exactly(0.0)),
        (("100", "50"), (100, 94), UNKNOWN),  # not of one time
        (("100", "102", "50"), (100, 99, 40), exactly(2 / 101)),
        (("100", None), (100, 100), UNKNOWN),
        (("100", "102", None), (100, 100, 100), exactly(2 / 101)),
    ],
)
def test_venue_gap(prices: tuple[str | None, ...], at: Sequence[float], expected: object) -> None:
    """The largest distance from the median; of two venues, their distance ÷ their middle; only prices of one time."""
    assert value("market.venue_gap", ("BTC/USDT",), *quoted(*prices, at=at)) == expected


def test_venue_gap_compares_base_and_quote() -> None:
    """Spot and perpetual, in the venues' ways to write them; a dated contract differs by its basis, and USDC by its
    peg."""
    spot = watching(row("BTC_USDT", mark_price="100"), venue="x")
    swap = watching(row("BTC/USDT:USDT", mark_price="101"), venue="y")
    dated = watching(row("BTC/USDT:USDT-261225", mark_price="150"), venue="z")
    usdc = watching(row("BTC/USDC:USDC", mark_price="99"), venue="u")
    assert value("market.venue_gap", ("BTC/USDT",), spot, swap, dated, usdc) == exactly(1 / 100.5)
    assert value("market.venue_gap", ("BTC/USDC",), spot, swap, dated, usdc) == UNKNOWN


@pytest.mark.parametrize(
    ("prices", "at", "expected"),
    [
        (("100", "101", "95"), (100, 100, 100), 3),
        (("100", "101", "90"), (100, 100, 100), 2),
        (("100", "101", "100"), (100, 100, 69), 2),  # older than 30 s
        (("100", None, None), (100, 100, 100), 1),
        ((None,), (100,), 0),
        ((), (), 0),
    ],
)
def test_quorum(prices: tuple[str | None, ...], at: Sequence[float], expected: int) -> None:
    """Venues within 5% of their median; one that cannot be read or is too old does not agree, and is not unknown."""
    accounts = [
        each if each.quality == "down" else watching(*each.watched, venue=each.venue, observed_at=NOW)
        for each in quoted(*prices, at=at)
    ]
    found = value("market.quorum", ("BTC/USDT:USDT",), *accounts, stale_after=30 * SECOND)
    assert found == (expected, expected)


def test_quorum_by_the_tolerance_of_the_reference_currency() -> None:
    """1% is declared: 101.5 does not agree with 100."""
    accounts = quoted("100", "100", "101.5")
    assert value("market.quorum", ("BTC/USDT",), *accounts, usd=True) == (2.0, 2.0)


def pegged(*prices: str) -> list[AccountSnapshot]:
    """A venue for each price of USDT in USD."""
    return [
        account(
            "1000", HELD, name=f"v{i}", venue=f"v{i}", currency="USD",
            balances=(Balance("USDT", Decimal(5), Decimal(price)),),
        )
        for i, price in enumerate(prices)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        (("0.999", "1.001", "0.9"), (0.0, 0.0)),
        (("0.95", "1"), UNKNOWN),
        (("0.97", "0.97", "1"), (0.03, 0.03)),
        (("0.97",), UNKNOWN),
    ],
)
def test_peg_deviation(prices: tuple[str, ...], expected: Interval) -> None:
    """|median of the venues that agree − 1|; a single venue is no peg, even if the reference is content with one."""
    assert value("market.peg_deviation", ("USDT",), *pegged(*prices), usd=True) == pytest.approx(expected)


def test_an_accounts_own_currency_is_no_source() -> None:
    """Its price of its own currency is 1 by definition; a rate to the reference currency is one."""
    own = account("1000", balances=(Balance("USDT", Decimal(5), Decimal(1)),))
    assert value("market.peg_deviation", ("USDT",), own, *pegged("0.97"), usd=True) == UNKNOWN
    rated = account("1000", rates=(Rate("USD", Decimal("0.97")),))
    assert value("market.peg_deviation", ("USDT",), rated, *pegged("0.97"), usd=True) == exactly(0.03)
    assert value("market.peg_deviation", ("USD",), *pegged("0.97", "0.97"), usd=True) == UNKNOWN
    assert value("market.peg_deviation", ("USDT",), *pegged("0.97", "0.97")) == UNKNOWN  # no reference currency


# State


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (("open",), "open"),
        ((), None),
        ((None,), None),
        (("open", None), None),
        (("halted", None), "halted"),
        (("open", "limit_only"), "limit_only"),
        (("limit_only", "post_only"), "post_only"),
        (("post_only", "reduce_only"), "reduce_only"),
        (("reduce_only", "cancel_only"), "cancel_only"),
        (("cancel_only", "delisted"), "delisted"),
        (("delisted", "halted"), "halted"),
    ],
)
def test_state_is_the_worst_of_the_scope(states: tuple[str | None, ...], expected: str | None) -> None:
    """A symbol at several venues; unknown if no account was given its rule."""
    accounts = [
        watching(venue=f"v{i}", instruments=(rules("A") if state is None else rules("A", state=state),))
        for i, state in enumerate(states)
    ]
    assert read("market.state", ("A", "always"), seen(*accounts or [watching()]))[1] == expected


@pytest.mark.parametrize(
    ("last", "limit", "expected"),
    [("110", "0.1", "at_limit"), ("90", "0.1", "at_limit"), ("109.9", "0.1", "open"), ("150", None, "open")],
)
def test_state_at_a_price_limit(last: str, limit: str | None, expected: str) -> None:
    """The last price is as far from the reference price as the venue lets it move; halted is worse."""
    limits = {} if limit is None else {"price_limit": limit}
    listed = row(last_price=last, reference_price="100", **limits)
    accounts = watching(listed, instruments=(rules("A", state="open"),))
    assert read("market.state", ("A", "always"), seen(accounts))[1] == expected
    halted = watching(listed, instruments=(rules("A", state="halted"),))
    assert read("market.state", ("A", "always"), seen(halted))[1] == "halted"


NIGHT = TradingSession("night", "UTC", 10 * HOUR, 11 * HOUR, WEEKDAYS)
DAY = TradingSession("day", "UTC", 0, 1 * HOUR, WEEKDAYS)  # START is 00:00 UTC


@pytest.mark.parametrize(
    ("states", "open_state", "closed_state"),
    [
        (("open",), "open", "closed"),
        (("limit_only",), "limit_only", "closed"),
        (("halted",), "halted", "closed"),  # as Alpaca gives a market that is closed
        ((None,), None, "closed"),
        (("open", "halted"), "halted", "closed"),
        (("delisted",), "delisted", "delisted"),
        (("delisted", "halted"), "halted", "delisted"),
        ((), None, None),
    ],
)
def test_state_outside_of_the_declared_session(
    states: tuple[str | None, ...], open_state: str | None, closed_state: str | None
) -> None:
    """Closed, whatever a venue states but a delisting; in the session it is the venue's state, as without one."""
    accounts = [
        watching(venue=f"v{i}", instruments=(rules("A") if state is None else rules("A", state=state),))
        for i, state in enumerate(states)
    ] or [watching()]
    assert read("market.state", ("A", DAY), seen(*accounts))[1] == open_state
    assert read("market.state", ("A", NIGHT), seen(*accounts))[1] == closed_state


SESSION = """
apiVersion: killswitch.dev/v1
kind: Session
metadata: {name: us}
spec: {zone: UTC, opens: 00:00, closes: 00:01, weekdays: [mon, tue, wed, thu, fri]}
"""


def test_a_market_closes_at_the_end_of_its_session_and_is_no_halt() -> None:
    """80 s after midnight on Monday, 2024-01-01, the session of one minute is over, and the venue states halted."""
    halted = scene(instruments=HALTED)
    for state, times in (("closed", [each.as_of for each in halted][:1]), ("halted", [])):
        trigger = f'when: \'market.state("A", "us") == "{state}"\''
        assert firings(policy_of(trigger, documents=SESSION), halted) == times
    never_open = 'when: \'market.state("A", "us") == "closed"\''
    before = [replace(each, as_of=after(seconds=10 * i)) for i, each in enumerate(scene(instruments=RULE))]
    assert firings(policy_of(never_open, documents=SESSION), before) == []
    assert unknowns(policy_of(never_open, documents=SESSION, on_unknown="warn"), scene())


# Scenarios


def recorded(*accounts: AccountSnapshot) -> list[Snapshot]:
    """Three snapshots of the same answers, 10 s apart."""
    return [snapshot(after(seconds=80 + 10 * i), *accounts) for i in range(3)]


def scene(*rows: WatchedPrice, **more: Any) -> list[Snapshot]:
    """One account with a position."""
    return recorded(watching(*rows, positions=more.pop("positions", HELD), **more))


def venues(*prices: str | None, symbol: str = "A/USDT") -> list[Snapshot]:
    """A venue for each price, where a position is held; None: the venue is down."""
    return recorded(
        *(
            down(f"v{i}") if price is None else
            watching(row(symbol, mark_price=price), venue=f"v{i}", positions=HELD)
            for i, price in enumerate(prices)
        )
    )  # fmt: skip


BID_ASK = position("A", "long", "0", mark_price="100", bid="99", ask="101", notional="1000")
BLIND = position("A", "long", "0", mark_price="100", notional="1000")
NARROW = position("A", "long", "0", mark_price="100", bid="99.99", ask="100.01", notional="1000")
PORTFOLIO = "{each: portfolio, match: {}}"
IN_USD = f"{PORTFOLIO}\n  reference: {{currency: USD, rates_from: 2, within: 1%}}"
DEEP = (Liquidity("A", Decimal(30), Decimal(20), Decimal("0.01")),)
RULE = (rules("A", state="open"),)
HALTED = (rules("A", state="halted"),)

FIRST = after(seconds=80)

SCENARIOS: dict[str, Scenario] = {
    "market.spread": Scenario(
        "signal: market.spread, symbol: A, at_least: 1%",
        scene(row(bid="99", ask="101")), scene(row(bid="99.9", ask="100.1")), scene(row(bid="99")),
        at=FIRST,
    ),
    "market.worst_spread": Scenario(
        "signal: market.worst_spread, at_least: 1%",
        scene(positions=[BID_ASK]), scene(positions=[NARROW]), scene(positions=[BLIND]),
        at=FIRST,
    ),
    "market.depth": Scenario(
        "signal: market.depth, symbol: A, book_side: bid, within: 1%, below: 5000 USDT",
        scene(row(bid="100"), liquidity=DEEP, instruments=RULE),
        scene(row(bid="10000"), liquidity=DEEP, instruments=RULE), scene(row(bid="100"), instruments=RULE),
        at=FIRST,
        scope="{each: account, match: {currency: USDT}}",
    ),
    "market.depth_cover": Scenario(
        "signal: market.depth_cover, symbol: A, book_side: bid, within: 1%, below: 5",
        scene(row(bid="100"), liquidity=DEEP, instruments=RULE),
        scene(row(bid="1000"), liquidity=DEEP, instruments=RULE), scene(row(bid="100"), instruments=RULE),
        at=FIRST,
    ),
    "market.price_age": Scenario(
        "signal: market.price_age, symbol: A, at_least: 60s",
        scene(row(mark_price="1", at=0)), scene(row(mark_price="1", at=60)), scene(row(mark_price="1", at=None)),
        at=FIRST,
    ),
    "market.crossed": Scenario(
        "signal: market.crossed, symbol: A, is: true",
        scene(row(bid="101", ask="100")), scene(row(bid="100", ask="100")), scene(row(bid="100")),
        at=FIRST,
    ),
    "market.price_gap": Scenario(
        "signal: market.price_gap, symbol: A, a: mark, b: index, at_least: 1%",
        scene(row(mark_price="100", index_price="102")), scene(row(mark_price="100", index_price="100.1")),
        scene(row(mark_price="100")),
        at=FIRST,
    ),
    "market.venue_gap": Scenario(
        "signal: market.venue_gap, base: A/USDT, at_least: 2%",
        venues("100", "101", "95"), venues("100", "101", "100"), venues("100", "101", symbol="A/USDT:USDT-261225"),
        at=FIRST, scope=PORTFOLIO,
    ),
    "market.quorum": Scenario(
        "signal: market.quorum, symbol: A/USDT, below: 2",
        venues("100", None), venues("100", "101", "90"), None,
        at=FIRST, scope=PORTFOLIO,
    ),
    "market.state": Scenario(
        "when: 'market.state(\"A\", \"always\") == \"halted\"'",
        scene(instruments=HALTED), scene(instruments=RULE), scene(),
        at=FIRST,
    ),
    "market.peg_deviation": Scenario(
        "signal: market.peg_deviation, currency: USDT, at_least: 2%",
        recorded(*pegged("0.97", "0.97")), recorded(*pegged("0.999", "1.001", "0.9")), recorded(*pegged("0.95", "1")),
        at=FIRST, scope=IN_USD,
    ),
}  # fmt: skip
