"""Validates Account documents against their venues, and finds two documents of the same account.

`run` and `venues check` create the adapters, which refuse what does not fit; `ksctl validate` creates none, since their
clients take seconds to import. Expensive imports happen for Account documents only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast, runtime_checkable

from killswitch.accounts.credentials import resolve
from killswitch.graph.resolution.accounts import venue_account_of
from killswitch.graph.resolution.references import covered_accounts, of_kind
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import Document, FaultyDocument, LoadedDocuments
from killswitch.policy.schema.account import AccountDocument, AccountSpec, venue_of
from killswitch.policy.schema.catastrophe_stop import CatastropheStopDocument
from killswitch.policy.schema.dead_man import DeadManDocument, DeadManSpec

if TYPE_CHECKING:
    from killswitch.model.fitting import FittingFamily, Misfit
    from killswitch.model.venue import VenueListing


def account_misfits(loaded: LoadedDocuments) -> tuple[Diagnostic, ...]:
    """An error for every key of an Account document that its venue does not have, or that names no adapter.

    A document whose spec is unreadable, or whose adapter has no plug-in to check it, yields none.
    """
    everything: list[Document | FaultyDocument] = [*loaded.documents, *loaded.faulty]
    written = [
        (document, document.model.spec)
        for document in everything
        if isinstance(document.model, AccountDocument) and _readable(document)
    ]
    plug_ins = plug_ins_of({spec.adapter for _, spec in written}) if written else {}
    return (*_not_installed(written, plug_ins), *_misfitting(written, plug_ins), *_unplaceable(everything, plug_ins))


ADAPTERS: Final = "killswitch.adapters"
"""The entry-point group of venue adapters, by name."""
Written = Sequence[tuple["Document | FaultyDocument", AccountSpec]]


def _not_installed(written: Written, plug_ins: Mapping[str, FittingFamily]) -> Iterator[Diagnostic]:
    """An error for each adapter that no installed package has, and a warning for each whose library is missing."""
    names = adapter_names() if written else ()
    for document, spec in written:
        if spec.adapter not in names:
            yield document.source.diagnostic("KS3060", ("spec", "adapter"), *unknown_adapter(spec.adapter))
            continue
        missing = _missing(plug_ins.get(spec.adapter))
        if missing is not None:
            path = ("spec", *missing.key)
            yield document.source.diagnostic("KS5096", path, missing.message, missing.fix, severity="warning")


def adapter_names() -> tuple[str, ...]:
    """Names of all installed adapters, sorted."""
    from importlib.metadata import entry_points

    return tuple(sorted({entry.name for entry in entry_points(group=ADAPTERS)}))


def unknown_adapter(name: str) -> tuple[str, str]:
    """The message that no adapter has this name, and the way out."""
    from difflib import get_close_matches

    names = adapter_names()
    close = get_close_matches(name, names, 1)
    suggestion = f"did you mean `{close[0]}`? Else " if close else ""
    known = ", ".join(names) or "none"
    package = f"the package that offers it (entry point `{name}` in the group {ADAPTERS})"
    return f"no adapter is called `{name}`; installed: {known}", f"{suggestion}install {package}, or correct the name"


def _missing(plug_in: FittingFamily | None) -> Misfit | None:
    with suppress(Exception):  # third-party code: the adapter reports it when it is created
        return plug_in.not_installed() if plug_in is not None and hasattr(plug_in, "not_installed") else None
    return None


def _misfitting(written: Written, plug_ins: Mapping[str, FittingFamily]) -> Iterator[Diagnostic]:
    return (
        document.source.diagnostic("KS3051", ("spec", *each.key), each.message, each.fix, key=each.at_key)
        for document, spec in written
        for each in _misfits(spec, plug_ins.get(spec.adapter))
    )


def _unplaceable(
    everything: Sequence[Document | FaultyDocument], plug_ins: Mapping[str, FittingFamily]
) -> Iterator[Diagnostic]:
    """An error for each catastrophe stop that a venue cannot hold, or that the venue's own timer would cancel."""
    timers = of_kind(everything, DeadManDocument)
    stops = [each for each in everything if isinstance(each.model, CatastropheStopDocument) and _readable(each)]
    timed = [
        covered_accounts(timer.spec.accounts, everything) for timer, _ in timers if isinstance(timer.spec, DeadManSpec)
    ]
    for document in stops:
        spec = cast("CatastropheStopDocument", document.model).spec
        for account in covered_accounts(spec.accounts, everything):
            name, listing = account.metadata.name, _listing(account.spec, plug_ins)
            offered = None if listing is None else listing.traits.conditional_orders
            if listing is None:
                continue  # its adapter describes no venues: a start asks the adapter itself
            if offered is None or spec.trigger not in offered.triggers:
                what = "a catastrophe stop" if offered is None else f"a stop that the {spec.trigger} price triggers"
                names = "" if offered is None else f", or write `trigger: {offered.triggers[0]}`"
                message = f"{what} cannot be placed at {venue_of(account.spec)}, the venue of `{name}`"
                fix = f"take the account out{names}"
                yield document.source.diagnostic("KS3059", ("spec", "accounts"), message, fix, key=True)
            timer = listing.traits.dead_man
            if timer is not None and timer.takes_stops is not False and any(account in each for each in timed):
                may = "cancels" if timer.takes_stops else "may cancel"
                message = f"`{name}` has a dead-man timer at its venue, which {may} the stops when it goes off"
                fix = "take the account out of one of the two documents"
                yield document.source.diagnostic("KS3052", ("spec", "accounts"), message, fix, key=True)


