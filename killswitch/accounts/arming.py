"""The accounts of a run, which of them are armed, and the work that an earlier run left on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from msgspec import Struct

from killswitch.graph.nodes import PolicySet, ScopeRule
from killswitch.model.decision import Decision
from killswitch.model.snapshot import AccountSnapshot, Market, Quality
from killswitch.model.store import Store
from killswitch.model.venue import VenueAdapter
from killswitch.planning.scopes.compiled_policy import scopes_of


class ArmedAccount(Struct, frozen=True):
    """One account: its identity, its adapter, and whether it is armed.

    `armed` is true only when its document sets `execution: live` *and* the runner was started with `--live`.
    """

    name: str
    venue: str
    market: Market
    currency: str
    adapter: VenueAdapter
    armed: bool
    closing_share: Decimal = Decimal("0.5")
    """The fraction of every request limit of the venue that is reserved for closing."""

    suspends: bool = False
    """Whether trading is suspended at the broker while a lock of mode `all` is in force."""

    def unreadable(self, quality: Quality, reason: str) -> AccountSnapshot:
        """The snapshot of this account when its venue could not be polled: no data, and the reason."""
        return AccountSnapshot(
            account=self.name, venue=self.venue, market=self.market, currency=self.currency,
            quality=quality, reason=reason,
        )  # fmt: skip


class Arming:
    """The armed accounts that a decision reaches."""

    def __init__(
        self,
        accounts: Mapping[str, ArmedAccount],
        policies: PolicySet,
        strategies: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        """`strategies`: name → the accounts that it trades in; each has a lock file of its own. None: those that the
        policies watch.
        """
        self._accounts = accounts
        strategies = strategy_accounts(policies, accounts.values()) if strategies is None else strategies
        self._strategies = {
            f"strategy/{name}": found for name, members in strategies.items() if (found := members & accounts.keys())
        }
        self._rules = {graph.policy: graph.scope for graph in policies.graphs}
        self.names = frozenset(name for name, account in accounts.items() if account.armed)
        """Every armed account."""
        self.strategy_scopes = frozenset(
            scope for scope, members in self._strategies.items() if not members.isdisjoint(self.names)
        )
        """The scopes of strategies that trade in an armed account."""

    def reached_by(self, policy: str, scope: str) -> frozenset[str]:
        """The armed accounts of `scope` as `policy` draws it; an operator command, which has no policy, reaches all."""
        return self.names & self._members(policy, scope)

    def narrower(self, policy: str, scope: str) -> frozenset[str]:
        """The scopes that a lock of `policy` on `scope` locks as well: its accounts, armed or not, and their venues.

        A strategy that trades in one of the accounts is locked with it: its bot reads one file.
        """
        names = self._members(policy, scope)
        strategies = {each for each, members in self._strategies.items() if not members.isdisjoint(names)}
        accounts = {f"account/{name}" for name in names}
        if scope.startswith("account/"):
            return frozenset(strategies)
        venues = {f"venue/{self._accounts[name].venue}" for name in names}
        return frozenset(accounts | venues | strategies) - {scope}

    def wider(self) -> dict[str, tuple[str, ...]]:
        """Scope → the wider scopes that contain it, for every account, venue and strategy."""
        accounts = self._accounts.values()
        scopes: dict[str, tuple[str, ...]] = {f"venue/{each.venue}": ("portfolio",) for each in accounts}
        scopes |= {f"account/{each.name}": (f"venue/{each.venue}", "portfolio") for each in accounts}
        for scope, members in self._strategies.items():
            inside = {each for name in sorted(members) for each in (f"account/{name}", *scopes[f"account/{name}"])}
            scopes[scope] = tuple(sorted(inside))
        return scopes

    def _members(self, policy: str, scope: str) -> frozenset[str]:
        rule = self._rules.get(policy)
        if rule is not None:
            return frozenset(scopes_over(rule, self._accounts.values()).get(scope, ()))
        if scope.startswith("strategy/"):
            return self._strategies.get(scope, frozenset())
        return frozenset(each.name for each in self._accounts.values() if is_in_scope(scope, each.name, each.venue))


def scopes_over(rule: ScopeRule, accounts: Iterable[ArmedAccount]) -> Mapping[str, tuple[str, ...]]:
    """Every scope that a policy's rule draws over these accounts, with the names of those in it."""
    return scopes_of(rule, [(each.name, each.venue, each.market, each.currency) for each in accounts])


def strategy_accounts(policies: PolicySet, accounts: Iterable[ArmedAccount]) -> dict[str, frozenset[str]]:
    """The strategies that policies watch, each with the accounts that it trades in."""
    found: dict[str, frozenset[str]] = {}
    present = tuple(accounts)
    for graph in policies.graphs:
        for scope, names in scopes_over(graph.scope, present).items():
            kind, _, name = scope.partition("/")
            if kind == "strategy":
                found[name] = found.get(name, frozenset()) | frozenset(names)
    return found


def is_in_scope(scope: str | None, account: str, venue: str | None) -> bool:
    """Whether an account, a venue, a symbol or the portfolio as a command names it (None) reaches the account.

    A symbol reaches every account.
    """
    kind, _, name = (scope or "portfolio").partition("/")
    return kind in ("portfolio", "symbol") or (kind, name) in (("account", account), ("venue", venue))


REMEMBERED = 10_000
"""Number of the newest decisions from which a start restores what is in force."""


def is_acted_on(decision: Decision, arming: Arming) -> bool:
    """Whether `decision` is acted on, or only recorded.

    Decisions of an observing policy, and those whose scope has no armed account, are only recorded. A reset undoes what
    the policy did while it was enforced, so it is acted on in every mode.
    """
    if decision.mode != "enforce" and decision.kind != "reset":
        return False
    return bool(arming.reached_by(decision.policy, decision.scope))


def observed_latches(store: Store, arming: Arming) -> tuple[Decision, ...]:
    """Stages that are latched on scopes that are armed now, but were only observed when they fired.

    A latched stage does not fire again, so nothing happens unless an operator resets it.
    """
    newest: dict[tuple[str, str], Decision] = {}
    for stored in store.decisions(REMEMBERED):
        if not stored.decision.is_suspicion:  # it neither latches nor resets a stage
            newest.setdefault((stored.decision.policy, stored.decision.scope), stored.decision)
    return tuple(
        decision
        for decision in newest.values()
        if decision.kind is None
        and is_acted_on(decision, arming)
        and decision.effects
        and not any(entry.kind == "planned" for entry in store.journal(decision.id))
    )


def open_closes(store: Store) -> list[tuple[str, Decision]]:
    """(account, decision) for every decision whose work on the account was planned and is not finished."""
    return [(account, decision) for account, decisions in left_to_do(store).items() for decision in decisions]


def left_to_do(store: Store) -> dict[str, tuple[Decision, ...]]:
    """Account → decisions whose work on it was planned and is not finished, oldest first."""
    open_decisions: dict[str, tuple[Decision, ...]] = {}
    for stored in store.unfinished():
        journal = store.journal(stored.decision.id)
        planned = {entry.account for entry in journal if entry.kind == "planned" and entry.account is not None}
        finished = {entry.account for entry in journal if entry.kind == "finished"}
        for account in sorted(planned - finished):
            open_decisions[account] = (*open_decisions.get(account, ()), stored.decision)
    return open_decisions
