"""What a shell completes: verbs by themselves, and the words that only policies or the program know.

A shell asks at every press of the tab key, so nothing here may fail loudly: what cannot be read completes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path

import click
from click.shell_completion import CompletionItem

Words = Iterable[tuple[str, str]]
"""What can be written, each with its meaning."""


def _completing(
    words: Callable[[click.Context], Words],
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """A completer of those that begin so; it offers nothing where it fails: the person is in the middle of a line."""

    @wraps(words)
    def offered(ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
        begins = begun.lower()
        try:
            return [CompletionItem(w, help=text or None) for w, text in words(ctx) if w.lower().startswith(begins)]
        except Exception:  # noqa: BLE001 - the verb itself says what is wrong, when it is called
            return []

    return offered


@_completing
def codes(_ctx: click.Context) -> Words:
    """Codes of diagnostics, with their titles."""
    from killswitch.policy.diagnostics.pages import pages

    return ((code, page.title) for code, page in pages().items())


@_completing
def schemas(_ctx: click.Context) -> Words:
    """What there is a schema of."""
    from killswitch.policy.kinds import KINDS

    kinds = ((kind, document.__doc__ or "") for kind, document in KINDS.items())
    return [*kinds, ("signals", ""), ("events", ""), ("plan", ""), ("all", "")]


@_completing
def accounts(ctx: click.Context) -> Words:
    """Accounts of the policies that are named before, or in KSCTL_POLICIES."""
    return _accounts(ctx)


@_completing
def scopes(ctx: click.Context) -> Words:
    """Scopes of these accounts."""
    found = list(_accounts(ctx))
    each = [(f"account/{name}", "") for name, _ in found] + [(f"venue/{venue}", "") for _, venue in found]
    return [*dict.fromkeys(each), ("portfolio", "all accounts")]


@_completing
def venues(_ctx: click.Context) -> Words:
    """Venues that are supported by name."""
    from killswitch.accounts.plug_ins import families

    return ((listing.exchange or listing.adapter, "") for listing in families().listings)


def _accounts(ctx: click.Context) -> Iterator[tuple[str, str]]:
    """(name, venue) of every Account that can be read."""
    from killswitch.policy.loader import load
    from killswitch.policy.schema.account import AccountDocument, venue_of

    paths = [Path(each) for each in ctx.params.get("policies_at") or ()]
    for document in load(paths).documents if paths else ():
        if isinstance(document.model, AccountDocument):
            yield document.name, venue_of(document.model.spec)
