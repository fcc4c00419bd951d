"""Account documents that lead to one book of a venue: armed twice, two closers would work on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from killswitch.graph.accounts import book_of
from killswitch.policy.account_document import AccountDocument, AccountSpec
from killswitch.runner.credentials import resolve
from killswitch.runner.fitting import families_of


def armed_twins(documents: Iterable[AccountDocument]) -> Iterator[tuple[str, str]]:
    """Names of accounts that would be armed and are one account of one venue. CredentialError for a missing secret."""
    armed = [each for each in documents if each.spec.execution == "live" and each.spec.credentials]
    found: dict[object, str] = {}
    for document in armed:
        name = document.metadata.name
        key = _book(document.spec, resolve(document.spec.credentials, account=name))
        if key in found:
            yield found[key], name
        found.setdefault(key, name)


def twin_words(first: str, second: str) -> str:
    """Why two documents that arm one account are refused."""
    return (
        f"accounts {first} and {second} are one account of one venue: their credentials are the same; "
        "take one of the two documents out, or set its execution to observe"
    )


def twins(document: AccountDocument, others: Sequence[AccountDocument]) -> tuple[str, ...]:
    """Names of the other documents that lead to the same book, as far as documents tell.

    Without credentials nothing tells: an account of a paper venue goes by its name.
    """
    if not document.spec.credentials:
        return ()
    here, name = _book(document.spec), document.metadata.name
    return tuple(each.metadata.name for each in others if each.metadata.name != name and _book(each.spec) == here)


def _book(spec: AccountSpec, credentials: Mapping[str, str] | None = None) -> tuple[object, ...]:
    """Where nobody tells that a venue keeps currencies apart, one key is taken to lead to one book."""
    family = families_of({spec.adapter}).get(spec.adapter)
    try:
        apart = family is not None and bool(family.keeps_apart(spec.exchange))
    except Exception:  # noqa: BLE001 - third-party code, which may lack it: then nobody tells
        apart = False
    return book_of(spec, credentials, apart=apart)
