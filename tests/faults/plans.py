"""The plan of a seed: a book, its decisions, and events besides failing requests."""

from __future__ import annotations

import random
from collections.abc import Mapping
from decimal import ROUND_FLOOR, Decimal

from msgspec import Struct, field
from msgspec.structs import replace

from killswitch.model.decision import Rung, Unwinding
from killswitch.model.venue import Cost, RateLimit, VenueDescription
from killswitch.planning.targets.neutral import ExposedLeg, WeightedBase, fewest_cuts
from tests.faults.exchange import ZERO, Key, Mode

SYMBOLS = ("BTC", "ETH", "SOL", "XRP", "ADA", "DOT", "LTC", "BNB")
CAREFUL = Unwinding(
    "careful", (Rung("limit_ioc"), Rung("limit_ioc", Decimal(3), tries=2), Rung("market", tries=2), Rung("limit"))
)
IN_TURN = Unwinding("in-turn", max_orders_per_minute=240, is_sliced=True)
LIMITS = (RateLimit("orders", 3, 0.5), RateLimit("weight", 30, 5.0, by="address"))
COSTS = (
    Cost("submit", "orders", each=1),
    Cost("submit_batch", "orders", each=1),
    Cost("submit", "weight", units=1),
    Cost("submit_batch", "weight", units=1),
    Cost("snapshot", "weight", units=2),
    Cost("find_order", "weight", units=1),
    Cost("open_orders", "weight", units=1),
    Cost("cancel", "weight", units=1),
)


UNLIMITED = VenueDescription()


class Plan(Struct, frozen=True):
    """`hands`: (second, position, change by others). `takings`: (second, position, contracts that the venue takes).

    `deaths`: seconds of kill and restart. `stops`: positions with a stop over all of them, which blocks their close.
    """

    mode: Mode
    book: Mapping[Key, Decimal]
    targets: tuple[tuple[float, Mapping[Key, Decimal]], ...]
    reduce_only: bool = True
    traits: VenueDescription = UNLIMITED
    hands: tuple[tuple[float, Key, Decimal], ...] = ()
    takings: tuple[tuple[float, Key, Decimal], ...] = ()
    deaths: tuple[float, ...] = ()
    shares: Mapping[str, tuple[Decimal, ...]] = field(default_factory=dict)
    slips: Mapping[str, Decimal] = field(default_factory=dict)
    stops: tuple[Key, ...] = ()
    unwinding: Unwinding | None = None
    slices: int = 1
    """Parts of each position that go in turn, at the pace of `IN_TURN`."""
    hedge: tuple[float, Key, Decimal] | None = None
    """(second, position, contracts) of a hedge that a decision of its own opens."""
    halts: tuple[float, ...] = ()
    """Seconds at which a halt cancels what adds risk: the halt itself, and then again."""
    entries: tuple[tuple[float, Key, Decimal], ...] = ()
    """(second, position, contracts) of orders of a bot that would enlarge a position, and rest."""
    exits: tuple[Key, ...] = ()
    """Positions that are not closed, with a stop and a target of a bot over half of each."""


def plain_plan(chance: random.Random, positions: int | None) -> Plan:
    """Everything is closed whole by one decision, and only calls fail."""
    book: dict[Key, Decimal] = {
        (symbol, chance.choice(("long", "short"))): Decimal(chance.randint(1, 100))
        for symbol in _symbols(positions or chance.randint(1, 6))
    }
    return Plan("one_way", book, ((0.0, dict.fromkeys(book, ZERO)),))


def disturbed_plan(chance: random.Random, positions: int | None) -> Plan:
    """Any event may happen."""
    symbols = _symbols(positions or chance.randint(1, 6))
    mode: Mode = chance.choice(("one_way", "one_way", "hedge", "spot"))
    book = _book(chance, mode, symbols)
    keys = sorted(book)
    others, taken, stopped = chance.random() < 0.4, chance.random() < 0.2, mode != "spot" and chance.random() < 0.3
    return Plan(
        mode,
        book,
        _targets(chance, book),
        reduce_only=mode != "spot",
        traits=_traits(chance),
        hands=tuple(
            (chance.uniform(0, 15), chance.choice(keys), Decimal(chance.randint(-30_000, 10_000)) / 1000)
            for _ in range(chance.randint(1, 3) if others else 0)
        ),
        takings=tuple(
            (chance.uniform(0, 15), chance.choice(keys), Decimal(chance.randint(1, 30_000)) / 1000)
            for _ in range(chance.randint(1, 2) if taken else 0)
        ),
        deaths=tuple(chance.uniform(0, 15) for _ in range(chance.choice((0, 0, 1, 2)))),
        shares={symbol: tuple(Decimal(chance.randint(0, 4)) / 4 for _ in range(2)) for symbol in symbols[:2]},
        slips={symbol: Decimal(chance.choice(("0", "0.004", "0.01", "0.03"))) for symbol in symbols},
        stops=tuple(chance.sample(keys, chance.randint(1, len(keys)))) if stopped else (),
        unwinding=CAREFUL if chance.random() < 0.3 else None,
    )


