"""The way to a source: what its next poll is given, from the state that the store keeps, and how it is polled.

Statements in the place of a signature are judged here too: the manifest of a folder (C4), and claims about commits.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.legible import one_line
from killswitch.model.store import decoded
from killswitch.source.candidate import Candidate, SourceAnswer, SourceProblem
from killswitch.source.git_poll import poll_in_child
from killswitch.source.git_request import GitPollRequest, GitSource, VerifiedState, advanced, moved_anchor
from killswitch.source.polling import (
    GitSettings,
    PollRequest,
    SourceSettings,
    candidate_mark,
    poll_folder_in_child,
)
from killswitch.source.statement_signatures import verify_all
from killswitch.source.sync_state import SourceState
from killswitch.source.trust_file import TrustFileError, parse_trust

LARGEST_TRUST = 1 << 20


class PollResult(Struct, frozen=True):
    """The answer of a poll, and what the source has verified, which the next poll gets."""

    answer: SourceAnswer
    verified: bytes | None = None
    newest_commit_at: datetime | None = None
    """The date in the newest commit that was read, also where no candidate is sent."""


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
        if self.settings.git is not None:
            return self._poll_git(self.settings.git, state, trust, now, previous)
        request = PollRequest(
            settings=self.settings,
            now=now,
            previous=previous,
            trust=trust,
            in_force=state.in_force,
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

    def _poll_git(
        self, git: GitSettings, state: SourceState, trust: bytes | None, now: int, previous: str | None
    ) -> PollResult:
        known = self._known(state)
        try:
            parsed = parse_trust(trust or b"", one_line(str(self.settings.trust)))
        except TrustFileError as error:
            fix = "correct the file; nothing that is signed counts until then, and the set in force stays"
            where = one_line(str(self.settings.trust))
            problem = SourceProblem(code="KS8247", text=one_line(str(error)), fix=fix, is_page=True, file=where)
            return PollResult(SourceAnswer(problems=(problem,)), state.verified)
        result = poll_in_child(GitPollRequest(source=self._source(git, state), trust=parsed, known=known, now=now))
        answer = result.answer
        if answer == SourceAnswer() and state.commit is not None:
            answer = SourceAnswer(is_in_force=True)  # the head is the commit in force
        if answer.candidate is not None and candidate_mark(answer.candidate) == previous:
            answer = replace(answer, candidate=None)
        return PollResult(answer, msgspec.json.encode(result.known), result.known.newest_commit_at)

    def _source(self, git: GitSettings, state: SourceState) -> GitSource:
        return GitSource(
            name=self.settings.name,
            url=git.url,
            ref=git.ref,
            path=git.path,
            folder=str(self.folder),
            anchor=state.anchor or git.anchor,
            trust_path=git.trust_path,
            approvals_path=git.approvals_path,
            credentials=None if git.credentials is None else str(git.credentials),
            ssh_key=None if git.ssh_key is None else str(git.ssh_key),
            known_hosts=None if git.known_hosts is None else str(git.known_hosts),
            allow_file=git.allow_file,
        )

    def _known(self, state: SourceState) -> VerifiedState:
        """What the store keeps of the repository. The floor is the commit in force by the store (H4), whatever else is
        kept; after a moved anchor, that."""
        known = decoded(_VERIFIED.decode, state.verified) or VerifiedState()
        if state.commit is None and state.anchor is not None:
            return known if known.last_good == state.anchor else moved_anchor(known, state.anchor)
        return replace(known, last_good=state.commit)

    def base_trust(self, state: SourceState) -> bytes | None:
        """The trust by which a change of the set in force is approved: the later one of the repository, if it is in
        force (T3); None where nobody may approve."""
        found = self.trust(state)
        if isinstance(found, SourceProblem):
            return None
        known = decoded(_VERIFIED.decode, state.verified)
        if self.settings.git is None or known is None or known.trust is None or found is None:
            return found
        try:
            kept = parse_trust(known.trust.encode(), "the stored trust file")
            is_later = kept.version >= parse_trust(found, "the trust file").version
        except TrustFileError:
            return None
        return known.trust.encode() if is_later else found

    def is_anchor_approved(self, state: SourceState, commit: str, delivered: Iterable[bytes], now: int) -> bool:
        """Whether as many approvers as a loosening needs have stated, by different keys, that this commit is to be the
        anchor (H7): statements for the purpose `anchor` with the commit as their subject."""
        text = self.base_trust(state)
        try:
            trust = parse_trust(text or b"", "the trust file")
        except TrustFileError:
            return False
        verified, _ = verify_all(delivered, trust, now)
        found = [
            each
            for each in verified
            if each.statement.purpose == "anchor"
            and each.statement.source == self.settings.name
            and each.statement.subject == commit
        ]
        people, keys = {each.principal for each in found}, {each.key for each in found}
        return min(len(people), len(keys)) >= max(trust.approvals, 1)

    def after(self, state: SourceState, candidate: Candidate) -> bytes | None:
        """What the source has verified once `candidate` is in force."""
        if self.settings.git is None or candidate.commit is None:
            return state.verified
        version = 0
        if candidate.trust is not None:
            try:
                version = parse_trust(candidate.trust, "the trust file of the candidate").version
            except TrustFileError:
                return state.verified
        return msgspec.json.encode(advanced(self._known(state), candidate, version))


_VERIFIED = msgspec.json.Decoder(VerifiedState)


def first_settings(settings: SourceSettings) -> SourceSettings:
    """The settings of the very first poll: of a repository the anchor itself, so that what follows is reviewed."""
    if settings.git is None or settings.git.anchor is None:
        return settings
    return replace(settings, git=replace(settings.git, ref=settings.git.anchor))
