"""Worst case of the policies in each account, within the limits of its venue. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from msgspec import Struct

from killswitch.graph.nodes import Graph, PolicySet, Stage
from killswitch.graph.unwinding import PLAIN, UnwindingRule
from killswitch.model.instant import SECOND
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning.actions.cancel_orders import most_cancels
from killswitch.planning.actions.kind import Most, MostContext
from killswitch.planning.actions.registry import most
from killswitch.planning.reducing import PositionName
from killswitch.planning.scopes.compiled_policy import Identity, scopes_of
from killswitch.preflight.inspection import InspectedAccount
from killswitch.ratelimit.poll_cost import PolledAccount
from killswitch.ratelimit.worst_case import CloseEstimate, CloseTask, estimate_close
from killswitch.valuation.position_measures import ZERO


class Workload(Struct, frozen=True):
    """Work on one account. `orders`: symbol and number of orders for each position that may be selected.

    `first` and `last`: symbols of the orders canceled before closing and at its end. `whole`: whether every position
    may be closed completely. `every`: seconds between two orders by the declared pace, 0 without one. `pause`: seconds
    between two orders of one position.
    """

    orders: tuple[tuple[str, int], ...]
    first: tuple[str, ...]
    last: tuple[str, ...]
    whole: bool
    every: float = 0.0
    pause: float = 0.0

    @property
    def is_empty(self) -> bool:
        return not (self.orders or self.first or self.last)


def whole_account_workload(account: AccountSnapshot, *, reduce_only: bool) -> Workload:
    """Work of closing every position and canceling every order as fast as the venue allows."""
    rules = {each.symbol: each for each in account.instruments or ()}
    context = MostContext(account, (), rules, reduce_only)
    orders = {position.key: (position.symbol, context.orders(position, ZERO)) for position in account.positions or ()}
    return _work([Most(orders=orders, closes_everything=True), most_cancels(account, "all")])


def stage_workload(policies: PolicySet, stage: Stage, account: AccountSnapshot, *, reduce_only: bool) -> Workload:
    """Worst-case work of the stage on this account, without slices that limit market impact."""
    rules = {each.symbol: each for each in account.instruments or ()}
    context = MostContext(account, policies.unwindings, rules, reduce_only)
    return _work([most(action, context) for action in stage.actions])


def _work(found: Sequence[Most]) -> Workload:
    """Combined work of several actions: the most orders for each position, at the slowest pace."""
    orders: dict[PositionName, tuple[str, int]] = {}
    first: dict[int, str] = {}
    last: dict[int, str] = {}
    for each in found:
        for key, cut in each.orders.items():
            orders[key] = max(orders.get(key, cut), cut, key=lambda one: one[1])
        first |= each.first
        last |= each.last
    rule = _slowest([each.rule for each in found if each.rule is not None])
    every = 0.0 if not rule.max_orders_per_minute else 60.0 / rule.max_orders_per_minute
    whole = any(each.closes_everything for each in found) and not (rule.ladder or rule.slippage)
    some = tuple(each for each in orders.values() if each[1])
    return Workload(some, tuple(first.values()), tuple(last.values()), whole, every, rule.pause / SECOND)


def _slowest(rules: Sequence[UnwindingRule]) -> UnwindingRule:
    return min(rules, key=lambda rule: rule.max_orders_per_minute or float("inf"), default=PLAIN)


MIN_REQUEST_SECONDS = 0.001
"""Minimum request time in seconds: a venue in the same process answers at once, and an estimate needs a duration."""


class WorstStage(Struct, frozen=True):
    """The slowest stage that may act on the account. `paced`: it declares a pace."""

    policy: str
    stage: str
    level: int
    scope: str
    paced: bool
    reckoning: CloseEstimate


class WorstCase(Struct, frozen=True):
    """`everything`: all positions closed and all orders cancelled, at once in all accounts of the venue.

    `worst_stage`: None if no policy in mode enforce has anything to do in the account.
    """

    everything: CloseEstimate
    worst_stage: WorstStage | None


def identities(inspected: Iterable[InspectedAccount]) -> list[Identity]:
    """Account identities for scope matching."""
    return [(each.name, each.venue, each.document.spec.market, each.document.spec.currency) for each in inspected]


def worst_cases(
    inspected: Sequence[InspectedAccount],
    policies: PolicySet,
    interval: float,
    reduce_only: dict[str, bool],
    polled: Sequence[PolledAccount],
) -> dict[str, WorstCase]:
    """Worst case by account, for accounts with known positions. `guarded`: whether closes are reduce-only.

    `interval`: seconds between two polls, which continue during a close; `readers`: every polled account, because each
    one uses the limits of its address.
    """
    known = {each.name: each for each in inspected if each.known is not None and each.known.positions is not None}
    estimator = _Estimator(known, interval, polled)
    all_of_it = estimator.estimate(
        {
            name: whole_account_workload(_snapshot_of(each), reduce_only=reduce_only[name])
            for name, each in known.items()
        }
    )
    worst: dict[str, WorstStage] = {}
    for graph, stage, scope, names in _enforced_stages(policies, identities(inspected)):
        workloads = {
            name: stage_workload(policies, stage, _snapshot_of(known[name]), reduce_only=reduce_only[name])
            for name in names
            if name in known
        }
        for name, estimated in estimator.estimate(
            {n: workload for n, workload in workloads.items() if not workload.is_empty}
        ).items():
            paced = bool(workloads[name].every or workloads[name].pause)
            here = WorstStage(graph.policy, stage.name, stage.level, scope, paced, estimated)
            if name not in worst or _length(estimated) > _length(worst[name].reckoning):
                worst[name] = here
    return {name: WorstCase(estimated, worst.get(name)) for name, estimated in all_of_it.items()}


def _enforced_stages(
    policies: PolicySet, accounts: Sequence[Identity]
) -> Iterable[tuple[Graph, Stage, str, tuple[str, ...]]]:
    """Every stage that may act, with each of its scopes and their accounts."""
    for graph in policies.graphs:
        if graph.mode == "enforce":
            for scope, names in scopes_of(graph.scope, accounts).items():
                for stage in graph.stages:
                    yield graph, stage, scope, names


def _length(estimate: CloseEstimate) -> tuple[float, int]:
    return (float("inf") if estimate.seconds is None else estimate.seconds, estimate.requests)


class _Estimator:
    """Estimate with a cache: the same work of the same accounts is estimated once."""

    def __init__(self, known: dict[str, InspectedAccount], interval: float, polled: Sequence[PolledAccount]) -> None:
        self._known = known
        self._interval = interval
        self._polled: dict[str, list[PolledAccount]] = defaultdict(list)
        for each in polled:
            self._polled[each.venue].append(each)
        self._done: dict[tuple[tuple[str, Workload], ...], dict[str, CloseEstimate]] = {}

    def estimate(self, workloads: dict[str, Workload]) -> dict[str, CloseEstimate]:
        """Estimate by account; accounts of one venue start together and share its limits."""
        venues: dict[str, list[tuple[str, Workload]]] = defaultdict(list)
        for name, workload in workloads.items():
            venues[self._known[name].venue].append((name, workload))
        found: dict[str, CloseEstimate] = {}
        for venue, together in venues.items():
            key = tuple(together)
            if key not in self._done:
                trip = max(self._known[name].request_seconds or 0.0 for name, _ in together)
                tasks = [self._task(name, workload) for name, workload in together]
                self._done[key] = estimate_close(
                    tasks, trip=max(trip, MIN_REQUEST_SECONDS), interval=self._interval, polled=self._polled[venue]
                )
            found |= self._done[key]
        return found

    def _task(self, name: str, workload: Workload) -> CloseTask:
        inspected = self._known[name]
        adapter = inspected.adapter
        return CloseTask(
            account=name, venue=inspected.venue, traits=adapter.traits, share=inspected.document.spec.closing_share,
            orders=workload.orders, first=workload.first, last=workload.last,
            whole_book=workload.whole and adapter.close_book is not None,
            batch=1 if adapter.batches is None else adapter.batches.most,
            every=workload.every, pause=workload.pause,
        )  # fmt: skip


def _snapshot_of(inspected: InspectedAccount) -> AccountSnapshot:
    assert inspected.snapshot is not None  # known accounts have one
    return inspected.snapshot
