"""Witnesses of proofs as scenario files: written only if the engine does in the scenario what the witness shows.

A witness is of signal values, so its scenario gives them as `signals`. The book beside them is made such that planning
fires or declines as in the witness, and its equity falls where the witness says that a loss is new.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from killswitch.graph.nodes import Graph, PolicySet
    from killswitch.proof.witness import Witness
    from killswitch.scenario.given_signals import GivenValue
    from killswitch.scenario.running import CaseResult
    from killswitch.scenario.written import WrittenPosition, WrittenScenario

STARTS = "2026-03-02 09:00 UTC"
EQUITY, LOST = Decimal(10_000), Decimal("0.99")
"""The equity of the book, and its share after a loss that is new since the last firing."""
BOOKS = ("positions", "a price that is unknown", "other positions", "flat")
"""The books that are tried, in this order: each is a way in which planning may decline."""


class WitnessItem(Struct, frozen=True):
    """A witness of one policy, what its file is called, and what a person should know of it."""

    name: str
    graph: Graph
    witness: Witness
    comments: tuple[str, ...]
    firing: tuple[tuple[str, str], ...] = ()
    """What else the last firing is expected to do, such as its orders."""


class WrittenWitness(Struct, frozen=True):
    """The scenario of a witness: its text, or the reason why there is none. `result`: of its run."""

    name: str
    text: str
    reason: str
    result: CaseResult | None = None


def file_name(*parts: str) -> str:
    """A name of a document that these words make."""
    joined = "-".join(re.sub(r"[^a-z0-9]+", "-", each.lower()).strip("-") for each in parts if each)
    return joined[:60].rstrip("-")


def scenario_of(item: WitnessItem, policies: PolicySet) -> WrittenWitness:
    """The scenario of a witness, which passes with the policies; without one, the reason in words."""
    from killswitch.scenario.written import scenario_yaml

    why = ""
    for book in BOOKS:
        text = scenario_yaml(_written(item, policies, book))
        outcome, result = run_text(text, policies)
        if result is not None and result.outcome == "passed":
            return WrittenWitness(item.name, text, "", result)
        why = why or outcome
    return WrittenWitness(item.name, "", _reason(item, why))


def _reason(item: WitnessItem, why: str) -> str:
    """Why no scenario shows what the witness shows."""
    seen = [each.seen for each in item.witness]
    computed = [item.graph.triggers[i].name for i in seen[0].limits]
    if computed:
        return (
            f"the computed threshold of {', '.join(computed)} is learned from the past, and a scenario of "
            f"{len(seen)} steps has none ({why})"
        )
    if any(each.refused for each in seen):
        return f"no book of a scenario makes planning decline as the witness needs it ({why})"
    return f"its scenario does otherwise: {why}"


def run_text(text: str, policies: PolicySet) -> tuple[str, CaseResult | None]:
    """Run a scenario that is no file yet: why it does not pass, and its result; None if it cannot be loaded."""
    from killswitch.policy.loader import load
    from killswitch.scenario.resolve import resolve
    from killswitch.scenario.running import ScenarioRunner

    with TemporaryDirectory() as folder:
        file = Path(folder) / "witness.yaml"
        file.write_text(text, encoding="utf-8")
        loaded = load([file])
        scenarios, problems = resolve(loaded.documents, policies)
    problems = (*loaded.diagnostics, *problems)
    if problems or not scenarios:
        return "; ".join(f"{each.code} {each.message}" for each in problems), None
    result = ScenarioRunner(policies, lambda _: iter(())).run(scenarios[0]).result
    failed = [f"wanted {each.wanted}, seen {each.seen}" for each in result.failures]
    return result.error or "; ".join(failed), result


def _written(item: WitnessItem, policies: PolicySet, book: str) -> WrittenScenario:
    from killswitch.scenario.written import WrittenScenario

    graph = next(each for each in policies.graphs if each.policy == item.graph.policy)
    scope, seen = graph.scope, [each.seen for each in item.witness]
    market = "swap" if scope.markets is None or "swap" in scope.markets else scope.markets[0]
    currency = (scope.currencies or ("USDT",))[0]
    venue = (scope.venues or ("binance" if market == "spot" else "binanceusdm",))[0]
    return WrittenScenario(
        item.name, (*item.comments, *_unread(item, graph)), graph.policy, STARTS, tuple(each.now for each in seen),
        (scope.accounts or ("main",))[0], venue, market, currency, tuple(_equity(item.witness)),
        _positions(graph, market, currency, item.witness, book), tuple(_signals(item, graph)),
        tuple(_expectations(item, graph)), tuple(each.now for each in seen if not each.scheduled),
    )  # fmt: skip


def _equity(witness: Witness) -> Iterator[Decimal]:
    """Below that of the last firing where the witness needs a new loss, and else as it was then."""
    at_firing = EQUITY
    for each in witness:
        equity = at_firing * LOST if each.seen.lost else at_firing
        if each.fired is not None:
            at_firing = equity
        yield equity.quantize(Decimal("0.01")).normalize() if equity != EQUITY else EQUITY


def _positions(
    graph: Graph, market: str, currency: str, witness: Witness, book: str
) -> tuple[WrittenPosition, ...]:  # fmt: skip
    """A long and a short position, where the market has both; fewer in a book that planning declines to close."""
    from killswitch.graph.actions.close import closes_among
    from killswitch.scenario.written import WrittenPosition

    steps = len(witness)
    if book == "flat":
        return ()

    def symbol(name: str) -> str:
        return name if "/" in name else f"{name}/{currency}" + ("" if market == "spot" else f":{currency}")

    def held(name: str, side: str, price: tuple[str, ...]) -> WrittenPosition:
        return WrittenPosition(symbol(name), side, ("1",) * steps, price)

    other = "long" if market == "spot" else "short"
    if book == "other positions":
        return (held("XYZ", "long", ("100",) * steps),)
    named = [each for stage in graph.stages for close in closes_among(stage.actions) for each in close.symbols or ()]
    first = (graph.scope.symbols or (*named, "BTC"))[0]
    prices = tuple("_" if book != "positions" and each.seen.refused and i else "2000" for i, each in enumerate(witness))
    if graph.scope.each == "symbol":
        return (held(first, "long", ("2000",) * steps),)
    second = next(each for each in (*named[1:2], "ETH", "SOL") if each != first)
    return held(first, "long", prices), held(second, other, ("1000",) * steps)


def _signals(item: WitnessItem, graph: Graph) -> Iterator[tuple[str, tuple[GivenValue, ...]]]:
    """The values of the signals that the policy reads; the witness may have those of another one too."""
    from killswitch.graph.wording import signal_text
    from killswitch.scenario.given_signals import GivenValue as Given

    for i, signal in enumerate(item.graph.signals):
        if signal in graph.signals:
            seen = [each.seen for each in item.witness]
            yield signal_text(signal), tuple(Given(each.low[i], each.high[i], each.text[i]) for each in seen)


def _unread(item: WitnessItem, graph: Graph) -> Iterator[str]:
    """A sentence for each signal of the witness that the policy does not read, so that no scenario gives it."""
    from killswitch.graph.wording import signal_text
    from killswitch.scenario.given_signals import GivenValue as Given
    from killswitch.scenario.written import value_text

    last = item.witness[-1].seen
    for i, signal in enumerate(item.graph.signals):
        if signal not in graph.signals:
            value = value_text(Given(last.low[i], last.high[i], last.text[i]))
            yield f"The policy does not read {signal_text(signal)}, which is {value} at the end."


def _expectations(item: WitnessItem, graph: Graph) -> Iterator[tuple[tuple[str, str], ...]]:
    """What fires and resets, and what is in force and confirmed at the end."""
    from killswitch.engine.state import stage_in_force
    from killswitch.signals.arguments import span

    for each in item.witness:
        at = ("at", span(each.seen.now))
        if each.fired is not None:
            yield at, ("fires", each.fired), *(item.firing if each is item.witness[-1] else ())
        elif each.reset:
            yield at, ("resets", stage_in_force(each.moved) or "")
    last = item.witness[-1]
    at = ("at", span(last.seen.now))
    yield at, ("in_force", stage_in_force(last.state) or "none")
    used = {i for stage in graph.stages for i in (*stage.any_of, *stage.all_of)}
    for i in sorted(used):
        if last.state.triggers.confirmed >> i & 1:
            yield at, ("trigger", graph.triggers[i].name), ("is", "confirmed")


def items_named(items: Sequence[WitnessItem]) -> Iterator[WitnessItem]:
    """The items with names that differ."""
    from msgspec.structs import replace

    seen: dict[str, int] = {}
    for each in items:
        seen[each.name] = seen.get(each.name, 0) + 1
        yield each if seen[each.name] == 1 else replace(each, name=f"{each.name}-{seen[each.name]}")
