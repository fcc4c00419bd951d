"""Venue plug-ins: venues and their adapters by name, from the entry points of installed packages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from killswitch.accounts.redaction import RedactedAdapter, Redactor
from killswitch.accounts.validation import ADAPTERS, unknown_adapter
from killswitch.model.fitting import VENUES
from killswitch.model.inspection import BarHistory
from killswitch.model.legible import one_line
from killswitch.model.venue import AccountSpec, AdapterFactory, VenueAdapter, VenueFamily, VenueListing

GROUP = VENUES


class NoSuchVenueError(Exception):
    """No loaded plug-in knows the venue; the message lists the venues, and the plug-ins that could not be loaded."""


class AbsentPlugIn(Struct, frozen=True):
    """A plug-in that cannot be loaded: its name, the cause, and the way out."""

    name: str
    why: str
    way_out: str

    def __str__(self) -> str:
        return f"the venues of {self.name} are not available: {self.why}; {self.way_out}"


class LoadedPlugIn(Struct, frozen=True):
    """A loaded plug-in, with the venues that it lists."""

    entry: EntryPoint
    plug_in: VenueFamily
    listings: tuple[VenueListing, ...]


class PlugIns(Struct, frozen=True):
    """All plug-ins, loaded or not."""

    loaded: tuple[LoadedPlugIn, ...]
    absent: tuple[AbsentPlugIn, ...]

    @property
    def listings(self) -> tuple[VenueListing, ...]:
        """Every venue, by adapter and exchange."""
        found = [listing for each in self.loaded for listing in each.listings]
        return tuple(sorted(found, key=lambda each: (each.adapter, each.exchange or "")))

    def named(self, venue: str) -> tuple[VenueListing, ...]:
        """The venues of this name: of an exchange, or of an adapter with one venue. NoSuchVenueError if there is none.

        A plug-in may reach more venues than it lists; it is queried if no plug-in lists the name.
        """
        found = tuple(each for each in self.listings if venue in (each.exchange, each.adapter))
        exact = tuple(each for each in found if each.exchange == venue)
        found = found or tuple(self._unlisted(venue))
        if not found:
            raise self._unknown(venue)
        return exact or found

    @property
    def others(self) -> tuple[str, ...]:
        """Names of the plug-ins that reach more venues than they list."""
        return tuple(each.entry.name for each in self.loaded if hasattr(each.plug_in, "listing"))

    def _unlisted(self, venue: str) -> Iterator[VenueListing]:
        """The venue as described by plug-ins that do not list it."""
        for each in self.loaded:
            listing = getattr(each.plug_in, "listing", None)
            if listing is None:
                continue
            with _importing(each.entry):
                found: VenueListing | None = listing(venue)
            if found is not None:
                yield found

    def history(self, venue: str, endpoint: str | None) -> BarHistory:
        """The venue's public bars, from the first plug-in that has them. NoSuchVenueError if none has.

        Other errors of a plug-in concern the venue or the endpoint, and propagate unchanged.
        """
        for each in self.loaded:
            with _importing(each.entry):
                found = each.plug_in.history(venue, endpoint)
            if found is not None:
                return found
        if any(venue in (each.exchange, each.adapter) for each in self.listings):
            raise NoSuchVenueError(f"{venue} gives no public bars here; other venues do: `ksctl venues list`")
        raise self._unknown(venue)

    def _unknown(self, venue: str) -> NoSuchVenueError:
        names = sorted({each.exchange or each.adapter for each in self.listings})
        close = get_close_matches(venue, names, 1)
        suggestion = f", did you mean {close[0]}?" if close else ""
        known = f"; known: {', '.join(names)}" if names else ""
        if self.others:
            known += f", and any other exchange of {', '.join(self.others)} by its name there"
        not_loaded = "".join(f"\n{each}" for each in self.absent)
        return NoSuchVenueError(f"no venue is called {venue}{suggestion}{known}{not_loaded}")


def load_plug_ins() -> PlugIns:
    """Load all plug-ins. One that cannot be loaded does not affect the others."""
    loaded: list[LoadedPlugIn] = []
    absent: list[AbsentPlugIn] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        try:
            plug_in: VenueFamily = entry.load()
            loaded.append(LoadedPlugIn(entry, plug_in, tuple(plug_in.listings())))
        except Exception as error:  # noqa: BLE001 - importing third-party code may raise anything
            absent.append(_absent(entry, error))
    return PlugIns(tuple(loaded), tuple(absent))


@contextmanager
def _importing(entry: EntryPoint) -> Iterator[None]:
    """Turn an ImportError into NoSuchVenueError: a venue's libraries are imported at first use."""
    try:
        yield
    except ImportError as error:
        raise NoSuchVenueError(str(_absent(entry, error))) from error


def _absent(entry: EntryPoint, error: Exception) -> AbsentPlugIn:
    return AbsentPlugIn(entry.name, one_line(f"{type(error).__name__}: {error}"), _way_out(entry, error))


def _way_out(entry: EntryPoint, error: Exception) -> str:
    """The way out: what to install, such as the extra of the same name."""
    dist = entry.dist
    own = isinstance(error, ImportError) and (error.name or "").partition(".")[0] == entry.module.partition(".")[0]
    if dist is not None and isinstance(error, ImportError) and not own:
        if entry.name in (dist.metadata.get_all("Provides-Extra") or ()):
            return f"pip install '.[{entry.name}]' in a clone of {dist.name}, or what its extra {entry.name} lists"
        return f"install what {dist.name} needs for it"
    return f"this is a defect of {entry.value}; other venues are not affected"


SHORTEST_SECRET = 4
"""Characters: hiding a shorter value would make every reason unreadable."""


class AdapterError(Exception):
    """An adapter is missing, cannot be imported, or refuses the account; the message has the name and the cause."""


def make_adapter(spec: AccountSpec) -> VenueAdapter:
    """The adapter of `spec`, made but not yet connected. AdapterError if that is impossible.

    Its errors, now or later, contain neither credentials nor the query of the endpoint's address.
    """
    factory = factory_of(spec.adapter)
    secrets = (*spec.credentials.values(), *_query_secrets(spec.endpoint))
    redactor = Redactor(secrets, _hosts(spec.endpoint))
    try:
        adapter = factory(spec)
    except Exception as error:  # noqa: BLE001 - third-party code: whatever it raises is this account's problem
        # A refusal is a ValueError with a message for people; any other error is named by its class.
        message = str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}"
        why = redactor.hide(message)
        # Without its cause: a chain of errors prints every message.
        raise AdapterError(f"account {spec.account}: adapter {spec.adapter} refused the account: {why}") from None
    if not isinstance(adapter, VenueAdapter):
        raise AdapterError(
            f"account {spec.account}: the class {type(adapter).__name__} of adapter {spec.adapter} does not derive "
            "from killswitch.model.venue.VenueAdapter, so it is written for an earlier version; update its package"
        )
    return RedactedAdapter(adapter, redactor) if secrets else adapter


def _query_secrets(endpoint: str | None) -> tuple[str, ...]:
    """The query of an address and its values: some services take a token there."""
    try:
        query = urlsplit(endpoint or "").query
    except ValueError:
        return ()
    values = (value for _, value in parse_qsl(query) if len(value) >= SHORTEST_SECRET)
    return (query, *values) if query else ()


def _hosts(endpoint: str | None) -> tuple[str, ...]:
    """The host of an address: messages name it."""
    try:
        return (urlsplit(endpoint or "").hostname or "",)
    except ValueError:
        return ()


def factory_of(name: str) -> AdapterFactory:
    """The factory of the installed adapter with this name. AdapterError if there is none or its import fails."""
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
