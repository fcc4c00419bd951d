"""Whether every new commit is signed by somebody who may: keys by their place in history and by the runner's clock.

Trust goes along the first-parent line: what a step brings is judged by the trust that the steps before it left (T3,
T5). What was verified once is remembered by its id (S7), with the key and with the time at which it was first seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Final, Literal

from msgspec import Struct

from killswitch.model.instant import HOUR, SECOND
from killswitch.source.candidate import SourceProblem, VerifiedCommit
from killswitch.source.git_history import CommitGraph, FloorAncestors, HistoryStep
from killswitch.source.git_objects import RawCommit, RawTag
from killswitch.source.git_problems import GitSourceError, problem
from killswitch.source.git_request import GitLimits, SeenCommit
from killswitch.source.signatures import SignatureVerifier, check_key
from killswitch.source.trust import Trust, TrustedKey
from killswitch.source.trust_file import TrustFileError, check_successor, needed_approvals, parse_trust

MOST_PROBLEMS: Final = 10
_AT_ONCE: Final = 64
_WORKERS: Final = min(4, max(2, os.cpu_count() or 2))


class StatementClaim(Struct, frozen=True, kw_only=True):
    """What a signed statement must be about to count here. `trust`: a change of the trust file (T3). `merge`: the
    result of one commit on the first-parent line that the host made (A9)."""

    purpose: Literal["trust", "merge"]
    source: str
    ref: str
    path: str
    base: str | None
    """The digest of the trust file, or of the folder, before."""
    result: str


StatementCheck = Callable[[bytes, StatementClaim, Trust, int], TrustedKey | None]
"""The key of the trust set with which a statement is signed that is about exactly this claim and counts at this time of
the runner, by the role that its purpose needs; None for any other statement."""


class Budget(Struct, frozen=True, kw_only=True):
    """How much one poll may verify. `seconds_left`: until it has to answer."""

    limits: GitLimits
    seconds_left: Callable[[], float]


class Verdicts(Struct, frozen=True, kw_only=True):
    """What was verified. `is_complete`: False if the budget ended before the last commit did."""

    commits: dict[str, VerifiedCommit]
    seen: dict[str, SeenCommit]
    problems: tuple[SourceProblem, ...]
    is_complete: bool


class TrustLine:
    """The trust sets along the first-parent line: the one before each step, and the text of the last."""

    def __init__(self, trust: Trust, text: bytes | None) -> None:
        self.before: list[Trust] = []
        self.last = trust
        self.text = text
        """The text of the trust file that is in force at the end; None: that of the runner's configuration."""

    def pass_step(self, content: bytes | None = None, trust: Trust | None = None) -> None:
        """Go past one step, which puts another trust set in force for the steps after it, or none."""
        self.before.append(self.last)
        if trust is not None and content is not None:
            self.last, self.text = trust, content


class CommitJudge:
    """Judges commits, tags and changes of trust for one poll."""

    def __init__(
        self, graph: CommitGraph, verifier: SignatureVerifier, remembered: Sequence[SeenCommit], now: int
    ) -> None:
        self._graph = graph
        self._verifier = verifier
        self._now = now
        self._seen = {each.id: each for each in remembered}

    def judge(
        self, steps: Sequence[HistoryStep], trusts: TrustLine, ancestors: FloorAncestors, budget: Budget,
        replaced: Callable[[int, Trust], TrustedKey | None],
    ) -> Verdicts:  # fmt: skip
        """Verify what the steps bring. `replaced`: the key of the statement that replaces the signature of the commit
        of a step itself, of nothing below it (A9)."""
        commits: dict[str, VerifiedCommit] = {}
        seen: dict[str, SeenCommit] = {}
        refused: list[GitSourceError] = []
        verified = 0
        for part in _parts(steps):
            new = sum(commit not in self._seen for _, commit in part)
            if verified + new > budget.limits.commits or budget.seconds_left() <= 0:
                return Verdicts(commits=commits, seen=seen, problems=(), is_complete=False)
            verified += new
            raws = self._graph.raw([commit for _, commit in part])
            with ThreadPoolExecutor(_WORKERS) as workers:
                results = list(workers.map(self._outcome, raws, [trusts.before[index] for index, _ in part]))
            for (index, commit), raw, result in zip(part, raws, results, strict=True):
                key = result if isinstance(result, TrustedKey) else None
                if _is_replaceable(result) and commit == steps[index].node.id:
                    key = replaced(index, trusts.before[index])
                if isinstance(result, GitSourceError) and key is None:
                    if not ancestors.contains(self._graph.node(commit), is_exact=True):
                        refused.append(result)
                elif key is not None:
                    commits[commit] = VerifiedCommit(commit, raw.parents, key.principal, raw.claimed, raw.subject)
                    seen[commit] = self._remember(commit, key)
            if refused:
                return Verdicts(commits=commits, seen=seen, problems=_folded(refused), is_complete=True)
        return Verdicts(commits=commits, seen=seen, problems=(), is_complete=True)

    def judge_tag(self, tag: RawTag, trust: Trust) -> SeenCommit:
        """Verify the signature of a tag object (S3)."""
        return self._remember(tag.id, self._key(tag, trust))

    def authors(self, step: HistoryStep, trust: Trust) -> frozenset[str]:
        """Who signed the commits of a step, and who is claimed as their author."""
        found: set[str] = set()
        for raw in self._graph.raw(list(step.commits)):
            result = self._outcome(raw, trust)
            found |= {*raw.claimed, *((result.principal,) if isinstance(result, TrustedKey) else ())}
        return frozenset(found)

    def _outcome(self, raw: RawCommit, trust: Trust) -> TrustedKey | GitSourceError:
        try:
            return self._key(raw, trust)
        except GitSourceError as error:
            if error.code in ("KS8001", "KS8008", "KS8011"):
                raise
            return error

    def _key(self, raw: RawCommit | RawTag, trust: Trust) -> TrustedKey:
        """The key that signed it, and may have."""
        seen = self._seen.get(raw.id)
        try:
            return self._new_key(raw, trust) if seen is None else self._remembered_key(seen, trust)
        except GitSourceError as error:
            found = error.problem
            text = f"{found.text}: {raw.id}, claimed by {raw.claimed[0]}"
            raise GitSourceError(error.code, text, commit=raw.id, principal=found.principal) from None

    def _remembered_key(self, seen: SeenCommit, trust: Trust) -> TrustedKey:
        """The key of a commit that was verified before: it counts as of then, if it is not revoked (T6)."""
        key = next((each for each in trust.keys if each.fingerprint == seen.key), None)
        if key is None:
            raise GitSourceError("KS8102", f"the key {seen.key} is not in the trust set any more")
        check_key(key, min(seen.seen, self._now))
        return key

    def _new_key(self, raw: RawCommit | RawTag, trust: Trust) -> TrustedKey:
        ahead = raw.at - self._now // SECOND
        if ahead > HOUR // SECOND:
            raise GitSourceError("KS8110", f"it is dated {ahead:,} s ahead of the runner's clock")
        if raw.signature is None:
            raise GitSourceError("KS8101", "it is not signed")
        key = self._verifier.verify(raw.signature, raw.payload, trust)
        check_key(key, self._now)
        return key

    def _remember(self, commit: str, key: TrustedKey) -> SeenCommit:
        known = self._seen.get(commit)
        first = self._now if known is None else min(known.seen, self._now)
        return SeenCommit(commit, key.fingerprint, first, "" if known is None else known.folder)


