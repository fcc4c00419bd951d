"""A folder with one policy and one account, and a scripted venue, for tests of the monitor as a library."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

POLICY = """apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, venue: paper, market: swap, currency: USDT, endpoint: 'http://127.0.0.1:1', execution: live}
---
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: crash}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 60s
  triggers:
    fall: {signal: equity.loss_from_start, at_least: 10%, on_unknown: hold}
  stages:
    - name: stop
      level: 3
      any: [fall]
      cooldown: 1h
      reset: manual
      actions: [lock_trading: {mode: reduce_only}]
"""


def policies(folder: Path, text: str = POLICY) -> Path:
    """The folder `policies` with the policy and its account."""
    found = folder / "policies"
    found.mkdir()
    (found / "policy.yaml").write_text(text, encoding="utf-8")
    return found


def until(is_so: Callable[[], bool], what: str, within: float = 60.0) -> None:
    """Wait until it is so; AssertionError after `within` seconds."""
    end = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < end, f"never {what}"
        time.sleep(0.01)
