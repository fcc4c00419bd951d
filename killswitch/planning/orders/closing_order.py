"""The sequence of the orders of a decision, when each of them goes, and what it does to the variance on the way.

A decision closes by rank, by the component risk of what is left, or a part of every position in turn (`slices` of its
unwinding); legs of one base asset are then put in an order of their own within their places (`hedge_legs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from msgspec import Struct

from killswitch.graph.unwinding import UnwindingRule
from killswitch.model.decision import Intent, Schedule, Unwinding
from killswitch.planning.orders.slices import Cut
from killswitch.planning.targets.spread import BookRisk
from killswitch.risk.closing_order import by_share, in_turn, peak_variance, risk_first


class ClosingOrder(Struct, frozen=True):
    """How the orders of a decision follow each other.

    `is_risk_first`: by the component risk of what is left, where `risk` is known. `places`: symbol → the place of its
    correlation group, of which a smaller one closes first; symbols without one close last.
    """

    is_risk_first: bool = False
    risk: BookRisk | None = None
    places: Mapping[str, tuple[float, int]] = {}


BY_RANK = ClosingOrder()
"""Orders in the order of the targets, of a book whose risk is not known."""


def in_order(cuts: Sequence[Cut], rule: UnwindingRule, order: ClosingOrder) -> list[int]:
    """The index of the cut of each slice, in the order of closing."""
    counts, risk = [len(cut.result.parts) for cut in cuts], _risk_of(cuts, order)
    if rule.slices is not None and risk is None:
        return by_share(counts)
    if risk is None or not (order.is_risk_first or rule.slices is not None):
        return [i for i, count in enumerate(counts) for _ in range(count)]
    own = _places_in(risk, cuts)
    slices = _slices(risk, own)
    if rule.slices is not None:
        sequence = in_turn(risk.exposures, risk.covariance, slices)
    else:
        sequence = risk_first(risk.exposures, risk.covariance, slices, _turns(risk, own, order))
    index = {cut.candidate.key: number for number, cut in enumerate(cuts)}
    return [index[risk.keys[i]] for i in sequence]


def _turns(risk: BookRisk, own: Mapping[int, Cut], order: ClosingOrder) -> list[int]:
    """The place of the group of each position, by place in the book's risk; the last for symbols without one."""
    numbers = {place: number for number, place in enumerate(sorted(set(order.places.values())))}
    turns = [len(numbers)] * len(risk.keys)
    for i, cut in own.items():
        place = order.places.get(cut.candidate.position.symbol)
        turns[i] = len(numbers) if place is None else numbers[place]
    return turns


def peak_of(cuts: Sequence[Cut], sequence: Sequence[int], order: ClosingOrder) -> float | None:
    """The largest variance after an order ÷ that at the start; None while the risk of the book is unknown."""
    risk = _risk_of(cuts, order)
    if risk is None:
        return None
    own = _places_in(risk, cuts)
    places = {cut.candidate.key: i for i, cut in own.items()}
    steps = [places[cuts[number].candidate.key] for number in sequence]
    return peak_variance(risk.exposures, risk.covariance, _slices(risk, own), steps)


def _risk_of(cuts: Sequence[Cut], order: ClosingOrder) -> BookRisk | None:
    """The risk of the book; None while it is unknown, or a leg on an account outside of it is closed, too."""
    if order.risk is None or not {cut.candidate.key for cut in cuts} <= set(order.risk.keys):
        return None
    return order.risk


def _places_in(risk: BookRisk, cuts: Sequence[Cut]) -> dict[int, Cut]:
    """The place in the book's risk of each cut."""
    places = {key: i for i, key in enumerate(risk.keys)}
    return {places[cut.candidate.key]: cut for cut in cuts}


def _slices(risk: BookRisk, own: Mapping[int, Cut]) -> list[list[float]]:
    """The exposure that each order closes, by place in the book's risk."""
    found: list[list[float]] = [[] for _ in risk.keys]
    for i, cut in own.items():
        held = cut.candidate.position.contracts
        found[i] = [risk.exposures[i] * float(part / held) for part in cut.result.parts]
    return found


def schedule_of(
    intents: Sequence[Intent], unwinding: Unwinding | None, groups: Iterable[tuple[str, ...]], peak: float | None
) -> Schedule:
    """When each order may go, by the declared pace: in seconds after the first, or at once without one.

    As the executor counts: the orders of an account are evenly spaced, and two slices of one position are a pause
    apart. An order that fills late, or rests, delays those after it.
    """
    every = 60.0 / unwinding.max_orders_per_minute if unwinding and unwinding.max_orders_per_minute else 0.0
    pause = unwinding.pause or 0.0 if unwinding else 0.0
    at: list[float] = []
    next_of: dict[str, float] = {}
    last_of: dict[tuple[str, str, str], float] = {}
    for intent in intents:
        key = (intent.account, intent.symbol, intent.position_side)
        begins = max(next_of.get(intent.account, 0.0), last_of.get(key, -pause) + pause)
        next_of[intent.account], last_of[key] = begins + every, begins
        at.append(round(begins, 3))
    is_paced = bool(every or pause)
    return Schedule(
        tuple(at) if is_paced else (),
        max(at, default=0.0) if is_paced else None,
        None if peak is None else Decimal(f"{peak:.4f}"),
        tuple(groups),
    )
