"""Which accounts a lock reaches, by the scope that it is on."""

from __future__ import annotations

import pytest

from killswitch.accounts.arming import ArmedAccount, Arming
from tests.backtests import written

POLICY = """apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  mode: enforce
  scope: {scope}
  max_gap: 10m
  triggers: {{it: {{signal: exposure.imbalance, above: 50%, on_unknown: hold}}}}
  stages: [{{name: a, level: 1, any: [it], cooldown: 1m, reset: manual, actions: []}}]
---
"""
ACCOUNT = """apiVersion: killswitch.dev/v1
kind: Account
metadata: {{name: {name}, labels: {{desk: {desk}}}}}
spec: {{adapter: paper, market: swap, currency: USDT, execution: observe}}
---
"""
STRATEGIES = """apiVersion: killswitch.dev/v1
kind: Strategy
metadata: {name: grid}
spec: {match: {account: [a, b]}, order_ids: grid-}
---
apiVersion: killswitch.dev/v1
kind: Strategy
metadata: {name: alone}
spec: {match: {account: c}, whole: true}
"""


@pytest.fixture
def arming() -> Arming:
    """Three accounts of one venue: two of one desk, which two strategies share, and one that a strategy owns."""
    text = "".join(
        POLICY.format(name=each, scope=f"{{each: {each}, {more}match: {{}}}}")
        for each, more in (("strategy", ""), ("symbol", ""), ("label", "label: desk, "), ("portfolio", ""))
    )
    desks = {"a": "alpha", "b": "alpha", "c": "beta"}
    policies = written(text + "".join(ACCOUNT.format(name=n, desk=d) for n, d in desks.items()) + STRATEGIES)
    accounts = {name: ArmedAccount(name, "paper", "swap", "USDT", None, armed=True) for name in desks}  # type: ignore[arg-type] # nothing is asked of the venue
    return Arming(accounts, policies)


@pytest.mark.parametrize(
    ("policy", "scope", "reached", "locked", "narrower"),
    [
        ("strategy", "strategy/grid", "ab", "", set()),
        ("strategy", "strategy/alone", "c", "c", {"account/c"}),
        ("symbol", "symbol/BTC_USDT", "abc", "", set()),
        ("label", "label/desk=alpha", "ab", "ab", {"account/a", "account/b", "strategy/grid"}),
        (
            "portfolio",
            "portfolio",
            "abc",
            "abc",
            {"account/a", "account/b", "account/c", "venue/paper", "strategy/grid", "strategy/alone"},
        ),
    ],
)
def test_a_lock_of_a_shared_strategy_or_a_symbol_locks_no_account(
    arming: Arming, policy: str, scope: str, reached: str, locked: str, narrower: set[str]
) -> None:
    """Its decisions act on the accounts; its lock is in a file of its own, which the bots of others do not read.

    A lock of whole accounts reaches the files of the strategies that trade in them: a strategy's bot reads one file.
    """
    assert arming.reached_by(policy, scope) == frozenset(reached)
    assert arming.locked_by(policy, scope) == frozenset(locked)
    assert arming.narrower(policy, scope) == narrower


def test_an_accounts_file_contains_the_locks_of_its_label_and_of_the_strategy_that_owns_it(arming: Arming) -> None:
    """A bot reads one file: that of its account has the locks of all scopes that contain the whole account."""
    wider = arming.wider()
    assert wider["account/a"] == ("label/desk=alpha", "venue/paper", "portfolio")
    assert wider["account/c"] == ("label/desk=beta", "strategy/alone", "venue/paper", "portfolio")
