"""What the policies' worst case comes to in each account's venue, within its limits. Pure."""

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
"""Seconds. A venue in the same process answers at once, which no reckoning can do with."""


class WorstStage(Struct, frozen=True):
    """The stage that takes the longest, of those that may act on the account. `paced`: at a pace that it declares."""

    policy: str
    stage: str
    level: int
    scope: str
    paced: bool
    reckoning: Reckoning


class Reckoned(Struct, frozen=True):
    """`everything`: every position closed and every order cancelled, at once in all accounts of the venue.

    `worst_stage`: None where no policy in mode enforce has anything to do in the account as it is.
    """

    everything: Reckoning
    worst_stage: WorstStage | None


def identities(looked: Iterable[Looked]) -> list[Identity]:
    """As scopes are matched."""
    return [(each.name, each.venue, each.document.spec.market, each.document.spec.currency) for each in looked]


def worst_cases(
    looked: Sequence[Looked],
    policies: PolicySet,
    interval: float,
    guarded: dict[str, bool],
    readers: Sequence[Reader],
) -> dict[str, Reckoned]:
    """By account, for those whose positions are known. `guarded`: by account, whether closes are reduce-only.

    `interval`: seconds between two readings, which go on during a close; `readers`: every account that is read, for
    one in which nothing is to be done draws on the limits of its address all the same.
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
            if name not in worst or _longer(found, worst[name].reckoning):
                worst[name] = here
    return {name: Reckoned(found, worst.get(name)) for name, found in all_of_it.items()}


def _firings(policies: PolicySet, accounts: Sequence[Identity]) -> Iterable[tuple[Graph, Stage, str, tuple[str, ...]]]:
    """Every stage that may act, with each of its scopes and the accounts in it."""
    for graph in policies.graphs:
        if graph.mode == "enforce":
            for scope, names in scopes_of(graph.scope, accounts).items():
                for stage in graph.stages:
                    yield graph, stage, scope, names


def _longer(one: Reckoning, other: Reckoning) -> bool:
    def size(each: Reckoning) -> tuple[float, int]:
        return (float("inf") if each.seconds is None else each.seconds, each.requests)

    return size(one) > size(other)


class _Reckoner:
    """Reckons the same work of the same accounts once."""

    def __init__(self, known: dict[str, Looked], interval: float, readers: Sequence[Reader]) -> None:
        self._known = known
        self._interval = interval
        self._readers: dict[str, list[Reader]] = defaultdict(list)
        for each in readers:
            self._readers[each.venue].append(each)
        self._done: dict[tuple[tuple[str, StageWork], ...], dict[str, Reckoning]] = {}

    def reckon(self, works: dict[str, StageWork]) -> dict[str, Reckoning]:
        """Those of one venue begin together and share what it counts for their address."""
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