def _listing(spec: AccountSpec, plug_ins: Mapping[str, FittingFamily]) -> VenueListing | None:
    """The description of the account's venue; None if its plug-in has none."""
    plug_in = plug_ins.get(spec.adapter)
    with suppress(Exception):  # third-party code: a start asks the adapter itself
        found: Sequence[VenueListing] = plug_in.listings() if isinstance(plug_in, HasListings) else ()
        return next((each for each in found if each.exchange == spec.exchange), None)
    return None


@runtime_checkable
class HasListings(Protocol):
    """A plug-in that describes its venues."""

    def listings(self) -> Sequence[VenueListing]: ...


def _readable(document: Document | FaultyDocument) -> bool:
    return not (isinstance(document, FaultyDocument) and document.gaps.has_flaw(("spec",)))


def plug_ins_of(adapters: set[str]) -> Mapping[str, FittingFamily]:
    """The plug-ins of `adapters` that are loaded and can check documents."""
    from importlib.metadata import entry_points

    from killswitch.model.fitting import VENUES

    found: dict[str, FittingFamily] = {}
    for entry in entry_points(group=VENUES):
        if entry.name not in adapters or entry.name in found:
            continue
        try:
            plug_in = entry.load()
        except Exception:  # noqa: BLE001 - importing third-party code may raise anything; `venues list` reports it
            continue
        if hasattr(plug_in, "misfits"):
            found[entry.name] = plug_in
    return found


def _misfits(spec: AccountSpec, plug_in: FittingFamily | None) -> Iterator[Misfit]:
    from killswitch.model.fitting import Misfit, WrittenAccount

    if spec.sandbox and spec.demo:
        yield Misfit(("demo",), "sandbox and demo are two systems of a venue", "remove one of them")
    if plug_in is None:
        return
    account = WrittenAccount(spec.exchange, spec.market, spec.currency, environment_of(spec), tuple(spec.credentials))
    with suppress(Exception):  # third-party code: the adapter reports it when it is created
        yield from tuple(plug_in.misfits(account))


def environment_of(spec: AccountSpec) -> Literal["production", "sandbox", "demo"]:
    """The venue's system that the spec selects; production if it selects two, which is an error elsewhere."""
    if spec.sandbox == spec.demo:
        return "production"
    return "sandbox" if spec.sandbox else "demo"


def armed_duplicates(documents: Iterable[AccountDocument]) -> Iterator[tuple[str, str]]:
    """Names of accounts that would be armed and are one account of one venue. CredentialError for a missing secret."""
    armed = [each for each in documents if each.spec.execution == "live" and each.spec.credentials]
    found: dict[object, str] = {}
    for document in armed:
        name = document.metadata.name
        key = _book(document.spec, resolve(document.spec.credentials, account=name))
        if key in found:
            yield found[key], name
        found.setdefault(key, name)


def account_identity(document: AccountDocument) -> str:
    """A digest that is equal for two documents that act on one account, on whatever machine.

    Without credentials, as at a paper venue, the name belongs to it. CredentialError for a missing secret.
    """
    name, spec = document.metadata.name, document.spec
    keys = resolve(spec.credentials, account=name)
    parts = (sorted(each) if isinstance(each, frozenset) else each for each in _book(spec, keys))
    return blake2b(repr((*parts, "" if keys else name)).encode(), digest_size=16).hexdigest()


def duplicate_message(first: str, second: str) -> str:
    """The message about two documents that arm one account."""
    return (
        f"accounts {first} and {second} are one account of one venue: their credentials are the same; "
        "remove one of the two documents, or set its execution to observe"
    )


def duplicate_accounts(document: AccountDocument, others: Sequence[AccountDocument]) -> tuple[str, ...]:
    """Names of the other documents of the same account, as far as documents show.

    Without credentials that is unknown: an account of a paper venue is identified by its name.
    """
    if not document.spec.credentials:
        return ()
    here, name = _book(document.spec), document.metadata.name
    return tuple(each.metadata.name for each in others if each.metadata.name != name and _book(each.spec) == here)


def _book(spec: AccountSpec, credentials: Mapping[str, str] | None = None) -> tuple[object, ...]:
    """The identity of an account: one per key, unless the plug-in reports that the venue separates currencies."""
    plug_in = plug_ins_of({spec.adapter}).get(spec.adapter)
    try:
        is_split = plug_in is not None and bool(plug_in.keeps_apart(spec.exchange))
    except Exception:  # noqa: BLE001 - third-party code may lack it; one account for all is the stricter
        is_split = False
    return venue_account_of(spec, credentials, is_split_by_currency=is_split)
