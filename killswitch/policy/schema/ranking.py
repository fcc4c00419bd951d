"""What a `Ranking` and a `CorrelationGroup` hold: in which order positions are closed."""

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
    """The weight of each term; a term left out weighs nothing."""

    pnl_delta: Weight = Decimal(0)
    """Loss over the window."""
    loss: Weight = Decimal(0)
    """Current unrealised loss."""
    liquidation_proximity: Weight = Decimal(0)
    """Nearness to liquidation."""
    notional_share: Weight = Decimal(0)
    """Part of the gross notional."""
    margin_loss: Weight = Decimal(0)
    """Loss as part of the margin."""


class RankingSpec(Part):
    """In which order positions are closed."""

    # which formula has them is for `checks`: a schema of keys by the value of another says nothing in an editor
    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {"sample": ["least"], "least": ["sample"], "if_unknown": ["sample", "least"]}
        }
    )

    formula: Literal["normalised", "killswitch-v6", "component-risk", "genesis"]
    """How the terms become a score. Two have no terms and go by the returns of the marks over the window:
    `component-risk` is a position's share of the variance of the scope's P&L; `genesis` is share of the gross ×
    standard deviation of returns × fall of the P&L, the last two ÷ the book's largest, where an unknown factor counts
    as the worst in the book."""
    weights: Weights | None = None
    """Of the terms; with `component-risk` those of `if_unknown`, with `genesis` none. Left out: 0.40, 0.25, 0.20, 0.10,
    0.05 in the order of the terms."""
    window: Duration
    """Time over which the loss is taken when no trigger's window is at hand; with `component-risk` and `genesis` also
    the returns."""
    sample: Duration | None = None
    """Of `component-risk` and `genesis`, which need it: the time between two marks. Left out: not recorded."""
    least: ReturnCount | None = None
    """Of `component-risk` and `genesis`, which need it: with fewer returns in the window the component risk, or the
    volatility of the position, is unknown. Left out: not asked."""
    if_unknown: Literal["normalised", "killswitch-v6"] | None = None
    """Of `component-risk`, which needs it: the formula that ranks while the component risk is unknown; the decision
    says so. Left out: not asked."""


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
    """Symbols that fall together, closed in one place of the order."""

    symbols: Annotated[tuple[Word, ...], AtLeastOne()]
    order: OrderNumber
    """Groups with a smaller number close first."""


class CorrelationGroupDocument(VersionedPart):
    """A group of correlated symbols."""

    kind: Literal["CorrelationGroup"]
    spec: CorrelationGroupSpec
