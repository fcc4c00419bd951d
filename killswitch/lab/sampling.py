"""What a policy set asks of a market's bars: samples that the bars can serve, and the symbols that its signals name.

A bar of length b has a price every b: it serves samples at a multiple of b. Another sampling would be another signal,
whose thresholds mean something else, so it is an error and never a rescaling.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from killswitch.graph.actions.kind import of_node
from killswitch.graph.actions.neutralise import Neutralise
from killswitch.graph.nodes import Graph, PolicySet, SignalRef
from killswitch.graph.wording import signal_text, signals_of, span
from killswitch.lab.bars import BarsError
from killswitch.model.words import Place
from killswitch.policy.diagnostics.diagnostic import Diagnostic, diagnostic, in_order
from killswitch.signals.arguments import Value
from killswitch.signals.catalogue import BY_NAME
from killswitch.valuation.market_prices import market_name


class SamplingError(BarsError):
    """The bars of a market cannot serve the samples of signals; `diagnostics` has the place of each."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        super().__init__("; ".join(f"{it.file}:{it.line}: {it.message} ({it.fix})" for it in diagnostics))
        self.diagnostics = diagnostics


def require_served(policies: PolicySet, market: str, interval: int) -> None:
    """SamplingError if bars of `interval` microseconds cannot serve a signal of the policies."""
    found = (_unserved(place, signal, market, interval) for graph in policies.graphs for place, signal in _used(graph))
    if unserved := in_order(each for each in found if each is not None):
        raise SamplingError(unserved)


def named_symbols(policies: PolicySet, symbols: Iterable[str]) -> tuple[str, ...]:
    """Those of `symbols` that the policies name: a backtest watches them whether or not they are held."""
    wanted = {
        _value(signal, key) for graph in policies.graphs for signal in graph.signals for key in ("symbol", "base")
    }
    stages = (stage for graph in policies.graphs for stage in graph.stages)
    neutral = [action for stage in stages for action in of_node(stage.actions, Neutralise)]
    wanted |= {action.hub for action in neutral}
    wanted |= {action.open.instrument for action in neutral if action.open is not None}
    shown = [graph.net_exposure for graph in policies.graphs if graph.net_exposure is not None]
    wanted |= {name for it in shown for name in (it.hub, *(each.instrument for each in it.instruments))}
    return tuple(symbol for symbol in symbols if symbol in wanted or market_name(symbol) in wanted - {None})


def _used(graph: Graph) -> Iterator[tuple[Place, SignalRef]]:
    """The signals of the triggers, and of the conditions of resets, with the place of the trigger or the stage."""
    resets = {stage.reset.condition: stage.place for stage in graph.stages if stage.reset is not None}
    for index, condition in enumerate(graph.conditions):
        place = graph.triggers[index].place if index < len(graph.triggers) else resets.get(index, graph.place)
        yield from ((place, graph.signals[each]) for each in sorted(signals_of(condition)))


def _unserved(place: Place, signal: SignalRef, market: str, interval: int) -> Diagnostic | None:
    every = _value(signal, "every")
    if not isinstance(every, int) or every % interval == 0:
        return None
    served = -(-every // interval) * interval
    message = f"the bars of {market}, {span(interval)} long, cannot serve the samples of {signal_text(signal)}"
    fix = f"write `every: {span(served)}` or another multiple of {span(interval)}, or give bars of {span(every)}"
    return diagnostic("KS3090", place, message, fix)


def _value(signal: SignalRef, key: str) -> Value | None:
    """The value of the argument `key`; None for a signal without it."""
    given = zip(BY_NAME[signal.name].arguments, signal.arguments, strict=True)
    return next((value for argument, value in given if argument.key == key), None)