def _is_replaceable(result: TrustedKey | GitSourceError) -> bool:
    """Whether a commit lacks a signature of a key of the trust set, so that a statement may replace it (A9)."""
    return isinstance(result, GitSourceError) and result.code in ("KS8101", "KS8102", "KS8103")


def _parts(steps: Sequence[HistoryStep]) -> Iterator[list[tuple[int, str]]]:
    """(index of the step, commit) of all commits, in parts that are verified at once."""
    part: list[tuple[int, str]] = []
    for index, step in enumerate(steps):
        for commit in step.commits:
            part.append((index, commit))
            if len(part) == _AT_ONCE:
                yield part
                part = []
    if part:
        yield part


def _folded(refused: Sequence[GitSourceError]) -> tuple[SourceProblem, ...]:
    """The problems, those of one key once; ten at most, the last of which gives the number of the others."""
    shown: dict[object, SourceProblem] = {}
    for each in refused:
        found = each.problem
        shown.setdefault((found.code, found.principal or found.commit), found)
    kept = list(shown.values())[:MOST_PROBLEMS]
    if len(refused) > len(kept):
        last = kept[-1]
        text = f"{last.text}; {len(refused) - len(kept)} more commits are refused"
        kept[-1] = problem(last.code, text, commit=last.commit, principal=last.principal)
    return tuple(kept)


def trust_digest(content: bytes | None) -> str | None:
    """The digest of a trust file as statements name it; None where there is none."""
    return None if content is None else f"sha256:{sha256(content).hexdigest()}"


def later_trust(
    before: Trust, content: bytes, file: str, approvals: Callable[[Trust], Sequence[TrustedKey]],
    authors: frozenset[str],
) -> Trust:  # fmt: skip
    """The trust set of a changed trust file, if the trust before it approves the change (T3).

    `approvals`: the keys of valid statements over exactly this change, by the trust before. `authors`: the principals
    and claimed names of the change, who do not count. GitSourceError KS8120–KS8123.
    """
    try:
        after = parse_trust(content, file)
    except TrustFileError as error:
        first = error.diagnostics[0]
        text = f"{first.file}:{first.line}:{first.column}: {first.code}: {first.message}"
        raise GitSourceError("KS8120", text, file=file) from None
    check_successor(before, after)
    counted: dict[str, TrustedKey] = {}
    for key in approvals(before):
        if key.approves and not key.is_revoked and not is_author(key.principal, authors):
            counted.setdefault(key.principal, key)
    needed = needed_approvals(before, after)
    if len(counted) < needed:
        text = f"the change of {file} to version {after.version} has {len(counted)} of {needed} approvals"
        raise GitSourceError("KS8121", text, file=file)
    return after


def is_author(principal: str, authors: frozenset[str]) -> bool:
    """Whether a principal signed a change, or is claimed as its author by name or address."""
    wanted = principal.casefold()
    for author in authors:
        name, _, address = author.casefold().rstrip(">").rpartition("<")
        if wanted in (author.casefold(), name.strip(), address.strip()):
            return True
    return False
