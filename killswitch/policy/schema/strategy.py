"""The documents `Strategy`, what one strategy owns in an account, and `HedgeGroup`, legs that hedge each other."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import StrictBool

from killswitch.policy.schema.cross_key_checks import Breach, items, mapping, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, Part
from killswitch.policy.schema.policy import Match
from killswitch.policy.schema.scalars import Price, Word, Words

_IDENTIFIED_BY = ("order_ids", "symbols", "named")


class StrategySpec(Part):
    """Which positions, orders and fills belong to the strategy.

    What the venue states as `strategy` counts first, then the client order id, then the symbol. In one-way mode
    strategies that trade the same symbol share one net position: the part of each is the sum of its own fills.
    """

    match: Match
    """The accounts in which it trades; `{}` is every account."""
    whole: StrictBool = False
    """Whether everything in these accounts is its own. Only then it has an equity, that of the accounts. Left out: no.
    """
    order_ids: Words | None = None
    """How the client order ids of its orders begin. Left out: no order is identified by its id."""
    symbols: Words | None = None
    """Symbols, as the venue writes them, in which positions, orders and fills are its own, except those that are
    identified as another strategy's. Left out: none."""
    named: Words | None = None
    """Its names in the `strategy` that venues or recordings state of positions, orders and fills. Left out: none."""


class StrategyDocument(VersionedPart):
    """A strategy: what it owns in accounts that several share."""

    kind: Literal["Strategy"]
    spec: StrategySpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """A strategy owns a whole account, or is identified by at least one key."""
        spec = spec_of(written)
        given = [key for key in _IDENTIFIED_BY if key in spec]
        if spec.get("whole") is True and given:
            message = f"everything in these accounts is its own, so that `{given[0]}` identifies nothing"
            yield Breach("KS2271", ("spec", given[0]), message, "take it out, or `whole: true`")
        elif spec and not given and spec.get("whole") is not True:
            fix = "add `order_ids`, `symbols` or `named`, or `whole: true` where nothing else trades in the accounts"
            yield Breach("KS2270", ("spec",), "nothing identifies what belongs to this strategy", fix)


class HedgeLeg(Part):
    """One leg of a hedge: the position of an account in a symbol."""

    account: Word
    """The name of the account."""
    symbol: Word
    """The symbol, as the venue writes it."""
    ratio: Price
    """Base units of the hedge in one base unit of the leg: 1 for spot against a perpetual of the same coin."""


class HedgeGroupSpec(Part):
    """Positions that hedge each other, across symbols and accounts."""

    legs: Annotated[tuple[HedgeLeg, ...], AtLeastOne()]
    """The legs, at least two. The net of the hedge is the sum of their base units × ratio, negative for short."""


class HedgeGroupDocument(VersionedPart):
    """A declared hedge: legs that belong together."""

    kind: Literal["HedgeGroup"]
    spec: HedgeGroupSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """A hedge has at least two legs, none of them twice."""
        legs = items(spec_of(written).get("legs"))
        if len(legs) == 1:
            yield Breach("KS2272", ("spec", "legs"), "one leg hedges nothing", "add the leg on the other side")
        seen: set[tuple[str, str]] = set()
        for number, leg in enumerate(legs):
            key = (str(mapping(leg).get("account")), str(mapping(leg).get("symbol")))
            if key in seen:
                message = f"the leg {key[1]} of {key[0]} is listed twice"
                yield Breach("KS2273", ("spec", "legs", number), message, "list it once, with its whole ratio")
            seen.add(key)
