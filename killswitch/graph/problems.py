"""Problems in documents, with their places and suggestions for misspelled names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from killswitch.model.words import Place
from killswitch.policy.diagnostics.diagnostic import Diagnostic, Severity, diagnostic
from killswitch.policy.diagnostics.unsupported import PAGE, nearest_of
from killswitch.policy.schema.validation import NO_GAPS, Gaps, closest
from killswitch.policy.yaml.source_map import Path, SourceMap
from killswitch.signals.catalogue import BY_NAME, CATALOGUE
from killswitch.signals.declaration import Level


class Problem(Struct, frozen=True):
    """A problem in a text; `start` and `length` count its characters."""

    code: str
    message: str
    fix: str
    start: int = 0
    length: int = 1


class Findings:
    """Collects the diagnostics of one document. Paths consist of its keys and list indexes.

    `gaps`: unreadable parts of the document, which are not checked.
    """

    def __init__(self, source: SourceMap, gaps: Gaps = NO_GAPS) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.gaps = gaps
        self.source = source

    def error(self, code: str, path: Path, message: str, fix: str, *, key: bool = False) -> None:
        """Report an error in the value at `path`, or in its key."""
        self._add(code, path, message, fix, "error", key)

    def warning(self, code: str, path: Path, message: str, fix: str, *, key: bool = False) -> None:
        """Report a warning about something that compiles but is probably not intended."""
        self._add(code, path, message, fix, "warning", key)

    def within(self, path: Path, problems: Iterable[Problem]) -> None:
        """Report problems inside the text at `path`, each at its own character."""
        for each in problems:
            place = self.source.inside(path, each.start)
            self.diagnostics.append(diagnostic(each.code, place, each.message, each.fix, length=each.length))

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Place of the value at `path`, or of its key."""
        return self.source.place(path, key=key)

    def _add(self, code: str, path: Path, message: str, fix: str, severity: Severity, key: bool) -> None:
        self.diagnostics.append(self.source.diagnostic(code, path, message, fix, key=key, severity=severity))


class FaultyDocuments(Struct, frozen=True):
    """Names of faulty documents by kind; None if one of them has an unknown name."""

    names: Mapping[str, frozenset[str] | None]
    has_unknown_kinds: bool = False
    """Whether there are documents of unknown kind."""

    def can_have(self, kind: str, name: str | None = None) -> bool:
        """Whether a faulty document may be of this kind, and may have this name if given."""
        if self.has_unknown_kinds:
            return True
        known = self.names.get(kind, frozenset())
        return known is None or (bool(known) if name is None else name in known)


NO_FAULTY_DOCUMENTS = FaultyDocuments({})


def suggestion(name: str, known: Iterable[str]) -> str:
    """`did you mean …?` for the closest known name; empty without one."""
    names = sorted(known)
    last = {candidate.rsplit(".", 1)[-1]: candidate for candidate in reversed(names)}  # of several the first
    group, _, own = name.rpartition(".")
    same = {each.removeprefix(f"{group}."): each for each in names if group and each.startswith(f"{group}.")}
    near = same.get(closest(own, same) or "") if same else closest(name, names)
    near = near or last.get(closest(own, last) or "")
    return f"did you mean `{near}`?" if near else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> tuple[str, str]:
    """Message and fix for an unresolved reference."""
    names = sorted(known)
    listed = ", ".join(f"`{each}`" for each in names) if names else "there is none"
    return f"there is no {kind} `{name}`", suggestion(name, names) or f"known: {listed}"


def signal_names(level: Level) -> list[str]:
    """Names of the signals at `level`."""
    return [spec.name for spec in CATALOGUE if spec.level == level]


def signal_problem(name: str, level: Level) -> tuple[str, str, str] | None:
    """(code, message, fix) if `name` is no signal, or not a signal of this level; else None."""
    spec = BY_NAME.get(name)
    if spec is None:
        near = nearest_of(name, "signal") or suggestion(name, signal_names(level))
        return "KS3001", f"there is no signal `{name}`", near or f"`ksctl schema signals` lists them all; see {PAGE}"
    if spec.level == level:
        return None
    if level == "scope":
        return (
            "KS3005",
            f"`{name}` is a quantity of one position, and a stage machine watches a whole scope",
            "use it in `close.where`, or a signal of the scope here",
        )
    return (
        "KS3006",
        f"`{name}` is a quantity of the whole scope, and this condition is evaluated for each position",
        "use a `position.` signal here, or a trigger for the scope",
    )
