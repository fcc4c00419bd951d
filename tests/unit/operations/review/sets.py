"""Small policy sets in memory, and the requests to review a change of them."""

from __future__ import annotations

from time import perf_counter

from msgspec.structs import replace

from killswitch.model.applied_set import PolicyFile, folder_digest
from killswitch.operations.review.reviewing import review
from killswitch.source.candidate import Candidate, FirstParentStep, Review, ReviewRequest, VerifiedCommit
from killswitch.source.trust import Trust
from tests.unit.source.approval_keys import NOW

EQUITY = """apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: floor}
spec:
  mode: enforce
  scope: {each: account, match: {currency: USDT}}
  max_gap: 10m
  triggers:
    low: {signal: equity.value, below: 1000 USDT, on_unknown: hold}
    high: {signal: exposure.leverage, above: 6, on_unknown: hold}
  stages:
    - name: stop
      level: 1
      any: [low, high]
      cooldown: 30m
      reset: manual
      actions: [{lock_trading: {mode: reduce_only}}, {close: {side: both, fraction: 100%}}]
"""
INVARIANT = """apiVersion: killswitch.dev/v1
kind: Invariant
metadata: {name: low-stops}
spec: {policies: [floor], holds: '!(equity.value < 1000) || stage.level >= 1', because: a floor is a floor}
"""
SCENARIO = """apiVersion: killswitch.dev/v1
kind: Scenario
metadata: {name: falls}
spec:
  policies: [floor]
  starts: 2026-03-02 09:00 Europe/Berlin
  every: 1m
  accounts:
    main:
      venue: paper
      market: swap
      currency: USDT
      equity: 2000 900
      positions: [{symbol: 'BTC/USDT:USDT', side: long, contracts: 1, price: 2000 900}]
  expect: [{at: 1m, fires: stop, lock: reduce_only, orders: [sell 1 BTC/USDT:USDT]}]
"""
Files = dict[str, str]


def files(written: Files) -> tuple[PolicyFile, ...]:
    """Files in memory by their paths."""
    return tuple(PolicyFile(path, text.encode()) for path, text in written.items())


BASE: Files = {"floor.yaml": EQUITY}


def request(head: Files, base: Files | None = None, **more: object) -> ReviewRequest:
    """The request to review one signed commit of dan@desk.example."""
    after = files(head)
    commit = VerifiedCommit("c" * 40, ("b" * 40,), "dan@desk.example", ("Dan <dan@desk.example>",), "Edit")
    candidate = Candidate(
        source="desk", kind="git", files=after, folder_digest=folder_digest(after), ref="refs/heads/main",
        path="policies", commit=commit.id, steps=(FirstParentStep(commit.id, folder_digest(after), (commit,), after),),
    )  # fmt: skip
    made = ReviewRequest(
        base=files(BASE if base is None else base),
        base_digest="",
        candidate=candidate,
        trust=None,
        now=NOW,
        seconds=30.0,
    )
    return replace(made, **more)


def reviewed(head: Files, base: Files | None = None, trust: Trust | None = None, **more: object) -> Review:
    """The review of a change, in this process."""
    return review(request(head, base, **more), trust, perf_counter)


def edited(old: str, new: str, text: str = EQUITY) -> Files:
    """The base with one edit of its policy."""
    assert text.count(old) == 1
    return {"floor.yaml": text.replace(old, new)}
