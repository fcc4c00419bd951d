"""Venue adapters by name: the entry-point group `killswitch.adapters`. No adapter is imported by name here."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from urllib.parse import parse_qsl, urlsplit

from killswitch.model.venue import AccountSpec, AdapterFactory, VenueAdapter
from killswitch.runner.discretion import DiscreetVenue, Redactor
from killswitch.runner.fitting import ADAPTERS, unknown_adapter

SHORTEST_SECRET = 4
"""Characters: hiding a shorter value would make every reason unreadable."""


class AdapterError(Exception):
    """An adapter is missing, cannot be imported, or refuses the account; the message says which and why."""


def make_adapter(spec: AccountSpec) -> VenueAdapter:
    """The adapter of `spec`, made but not yet connected. AdapterError if that is impossible.

    No error that it raises, now or later, says a credential, or what the endpoint's address asks with.
    """
    factory = _factory(spec.adapter)
    secrets = (*spec.credentials.values(), *_asked_with(spec.endpoint))
    redactor = Redactor(secrets)
    try:
        adapter = factory(spec)
    except Exception as error:  # noqa: BLE001 - third-party code: whatever it raises is this account's problem
        # What an adapter refuses is a ValueError with words for people. Of any other kind its class says what it is.
        words = str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}"
        why = redactor.hide(words)
        # Without its cause: a chain of errors shows the words of each.
        raise AdapterError(f"account {spec.account}: adapter {spec.adapter} refused it: {why}") from None
    return DiscreetVenue(adapter, redactor) if secrets else adapter


def _asked_with(endpoint: str | None) -> tuple[str, ...]:
    """The query of an address: some services take their token there, whoever wrote it openly into a document."""
    try:
        query = urlsplit(endpoint or "").query
    except ValueError:
        return ()
    values = (value for _, value in parse_qsl(query) if len(value) >= SHORTEST_SECRET)
    return (query, *values) if query else ()


def _factory(name: str) -> AdapterFactory:
    found = entry_points(group=ADAPTERS, name=name)
    if not found:
        raise AdapterError("; ".join(unknown_adapter(name)))
    entry: EntryPoint = next(iter(found))
    try:
        factory: AdapterFactory = entry.load()
    except Exception as error:  # importing third-party code may raise anything
        raise AdapterError(
            f"adapter {name} ({entry.value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return factory
