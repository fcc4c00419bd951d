"""One poll of a git source: fetch, verify, read the folder. It runs as a process of its own (`poll_in_child`).

Nothing that goes wrong here is a reason to use anything: every path but the last one returns problems, and the runner
keeps what it has.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from time import monotonic
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from killswitch.model.instant import SECOND, from_micros
from killswitch.source.candidate import Candidate, FirstParentStep, SourceAnswer, SourceProblem
from killswitch.source.git_command import GitClone
from killswitch.source.git_history import CommitGraph, FloorAncestors, HistoryStep
from killswitch.source.git_objects import ObjectReader, RawTag, parse_tag
from killswitch.source.git_problems import DamagedCloneError, GitSourceError, printable, problem
from killswitch.source.git_request import COMMIT_ID, GitPoll, GitPollRequest
from killswitch.source.git_tree import UNREADABLE, TreeReader
from killswitch.source.git_verdicts import (
    Budget,
    CommitJudge,
    StatementCheck,
    StatementClaim,
    TrustLine,
    Verdicts,
    later_trust,
    trust_digest,
)
from killswitch.source.limited_process import LimitedProcessError, ProcessLimits, python_module, run_limited
from killswitch.source.signatures import SignatureVerifier
from killswitch.source.statement_checks import signer_of
from killswitch.source.trust import Trust, TrustedKey
from killswitch.source.trust_file import LARGEST, TrustFileError, parse_trust

MODULE: Final = "killswitch.source.git_poll"
_STEP_BYTES: Final = 4 << 20
"""Bytes of the files of all steps, which are sent for approvals step by step (A5); the files of later ones are not."""
_SHARE_FOR_VERIFYING: Final = 0.75
"""The part of a poll's time after which no further commits are verified."""


def no_statement(_statement: bytes, _claim: StatementClaim, _trust: Trust, _now: int) -> TrustedKey | None:
    """Where nothing checks statements, none counts."""
    return None


def poll_git(request: GitPollRequest, check: StatementCheck = no_statement) -> GitPoll:
    """Poll once in this process: a candidate, nothing new, or problems, and what the store keeps. Never raises for what
    the source, the disk or the network does."""
    known = request.known
    try:
        clone = GitClone(request.source, request.limits)
        trust, text = effective_trust(request)
        known = replace(known, trust_version=max(known.trust_version, trust.version))
        request = replace(request, known=known)
        notes = clone.prepare()
        one = _Poll(request, clone, trust, text, check)
        try:
            answer = one.answer()
        except DamagedCloneError:
            clone.start_again()
            one = _Poll(request, clone, trust, text, check)
            answer = one.answer()
    except GitSourceError as error:
        return GitPoll(answer=SourceAnswer(problems=(error.problem,)), known=known)
    return GitPoll(answer=answer, known=one.known, notes=notes)


def effective_trust(request: GitPollRequest) -> tuple[Trust, bytes | None]:
    """The trust set in force with the last good commit, and its text where it is not the configuration's: the one with
    the higher version. GitSourceError KS8122 if that is lower than one that was in force before."""
    trust, text = request.trust, None
    if request.known.trust is not None:
        text = request.known.trust.encode()
        try:
            kept = parse_trust(text, "the stored trust file")
        except TrustFileError as error:
            raise GitSourceError("KS8120", f"the stored trust file is damaged: {error}") from None
        if kept.version >= trust.version:
            trust = kept
        else:
            text = None
    if trust.version < request.known.trust_version:
        text_ = f"the trust set has version {trust.version}, and version {request.known.trust_version} was in force"
        raise GitSourceError("KS8122", text_)
    return trust, text


