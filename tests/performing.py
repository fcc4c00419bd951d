"""What a performer of effects gets of a run, for tests without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from killswitch.execution.effects.performing import EffectPerformers, Performer, PerformerContext
from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.store import Store
from killswitch.model.venue import Transfers
from killswitch.runner.performers import performers
from tests.worlds import START


def context(
    store: Store,
    *,
    open_closes: Callable[[], tuple[str, ...]] = tuple,
    acts: bool = True,
    is_run: bool = True,
    transfers: Mapping[str, Transfers] | None = None,
) -> PerformerContext:
    """The context of a run on this store at a fixed time. `acts`: whether it acts on decisions at all."""
    return PerformerContext(
        store, VirtualClock(START), lambda _: acts, open_closes, is_run=is_run, transfers=transfers or {}
    )


def table(store: Store) -> EffectPerformers:
    """The runner's table of performers, where locks and closes are not performed."""
    return EffectPerformers(performers(Performer(), Performer(), context(store)))
