"""The document `CatastropheStop`: stops that rest at the venue, and outlive the runner and the connection to it.

Prices of the orders of a position, of entry e, distance x, liquidation price l and `inside_liquidation` i:

| position                        | stop                           | take-profit                              |
|---------------------------------|--------------------------------|------------------------------------------|
| long                            | e × (1 − x), else l × (1 + i)  | none                                     |
| short                           | e × (1 + x), else l × (1 − i)  | none                                     |
| leg of a hedge, `pairs: both`   | as above                       | the stop of the other leg                |
| leg of a hedge, `pairs: accept` | as above                       | none                                     |
"""

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal

from pydantic import Field

from killswitch.policy.schema.cross_key_checks import Breach, spec_of
from killswitch.policy.schema.dead_man import Accounts
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, MistakeError, Part
from killswitch.policy.schema.scalars import ProperShare, Word, proper_share


class CatastropheStopSpec(Part):
    """A stop for each position, far from its entry, kept at the venue in step with the position."""

    accounts: Accounts
    """The accounts whose positions have stops: a list of names, or a match on their properties; `{}` is every
    account."""
    symbols: Annotated[tuple[Word, ...] | None, AtLeastOne()] = None
    """The symbols, as the venue writes them, whose positions have stops. Left out: all of them."""
    distance: ProperShare
    """How far the price moves against the position from `from` until the stop triggers. Below 10% it is hit on ordinary
    days."""
    anchor: Annotated[Literal["entry"], Field(alias="from")]
    """What the distance is measured from: the average entry of the position, or the mark at which it was first seen
    where the venue does not state the entry. Never the present mark, from which a stop would run away."""
    trigger: Literal["mark", "index", "last"]
    """The price that triggers the stop. Single trades move the last price, so that it also triggers where the mark
    never was."""
    inside_liquidation: ProperShare | None = None
    """Where the stop would lie beyond the liquidation price: how far inside it is placed instead, as a fraction of the
    liquidation price. Left out: there is none then, and operators are notified."""
    band: ProperShare
    """How much of the position may be without a stop, and how far the trigger may be from where it belongs as a
    fraction of the distance, before the stop is changed. A stop larger than the position is changed at once."""
    if_refused: Literal["exit", "none"]
    """What happens where the venue refuses the stop, or the price is there already. `exit` closes the position, `none`
    only notifies operators."""
    pairs: Literal["both", "accept"] | None = None
    """What happens to the legs of a `HedgeGroup`. `both`: both legs of one base have conditional orders at the same two
    prices, a stop and a take-profit, so that they end together. `accept`: each leg has a stop of its own, after which
    the other one is naked. Left out: no leg of a hedge may be covered."""


class CatastropheStopDocument(VersionedPart):
    """Stops at the venue that are kept in step with the positions, and remain while this program is dead."""

    kind: Literal["CatastropheStop"]
    spec: CatastropheStopSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """Check that a stop inside the liquidation price is not beyond the entry."""
        spec = spec_of(written)
        distance, inside = _share(spec.get("distance")), _share(spec.get("inside_liquidation"))
        if distance is not None and inside is not None and inside >= distance:
            message = "a stop this far inside the liquidation price would trigger before any loss"
            fix = "write less than `distance`, such as `inside_liquidation: 2%`"
            yield Breach("KS2290", ("spec", "inside_liquidation"), message, fix)


def _share(written: object) -> Decimal | None:
    """The fraction; None if it is not one, which its own key reports."""
    try:
        return None if written is None else proper_share(written)
    except (MistakeError, InvalidOperation, TypeError, ValueError):
        return None
