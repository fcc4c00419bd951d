"""The start of a run on a source of policies: from the set that the store has in force, else from a first poll."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from killswitch.cli.session import store_if_any
from killswitch.cli.terminal import print_note, print_page
from killswitch.render.document import Facts, Items, Page, section

if TYPE_CHECKING:
    from killswitch.accounts.next_set import StoredStart
    from killswitch.accounts.opening import LoadedPolicies
    from killswitch.model.applied_set import AppliedSet
    from killswitch.model.clock import Clock
    from killswitch.model.store import Store
    from killswitch.runner.sources.policy_source import PolicySource
    from killswitch.source.candidate import Candidate, SourceAnswer, SourceProblem
    from killswitch.source.poller import SourcePoller
    from killswitch.source.polling import SourceSettings
    from killswitch.source.sync_state import SourceState

FIRST_POLLS = 3
"""How often a start polls a source that is not settled yet."""


class SourceStart(Struct, frozen=True):
    """What a run on a source begins with: the set in force, its policies, and the state of the source."""

    settings: SourceSettings
    loaded: LoadedPolicies
    in_force: AppliedSet
    state: SourceState
    poller: SourcePoller
    page: str | None = None
    """Why no policy is in force, where this program does not compile the last good set (P3)."""


def read_source(file: Path) -> SourceSettings:
    """The settings in a source file; prints its mistakes, and raises a ClickException."""
    from killswitch.policy.diagnostics.diagnostic import counts, diagnostics_page
    from killswitch.source.settings import SourceFileError, read_settings

    try:
        return read_settings(file)
    except SourceFileError as error:
        print_page(diagnostics_page(error.diagnostics), err=True)
        raise click.ClickException(f"{counts(error.diagnostics)} in {file}; nothing was started") from None


REMEMBERED_SETS = 1_000
"""How many sets that were in force are looked at for approvals that are spent."""


def source_folder(store_at: str, name: str) -> Path:
    """The folder next to the store in which a copy of a repository is kept."""
    return Path(f"{store_at.removeprefix('sqlite:///')}.source").absolute() / name


def start_source(file: Path, store_at: str) -> SourceStart:
    """Begin with the last good set of the store, without the source (P3); on an empty store, with a first poll.

    ClickException if nothing may be put in force, with what to do.
    """
    from killswitch.accounts.next_set import stored_start
    from killswitch.model.store import decoded
    from killswitch.source.poller import SourcePoller
    from killswitch.source.sync import restored
    from killswitch.source.sync_state import SOURCE_STATE, decode_source

    settings = read_source(file)
    poller = SourcePoller(settings, source_folder(store_at, settings.name))
    with store_if_any(store_at) as store:
        stored = None if store is None else stored_start(store)
        kept = None if store is None else decoded(decode_source, store.live(SOURCE_STATE))
        changes = () if store is None else store.set_changes(REMEMBERED_SETS)
        spent = [each.id for change in changes for each in change.origin.approvals]
    state = restored(kept, settings.name, None if stored is None else stored.in_force, spent)
    if stored is None:
        first = _first_set(settings, poller, state)
        print_note(f"the first set in force is from the source {settings.name}: nobody has approved it as a change")
        return SourceStart(settings, _compiled(first), first, restored(state, settings.name, first), poller)
    page = None if stored.is_compiled else no_policy_text(settings.name, stored)
    return SourceStart(settings, stored.loaded, stored.in_force, state, poller, page)


def no_policy_text(source: str, stored: StoredStart) -> str:
    """What a start without any policy pages, with the way out."""
    good = stored.in_force
    return (
        f"NO POLICY IN FORCE: this program does not compile the last good set of the store ({good.digest[:19]}, in "
        f"force since {good.at:%Y-%m-%d %H:%M} UTC; {stored.why}). Latches, locks and open closes go on, and nothing "
        f"new fires. Start ksctl {good.program}, or let the source {source} propose a set that compiles and is approved"
    )


def followed_source(start: SourceStart, store: Store, store_at: str, clock: Clock) -> PolicySource:
    """The observer that follows the source from its start on."""
    from random import SystemRandom

    from killswitch.operations.review.child import reviewed
    from killswitch.runner.sources.policy_source import PolicySource, SourceAccess, SourceRun

    run = SourceRun(store, store_at, start.loaded, clock, clock.monotonic, SystemRandom().random)
    return PolicySource(start.settings, SourceAccess(start.poller, reviewed), run, start.state)


def _compiled(in_force: AppliedSet) -> LoadedPolicies:
    from killswitch.accounts.opening import PolicyProblemsError, compiled
    from killswitch.policy.diagnostics.diagnostic import counts, diagnostics_page
    from killswitch.policy.kinds import TESTS
    from killswitch.policy.loader import load_texts

    try:
        loaded = load_texts(in_force.files, without=TESTS)
        return compiled(loaded, in_force.origin.commit, files=in_force.files)
    except PolicyProblemsError as error:
        print_page(diagnostics_page(error.diagnostics), err=True)
        raise click.ClickException(
            f"{counts(error.diagnostics)} in the set {in_force.digest[:19]} that is to be in force; nothing was started"
        ) from None


def _first_set(settings: SourceSettings, poller: SourcePoller, state: SourceState) -> AppliedSet:
    """The set of a first poll. Of a repository it is that of the anchor: every later commit is reviewed against it."""
    from msgspec.structs import replace

    from killswitch.accounts.next_set import program_version
    from killswitch.model.applied_set import AppliedSet, PolicyOrigin

    candidate = _first_candidate(settings, poller, state)
    origin = PolicyOrigin(
        source=settings.name,
        ref=candidate.ref,
        commit=candidate.commit,
        folder_digest=candidate.folder_digest,
        signers=() if candidate.signer is None else (candidate.signer,),
    )
    found = AppliedSet(digest="", at=datetime.now(UTC), program=program_version(), origin=origin, files=candidate.files)
    return replace(found, digest=_compiled(found).policies.digest)


def _first_candidate(settings: SourceSettings, poller: SourcePoller, state: SourceState) -> Candidate:
    from killswitch.source.poller import SourcePoller, first_settings

    if settings.git is not None and settings.git.anchor is None:
        raise click.ClickException(
            f"no set is in force in this store, and {settings.file} names no anchor: nothing of the repository is "
            "trusted yet. Look at the commit that you trust, and write its id as `spec.git.anchor`"
        )
    first = SourcePoller(first_settings(settings), poller.folder)
    for _ in range(FIRST_POLLS):
        answer = first.poll(state, None, _now()).answer
        if answer.candidate is not None:
            return answer.candidate
        if answer.problems:
            _refuse(answer.problems)
    raise click.ClickException(f"the source {settings.name} is not settled: {answer.progress}; nothing was started")


def _refuse(problems: tuple[SourceProblem, ...]) -> None:
    from killswitch.runner.sources.source_alerts import culprit_text

    raise click.ClickException(
        f"no set is in force in this store, and the source proposes none: {culprit_text(problems[0])}"
    )


def _now() -> int:
    from killswitch.model.instant import to_micros

    return to_micros(datetime.now(UTC))


class CheckedSource(Struct, frozen=True):
    """What one poll of a source has found, for people and programs; `files` are paths with sizes."""

    source: str
    problems: tuple[SourceProblem, ...]
    progress: str | None
    folder_digest: str | None
    commit: str | None
    generation: str | None
    signers: tuple[str, ...]
    is_protected: bool
    files: tuple[tuple[str, int], ...]
    compiles: bool | None
    is_in_force: bool
    diagnostics: tuple[str, ...] = ()


def checked_source(file: Path, store_at: str | None) -> CheckedSource:
    """Poll once and compile; nothing is stored, sent or taken."""
    from killswitch.accounts.next_set import last_good
    from killswitch.source.poller import SourcePoller, first_settings
    from killswitch.source.sync import restored

    settings = read_source(file)
    before = None
    if store_at is not None:
        with store_if_any(store_at) as store:
            before = None if store is None else last_good(store)
    state = restored(None, settings.name, before)
    place = source_folder(store_at or str(file.absolute()), settings.name)
    poller = SourcePoller(settings if before is not None else first_settings(settings), place)
    return _checked(settings, poller.poll(state, None, _now()).answer, before)


def _checked(settings: SourceSettings, answer: SourceAnswer, before: AppliedSet | None) -> CheckedSource:
    from killswitch.policy.kinds import TESTS
    from killswitch.policy.loader import load_texts

    found = answer.candidate
    diagnostics: tuple[str, ...] = ()
    if found is not None:
        from killswitch.incident.report.runbooks import compile_all

        _, problems = compile_all(load_texts(found.files, without=TESTS))
        diagnostics = tuple(f"{it.file}:{it.line}: {it.code} {it.message}" for it in problems if it.severity == "error")
    return CheckedSource(
        source=settings.name,
        problems=answer.problems,
        progress=answer.progress,
        folder_digest=None if found is None else found.folder_digest,
        commit=None if found is None else found.commit,
        generation=None if found is None else found.generation,
        signers=() if found is None else _signers(found),
        is_protected=settings.is_signed,
        files=() if found is None else tuple((file.path, len(file.content)) for file in found.files),
        compiles=None if found is None else not diagnostics,
        is_in_force=found is not None and before is not None and found.folder_digest == before.origin.folder_digest,
        diagnostics=diagnostics,
    )


def _signers(found: Candidate) -> tuple[str, ...]:
    names = [commit.signer for step in found.steps for commit in step.commits]
    return tuple(dict.fromkeys([*names, *filter(None, (found.signer,))]))


def proposal_page(found: CheckedSource) -> Page:
    """What a poll has found."""
    from killswitch.runner.sources.source_alerts import culprit_text

    if found.problems:
        lines = tuple(map(culprit_text, found.problems))
        return Page(f"Source {found.source}", summary=("It proposes nothing.",), sections=(*section("", Items(lines)),))
    if found.folder_digest is None:
        return Page(f"Source {found.source}", summary=(found.progress or "nothing new",))
    facts: list[tuple[str, ...]] = [("Proposes", found.commit or found.generation or found.folder_digest)]
    facts.append(("Digest", found.folder_digest))
    facts.append(("In force", "yes" if found.is_in_force else "no"))
    facts.append(("Signed by", ", ".join(found.signers) or ("nobody" if not found.is_protected else "nothing is new")))
    facts.append(("Protected", "yes" if found.is_protected else "NO: a loosening needs no approval"))
    facts.append(("Compiles", "yes" if found.compiles else "NO"))
    names = tuple(f"{path} ({size:,} bytes)" for path, size in found.files)
    return Page(
        f"Source {found.source}",
        sections=(*section("", Facts(tuple(facts))), *section("Mistakes", Items(found.diagnostics)),
                  *section("Files", Items(names))),
    )  # fmt: skip
