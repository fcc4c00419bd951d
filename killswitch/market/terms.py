"""Terms of a paper venue: request limits, batches, strictness and delays."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from killswitch.model.venue import ClientIdRule, ConditionalOrderRule, Cost, RateLimit, VenueDescription

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
LONGEST_LAG = 10 * 365 * 86_400.0
"""Largest lag in seconds: ten years."""
ONE_PRICE = ConditionalOrderRule(("mark", "index", "last"))
"""What triggers a conditional order of a paper venue, whose market has one price."""
_TRAITS = ("limits", "costs", "batch", "whole_book", "client_ids")


class VenueTerms(Struct, frozen=True):
    """The terms of a paper venue. By default it has no request limits, no additional restrictions, and no liquidity."""

    traits: VenueDescription = VenueDescription(enforces_reduce_only=True)
    """The limits are enforced; a batch of more orders than `batch`, or a whole-book close without it, is refused."""
    checks_client_ids: bool = False
    """A client order id that `traits.client_ids` does not allow is refused."""
    resting_exits_block: bool = False
    """As Binance's −4118: while resting orders already cover all that is held, a further exit is refused."""
    shows_liquidity: bool = False
    """Whether snapshots include the liquidity of each market."""
    fill_lag: float = 0.0
    """Seconds after which a snapshot shows a fill. A query for the fills of one order returns them at once."""
    flow_lag: float = 0.0
    """Seconds after which a snapshot shows a flow."""

    def __post_init__(self) -> None:
        traits = self.traits
        names = [limit.name for limit in traits.limits]
        for limit in traits.limits:
            if not _NAME.fullmatch(limit.name) or names.count(limit.name) > 1:
                raise ValueError(f"limit {limit.name!r}: a name is of letters, digits, _ . and -, and is given once")
            if limit.allowed < 1 or not 0 < limit.per < float("inf"):
                raise ValueError(f"limit {limit.name}: allowed and per must be above zero")
        for cost in traits.costs:
            if cost.limit not in names:
                raise ValueError(f"the cost of {cost.call} refers to an undeclared limit {cost.limit!r}")
            if cost.units < 0 or cost.each < 0:
                raise ValueError(f"the cost of {cost.call} must not be below zero")
        for name, lag in (("fill_lag", self.fill_lag), ("flow_lag", self.flow_lag)):
            if not 0 <= lag <= LONGEST_LAG:
                raise ValueError(f"{name} {lag} must be seconds from 0 to {LONGEST_LAG:.0f}")
        if traits.batch < 1:
            raise ValueError(f"batch {traits.batch} must be at least 1")


class _Limit(RateLimit, frozen=True, forbid_unknown_fields=True):
    """A limit as a file states it."""


class _Cost(Cost, frozen=True, forbid_unknown_fields=True):
    """A cost as a file states it."""


class _ClientIds(ClientIdRule, frozen=True, forbid_unknown_fields=True):
    """A rule for client order ids as a file states it."""


class _Written(Struct, frozen=True, forbid_unknown_fields=True):
    limits: tuple[_Limit, ...] = ()
    costs: tuple[_Cost, ...] = ()
    batch: int = 1
    whole_book: bool = False
    client_ids: _ClientIds | None = None
    resting_exits_block: bool = False
    liquidity: bool = False
    fill_lag: float = 0.0
    flow_lag: float = 0.0


def read_terms(written: object) -> VenueTerms:
    """Parse terms from plain lists and mappings. A stated client id rule is enforced.

    Raises ValueError, with the place, for invalid terms.
    """
    try:
        found = msgspec.convert(written, _Written)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    stated = {name: getattr(found, name) for name in _TRAITS if getattr(found, name) is not None}
    return VenueTerms(
        msgspec.convert(msgspec.to_builtins(stated) | {"enforces_reduce_only": True}, VenueDescription),
        checks_client_ids=found.client_ids is not None,
        resting_exits_block=found.resting_exits_block,
        shows_liquidity=found.liquidity,
        fill_lag=found.fill_lag,
        flow_lag=found.flow_lag,
    )


def read_traits(options: Mapping[str, object]) -> VenueDescription:
    """Parse the traits among an account's other options. Raises ValueError as `read_terms`."""
    return read_terms({name: options[name] for name in _TRAITS if name in options}).traits
