"""The accounts that a runner reads, and which of them it may act on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from killswitch.graph.nodes import PolicySet
from killswitch.model.snapshot import AccountSnapshot, Market, Quality
from killswitch.model.venue import VenueAdapter
from killswitch.planning.scopes.compiled_policy import Identity, scopes_of


@dataclass(frozen=True, slots=True)
class ArmedAccount:
    """One account: who it is, how it is reached, and whether it is armed.

    `armed` is true only when its document says `execution: live` *and* the runner was started with `--live`.
    """

    name: str
    venue: str
    market: Market
    currency: str
    adapter: VenueAdapter
    armed: bool
    closing_share: Decimal = Decimal("0.5")
    """The fraction of every request limit of the venue that reading leaves alone."""

    suspends: bool = False
    """Whether its broker is told to suspend trading while all of it is locked."""

    def unreadable(self, quality: Quality, reason: str) -> AccountSnapshot:
        """What a tick knows of this account when its venue could not be read: nothing, and why."""
        return AccountSnapshot(
            account=self.name, venue=self.venue, market=self.market, currency=self.currency,
            quality=quality, reason=reason,
        )  # fmt: skip


class Arming:
    """Which armed accounts a decision reaches."""

    def __init__(self, accounts: Mapping[str, ArmedAccount], policies: PolicySet) -> None:
        self._accounts = accounts
        self._rules = {graph.policy: graph.scope for graph in policies.graphs}
        self.names = frozenset(name for name, account in accounts.items() if account.armed)
        """Every armed account."""

    def reached_by(self, policy: str, scope: str) -> frozenset[str]:
        """The armed accounts of `scope` as `policy` draws it; a policy that is not in the set (a hand) takes all."""
        return self.names & self._members(policy, scope)

    def narrower(self, policy: str, scope: str) -> frozenset[str]:
        """The scopes that a lock of `policy` on `scope` locks as well: its accounts, armed or not, and their venues."""
        reached = [self._accounts[name] for name in self._members(policy, scope)]
        venues = {f"venue/{each.venue}" for each in reached}
        return frozenset({f"account/{each.name}" for each in reached} | venues) - {scope}

    def wider(self) -> dict[str, tuple[str, ...]]:
        """Scope → the scopes that it is a part of, for every account and venue."""
        accounts = self._accounts.values()
        found = {f"account/{each.name}": (f"venue/{each.venue}", "portfolio") for each in accounts}
        return found | {f"venue/{each.venue}": ("portfolio",) for each in accounts}

    def _members(self, policy: str, scope: str) -> frozenset[str]:
        rule = self._rules.get(policy)
        if rule is not None:
            identities: list[Identity] = [(a.name, a.venue, a.market, a.currency) for a in self._accounts.values()]
            return frozenset(scopes_of(rule, identities).get(scope, ()))
        kind, _, name = scope.partition("/")
        return frozenset(
            account.name
            for account in self._accounts.values()
            if kind == "portfolio" or (kind, name) in (("account", account.name), ("venue", account.venue))
        )
