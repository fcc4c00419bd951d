"""Cross-key checks of an `Unwinding`, on the document as written."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from killswitch.policy.schema.cross_key_checks import Breach, Path, items, mapping, spec_of
from killswitch.policy.schema.scalars import plain_number

ORDERS = ("limit_ioc", "market", "limit")


def unwinding(written: object) -> Iterator[Breach]:
    """Check that a ladder has an exit, that a bound has limit orders to keep it, and that a hedge has a limit."""
    spec = spec_of(written)
    yield from _slippage(spec)
    yield from _ladder(spec)
    if mapping(spec.get("impact")).get("if_unknown") == "ladder_only" and "ladder" not in spec:
        fix = "add a `ladder` and `slippage`, or write `if_unknown: whole`"
        message = "`ladder_only` requires a ladder, and there is none"
        yield Breach("KS2225", ("spec", "impact", "if_unknown"), message, fix)
    hedge = mapping(spec.get("hedge"))
    if hedge.get("mode") == "act" and "max_notional" not in hedge:
        fix = "add `max_notional:` with the maximum notional of one hedge, or write `mode: suggest`"
        message = "a hedge that is opened automatically has no maximum notional"
        yield Breach("KS2223", ("spec", "hedge", "mode"), message, fix)


def _slippage(spec: dict[str, object]) -> Iterator[Breach]:
    if spec.get("slippage") and not spec.get("ladder"):
        fix = "add `ladder: [{order: limit_ioc, tries: 2}, {order: market, tries: 2}, {order: limit, widen: 3}]`"
        message = "no ladder declares how to keep the bound, and what to send when it fails"
        yield Breach("KS2220", ("spec", "slippage"), message, fix)
    for number, each in enumerate(items(spec.get("slippage"))):
        if {"symbols", "group"} <= mapping(each).keys():
            at, fix = ("spec", "slippage", number, "group"), "keep one of them, and write a separate item for the other"
            yield Breach("KS2224", at, "`group` cannot be combined with `symbols`", fix)


def _ladder(spec: dict[str, object]) -> Iterator[Breach]:
    rungs = [mapping(each) for each in items(spec.get("ladder"))]
    if "ladder" in spec and isinstance(spec["ladder"], list) and not rungs and not spec.get("slippage"):
        yield Breach("KS2221", ("spec", "ladder"), "the ladder has no steps", "remove it to send market orders")
    if rungs and rungs[-1].get("order") == "limit_ioc":
        fix = "add `- {order: market, tries: 2}` below it, and `- {order: limit, widen: 3}` for markets without one"
        message = "the ladder ends without an exit: if this step does not fill, the position stays open"
        yield Breach("KS2221", ("spec", "ladder", len(rungs) - 1, "order"), message, fix)
    reached: Decimal | None = Decimal(0)
    for number, rung in enumerate(rungs):
        at = ("spec", "ladder", number)
        order, widen = rung.get("order"), plain_number(rung.get("widen", 1))
        if order not in ORDERS or widen is None:
            return
        if order == "market":
            reached = None
            if "widen" in rung:
                fix = "remove it, or write `order: limit_ioc`"
                yield Breach("KS2226", (*at, "widen"), "`widen` has no effect on a market order", fix)
        elif reached is not None and widen >= reached:
            reached = widen
        elif reached is not None or order == "limit_ioc":
            yield from _narrows(at, rung, reached)


def _narrows(at: Path, rung: dict[str, object], reached: Decimal | None) -> Iterator[Breach]:
    before = "a market order" if reached is None else f"{reached:f} × the bound"
    fix = "move it up, or remove it" if reached is None else f"write `widen: {reached:f}` or more"
    yield Breach(
        "KS2222", (*at, "widen") if "widen" in rung else at, f"the limit of this step is tighter than {before}", fix
    )
