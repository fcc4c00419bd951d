"""The `Ranking` and `CorrelationGroup` documents: the order in which positions are closed."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import ConfigDict

from killswitch.policy.schema import cross_key_checks
from killswitch.policy.schema.cross_key_checks import Breach, items, mapping, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, Part
from killswitch.policy.schema.scalars import (
    Duration,
    Fraction,
    Number,
    OrderNumber,
    ReturnCount,
    Weight,
    Word,
    plain_number,
)

DEFAULT_JOIN = Decimal("0.7")
DEFAULT_LEAVE = Decimal("0.6")


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


class DeclaredCorrelation(Part):
    """The correlation of two symbols, as a number."""

    between: tuple[Word, Word]
    """The two symbols."""
    value: Number
    """Their correlation, from -1 to 1. All numbers of a group together must be a correlation matrix."""


class GroupEstimate(Part):
    """How the correlations of a group are estimated from the marks of what is held and watched.

    The estimate is not shrunk, because shrinkage dissolves every group in a crash.
    """

    every: Duration
    """The interval between two marks."""
    window: Duration
    """The window of the returns, at least 24h."""
    least: ReturnCount
    """The minimum number of returns in the window, at least 250. A pair with fewer is in doubt."""
    method: Literal["winsorised", "spearman"]
    """`winsorised`: returns beyond median ± 4 × 1.4826 × MAD are set to that bound. `spearman`: rank correlation."""
    residual_to: Word | None = None
    """A hub, such as the symbol of bitcoin: what its returns explain is taken out of all others. In a crash everything
    is one group, and what separates symbols is this residual. Left out: nothing is taken out."""


class CorrelationGroupSpec(Part):
    """Correlated symbols, which are closed together and limited together.

    Without `correlations` and `estimate` all symbols are one group. With either, the symbols form as many groups as
    their correlations say: every pair in a group is linked, and a symbol that is linked to no other is its own group. A
    pair whose 95% interval includes the threshold, or whose correlation is unknown, is in one group for exposure
    signals and for the order of closing, and in two for netting and hedges.
    """

    symbols: Annotated[tuple[Word, ...], AtLeastOne()]
    """Symbols as the venues write them, or patterns in which `*` is any text."""
    order: OrderNumber
    """Groups with a smaller number close first."""
    correlations: Annotated[tuple[DeclaredCorrelation, ...] | None, AtLeastOne()] = None
    """Declared correlations; those of pairs that are not listed are unknown. Left out: none is declared."""
    estimate: GroupEstimate | None = None
    """How correlations are estimated, at most once an hour. Left out: they are not."""
    join: Fraction = DEFAULT_JOIN
    """The correlation from which symbols are in one group. Left out: 0.7."""
    leave: Fraction = DEFAULT_LEAVE
    """The correlation below which symbols that were in one group at the last estimate leave it. Left out: 0.6."""


class CorrelationGroupDocument(VersionedPart):
    """A group of correlated symbols."""

    kind: Literal["CorrelationGroup"]
    spec: CorrelationGroupSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """Correlations are declared or estimated; a pair is two symbols of the group, listed once."""
        spec = spec_of(written)
        if "correlations" in spec and "estimate" in spec:
            fix = "keep one of them; a second group may have the other for its own symbols"
            message = "correlations are either declared or estimated"
            yield Breach("KS2276", ("spec", "estimate"), message, fix)
        join, leave = (plain_number(spec.get(key, default)) for key, default in _DEFAULTS)
        if join is not None and leave is not None and leave > join:
            message = f"symbols leave a group at {leave:f}, above the {join:f} from which they join it"
            yield Breach(
                "KS2278", ("spec", "leave" if "leave" in spec else "join"), message, "write `leave` below `join`"
            )
        yield from _pairs(spec)


_DEFAULTS = (("join", DEFAULT_JOIN), ("leave", DEFAULT_LEAVE))


def _pairs(spec: dict[str, object]) -> Iterator[Breach]:
    """Check that a declared pair is two symbols, listed once, with a number that a correlation can have."""
    seen: set[frozenset[str]] = set()
    for number, each in enumerate(items(spec.get("correlations"))):
        at = ("spec", "correlations", number)
        value, names = plain_number(mapping(each).get("value")), [str(it) for it in items(mapping(each).get("between"))]
        if value is not None and abs(value) > 1:
            yield Breach("KS2277", (*at, "value"), f"{value:f} is no correlation", "write a number from -1 to 1")
        if len(names) == 2 and names[0] == names[1]:
            message = f"`{names[0]}` is listed with itself"
            yield Breach("KS2277", (*at, "between"), message, "write two symbols")
        elif len(names) == 2 and frozenset(names) in seen:
            message = f"the pair {names[0]} and {names[1]} is listed twice"
            yield Breach("KS2277", (*at, "between"), message, "keep one number of it")
        seen.add(frozenset(names))
