"""Shell completion of accounts, scopes, policies, venues, diagnostic codes and schemas.

A shell calls a completer at every press of the tab key: a completer that fails returns nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path

import click
from click.shell_completion import CompletionItem

Completions = Iterable[tuple[str, str]]
"""Completions, each with its help text."""


Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _completing(entries_of: Callable[[click.Context], Completions]) -> Completer:
    """Turn a list of words into a click completer that filters by prefix and returns nothing on failure."""

    @wraps(entries_of)
    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        prefix = incomplete.lower()
        try:
            return [CompletionItem(w, help=text or None) for w, text in entries_of(ctx) if w.lower().startswith(prefix)]
        except Exception:  # noqa: BLE001 - the verb reports the error when it runs
            return []

    return complete


@_completing
def codes(_ctx: click.Context) -> Completions:
    """Diagnostic codes with their titles."""
    from killswitch.policy.diagnostics.pages import pages

    return ((code, page.title) for code, page in pages().items())


@_completing
def schemas(_ctx: click.Context) -> Completions:
    """Document kinds and the other arguments of `ksctl schema`."""
    from killswitch.policy.kinds import KINDS

    kinds = ((kind, document.__doc__ or "") for kind, document in KINDS.items())
    others = ("signals", "events", "plan", "gate-view", "pretrade", "verdict", "all")
    return [*kinds, *((name, "") for name in others)]


@_completing
def scopes(ctx: click.Context) -> Completions:
    """Scopes of the policy files: accounts, venues, strategies, and the symbols and labels that policies watch."""
    found = list(_accounts(ctx))
    entries = [(f"account/{name}", "") for name, _ in found] + [(f"venue/{venue}", "") for _, venue in found]
    return [*dict.fromkeys([*entries, *_parts(ctx)]), ("portfolio", "all accounts")]


def _parts(ctx: click.Context) -> Iterator[tuple[str, str]]:
    """Every strategy, and the symbols and labels that policies draw scopes by."""
    from killswitch.policy.loader import load
    from killswitch.policy.schema.account import AccountDocument
    from killswitch.policy.schema.policy import PolicyDocument
    from killswitch.policy.schema.strategy import StrategyDocument

    paths = [Path(each) for each in ctx.params.get("policies_at") or ()]
    models = [document.model for document in load(paths).documents] if paths else []
    accounts = [each.metadata.labels for each in models if isinstance(each, AccountDocument)]
    for model in models:
        if isinstance(model, StrategyDocument):
            yield f"strategy/{model.metadata.name}", ""
        elif isinstance(model, PolicyDocument):
            scope = model.spec.scope
            yield from ((f"symbol/{symbol}", "") for symbol in scope.symbol or ())
            key = scope.label
            yield from ((f"label/{key}={labels[key]}", "") for labels in accounts if key is not None and key in labels)


@_completing
def venues(_ctx: click.Context) -> Completions:
    """Venues that are supported by name."""
    from killswitch.accounts.plug_ins import load_plug_ins

    return ((listing.exchange or listing.adapter, "") for listing in load_plug_ins().listings)


@_completing
def policies(ctx: click.Context) -> Completions:
    """The policies of the policy files, as `ksctl pause` takes them."""
    from killswitch.policy.loader import load
    from killswitch.policy.schema.policy import PolicyDocument

    paths = [Path(each) for each in ctx.params.get("policies_at") or ()]
    found = load(paths).documents if paths else ()
    return [(f"policy/{each.name}", "") for each in found if isinstance(each.model, PolicyDocument)]


def _accounts(ctx: click.Context) -> Iterator[tuple[str, str]]:
    """(name, venue) of every readable Account document."""
    from killswitch.policy.loader import load
    from killswitch.policy.schema.account import AccountDocument, venue_of

    paths = [Path(each) for each in ctx.params.get("policies_at") or ()]
    for document in load(paths).documents if paths else ():
        if isinstance(document.model, AccountDocument):
            yield document.name, venue_of(document.model.spec)


accounts = _completing(_accounts)
"""Accounts in the files of --policies or KSCTL_POLICIES."""
