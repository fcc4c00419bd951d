"""What an adapter that cannot be asked is able to do, as far as what it offers and one reading show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from killswitch.model.inspection import Capability
from killswitch.model.snapshot import AccountSnapshot
from killswitch.runner.inspecting import Looked

CAPABILITIES: Final = (
    "equity", "positions", "orders", "trigger orders", "fills", "flows", "prices", "market orders", "limit orders",
    "reduce only", "put back stops", "batch orders", "close book", "position mode", "find by client id", "dead man",
    "push", "key rights", "clock", "bars", "sandbox", "demo",
)  # fmt: skip
"""The words for what a switch wants of a venue, in the order in which they are told."""

_READ = ("equity", "positions", "orders", "fills", "flows")


def offered(looked: Looked) -> tuple[Capability, ...]:
    """What is shown; what nothing shows is left out. Nothing where there is no adapter."""
    if looked.refused is not None:
        return ()
    found = {each.name: each for each in (*_from_traits(looked), *_from_reading(looked.snapshot))}
    return tuple(found[name] for name in CAPABILITIES if name in found)


def _from_traits(looked: Looked) -> Iterator[Capability]:
    traits, offers = looked.traits, looked.offers
    batches = "submit_batch" in offers and traits.batch > 1
    yield Capability("batch orders", "yes", f"up to {traits.batch} in one request") if batches else _not("batch orders")
    book = "close_book" in offers and traits.whole_book
    yield Capability("close book", "yes") if book else _not("close book")
    timer = traits.dead_man if "arm_dead_man" in offers else None
    yield _not("dead man") if timer is None else Capability("dead man", "yes", f"for each {timer.reach}")
    yield Capability("push", "yes") if "listen" in offers else _not("push")
    if "inspect" in offers:
        yield Capability("key rights", "unknown", "the venue could not be asked")
    else:
        yield _not("key rights")
    yield Capability("find by client id", "yes")


def _from_reading(seen: AccountSnapshot | None) -> Iterator[Capability]:
    if seen is None or seen.quality != "ok":
        return
    for name in _READ:
        told = getattr(seen, name) is not None
        yield Capability(name, "yes" if told else "no", "" if told else "this reading did not tell them")
    if seen.positions:
        marks = sum(bool(position.mark_price) for position in seen.positions)
        can = "yes" if marks == len(seen.positions) else "partly" if marks else "no"
        yield Capability("prices", can, f"a mark for {marks} of {len(seen.positions)} positions")  # type: ignore[arg-type] # one of the three
    mode = seen.position_mode
    yield (
        Capability("position mode", "no", "this reading did not tell it")
        if mode is None
        else Capability("position mode", "yes", mode)
    )
    skew = None if seen.health is None else seen.health.clock_skew_ms
    yield Capability("clock", "yes") if skew is not None else _not("clock")


def _not(name: str) -> Capability:
    return Capability(name, "no", "the adapter does not offer it")
