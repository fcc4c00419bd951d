"""The two sides of a comparison: base and head, each loaded from files or from a git revision, and compiled.

A side that does not compile is compiled without the documents that have mistakes, so that the rest can be compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.compile import compile_policies
from killswitch.graph.invariants import compile_invariants
from killswitch.graph.nodes import PolicySet
from killswitch.incident.report.runbooks import HERE, compile_all
from killswitch.model.applied_set import PolicyFile, folder_digest
from killswitch.operations.impact.revision import GitRevisionError, PolicyRepository, RevisionFiles, SkippedEntry
from killswitch.policy.diagnostics.diagnostic import Diagnostic, has_errors, in_order
from killswitch.policy.loader import Document, FaultyDocument, LoadedDocuments, load
from killswitch.policy.yaml.files import LARGEST
from killswitch.policy.yaml.parsed_texts import ParsedTexts, cache_folder
from killswitch.policy.yaml.source_map import Path as YamlPath


class UnreadableSideError(Exception):
    """A side of the comparison cannot be read, so that nothing can be compared."""


class LeftOutDocument(Struct, frozen=True):
    """A document with a mistake, without which the others were compiled. `problem`: place, code and message."""

    kind: str
    name: str | None
    problem: str


class PolicySide(Struct, frozen=True):
    """One side: what its documents are, and what they compile to.

    `label`: the revision or the path, as it was given. `commit`: the full id; None for files that no commit holds.
    `policies` lacks what `left_out` names; it is None if nothing compiles. `skipped`: entries that are never read.
    """

    label: str
    commit: str | None
    digest: str
    """SHA-256 over paths and bytes of the files."""
    loaded: LoadedDocuments
    policies: PolicySet | None
    problems: tuple[Diagnostic, ...] = ()
    left_out: tuple[LeftOutDocument, ...] = ()
    skipped: tuple[SkippedEntry, ...] = ()
    paths: frozenset[str] = frozenset()
    """The files that were read, as they are shown."""
    root: Path = Path()
    """The folder without which file names are shown."""

    def place(self, document: Document | FaultyDocument, path: YamlPath = ()) -> str:
        """Where a value of a document is written: file and line."""
        found = document.source.place(path, key=True)
        return f"{shown_path(found.file, self.root)}:{found.line}"

    @property
    def compiles(self) -> bool:
        """Whether every document compiles."""
        return self.policies is not None and not self.left_out and not has_errors(self.problems)


def side_on_disk(paths: Sequence[Path], variant: str | None, label: str | None = None) -> PolicySide:
    """The side of files on disk. Its commit is that of HEAD, if HEAD holds exactly these files."""
    try:
        repository: PolicyRepository | None = PolicyRepository(paths[0])
    except GitRevisionError:
        repository = None
    root = Path.cwd() if repository is None else repository.root
    commit = None
    if repository is not None:
        commit = _commit_of(repository, paths)
    side = _compiled(paths, variant, root)
    files = []
    for path in paths:
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        files += [each for each in found if each.suffix in (".yaml", ".yml") and each.is_file()]
    readable = [each for each in files if each.stat().st_size <= LARGEST]
    content = [PolicyFile(shown_path(str(each), root), each.read_bytes()) for each in dict.fromkeys(readable)]
    return replace(
        side, label=label or " ".join(str(path) for path in paths), commit=commit, digest=folder_digest(content),
        paths=frozenset(each.path for each in content),
    )  # fmt: skip


def _commit_of(repository: PolicyRepository, paths: Sequence[Path]) -> str | None:
    try:
        commit = repository.commit("HEAD")
        return commit if repository.is_committed(commit, paths) else None
    except (GitRevisionError, OSError):
        return None  # a set without a commit is identified by its digest


def side_of_revision(paths: Sequence[Path], revision: str, variant: str | None) -> PolicySide:
    """The side of the paths at a git revision. UnreadableSideError if it cannot be read, or has no file there."""
    try:
        repository = PolicyRepository(paths[0])
        found = repository.files(revision, paths)
        wanted = [repository.relative(path) for path in paths]
    except GitRevisionError as error:
        raise UnreadableSideError(str(error)) from error
    if not found.files:
        shown = ", ".join(str(path) for path in paths)
        raise UnreadableSideError(f"there is no file at {shown} at {revision}, so there is nothing to compare with")
    with _written(found) as root:
        existing = [root / each for each in wanted if (root / each).exists()]
        side = _compiled(existing, variant, root)
    yaml = frozenset(each.path for each in found.files if each.path.endswith((".yaml", ".yml")))
    digest = folder_digest(each for each in found.files if each.path in yaml)
    return replace(side, label=revision, commit=found.commit, digest=digest, skipped=found.skipped, paths=yaml)


@contextmanager
def _written(found: RevisionFiles) -> Iterator[Path]:
    """The files of a revision in a folder of their own: the reader of policies reads files."""
    with TemporaryDirectory(prefix="killswitch-impact-") as folder:
        root = Path(folder).resolve()
        for each in found.files:
            path = root / each.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(each.content)
        yield root


def shown_path(file: str, root: Path) -> str:
    """A file name without the folder that it was read from."""
    absolute = Path(os.path.abspath(file))  # noqa: PTH100 - a link is shown as it is written
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else file


def _compiled(paths: Sequence[Path], variant: str | None, root: Path) -> PolicySide:
    parsed = ParsedTexts(cache_folder())  # most files are those of the other side
    return compiled_side(load(paths, parse_text=parsed.parse, parse_ahead=parsed.parse_ahead), variant, root)


def compiled_side(loaded: LoadedDocuments, variant: str | None, root: Path, below: Path = HERE) -> PolicySide:
    """The side of loaded documents. `below`: where the templates of files in memory are on the disk."""
    policies, problems = compile_all(loaded, variant=variant, below=below)
    if policies is not None:
        _, wrong = compile_invariants(loaded.documents, policies)
        problems = in_order((*problems, *wrong))
        policies = None if has_errors(wrong) else policies
    left_out: tuple[LeftOutDocument, ...] = ()
    shown = tuple(_relative(each, root) for each in problems)
    if policies is None:
        policies, left_out = _compiled_partly(loaded, problems, variant, root)
    return PolicySide("", None, "", loaded, policies, shown, left_out, root=root)


def _relative(problem: Diagnostic, root: Path) -> Diagnostic:
    prefix = f"{root}/"
    return replace(
        problem, file=shown_path(problem.file, root), message=problem.message.replace(prefix, ""),
        fix=problem.fix.replace(prefix, ""),
    )  # fmt: skip


def _compiled_partly(
    loaded: LoadedDocuments, problems: Sequence[Diagnostic], variant: str | None, root: Path
) -> tuple[PolicySet | None, tuple[LeftOutDocument, ...]]:
    """The set of the documents without mistakes, and those that were left out."""
    left_out = [_left_out(each, problems, root) for each in loaded.faulty]
    kept = list(loaded.documents)
    found: Sequence[Diagnostic] = problems
    while kept:
        wrong = [each for each in kept if _problem_in(each, found, loaded) is not None]
        if not wrong and found is not problems:
            return None, tuple(left_out)
        left_out += [_left_out(each, found, root) for each in wrong]
        kept = [each for each in kept if each not in wrong]
        policies, found = compile_policies(kept, variant=variant)
        if policies is not None:
            return policies, tuple(left_out)
    return None, tuple(left_out)


def _problem_in(
    document: Document | FaultyDocument, problems: Sequence[Diagnostic], loaded: LoadedDocuments
) -> Diagnostic | None:
    """The first error inside a document of a file that may have several."""
    first = document.source.place(()).line
    others: tuple[Document | FaultyDocument, ...] = (*loaded.documents, *loaded.faulty)
    below = [each.source.place(()).line for each in others if each.source.file == document.source.file]
    end = min((line for line in below if line > first), default=1 << 60)
    inside = (each for each in problems if each.severity == "error" and each.file == document.source.file)
    return next((each for each in inside if first <= each.line < end), None)


def _left_out(document: Document | FaultyDocument, problems: Sequence[Diagnostic], root: Path) -> LeftOutDocument:
    inside = [each for each in problems if each.severity == "error" and each.file == document.source.file]
    found = next(iter(inside), None)
    if found is None:
        return LeftOutDocument(document.kind, document.name, "it has a mistake")
    shown = _relative(found, root)
    return LeftOutDocument(document.kind, document.name, f"{shown.file}:{shown.line}: {shown.code} {shown.message}")
