"""What an action may say: one part for each kind, and `Action`, which holds exactly one of them."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from killswitch.model.words import LockMode
from killswitch.policy.schema.part import AtLeastOne, Part
from killswitch.policy.schema.scalars import Duration, Expression, Fraction, Name, RankCount, Word


class LockTrading(Part):
    """Tell the bots to stop."""

    mode: LockMode
    """`reduce_only` forbids new risk; `all` forbids every order."""
    duration: Annotated[Duration | None, Field(alias="for")] = None
    """How long. Left out: until it is lifted."""


class CancelOrders(Part):
    """Cancel resting orders."""

    kind: Literal["entry", "all"]
    """`entry` cancels what would add risk; `all` protective orders too."""


class Close(Part):
    """Close positions, worst first."""

    side: Literal["losing", "long", "short", "both"]
    """Which positions. `losing` needs the stage's `attribution`."""
    rank: Name = "default"
    """The ranking that orders them. Left out: `default`."""
    top: RankCount | None = None
    """Only so many, by rank. Left out: all selected."""
    worst: Fraction | None = None
    """When attribution falls back to `worst_ranked`: this part of the positions by rank, at least one. Left out: all of
    them, or `top`."""
    fraction: Fraction
    """How much of each position to close."""
    share_cap: Fraction | None = None
    """After the close no selected position is worth more than this part of the scope's gross notional at firing. Gross
    counts what is known, which can only lower the cap; a selected position whose worth is unknown is closed wholly, and
    the decision says so. Left out: no cap."""
    spread: Literal["each", "by_rank"] = "each"
    """`each` closes the fraction of every selected position; `by_rank` closes the fraction of the selected gross, from
    the worst ranked on. By component risk that is the cut which leaves the scope's P&L with the least variance. While a
    worth or the component risk is unknown it closes as `each`, and the decision says so. Left out: each."""
    all_if: Expression | None = None
    """A condition over `position.*` signals; where true, all of the position. Left out: never."""
    symbols: Annotated[tuple[Word, ...] | None, AtLeastOne()] = None
    """Only these symbols, or base assets of spot symbols. Left out: any."""
    except_assets: tuple[Word, ...] = ()
    """Base assets that are never sold. Left out: none."""
    unwinding: Name | None = None
    """The Unwinding by which it is carried out. Left out: the one called `default` where there is one, else market
    orders as fast as the venue allows."""


class Action(Part):
    """One thing to do: exactly one key. The order of acting is the program's, not the file's."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    lock_trading: LockTrading | None = None
    """Tell the bots to stop."""
    cancel_orders: CancelOrders | None = None
    """Cancel resting orders."""
    close: Close | None = None
    """Close positions."""

    @property
    def written(self) -> Mapping[str, Part]:
        """Key → what stands below it: one of a sound document, none where it could not be read."""
        return {key: part for key in ACTIONS if (part := getattr(self, key)) is not None}


ACTIONS = tuple(Action.model_fields)
"""The keys of all actions."""
