"""Rankings: the four that are always there, and those that documents declare."""

from __future__ import annotations

from decimal import Decimal

from killswitch.graph.nodes import RankingRule, RankingTerm
from killswitch.model.instant import HOUR, MINUTE
from killswitch.policy.ranking import RankingSpec

TERMS: tuple[RankingTerm, ...] = ("pnl_delta", "loss", "liquidation_proximity", "notional_share", "margin_loss")

SEED_WEIGHTS: tuple[tuple[RankingTerm, float], ...] = tuple(zip(TERMS, (0.40, 0.25, 0.20, 0.10, 0.05), strict=True))
"""0.40 × P&L delta + 0.25 × loss + 0.20 × liquidation proximity + 0.10 × notional share + 0.05 × margin loss."""

BUILT_IN: dict[str, RankingRule] = {
    "default": RankingRule("default", "normalised", SEED_WEIGHTS, 15 * MINUTE),
    "killswitch-v6": RankingRule("killswitch-v6", "killswitch-v6", SEED_WEIGHTS, 15 * MINUTE),
    # Four hours of minutes: recent enough for how things move today. Thirty returns are enough to begin with, because
    # the covariance is shrunk; five-minute bars of four hours, which are 48, are enough too.
    "component-risk": RankingRule(
        "component-risk", "component-risk", SEED_WEIGHTS, 4 * HOUR, sample=MINUTE, least=30, if_unknown="normalised"
    ),
    "genesis": RankingRule("genesis", "genesis", (), 4 * HOUR, sample=MINUTE, least=30),
}


def ranking(name: str, spec: RankingSpec) -> RankingRule:
    """The ranking that a document declares."""
    return RankingRule(
        name,
        spec.formula,
        _weights(spec),
        spec.window,
        spec.sample,
        spec.least or 0,
        spec.if_unknown,
    )


def _weights(spec: RankingSpec) -> tuple[tuple[RankingTerm, float], ...]:
    if spec.formula == "genesis":
        return ()
    if spec.weights is None:
        return SEED_WEIGHTS
    values: list[tuple[RankingTerm, Decimal]] = [(term, getattr(spec.weights, term)) for term in TERMS]
    return tuple((term, float(value)) for term, value in values)
