"""What a shell completes: verbs by themselves, and the words that only policies or the program know.

A shell asks at every press of the tab key, so nothing here may fail loudly: what cannot be read completes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _quietly(complete: Completer) -> Completer:
    """A completer that offers nothing where it fails: whoever presses the key is in the middle of a line."""

    @wraps(complete)
    def offered(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
        try:
            return complete(ctx, param, begun)
        except Exception:  # noqa: BLE001 - the verb itself says what is wrong, when it is called
            return []

    return offered


@_quietly
def codes(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Codes of diagnostics, with their titles."""
    from killswitch.policy.diagnostics.pages import pages

    return _beginning(begun.upper(), ((code, page.title) for code, page in pages().items()))


@_quietly
def schemas(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """What there is a schema of."""
    from killswitch.policy.kinds import KINDS

    kinds = ((kind, document.__doc__ or "") for kind, document in KINDS.items())
    return _beginning(begun, [*kinds, ("signals", ""), ("events", ""), ("plan", ""), ("all", "")])


@_quietly
def accounts(ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Accounts of the policies that are named before, or in KSCTL_POLICIES."""
    return _beginning(begun, ((name, venue) for name, venue in _accounts(ctx)))


@_quietly
def scopes(ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Scopes of these accounts."""
    found = list(_accounts(ctx))
    each = [(f"account/{name}", "") for name, _ in found] + [(f"venue/{venue}", "") for _, venue in found]
    return _beginning(begun, [*dict.fromkeys(each), ("portfolio", "all accounts")])


@_quietly
def venues(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Venues that are supported by name."""
    from killswitch.accounts.plug_ins import families

    return _beginning(begun, ((listing.exchange or listing.adapter, "") for listing in families().listings))


def _accounts(ctx: click.Context) -> Iterator[tuple[str, str]]:
    """(name, venue) of every Account that can be read."""
    from killswitch.policy.loader import load
    from killswitch.policy.schema.account import AccountDocument, venue_of

    paths = [Path(each) for each in ctx.params.get("policies_at") or ()]
    for document in load(paths).documents if paths else ():
        if isinstance(document.model, AccountDocument):
            yield document.name, venue_of(document.model.spec)


def _beginning(begun: str, words: Iterable[tuple[str, str]]) -> list[CompletionItem]:
    return [CompletionItem(word, help=meaning or None) for word, meaning in words if word.startswith(begun)]
