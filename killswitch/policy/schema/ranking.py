"""The `Ranking` and `CorrelationGroup` documents: the order in which positions are closed."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import ConfigDict

from killswitch.policy.schema import cross_key_checks
from killswitch.policy.schema.cross_key_checks import Breach
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, Part
from killswitch.policy.schema.scalars import Duration, OrderNumber, ReturnCount, Weight, Word


class Weights(Part):
    """The weight of each term; a term that is left out has weight 0."""

    pnl_delta: Weight = Decimal(0)
    """Loss over the window."""
    loss: Weight = Decimal(0)
    """Current unrealised loss."""
    liquidation_proximity: Weight = Decimal(0)
    """Proximity to liquidation."""
    notional_share: Weight = Decimal(0)
    """Share of the gross notional."""
    margin_loss: Weight = Decimal(0)
    """Loss as a fraction of the margin."""
    bleed_rate: Weight = Decimal(0)
    """How fast it loses, by `position.bleed_rate`."""


class RankingSpec(Part):
    """The order in which positions are closed."""

    # which formula has them is for `checks`: a schema of keys by the value of another says nothing in an editor
    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {"sample": ["least"], "least": ["sample"], "if_unknown": ["sample", "least"]}
        }
    )

    formula: Literal["normalised", "killswitch-v6", "component-risk", "genesis"]
    """How terms are combined into a score. Two formulas have no terms and use the returns of the marks over the window:
    `component-risk` is a position's share of the variance of the scope's P&L; `genesis` is share of the gross ×
    standard deviation of returns × fall of the P&L, the last two ÷ the book's largest, where an unknown factor counts
    as the worst in the book."""
    weights: Weights | None = None
    """The weights of the terms; with `component-risk` those of `if_unknown`, with `genesis` none. Left out: 0.40, 0.25,
    0.20, 0.10, 0.05 in the order of the terms, and none for `bleed_rate`."""
    window: Duration
    """The window of the loss where no trigger provides one; with `component-risk` and `genesis` also of the returns."""
    sample: Duration | None = None
    """The interval between two marks; required by `component-risk` and `genesis`. Left out: marks are not recorded."""
    least: ReturnCount | None = None
    """The minimum number of returns in the window; required by `component-risk` and `genesis`. With fewer, the
    component risk, or the volatility of the position, is unknown. Left out: not used."""
    if_unknown: Literal["normalised", "killswitch-v6"] | None = None
    """The formula to use while the component risk is unknown; required by `component-risk`. The decision records its
    use. Left out: not used."""


class RankingDocument(VersionedPart):
    """A ranking of positions."""

    BUILT_IN = frozenset({"default", "killswitch-v6", "component-risk", "genesis"})

    kind: Literal["Ranking"]
    spec: RankingSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """See `cross_key_checks`."""
        return cross_key_checks.ranking(written)


class CorrelationGroupSpec(Part):
    """Correlated symbols, which are closed together."""

    symbols: Annotated[tuple[Word, ...], AtLeastOne()]
    order: OrderNumber
    """Groups with a smaller number close first."""


class CorrelationGroupDocument(VersionedPart):
    """A group of correlated symbols."""

    kind: Literal["CorrelationGroup"]
    spec: CorrelationGroupSpec
