"""Problems of a document, gathered with their places; compiling goes on past every one of them."""

from __future__ import annotations

from collections.abc import Iterable

from killswitch.graph.problems import Problem
from killswitch.model.place import Place
from killswitch.policy.diagnostics import Diagnostic, Severity, diagnostic
from killswitch.policy.gaps import NO_GAPS, Gaps
from killswitch.policy.source import Path, SourceMap


class Findings:
    """What is wrong with one document. Paths are keys and list indexes as the document has them.

    `gaps` are what of it could not be read, and is not to be judged.
    """

    def __init__(self, source: SourceMap, gaps: Gaps = NO_GAPS) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.gaps = gaps
        self.source = source

    def error(self, code: str, path: Path, message: str, fix: str, *, key: bool = False) -> None:
        """A problem with the value at `path`, or with its key."""
        self._add(code, path, message, fix, "error", key)

    def warning(self, code: str, path: Path, message: str, fix: str, *, key: bool = False) -> None:
        """What compiles, and is most likely not meant."""
        self._add(code, path, message, fix, "warning", key)

    def within(self, path: Path, problems: Iterable[Problem]) -> None:
        """Problems inside the text at `path`, each at its own character."""
        for problem in problems:
            place = self.source.inside(path, problem.start)
            self.diagnostics.append(
                diagnostic(problem.code, place, problem.message, problem.fix, length=problem.length)
            )

    def line(self, path: Path, offset: int) -> int:
        """The line on which character `offset` of the text at `path` was written."""
        return self.source.inside(path, offset).line

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Where the value at `path`, or its key, was written."""
        return self.source.place(path, key=key)

    def _add(self, code: str, path: Path, message: str, fix: str, severity: Severity, key: bool) -> None:
        self.diagnostics.append(self.source.diagnostic(code, path, message, fix, key=key, severity=severity))