def neutral_plan(chance: random.Random, positions: int | None) -> Plan:
    """A disturbed book that is neutralised twice, by random betas, and whose rest is hedged in a symbol of its own.

    The second decision is computed from the book as it was, like one on a snapshot that shows no fill of the first.
    """
    plan = disturbed_plan(chance, positions or chance.randint(2, 6))
    legs = [ExposedLeg(key[0], Decimal(1 if key[1] == "long" else -1), held, key=("main", *key))
            for key, held in sorted(plan.book.items())]  # fmt: skip
    moments = []
    for second in (0.0, chance.choice((0.0, 0.1, 5.0))):
        weights = {leg.base: WeightedBase(Decimal(1), Decimal(chance.randint(-5, 20)) / 10) for leg in legs}
        cuts = fewest_cuts(legs, weights, lambda _, most: most.quantize(Decimal("0.001"), ROUND_FLOOR))
        sold = {key: cuts.contracts.get(("main", *key), ZERO) for key in plan.book}
        moments.append((second, {key: plan.book[key] - cut for key, cut in sold.items() if cut}))
    side = chance.choice(("long",) if plan.mode == "spot" else ("long", "short"))
    hedge = (chance.choice((0.0, 2.0, 8.0)), ("HEDGE", side), Decimal(chance.randint(1, 30_000)) / 1000)
    targets = tuple(moment for moment in moments if moment[1]) or plan.targets
    return replace(plan, targets=targets, hedge=hedge)


KEPT: tuple[Key, ...] = (("KEPT", "long"), ("ALSO", "short"))
AGAIN: tuple[float, ...] = (0.0, 1.0, 3.0, 8.0, 16.0, 35.0)
"""Seconds after a halt at which it cancels: the last time after the longest that an order can be on its way."""


def halted_plan(chance: random.Random, positions: int | None) -> Plan:
    """A disturbed close with a halt in the middle of it, while a bot sends entries that arrive up to 2 s after it."""
    plan = disturbed_plan(chance, positions)
    while plan.mode == "spot":
        plan = disturbed_plan(chance, positions)
    book = {**plan.book, **{key: Decimal(chance.randint(2, 50)) for key in KEPT}}
    halt = chance.uniform(0, 6)
    entries = tuple(
        (chance.uniform(0, halt + 2), chance.choice(sorted(book)), Decimal(chance.randint(1, 20_000)) / 1000)
        for _ in range(chance.randint(2, 6))
    )
    halts = tuple(halt + after for after in AGAIN)
    traits = replace(plan.traits, whole_book=False)  # a whole-book close would take the kept positions as well
    return replace(plan, book=book, hands=(), halts=halts, entries=entries, exits=KEPT, traits=traits)


def _symbols(count: int) -> list[str]:
    return [SYMBOLS[number] if number < len(SYMBOLS) else f"S{number}" for number in range(count)]


def _book(chance: random.Random, mode: Mode, symbols: list[str]) -> dict[Key, Decimal]:
    book: dict[Key, Decimal] = {}
    for symbol in symbols:
        sides = ("long",) if mode == "spot" else (chance.choice(("long", "short")),)
        for side in ("long", "short") if mode == "hedge" and chance.random() < 0.5 else sides:
            book[symbol, side] = Decimal(chance.randint(1, 100_000)) / 1000
    return book


def _targets(chance: random.Random, book: Mapping[Key, Decimal]) -> tuple[tuple[float, Mapping[Key, Decimal]], ...]:
    decisions = []
    for number in range(chance.choice((1, 1, 1, 2, 3))):
        keys = chance.sample(sorted(book), chance.randint(1, len(book)))
        left = Decimal(chance.choice(("0", "0", "0.25", "0.5")))
        targets = {key: (book[key] * left).quantize(Decimal("0.001")) for key in keys}
        decisions.append((number * chance.choice((0.0, 0.1, 5.0)), targets))
    return tuple(sorted(decisions, key=lambda decision: decision[0]))


def _traits(chance: random.Random) -> VenueDescription:
    batch = chance.choice((1, 1, 5))
    limited = chance.random() < 0.3
    return VenueDescription(
        limits=LIMITS if limited else (),
        costs=COSTS if limited else (),
        batch=batch,
        whole_book=chance.random() < 0.2,
    )
