"""Worst case of the policies in each account, within the limits of its venue. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from msgspec import Struct, structs

from killswitch.graph.nodes import Graph, PolicySet, Stage
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning.scopes.compiled_policy import Identity, scopes_of
from killswitch.planning.worst_case import StageWork, everything, stage_work
from killswitch.preflight.inspection import Looked
from killswitch.ratelimit.read_cost import Reader
from killswitch.ratelimit.worst_case import Reckoning, Task, reckon

LEAST_TRIP = 0.001
"""Minimum request time in seconds: a venue in the same process answers at once, and an estimate needs a duration."""


class WorstStage(Struct, frozen=True):
    """The slowest stage that may act on the account. `paced`: it declares a pace."""

    policy: str
    stage: str
    level: int
    scope: str
    paced: bool
    reckoning: Reckoning


class Reckoned(Struct, frozen=True):
    """`everything`: all positions closed and all orders cancelled, at once in all accounts of the venue.

    `worst_stage`: None if no policy in mode enforce has anything to do in the account.
    """

    everything: Reckoning
    worst_stage: WorstStage | None


def identities(looked: Iterable[Looked]) -> list[Identity]:
    """Account identities for scope matching."""
    return [(each.name, each.venue, each.document.spec.market, each.document.spec.currency) for each in looked]


def worst_cases(
    looked: Sequence[Looked],
    policies: PolicySet,
    interval: float,
    guarded: dict[str, bool],
    readers: Sequence[Reader],
) -> dict[str, Reckoned]:
    """Worst case by account, for accounts with known positions. `guarded`: whether closes are reduce-only.

    `interval`: seconds between two polls, which continue during a close; `readers`: every polled account, because each
    one uses the limits of its address.
    """
    known = {
        each.name: each
        for each in looked
        if each.snapshot is not None and each.snapshot.quality == "ok" and each.snapshot.positions is not None
    }
    reckoner = _Reckoner(known, interval, readers)
    all_of_it = reckoner.reckon(
        {name: everything(_seen(each), reduce_only=guarded[name]) for name, each in known.items()}
    )
    worst: dict[str, WorstStage] = {}
    for graph, stage, scope, names in _firings(policies, identities(looked)):
        works = {
            name: stage_work(policies, stage, _seen(known[name]), reduce_only=guarded[name])
            for name in names
            if name in known
        }
        for name, found in reckoner.reckon({n: work for n, work in works.items() if not work.nothing}).items():
            paced = bool(works[name].every or works[name].pause)
            here = WorstStage(graph.policy, stage.name, stage.level, scope, paced, found)
            if name not in worst or _length(found) > _length(worst[name].reckoning):
                worst[name] = here
    return {name: Reckoned(found, worst.get(name)) for name, found in all_of_it.items()}


def _firings(policies: PolicySet, accounts: Sequence[Identity]) -> Iterable[tuple[Graph, Stage, str, tuple[str, ...]]]:
    """Every stage that may act, with each of its scopes and their accounts."""
    for graph in policies.graphs:
        if graph.mode == "enforce":
            for scope, names in scopes_of(graph.scope, accounts).items():
                for stage in graph.stages:
                    yield graph, stage, scope, names


def _length(found: Reckoning) -> tuple[float, int]:
    return (float("inf") if found.seconds is None else found.seconds, found.requests)


class _Reckoner:
    """Estimate with a cache: the same work of the same accounts is estimated once."""

    def __init__(self, known: dict[str, Looked], interval: float, readers: Sequence[Reader]) -> None:
        self._known = known
        self._interval = interval
        self._readers: dict[str, list[Reader]] = defaultdict(list)
        for each in readers:
            self._readers[each.venue].append(each)
        self._done: dict[tuple[tuple[str, StageWork], ...], dict[str, Reckoning]] = {}

    def reckon(self, works: dict[str, StageWork]) -> dict[str, Reckoning]:
        """Estimate by account; accounts of one venue start together and share its limits."""
        venues: dict[str, list[tuple[str, StageWork]]] = defaultdict(list)
        for name, work in works.items():
            venues[self._known[name].venue].append((name, work))
        found: dict[str, Reckoning] = {}
        for venue, together in venues.items():
            key = tuple(together)
            if key not in self._done:
                trip = max(self._known[name].trip or 0.0 for name, _ in together)
                tasks = [self._task(name, work) for name, work in together]
                self._done[key] = reckon(
                    tasks, trip=max(trip, LEAST_TRIP), interval=self._interval, readers=self._readers[venue]
                )
            found |= self._done[key]
        return found

    def _task(self, name: str, work: StageWork) -> Task:
        looked = self._known[name]
        traits = looked.traits if "submit_batch" in looked.offers else structs.replace(looked.traits, batch=1)
        return Task(
            account=name, venue=looked.venue, traits=traits, share=looked.document.spec.closing_share,
            orders=work.orders, first=work.first, last=work.last,
            whole_book=work.whole and "close_book" in looked.offers, every=work.every, pause=work.pause,
        )  # fmt: skip


def _seen(looked: Looked) -> AccountSnapshot:
    assert looked.snapshot is not None  # known accounts have one
    return looked.snapshot
