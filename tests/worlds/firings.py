"""Scenarios of a single trigger: a policy around it, a recording, and when it fires or is unknown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime

from msgspec import Struct

from killswitch.graph.nodes import PolicySet
from killswitch.lab.recording import replay
from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import Snapshot, decode_snapshot, encode_snapshot
from tests.backtests import written

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: scenario}}
spec:
  mode: enforce
  scope: {scope}
  max_gap: {max_gap}
  {spec}
  triggers: {{it: {{{trigger}, on_unknown: {on_unknown}, grace: {grace}}}}}
  stages:
    - name: close-everything
      level: 1
      any: [it]
      cooldown: 1m
      reset: manual
      actions: [{{lock_trading: {{mode: reduce_only}}}}, {{close: {close}}}]
"""


class Scenario(Struct, frozen=True):
    """A trigger of one signal with three recordings.

    A module of `tests/unit/signals` has them in `SCENARIOS`, by the name of the signal and, where it has several, a
    colon and what is particular. `tests/unit/signals/test_every_signal.py` replays them, and requires one of each
    signal.
    """

    trigger: str
    fires: list[Snapshot]
    calm: list[Snapshot]
    """What looks like it and is not: the false alarm that a signal of its kind is known for."""
    unknown: list[Snapshot] | None
    """Without what it is computed from; None for a signal that is never unknown."""
    at: datetime | None = None
    """When it fires first; None: at the last snapshot, and at none before."""
    scope: str = "{each: account, match: {}}"
    documents: str = ""
    max_gap: str = "10m"

    @property
    def policies(self) -> PolicySet:
        """A policy that closes everything on the trigger."""
        return policy_of(self.trigger, scope=self.scope, documents=self.documents, max_gap=self.max_gap)


def policy_of(
    trigger: str,
    *,
    scope: str = "{each: account, match: {}}",
    max_gap: str = "10m",
    on_unknown: str = "hold",
    grace: str = "1s",
    documents: str = "",
    spec: str = "",
    close: str = "{side: both, fraction: 100%}",
) -> PolicySet:
    """A policy that closes everything on `trigger`, written as in a flow mapping.

    `documents`: further YAML; `spec`: a further key of the policy's spec, in one line.
    """
    text = POLICY.format(
        trigger=trigger, scope=scope, max_gap=max_gap, on_unknown=on_unknown, grace=grace, spec=spec, close=close
    )
    return written(f"{text}---\n{documents}" if documents else text)


def firings(policies: PolicySet, recording: Iterable[Snapshot]) -> list[datetime]:
    """The instants at which a stage fires in a replay of the recording, which is written and read first."""
    return [each.as_of for each in _replayed(policies, recording) if isinstance(each, Decision) and each.stage]


def unknowns(policies: PolicySet, recording: Iterable[Snapshot]) -> list[str]:
    """The texts of the notices that a trigger is unknown, in a replay of the recording."""
    found = [each for each in _replayed(policies, recording) if isinstance(each, Notice)]
    return [each.text for each in found if "unknown" in each.text]


def _replayed(policies: PolicySet, recording: Iterable[Snapshot]) -> Sequence[Decision | Notice]:
    lines = [json.dumps(json.loads(encode_snapshot(each))) for each in recording]
    return list(replay(policies, [decode_snapshot(line) for line in lines]))
