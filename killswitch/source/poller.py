"""The way to a source: what its next poll is given, from the state that the store keeps, and how it is polled."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.legible import one_line
from killswitch.source.candidate import Candidate, SourceAnswer, SourceProblem
from killswitch.source.polling import PollRequest, SourceSettings, poll_folder_in_child
from killswitch.source.sync_state import SourceState

LARGEST_TRUST = 1 << 20


class PollResult(Struct, frozen=True):
    """The answer of a poll, and what the source has verified, which the next poll gets."""

    answer: SourceAnswer
    verified: bytes | None = None


class SourcePoller:
    """Polls one source, in a child process each time. `folder`: where a copy of a repository is kept."""

    def __init__(self, settings: SourceSettings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder

    def poll(self, state: SourceState, previous: str | None, now: int) -> PollResult:
        """Poll against the set in force of `state`. `previous`: the mark of a candidate that is not sent again.

        Raises nothing: what goes wrong is a problem of the answer.
        """
        trust = self.trust(state)
        if isinstance(trust, SourceProblem):
            return PollResult(SourceAnswer(problems=(trust,)), state.verified)
        request = PollRequest(
            settings=self.settings,
            now=now,
            previous=previous,
            trust=trust,
            manifest_version=state.manifest_version,
        )
        return PollResult(poll_folder_in_child(request), state.verified)

    def trust(self, state: SourceState) -> bytes | SourceProblem | None:
        """The text of the trust file of the set in force; None where the configuration names none."""
        if self.settings.trust is None:
            return None
        try:
            with self.settings.trust.open("rb") as stream:
                content = stream.read(LARGEST_TRUST + 1)
        except OSError as error:
            why = one_line(error.strerror or str(error))
        else:
            if len(content) <= LARGEST_TRUST:
                return content
            why = "it is larger than 1 MiB"
        text = f"the trust file {one_line(str(self.settings.trust))} cannot be read: {why}"
        fix = "check `trust` of the source file; without it no signature counts, and the set in force stays"
        return SourceProblem(code="KS8247", text=text, fix=fix, is_page=True, file=one_line(str(self.settings.trust)))

    def base_trust(self, state: SourceState) -> bytes | None:
        """The trust by which a change of the set in force is approved; None where nobody may approve."""
        found = self.trust(state)
        return None if isinstance(found, SourceProblem) else found

    def after(self, state: SourceState, candidate: Candidate) -> bytes | None:
        """What the source has verified once `candidate` is in force."""
        return state.verified


def first_settings(settings: SourceSettings) -> SourceSettings:
    """The settings of the very first poll: of a repository the anchor itself, so that what follows is reviewed."""
    if settings.git is None or settings.git.anchor is None:
        return settings
    return replace(settings, git=replace(settings.git, ref=settings.git.anchor))
