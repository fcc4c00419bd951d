"""The accounts of a run, which of them are armed, and the work that an earlier run left on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from msgspec import Struct

from killswitch.graph.nodes import PolicySet, ScopeRule
from killswitch.model.applied_set import name_now
from killswitch.model.decision import Decision
from killswitch.model.snapshot import AccountSnapshot, Health, Market, Quality
from killswitch.model.store import Store
from killswitch.model.venue import VenueAdapter
from killswitch.planning.scopes.compiled_policy import Identity, members_of, scopes_of


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

    def unreadable(self, quality: Quality, reason: str, health: Health | None = None) -> AccountSnapshot:
        """The snapshot of this account when its venue could not be polled: no data, and the reason.

        `health`: what is known of the poll nevertheless.
        """
        return AccountSnapshot(
            account=self.name, venue=self.venue, market=self.market, currency=self.currency,
            quality=quality, reason=reason, health=health,
        )  # fmt: skip


_WIDE = ("portfolio", "venue")
"""What a rule draws scopes by that are wider than a venue's accounts, or as wide."""


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
        self._rules: dict[str, ScopeRule] = {}
        self.names = frozenset(name for name, account in accounts.items() if account.armed)
        """Every armed account."""
        self.reload(policies, strategies)

    def reload(self, policies: PolicySet, strategies: Mapping[str, frozenset[str]] | None = None) -> None:
        """Draw scopes as these policies do; the accounts, and which of them are armed, stay.

        The scopes of a policy that is gone stay as it drew them: its locks reach what they reached.
        """
        strategies = strategy_accounts(policies, self._accounts.values()) if strategies is None else strategies
        self._strategies = {
            f"strategy/{name}": found
            for name, members in strategies.items()
            if (found := members & self._accounts.keys())
        }
        self._rules = self._rules | {graph.policy: graph.scope for graph in policies.graphs}
        self._observing = frozenset(graph.policy for graph in policies.graphs if graph.mode == "observe")
        self.strategy_scopes = frozenset(
            scope for scope, members in self._strategies.items() if not members.isdisjoint(self.names)
        )
        """The scopes of strategies that trade in an armed account."""

    def reached_by(self, policy: str, scope: str) -> frozenset[str]:
        """The armed accounts of `scope` as `policy` draws it; an operator command, which has no policy, reaches all."""
        return self.names & self._members(policy, scope)

    def acts_on(self, decision: Decision) -> bool:
        """Whether a run acts on the decision: also one of an earlier run, whose policy may only observe by now."""
        return decision.policy not in self._observing and is_acted_on(decision, self)

    def locked_by(self, policy: str, scope: str) -> frozenset[str]:
        """The armed accounts that a lock of `policy` on `scope` locks.

        A strategy that shares its accounts, and a symbol, have a lock file of their own, which locks nothing else of
        these accounts.
        """
        return self.reached_by(policy, scope) if self._has_whole_accounts(policy, scope) else frozenset()

    def narrower(self, policy: str, scope: str) -> frozenset[str]:
        """The scopes that a lock of `policy` on `scope` locks as well: its accounts, armed or not, their venues if the
        scope is wider than those, and the strategies that trade in them, as a bot reads one file.
        """
        if not self._has_whole_accounts(policy, scope):
            return frozenset()
        members = self._members(policy, scope)
        accounts = [self._accounts[name] for name in members]
        rule = self._rules.get(policy)
        has_venues = scope.partition("/")[0] in ("portfolio", "venue") if rule is None else rule.each in _WIDE
        venues = {f"venue/{each.venue}" for each in accounts} if has_venues else set()
        strategies = {each for each, names in self._strategies.items() if not names.isdisjoint(members)}
        return frozenset({f"account/{each.name}" for each in accounts} | venues | strategies) - {scope}

    def wider(self) -> dict[str, tuple[str, ...]]:
        """Scope → the wider scopes that contain it, for every account, venue and strategy.

        The scopes of labels, and of strategies that own whole accounts, contain accounts and no venue.
        """
        accounts = self._accounts.values()
        groups: dict[str, dict[str, None]] = {}
        for rule in self._rules.values():
            for scope, names in scopes_over(rule, accounts).items() if rule.each in ("label", "strategy") else ():
                for name in names if rule.has_equity(scope) else ():
                    groups.setdefault(name, {})[scope] = None
        above = {each.name: (*groups.get(each.name, ()), f"venue/{each.venue}", "portfolio") for each in accounts}
        scopes: dict[str, tuple[str, ...]] = {f"venue/{each.venue}": ("portfolio",) for each in accounts}
        scopes |= {f"account/{name}": wider for name, wider in above.items()}
        for scope, members in self._strategies.items():
            inside = {each for name in sorted(members) for each in (f"account/{name}", *above[name])}
            scopes[scope] = tuple(sorted(inside - {scope}))
        return scopes

    def _has_whole_accounts(self, policy: str, scope: str) -> bool:
        if (rule := self._rules.get(policy)) is not None:
            return rule.has_equity(scope)
        kind = scope.partition("/")[0]
        strategies = (rule for rule in self._rules.values() if rule.each == "strategy")
        return kind != "symbol" and (kind != "strategy" or any(rule.has_equity(scope) for rule in strategies))

    def _members(self, policy: str, scope: str) -> frozenset[str]:
        rule = self._rules.get(policy)
        if rule is not None:
            return frozenset(members_of(rule, scope, map(_identity, self._accounts.values())))
        if scope.startswith("strategy/"):
            return self._strategies.get(scope, frozenset())
        if scope.startswith("label/"):  # by hand: what the policies draw under it
            drawn = (each for each in self._rules.values() if each.each == "label")
            accounts = [*map(_identity, self._accounts.values())]
            return frozenset(name for each in drawn for name in members_of(each, scope, accounts))
        return frozenset(each.name for each in self._accounts.values() if is_in_scope(scope, each.name, each.venue))


def scopes_over(rule: ScopeRule, accounts: Iterable[ArmedAccount]) -> Mapping[str, tuple[str, ...]]:
    """Every scope that a policy's rule draws over these accounts, with the names of those in it."""
    return scopes_of(rule, [*map(_identity, accounts)])


def _identity(account: ArmedAccount) -> Identity:
    return (account.name, account.venue, account.market, account.currency)


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
    changes = [each for each in store.set_changes(REMEMBERED) if each.renamed]
    for stored in store.decisions(REMEMBERED):
        if not stored.decision.is_suspicion:  # it neither latches nor resets a stage
            policy = name_now(stored.decision.policy, stored.decision.as_of, changes)
            newest.setdefault((policy, stored.decision.scope), stored.decision)
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