class _Poll:
    """One fetch, and the judgement of what it brought."""

    def __init__(
        self, request: GitPollRequest, clone: GitClone, trust: Trust, text: bytes | None, check: StatementCheck
    ) -> None:
        self.known = request.known
        self._request = request
        self._source = request.source
        self._clone = clone
        self._trust = trust
        self._text = text
        self._check = check
        self._until = monotonic() + request.limits.seconds * _SHARE_FOR_VERIFYING

    def answer(self) -> SourceAnswer:
        """The answer of the source. GitSourceError for what keeps it from being one."""
        floor = self.known.last_good or self._source.anchor
        if floor is None:
            raise GitSourceError("KS8126", "nothing was in force yet, and no anchor is configured")
        found = self._clone.fetch()
        with self._clone.reader() as objects:
            try:
                answer = self._judge(objects, found, floor)
            except DamagedCloneError:
                raise
            except GitSourceError as error:
                answer = SourceAnswer(problems=(error.problem,))
        self._clone.keep()
        return answer

    def _judge(self, objects: ObjectReader, found: str, floor: str) -> SourceAnswer:
        limits = self._request.limits
        graph, trees = CommitGraph(objects, limits), TreeReader(objects, limits)
        head, tag = self._head(objects, found)
        if head == self.known.last_good and self.known.path in (None, self._source.path):
            self.known = replace(self.known, newest_commit_at=_date(graph, head))
            return SourceAnswer(problems=self._revoked())
        steps, ancestors = graph.steps(graph.first_parents(head, floor), floor)
        remembered = (*self.known.verified, *self.known.in_force)
        judge = CommitJudge(
            graph, SignatureVerifier(self._clone.home, self._request.now), remembered, self._request.now
        )
        tree = graph.node(head).tree
        brought = trees.statements(tree, self._source.approvals_path) if self._source.approvals_path else ()
        statements = _Statements(self._request, self._check, trees, brought)
        line, refusal = self._trust_line(steps, graph.node(floor).tree, trees, judge, statements)
        before = [graph.node(floor).tree, *(step.node.tree for step in steps)]
        verdicts = self._verify(steps, line, ancestors, judge, lambda at, trust: statements.merge(before, at, trust))
        if verdicts.problems:
            return SourceAnswer(problems=verdicts.problems)
        if not verdicts.is_complete:
            total = sum(len(step.commits) for step in steps)
            done = len(verdicts.commits)
            return SourceAnswer(progress=f"verified {done:,} of {total:,} commits; it goes on at the next poll")
        if refusal is not None:
            raise refusal
        if tag is not None:
            self._pin(judge, tag, line.last)
        candidate = Candidate(
            source=self._source.name,
            kind="git",
            files=trees.policy_files(tree, self._source.path),
            folder_digest=trees.digest(tree, self._source.path),
            ref=self._source.ref,
            path=self._source.path,
            commit=head,
            steps=self._steps(steps, verdicts, trees),
            statements=brought,
            trust=line.text,
            newest_commit_at=_date(graph, head),
        )
        self.known = replace(self.known, newest_commit_at=candidate.newest_commit_at)
        return SourceAnswer(candidate=candidate)

    def _head(self, objects: ObjectReader, found: str) -> tuple[str, RawTag | None]:
        """The commit that the ref names, and the tag object if the ref is a tag (S3, H3)."""
        ref = self._source.ref
        is_tag = ref.startswith("refs/tags/")
        pinned = dict(self.known.pins).get(ref)
        if pinned is not None and pinned != found:
            raise GitSourceError("KS8133", f"{ref} named {pinned} before, and names {found} now", commit=found)
        if COMMIT_ID.fullmatch(ref) and found != ref:
            raise GitSourceError("KS8133", f"the host sent {found} for {ref}", commit=found)
        (head,) = objects.heads([found])
        kind = "missing" if head is None else head.kind
        if kind == "commit" and not is_tag:
            return found, None
        if kind == "missing":
            raise DamagedCloneError("KS8012", f"the host did not send {found}")
        if kind != "tag" or not is_tag:
            raise GitSourceError("KS8113", f"{ref} names a {kind}, and no {'tag object' if is_tag else 'commit'}")
        (content,) = objects.read([found], "tag", self._request.limits.object_bytes)
        tag = parse_tag(found, content)
        if tag.name != ref.removeprefix("refs/tags/") or tag.target_kind != "commit":
            text = f"the tag object {found} names itself {printable(tag.name, 80)} and a {tag.target_kind}"
            raise GitSourceError("KS8114", text, commit=found)
        return tag.target, tag

    def _revoked(self) -> tuple[SourceProblem, ...]:
        """A page for each revoked key whose commits are in force; they stay in force (T6)."""
        signed = {each.key: each for each in self.known.in_force}
        keys = [key for key in self._trust.keys if key.is_revoked and key.fingerprint in signed]
        text = "commits of the set in force are signed by {}, whose key {} is revoked"
        return tuple(
            problem(
                "KS8125", text.format(key.principal, key.fingerprint), commit=signed[key.fingerprint].id,
                principal=key.principal,
            )
            for key in keys
        )  # fmt: skip

    def _trust_line(
        self, steps: Sequence[HistoryStep], floor: str, trees: TreeReader, judge: CommitJudge, statements: _Statements
    ) -> tuple[TrustLine, GitSourceError | None]:
        """The trust before each step (T3), and the error of a change that stays in the last step without approvals.

        A change that a later step takes back has had no effect, and is no error.
        """
        line = TrustLine(self._trust, self._text)
        file = self._source.trust_path
        if file is None:
            for _ in steps:
                line.pass_step()
            return line, None
        accepted = trees.file(floor, file, LARGEST)
        refusal: GitSourceError | None = None
        for step in steps:
            refusal = None
            try:
                content = trees.file(step.node.tree, file, LARGEST)
                if content is None and accepted is not None:
                    refusal = GitSourceError("KS8124", f"{file} is gone", commit=step.node.id, file=file)
                if content is None or content == accepted:
                    line.pass_step()
                    continue
                authors = judge.authors(step, line.last)
                valid = statements.over("trust", trust_digest(accepted), trust_digest(content))
                line.pass_step(content, later_trust(line.last, content, file, valid, authors))
                accepted = content
            except DamagedCloneError:
                raise
            except GitSourceError as error:
                line.pass_step()
                refusal = GitSourceError(error.code, error.problem.text, commit=step.node.id, file=file)
        return line, refusal

    def _verify(
        self, steps: Sequence[HistoryStep], line: TrustLine, ancestors: FloorAncestors, judge: CommitJudge,
        replaced: Callable[[int, Trust], TrustedKey | None],
    ) -> Verdicts:  # fmt: skip
        """Judge the new commits, and remember what was verified, also where a later one is refused (S7)."""
        budget = Budget(limits=self._request.limits, seconds_left=lambda: self._until - monotonic())
        verdicts = judge.judge(steps, line, ancestors, budget, replaced)
        new = {commit for step in steps for commit in step.commits}
        kept = {each.id: each for each in self.known.verified if each.id in new} | verdicts.seen
        self.known = replace(self.known, verified=tuple(kept.values()))
        return verdicts

    def _pin(self, judge: CommitJudge, tag: RawTag, trust: Trust) -> None:
        seen = judge.judge_tag(tag, trust)
        pins = {**dict(self.known.pins), self._source.ref: tag.id}
        self.known = replace(self.known, pins=tuple(sorted(pins.items())), verified=(*self.known.verified, seen))

    def _steps(
        self, steps: Sequence[HistoryStep], verdicts: Verdicts, trees: TreeReader
    ) -> tuple[FirstParentStep, ...]:
        """The steps with the digest of their folder, which is computed once and remembered with the commit, and with
        the files of those that change it, as long as they are few."""
        known = {each.id: each for each in self.known.verified}
        found: list[FirstParentStep] = []
        left, before = _STEP_BYTES, ""
        for step in steps:
            seen, tree = known.get(step.node.id), step.node.tree
            digest = seen.folder if seen is not None and seen.folder else trees.digest(tree, self._source.path)
            if seen is not None:
                known[seen.id] = replace(seen, folder=digest)
            files = None
            if left > 0 and digest not in (before, UNREADABLE):
                files = trees.policy_files(tree, self._source.path)
                left -= sum(len(each.content) for each in files)
            brought = tuple(verdicts.commits[each] for each in step.commits if each in verdicts.commits)
            found.append(FirstParentStep(step.node.id, digest, brought, files if left > 0 else None))
            before = digest
        self.known = replace(self.known, verified=tuple(known.values()))
        return tuple(found)


