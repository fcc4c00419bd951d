"""The policy files at or below some paths, each with its text in the uniform layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import unified_diff
from pathlib import Path

from msgspec import Struct

from killswitch.policy.diagnostics.diagnostic import Diagnostic, diagnostic
from killswitch.policy.format.layout import LayoutError, formatted
from killswitch.policy.yaml.files import Report, about_file, texts
from killswitch.policy.yaml.masked_text import MaskedText


class FormattedFile(Struct, frozen=True):
    """A file as it is written, and its text in the uniform layout."""

    written: MaskedText
    text: str

    @property
    def file(self) -> str:
        return self.written.file

    @property
    def is_changed(self) -> bool:
        """Whether the file is not in the uniform layout."""
        return self.text != self.written.text

    def diff(self) -> Iterator[str]:
        """The lines of a unified diff, with secrets masked; a change of line ends alone is one line."""
        before, after = self.written.shown, MaskedText(self.file, self.text).shown
        lines = list(unified_diff(before, after, self.file, f"{self.file} (formatted)", lineterm=""))
        yield from lines or (f"{self.file}: only its line ends change",)


def format_files(paths: Iterable[Path], report: Report) -> Iterator[FormattedFile]:
    """Every file that can be formatted; `report` gets a diagnostic for any other."""
    for written in texts(paths, report):
        try:
            yield FormattedFile(written, formatted(written.text))
        except LayoutError as error:
            for problem in _problems(written, error):
                report(problem)


def _problems(written: MaskedText, error: LayoutError) -> Iterator[Diagnostic]:
    for each in error.problems:
        place, length = written.place(each.span), written.length(each.span)
        yield diagnostic(each.code, place, each.message, each.fix, length=length)
    if not error.problems:
        fix = "write special characters as escapes in double quotes, and each text on one line"
        yield about_file("KS1110", Path(written.file), str(error), fix)
