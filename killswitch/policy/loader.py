"""The loader of policy files: documents with source positions, and every problem, in one pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from killswitch.model.applied_set import PolicyFile
from killswitch.policy.diagnostics.diagnostic import Diagnostic, diagnostic, in_order
from killswitch.policy.diagnostics.unsupported import nearest_of
from killswitch.policy.kinds import KINDS, OF_THE_RUNNER
from killswitch.policy.schema.cross_key_checks import mixed_forms
from killswitch.policy.schema.document import API_VERSION, VersionedPart
from killswitch.policy.schema.scalars import quoted
from killswitch.policy.schema.validation import Gaps, closest, validate
from killswitch.policy.schema.versions import VERSIONS, DocumentVersion, converted
from killswitch.policy.yaml.files import about_file, given_texts, texts
from killswitch.policy.yaml.masked_text import MaskedText
from killswitch.policy.yaml.parser import DocumentRoot, Node, ParseText, YamlProblem, parse, plain_value
from killswitch.policy.yaml.source_map import SourceMap

_BROKEN_OFF = frozenset({"KS1005", "KS1101", "KS1102", "KS1107"})
"""Codes of YAML problems after which the rest of a file is not parsed."""
_KIND = re.compile(r"""kind["']?\s*:\s*["']?(\w*)""")


class Document(Struct, frozen=True):
    """A valid document. The graph resolves its references."""

    kind: str
    name: str
    model: VersionedPart
    """An instance of the class that `KINDS` has for `kind`."""
    source: SourceMap


class FaultyDocument(Struct, frozen=True):
    """A document with mistakes, for further checks only; nothing runs from it."""

    kind: str
    name: str | None
    """None if the name is invalid."""
    model: VersionedPart
    """The valid parts of the document, with fillers at the `gaps`."""
    source: SourceMap
    gaps: Gaps


class LoadedDocuments(Struct, frozen=True):
    """The result of loading: every valid document, and every problem."""

    documents: tuple[Document, ...]
    diagnostics: tuple[Diagnostic, ...]
    faulty: tuple[FaultyDocument, ...] = ()
    """The documents with mistakes."""
    has_unidentified: bool = False
    """Whether there may be documents whose kind and name are unknown."""
    texts: tuple[MaskedText, ...] = ()
    """The texts of all files that could be read, also of those that were left out."""


def load(
    paths: Sequence[Path],
    *,
    versions: Mapping[str, DocumentVersion] = VERSIONS,
    parse_text: ParseText = parse,
    parse_ahead: Callable[[Sequence[str]], None] | None = None,
    without: Collection[str] = (),
    kinds: Mapping[str, type[VersionedPart]] = KINDS,
) -> LoadedDocuments:
    """Read every YAML file at or below `paths`. Never raises for what it finds there.

    `versions`: the versions of documents that are read. `parse_text`: another way to the result of `parse`.
    `parse_ahead`: called with all texts before the first is parsed. `without`: kinds of documents that are left out
    with all their problems. `kinds`: other kinds than those of a policy folder.
    """
    loading = _Loader(versions, parse_text, without, kinds)
    found = list(texts(paths, loading.record_unreadable))
    if parse_ahead is not None:
        parse_ahead([written.text for written in found])
    return loading.finish(found, paths[0] if paths else Path())


def load_texts(
    files: Iterable[PolicyFile],
    *,
    versions: Mapping[str, DocumentVersion] = VERSIONS,
    parse_text: ParseText = parse,
    without: Collection[str] = (),
) -> LoadedDocuments:
    """Load files that are in memory, as `load` loads a folder that holds them. Never raises, and reads no disk.

    Hidden files and files of other suffixes are left out. Diagnostics name the paths of `files` as they are written.
    """
    loading = _Loader(versions, parse_text, without)
    return loading.finish(given_texts(files, loading.record_unreadable), Path())


def _written_kind(root: Node) -> str:
    """The value of `kind` as it is written; empty without one."""
    if root.pairs is None or "kind" not in root.pairs:
        return ""
    return str(plain_value(root.pairs["kind"][1]))


class _Loader:
    def __init__(
        self,
        versions: Mapping[str, DocumentVersion],
        parse_text: ParseText,
        without: Collection[str],
        kinds: Mapping[str, type[VersionedPart]] = KINDS,
    ) -> None:
        self._versions = versions
        self._parse = parse_text
        self._without = without
        self._kinds = kinds
        self.documents: list[Document] = []
        self.faulty: list[FaultyDocument] = []
        self.problems: list[Diagnostic] = []
        self.has_unidentified = False
        self._named: dict[tuple[str, str], Document] = {}

    def finish(self, found: Iterable[MaskedText], where: Path) -> LoadedDocuments:
        """Load all files. Without any document, the problem is one of `where`."""
        texts = tuple(found)
        for written in texts:
            self.file(written)
        if not self.documents and not self.problems:
            fix = "write a Policy; policies/ has examples"
            self.problems.append(about_file("KS1202", where, "contains no document", fix))
        return LoadedDocuments(
            tuple(self.documents), in_order(self.problems), tuple(self.faulty), self.has_unidentified, texts
        )

    def record_unreadable(self, problem: Diagnostic) -> None:
        """Record a file that could not be read at all."""
        self.problems.append(problem)
        self.has_unidentified = True

    def file(self, written: MaskedText) -> None:
        """Load all documents of one file."""

        found: list[YamlProblem] = []
        roots = self._parse(written.text, found.append)
        if self._leaves_out(written, roots, found):
            return
        for each in found:
            self.has_unidentified |= each.code in _BROKEN_OFF
            place, length = written.place(each.span), written.length(each.span)
            self.problems.append(diagnostic(each.code, place, each.message, each.fix, length=length))
        if not roots and not found:
            fix = "write a document that begins with apiVersion and kind, or remove the file"
            self.problems.append(about_file("KS1202", Path(written.file), "contains no document", fix))
        for root in roots:
            if _written_kind(root.node) not in self._without:
                self._document(root.node, written, root.sound)

    def _leaves_out(self, written: MaskedText, roots: Sequence[DocumentRoot], found: Sequence[YamlProblem]) -> bool:
        """Whether the file has documents of the kinds left out and no other.

        Where parsing broke off, any text that could be the kind of a document counts as one: a policy below it must
        not be left out.
        """
        if any(each.code in _BROKEN_OFF for each in found):
            kinds = set(_KIND.findall(written.text))
        else:
            kinds = {_written_kind(root.node) for root in roots}
        return bool(kinds) and kinds.issubset(self._without)

    def _document(self, root: Node, written: MaskedText, sound: bool) -> None:
        """Validate one document and record its problems; a document with any problem is recorded as faulty."""
        version = self._version(root, SourceMap(written, root))
        kind = None
        if root.pairs is not None and "apiVersion" in root.pairs:
            root = root if version is None else converted(root, version)
            kind = self._kind(root, SourceMap(written, root))
        if kind is None:
            self.has_unidentified = True
            return
        source = SourceMap(written, root, self._kinds[kind].ALIASES)
        breaches = list(self._kinds[kind].breaches(plain_value(root)))
        for each in breaches:
            self.problems.append(source.diagnostic(each.code, each.path, each.message, each.fix, key=True))
        validated = validate(self._kinds[kind], root, source, mixed_forms(breaches))
        self.problems += validated.problems
        read, holes = validated.model, validated.holes
        if not isinstance(read, VersionedPart):
            self.has_unidentified = True
            return
        is_valid = sound and not validated.problems and not holes and not breaches
        if not is_valid or not self._add(Document(kind, read.metadata.name, read, source)):
            gaps = Gaps(holes, frozenset(breach.path for breach in breaches), sound, source.as_written)
            name = None if gaps.is_hole(("metadata", "name")) else read.metadata.name
            self.faulty.append(FaultyDocument(kind, name, read, source, gaps))

    def _version(self, root: Node, source: SourceMap) -> DocumentVersion | None:
        """The version of the document; None if it has none that is known, which is reported."""
        if root.pairs is None:
            fix = "begin with `apiVersion: killswitch.dev/v1` and `kind: Policy`"
            self.problems.append(source.diagnostic("KS1201", (), "a document is a mapping", fix))
            return None
        if "apiVersion" not in root.pairs:
            fix = f"add `apiVersion: {API_VERSION}`, or move other YAML out of the policy folder"
            message = "`apiVersion` is missing: this is not a policy document"
            self.problems.append(source.diagnostic("KS1203", (), message, fix, key=True))
            return None
        written = plain_value(root.pairs["apiVersion"][1])
        version = self._versions.get(written) if isinstance(written, str) else None
        if version is None:
            names = ", ".join(f"`{name}`" for name in self._versions)
            message = f"{quoted(written)} is not a supported version; this release reads {names}"
            fix = f"write `{API_VERSION}`, or use the release that the file was written for"
            self.problems.append(source.diagnostic("KS1204", ("apiVersion",), message, fix))
            root.pairs["apiVersion"][1].refused = True
        elif version.notice is not None:
            fix = f"write it as `{API_VERSION}`, which is read for ever"
            self.problems.append(source.diagnostic("KS1209", ("apiVersion",), version.notice, fix, severity="warning"))
        return version

    def _kind(self, root: Node, source: SourceMap) -> str | None:
        """The document's kind, or None if it cannot be determined."""
        if root.pairs is None or "kind" not in root.pairs:
            fix = f"add `kind:`, one of {', '.join(self._kinds)}"
            self.problems.append(source.diagnostic("KS1205", (), "`kind` is missing in the document", fix, key=True))
            return None
        return self._known_kind(plain_value(root.pairs["kind"][1]), source)

    def _known_kind(self, kind: object, source: SourceMap) -> str | None:
        if isinstance(kind, str) and kind in self._kinds:
            return kind
        if isinstance(kind, str) and kind in OF_THE_RUNNER and kind not in self._kinds:
            fix = "move it out of the policy folder, and name its file with `ksctl run --source`"
            self.problems.append(source.diagnostic("KS8202", ("kind",), OF_THE_RUNNER[kind], fix))
            return None
        near = closest(str(kind), list(self._kinds))
        message = f"{quoted(kind)} is not a kind of document" + (f", did you mean `{near}`?" if near else "")
        missing = None if near else nearest_of(str(kind), "document")
        fix = (
            f"write `{near}`"
            if near
            else f"write one of {', '.join(self._kinds)}" + (f"; {missing}" if missing else "")
        )
        self.problems.append(source.diagnostic("KS1206", ("kind",), message, fix))
        return None

    def _add(self, document: Document) -> bool:
        """Add a document. False if its name is built in, or used by another document of its kind."""
        kind, name, source = document.kind, document.name, document.source
        at = ("metadata", "name")
        if name in self._kinds[kind].BUILT_IN:
            message = f"the {kind} `{name}` is built in"
            self.problems.append(source.diagnostic("KS1208", at, message, "give yours another name"))
            return False
        first = self._named.setdefault((kind, name), document)
        if first is not document:
            place = first.source.place(at)
            message = f"a {kind} named `{name}` is already in {place.file}:{place.line}"
            fix = "rename one of the two, or remove one"
            self.problems.append(source.diagnostic("KS1207", at, message, fix))
            return False
        self.documents.append(document)
        return True