class _Statements:
    """The signed statements that may approve a change of trust (T3) or replace the signature of a merge (A9)."""

    def __init__(
        self, request: GitPollRequest, check: StatementCheck, trees: TreeReader, brought: Sequence[bytes]
    ) -> None:
        self._request = request
        self._check = check
        self._trees = trees
        self._all = tuple(dict.fromkeys((*request.statements, *brought)))

    def over(
        self, purpose: Literal["trust", "merge"], base: str | None, result: str | None
    ) -> Callable[[Trust], Sequence[TrustedKey]]:
        """The keys with which valid statements over exactly this are signed, by a trust set."""
        source = self._request.source
        claim = StatementClaim(
            purpose=purpose, source=source.name, ref=source.ref, path=source.path, base=base, result=result or ""
        )

        def valid(trust: Trust) -> list[TrustedKey]:
            keys = (self._check(each, claim, trust, self._request.now) for each in self._all)
            return [key for key in keys if key is not None]

        return valid

    def merge(self, trees: Sequence[str], at: int, trust: Trust) -> TrustedKey | None:
        """The signer's key of a statement over the result of step `at`. `trees`: of the floor and of each step."""
        if not self._all:
            return None
        base, result = (self._trees.digest(tree, self._request.source.path) for tree in trees[at : at + 2])
        if UNREADABLE in (base, result):
            return None
        return next((key for key in self.over("merge", base, result)(trust) if key.signs and not key.is_revoked), None)


def _date(graph: CommitGraph, commit: str) -> datetime | None:
    """The date in a commit; None for one that no calendar has."""
    try:
        return from_micros(graph.node(commit).at * SECOND)
    except OverflowError:
        return None


def poll_in_child(request: GitPollRequest) -> GitPoll:
    """Poll in a child process with the limits of the request (P1). Never raises; the child is ended with all that it
    started."""
    command, environment = python_module(MODULE)
    limits = ProcessLimits(seconds=request.limits.seconds, file_bytes=request.limits.fetched_bytes)
    try:
        output = run_limited(command, msgspec.json.encode(request), limits, environment)
        return msgspec.json.decode(output, type=GitPoll)
    except LimitedProcessError as error:
        found = problem("KS8008" if error.is_late else "KS8003", f"the poll gave no answer: {error}")
    except msgspec.MsgspecError as error:
        found = problem("KS8003", f"the poll gave no answer that can be read: {error}")
    return GitPoll(answer=SourceAnswer(problems=(found,)), known=request.known)


def main() -> None:
    """Read a request from standard input and write the result to standard output, both as JSON."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=GitPollRequest)
    signal.alarm(int(request.limits.seconds) + 5)  # if nobody is left who would end it
    sys.stdout.buffer.write(msgspec.json.encode(poll_git(request, signer_of)))


if __name__ == "__main__":
    main()
