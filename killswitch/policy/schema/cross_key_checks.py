"""Cross-key checks of documents.

The checks use the document as written, not the validated model: a document with another mistake has no model, and every
problem is reported in one pass. Values of the wrong type are left to the validator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import TypeVar

from msgspec import Struct

from killswitch.policy.schema.actions import ACTIONS
from killswitch.policy.schema.part import MistakeError
from killswitch.policy.schema.scalars import money, name, plain_number, proper_share
from killswitch.signals.catalogue import ARGUMENTS

COMPARISONS = ("at_least", "at_most", "above", "below")
FORMULA_KEYS = {
    "normalised": ("weights",),
    "killswitch-v6": ("weights",),
    "component-risk": ("weights", "sample", "least", "if_unknown"),
    "genesis": ("sample", "least"),
}
"""The keys that each formula of a `Ranking` uses; all but `weights` are required where they are used."""

Path = tuple[str | int, ...]


class Breach(Struct, frozen=True):
    """A violated check, and the path of the key to report it at."""

    code: str
    path: Path
    message: str
    fix: str


def policy(written: object) -> Iterator[Breach]:
    """Check the keys of one `Policy` against each other."""
    spec = spec_of(written)
    yield from _scope(mapping(spec.get("scope")))
    for key, trigger in mapping(spec.get("triggers")).items():
        yield from _named(("spec", "triggers", key), key)
        if isinstance(trigger, dict):
            yield from _trigger(("spec", "triggers", key), trigger)
    for variant, written_variant in mapping(spec.get("variants")).items():
        yield from _named(("spec", "variants", variant), variant)
        for key, override in mapping(mapping(written_variant).get("triggers")).items():
            yield from _one_comparison(("spec", "variants", variant, "triggers", key), mapping(override))
    for number, stage in enumerate(items(spec.get("stages"))):
        if isinstance(stage, dict):
            yield from _stage(("spec", "stages", number), stage)
    if "stages" not in spec and isinstance(breaker := spec.get("breaker"), dict):
        yield from _breaker(("spec", "breaker"), breaker)


def _breaker(at: Path, breaker: dict[str, object]) -> Iterator[Breach]:
    """Check the trigger and the actions of a circuit breaker, and that its automatic recoveries are limited."""
    if isinstance(trip := breaker.get("trip"), dict):
        yield from _trigger((*at, "trip"), trip)
    yield from _response(at, breaker, "the breaker")
    auto = mapping(mapping(breaker.get("recovery")).get("auto"))
    if auto and "at_most" not in auto:
        message = "nothing limits how often the breaker recovers, and trips again, in a day"
        fix = "add `at_most: 2` with your own number of recoveries in 24 hours"
        yield Breach("KS2209", (*at, "recovery", "auto"), message, fix)


def _scope(written: dict[str, object]) -> Iterator[Breach]:
    """A scope has the keys of its `each`: the label, or names of strategies or symbols."""
    each, path = written.get("each"), ("spec", "scope")
    if each == "label" and "label" not in written:
        yield Breach("KS2274", (*path, "each"), "it does not say which label", "add `label`, such as `label: desk`")
    for key in ("label", "strategy", "symbol"):
        if key in written and isinstance(each, str) and each != key:
            yield Breach("KS2275", (*path, key), f"`{key}` has no meaning with `each: {each}`", f"write `each: {key}`")


def ranking(written: object) -> Iterator[Breach]:
    """Check that a ranking has the keys that its formula requires, and no others."""
    spec = spec_of(written)
    formula = str(spec.get("formula"))
    if formula not in FORMULA_KEYS:
        return
    reads = FORMULA_KEYS[formula]
    for key in FORMULA_KEYS["component-risk"]:
        if key in reads and key != "weights" and key not in spec:
            fix = f"add `{key}:`; the built-in ranking {formula} has {_BUILT_IN_KEYS[formula]}"
            yield Breach("KS2210", ("spec", "formula"), f"`{formula}` needs `{key}`", fix)
        elif key in spec and key not in reads:
            others = [f"`formula: {name}`" for name, keys in FORMULA_KEYS.items() if key in keys]
            fix = f"remove it, or write {' or '.join(others)}"
            yield Breach("KS2210", ("spec", key), f"the formula `{formula}` does not use `{key}`", fix)


_BUILT_IN_KEYS = {"component-risk": "sample: 1m, least: 30, if_unknown: normalised", "genesis": "sample: 1m, least: 30"}


def _named(at: Path, key: str) -> Iterator[Breach]:
    """Check that the key of a trigger or variant is a valid name."""
    try:
        name(key)
    except MistakeError as mistake:
        yield Breach(mistake.code, at, mistake.message, mistake.fix)


def mixed_forms(breaches: Iterable[Breach]) -> frozenset[Path]:
    """The paths of triggers that are already reported to mix or lack a form."""
    mixed = [breach.path for breach in breaches if breach.code == "KS2201"]
    return frozenset(path[:-1] if path[-1] == "when" and len(path) > len(_TRIGGER) else path for path in mixed)


_TRIGGER = ("spec", "triggers", "name")


def _trigger(at: Path, trigger: dict[str, object]) -> Iterator[Breach]:
    """Check that a trigger is either a threshold with exactly one comparison, or an expression without one."""
    written = [key for key in (*COMPARISONS, "is") if key in trigger]
    if "when" in trigger:
        yield from _mixed(at, trigger, written)
    elif "signal" not in trigger and not written:
        fix = "write `signal:` with a threshold, or `when:` with an expression"
        yield Breach("KS2201", at, f"trigger `{at[-1]}` watches nothing", fix)
    elif "signal" in trigger and not written:
        fix = "add one of at_least, at_most, above, below, with a number"
        yield Breach("KS2202", at, f"trigger `{at[-1]}` compares its signal with nothing", fix)
    if "when" not in trigger:
        yield from _one_comparison(at, trigger)
        for key in written:
            yield from _adaptive((*at, key), trigger[key])


def _adaptive(at: Path, threshold: object) -> Iterator[Breach]:
    """Check that a computed threshold is either a quantile of a history, or a multiple of a signal."""
    if not isinstance(threshold, dict):
        return
    quantile, multiple = {"quantile", "history"} & threshold.keys(), {"times", "of"} & threshold.keys()
    if len(quantile) + len(multiple) != 2 or len(quantile) == 1:
        fix = "write `quantile: 99%, history: 30d`, or `times: 6.5, of: {signal: …}`"
        message = "a computed threshold is either a quantile of a history or a multiple of a signal"
        yield Breach("KS2211", at, message, fix)


def _one_comparison(at: Path, trigger: dict[str, object]) -> Iterator[Breach]:
    fix = "keep one comparison here, and write a separate trigger for each other"
    return only_one("KS2202", at, trigger, (*COMPARISONS, "is"), "comparison", fix)


def _mixed(at: Path, trigger: dict[str, object], written: list[str]) -> Iterator[Breach]:
    others = [key for key in ("signal", *ARGUMENTS, *written) if key in trigger]
    if others:
        fix = "keep one of the two forms: `signal` with a threshold, or `when` with an expression"
        message = f"`when` cannot be combined with {', '.join(f'`{key}`' for key in others)}"
        yield Breach("KS2201", (*at, "when"), message, fix)


def _stage(at: Path, stage: dict[str, object]) -> Iterator[Breach]:
    """Check that a stage has triggers, and that `losing` has an attribution rule."""
    name = stage.get("name", at[-1])
    if not any(stage.get(key) for key in ("any", "all")):
        where = next(((*at, key) for key in ("any", "all", "name") if key in stage), at)
        message = f"stage `{name}` has no trigger, so it can never fire"
        yield Breach("KS2203", where, message, "list triggers under `any` or `all`")
    yield from _response(at, stage, f"stage `{name}`")


def _response(at: Path, response: dict[str, object], name: str) -> Iterator[Breach]:
    """Check the actions of a stage or breaker, and that `losing` has an attribution rule."""
    yield from _top_ups(at, response, name)
    yield from _breach(at, response, name)
    both = ("no_reset_for", "no_reset_before")
    yield from only_one("KS2217", at, response, both, "time without a reset", "keep one of them")
    for number, action in enumerate(items(response.get("actions"))):
        if isinstance(action, dict):
            yield from _action((*at, "actions", number), action)
            yield from _lock((*at, "actions", number, "lock_trading"), mapping(action.get("lock_trading")))
            yield from _where((*at, "actions", number, "close"), mapping(action.get("close")))
            yield from _neutral((*at, "actions", number, "neutralise"), mapping(action.get("neutralise")))
            if mapping(action.get("close")).get("side") == "losing" and "attribution" not in response:
                fix = (
                    "add `attribution: {source_at_least: 0.65, if_mixed: worst_ranked, "
                    "if_unknown: worst_ranked}` to it, with your own share and fallbacks"
                )
                message = f"{name} closes the losing side without an `attribution` that defines it"
                yield Breach("KS2205", (*at, "actions", number, "close", "side"), message, fix)


def _action(at: Path, action: dict[str, object]) -> Iterator[Breach]:
    if not action:
        yield Breach("KS2204", at, "the action is empty", f"write one of {', '.join(ACTIONS)}")
    fix = "write it as a list item of its own: each action has one key"
    yield from only_one("KS2204", at, action, ACTIONS, "action", fix)


def _lock(at: Path, lock: dict[str, object]) -> Iterator[Breach]:
    """Check that a lock has at most one end."""
    fix = "keep one of them; two locks in a stage merge to the later end"
    yield from only_one("KS2216", at, lock, ("for", "until", "until_session"), "end", fix)


def _breach(at: Path, stage: dict[str, object], name: str) -> Iterator[Breach]:
    """Check that the answer to a breach of the lock has a lock, and limits if it closes."""
    wanted = stage.get("on_breach")
    locks = any("lock_trading" in mapping(action) for action in items(stage.get("actions")))
    if wanted in ("cancel", "close") and not locks:
        message, fix = f"{name} writes no lock that could be breached", "add `lock_trading`, or take it out"
        yield Breach("KS2208", (*at, "on_breach"), message, fix)
    if wanted == "close" and "breach" not in stage:
        fix = "add `breach: {ceiling: 5%, cost_per_hour: 1%}` with your own limits"
        yield Breach("KS2208", (*at, "on_breach"), "`close` has no limits of exposure and cost", fix)
    if wanted != "close" and "breach" in stage:
        fix = "write `on_breach: close`, or take it out"
        yield Breach("KS2208", (*at, "breach"), "`breach` has no effect without `on_breach: close`", fix)


def _where(at: Path, close: dict[str, object]) -> Iterator[Breach]:
    """Check that a close with a `where` declares what happens to positions for which it is unknown."""
    if "where" in close and "where_unknown" not in close:
        fix = "add `where_unknown: close`, or `where_unknown: keep` to leave such positions open"
        message = "nothing declares whether a position is closed for which `where` is unknown"
        yield Breach("KS2207", (*at, "where"), message, fix)
    if "where_unknown" in close and "where" not in close:
        message, fix = "`where_unknown` has no effect without `where`", "add `where`, or take it out"
        yield Breach("KS2207", (*at, "where_unknown"), message, fix)


def _top_ups(at: Path, response: dict[str, object], name: str) -> Iterator[Breach]:
    """Check that a stage moves margin once, to an account that it does not close, to ratios and amounts that agree."""
    written = [mapping(action) for action in items(response.get("actions"))]
    selling = [key for action in written for key in ("close", "reduce", "neutralise") if key in action]
    found = 0
    for number, action in enumerate(written):
        if "top_up_margin" not in action:
            continue
        found += 1
        where, top_up = (*at, "actions", number, "top_up_margin"), mapping(action["top_up_margin"])
        if selling or found > 1:
            what = f"sells by `{selling[0]}` too" if selling else "moves margin twice"
            fix = "write a stage for each of them, with a level of its own"
            yield Breach("KS2291", where, f"{name} tops up margin, and {what}", fix)
        ratios = _read(proper_share, top_up.get("to_ratio")), _read(proper_share, top_up.get("partial_to"))
        if ratios[0] is not None and ratios[1] is not None and ratios[1] <= ratios[0]:
            message = "a smaller amount cannot reach a ratio that is not above `to_ratio`"
            yield Breach("KS2292", (*where, "partial_to"), message, "write a higher ratio, or take it out")
        amounts = _read(money, top_up.get("at_most")), _read(money, top_up.get("keep"))
        if amounts[0] is not None and amounts[1] is not None and amounts[0].currency != amounts[1].currency:
            message = f"`at_most` is in {amounts[0].currency}, and `keep` in {amounts[1].currency}"
            yield Breach("KS2293", (*where, "keep"), message, "write both in the currency of the accounts")


T = TypeVar("T")


def _read(parse: Callable[[object], T], written: object) -> T | None:
    """The value as parsed; None where it is left out, or is a mistake of its own."""
    try:
        return None if written is None else parse(written)
    except MistakeError:
        return None


MEASURE_KEYS = {"beta": "hub", "component-risk": "keep"}
"""The key that a measure of `neutralise` requires, and that no other one has."""


def _neutral(at: Path, written: dict[str, object]) -> Iterator[Breach]:
    """Check that `neutralise` has the key that its measure requires, and no other one's."""
    measure = written.get("by")
    for each, key in MEASURE_KEYS.items() if isinstance(measure, str) else ():
        if measure == each and key not in written:
            example = "hub: BTC/USDT:USDT" if key == "hub" else "keep: 50%"
            yield Breach("KS2280", (*at, "by"), f"`by: {each}` needs `{key}`", f"add `{key}`, such as `{example}`")
        elif measure != each and key in written:
            message = f"`{key}` has no meaning with `by: {measure}`"
            yield Breach("KS2280", (*at, key), message, f"take it out, or write `by: {each}`")


