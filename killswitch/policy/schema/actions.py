"""What an action may say: one part for each kind, and `Action`, which holds exactly one of them."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from killswitch.model.words import LockMode
from killswitch.policy.schema.part import AtLeastOne, Part
from killswitch.policy.schema.scalars import Duration, Expression, Fraction, Name, RankCount, Word


class LockTrading(Part):
    """Tell the bots to stop."""

    mode: Annotated[LockMode, Field(description="`reduce_only` forbids new risk; `all` forbids every order.")]
    duration: Annotated[Duration | None, Field(alias="for", description="How long. Left out: until it is lifted.")] = (
        None
    )


class CancelOrders(Part):
    """Cancel resting orders."""

    kind: Annotated[
        Literal["entry", "all"], Field(description="`entry` cancels what would add risk; `all` protective orders too.")
    ]


class Close(Part):
    """Close positions, worst first."""

    side: Annotated[
        Literal["losing", "long", "short", "both"],
        Field(description="Which positions. `losing` needs the stage's `attribution`."),
    ]
    rank: Annotated[Name, Field(description="The ranking that orders them. Left out: `default`.")] = "default"
    top: Annotated[RankCount | None, Field(description="Only so many, by rank. Left out: all selected.")] = None
    worst: Annotated[
        Fraction | None,
        Field(
            description=(
                "When attribution falls back to `worst_ranked`: this part of the positions by rank, at least one. "
                "Left out: all of them, or `top`."
            )
        ),
    ] = None
    fraction: Annotated[Fraction, Field(description="How much of each position to close.")]
    share_cap: Annotated[
        Fraction | None,
        Field(
            description=(
                "After the close no selected position is worth more than this part of the scope's gross notional at "
                "firing. Gross counts what is known, which can only lower the cap; a selected position whose worth is "
                "unknown is closed wholly, and the decision says so. Left out: no cap."
            )
        ),
    ] = None
    spread: Annotated[
        Literal["each", "by_rank"],
        Field(
            description=(
                "`each` closes the fraction of every selected position; `by_rank` closes the fraction of the selected "
                "gross, from the worst ranked on. By component risk that is the cut which leaves the scope's P&L "
                "with the least variance. While a worth or the component risk is unknown it closes as `each`, and the "
                "decision says so. Left out: each."
            )
        ),
    ] = "each"
    all_if: Annotated[
        Expression | None,
        Field(description="A condition over `position.*` signals; where true, all of the position. Left out: never."),
    ] = None
    symbols: Annotated[
        tuple[Word, ...] | None,
        AtLeastOne(),
        Field(description="Only these symbols, or base assets of spot symbols. Left out: any."),
    ] = None
    except_assets: Annotated[
        tuple[Word, ...], Field(description="Base assets that are never sold. Left out: none.")
    ] = ()
    unwinding: Annotated[
        Name | None,
        Field(
            description=(
                "The Unwinding by which it is carried out. Left out: the one called `default` where there is one, "
                "else market orders as fast as the venue allows."
            )
        ),
    ] = None


class Action(Part):
    """One thing to do: exactly one key. The order of acting is the program's, not the file's."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    lock_trading: Annotated[LockTrading | None, Field(description="Tell the bots to stop.")] = None
    cancel_orders: Annotated[CancelOrders | None, Field(description="Cancel resting orders.")] = None
    close: Annotated[Close | None, Field(description="Close positions.")] = None

    @property
    def written(self) -> Mapping[str, Part]:
        """Key → what stands below it: one of a sound document, none where it could not be read."""
        return {key: part for key in ACTIONS if (part := getattr(self, key)) is not None}


ACTIONS = tuple(Action.model_fields)
"""The keys of all actions."""