def only_one(
    code: str, at: Path, written: dict[str, object], keys: Iterable[str], noun: str, fix: str
) -> Iterator[Breach]:
    """A breach for each of the `keys` beyond the first that is written; `noun` names such a key in the message."""
    first, *others = [key for key in keys if key in written] or [""]
    for key in others:
        yield Breach(code, (*at, key), f"`{key}` is a second {noun} beside `{first}`", fix)


def spec_of(written: object) -> dict[str, object]:
    """The `spec` of a document as written; empty where it is no mapping."""
    return mapping(mapping(written).get("spec"))


def mapping(written: object) -> dict[str, object]:
    """The written value if it is a mapping; else an empty one."""
    return written if isinstance(written, dict) else {}


def items(written: object) -> list[object]:
    """The written value if it is a list; else an empty one."""
    return written if isinstance(written, list) else []


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
    if "slices" in spec and not {"max_orders_per_minute", "pause"} & spec.keys():
        fix = "add `max_orders_per_minute` or `pause`, or take it out"
        message = "all parts of a position go at once where nothing spaces them"
        yield Breach("KS2279", ("spec", "slices"), message, fix)
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
    for number, step in enumerate(rungs):
        at = ("spec", "ladder", number)
        order, widen = step.get("order"), plain_number(step.get("widen", 1))
        if order not in ORDERS or widen is None:
            return
        if order == "market":
            reached = None
            if "widen" in step:
                fix = "remove it, or write `order: limit_ioc`"
                yield Breach("KS2226", (*at, "widen"), "`widen` has no effect on a market order", fix)
        elif reached is not None and widen >= reached:
            reached = widen
        elif reached is not None or order == "limit_ioc":
            yield from _narrows(at, step, reached)


def _narrows(at: Path, step: dict[str, object], reached: Decimal | None) -> Iterator[Breach]:
    before = "a market order" if reached is None else f"{reached:f} × the bound"
    fix = "move it up, or remove it" if reached is None else f"write `widen: {reached:f}` or more"
    yield Breach(
        "KS2222", (*at, "widen") if "widen" in step else at, f"the limit of this step is tighter than {before}", fix
    )
