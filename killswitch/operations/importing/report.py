"""What an import did with each setting: imported, approximated, or without an equivalent, with file and line.

An importer never guesses: a setting that it does not know, or that is code, is without an equivalent. No value of a
setting is shown unless its key is known to hold no secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from killswitch.policy.kinds import KINDS
from killswitch.policy.schema.json_schema import schema_of_all
from killswitch.render.document import Items, Page, Section, Table
from killswitch.render.formats import count_of
from killswitch.signals.catalogue import TRIGGER_SIGNALS

Outcome = Literal["imported", "approximated", "no equivalent"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("no equivalent", "approximated", "imported")
"""The outcomes in the order of a report: what needs a person first."""


class ImportRefusedError(Exception):
    """A configuration that cannot be read, or that contradicts itself; the message has its place and a way out."""


class ImportedSetting(Struct, frozen=True):
    """One setting and what became of it; `document` is the name of the document that has it now."""

    outcome: Outcome
    key: str
    file: str
    line: int
    text: str
    document: str | None = None


class ImportedFolder(Struct, frozen=True):
    """The files of a policy folder, by name, and what became of each setting."""

    source: str
    files: Mapping[str, str]
    settings: tuple[ImportedSetting, ...]
    variables: tuple[str, ...] = ()
    """Environment variables that the folder's references name."""

    @property
    def has_all(self) -> bool:
        """Whether every setting has an equivalent, exact or not."""
        return all(each.outcome != "no equivalent" for each in self.settings)


def folder_files(
    source: str,
    documents: Mapping[str, Sequence[str]],
    settings: tuple[ImportedSetting, ...],
    variables: tuple[str, ...],
) -> ImportedFolder:
    """The folder of these documents, by file: with the schema, and the report as its README."""
    found = ImportedFolder(source, {}, settings, variables)
    schema = json.dumps(schema_of_all(KINDS, TRIGGER_SIGNALS), indent=2, ensure_ascii=False) + "\n"
    files = {name: _EDITOR_LINE + "---\n".join(texts) for name, texts in documents.items() if texts}
    extra = {"killswitch.schema.json": schema, "README.md": markdown_report(found)}
    return ImportedFolder(source, files | extra, settings, variables)


def read_text(path: Path) -> str:
    """The text of a file. ImportRefusedError if it cannot be read, is not UTF-8, or is too large."""
    try:
        if path.stat().st_size > LARGEST:
            raise ImportRefusedError(f"{path}: larger than {LARGEST:,} bytes; name the configuration file itself")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ImportRefusedError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ImportRefusedError(f"{path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from error


LARGEST: Final = 1_000_000
_EDITOR_LINE: Final = "# yaml-language-server: $schema=killswitch.schema.json\n"


def import_page(found: ImportedFolder, folder: Path | None, commands: Sequence[str] = ()) -> Page:
    """The report. `folder`: where the files were written; None if they were not."""
    sections = [each for outcome in OUTCOMES for each in _settings(found, outcome)]
    if folder is not None:
        sections.append(Section("Written", (Items(tuple(f"{folder}/{name}" for name in sorted(found.files))),)))
    if found.variables:
        sections.append(Section("Set before a start", (Items(found.variables),)))
    if commands:
        sections.append(Section("Next", (Items(tuple(commands)),)))
    counts = [
        f"{count_of(number, 'setting')} {outcome if outcome != 'no equivalent' else 'without an equivalent'}"
        for outcome in OUTCOMES
        if (number := sum(each.outcome == outcome for each in found.settings))
    ]
    return Page(f"Import of {found.source}", summary=(f"{found.source}: {', '.join(counts) or 'no setting'}.",),
                sections=tuple(sections))  # fmt: skip


_TITLES: Final[Mapping[Outcome, str]] = {
    "no equivalent": "Without an equivalent", "approximated": "Approximated", "imported": "Imported",
}  # fmt: skip


def _settings(found: ImportedFolder, outcome: Outcome) -> Iterator[Section]:
    rows = tuple(
        (f"{each.file}:{each.line}", each.key, each.text, each.document or "-")
        for each in found.settings
        if each.outcome == outcome
    )
    if rows:
        head = ("place", "setting", "what it is here", "document")
        yield Section(_TITLES[outcome], (Table(head, rows, widest=60),))


def markdown_report(found: ImportedFolder) -> str:
    """The report as the README of the folder, so that it stays next to what it is about."""
    lines = [f"# Imported from {found.source}", ""]
    for outcome in OUTCOMES:
        settings = [each for each in found.settings if each.outcome == outcome]
        if settings:
            lines += [f"## {_TITLES[outcome]}", "", "| place | setting | what it is here |", "| --- | --- | --- |"]
            lines += [f"| {each.file}:{each.line} | `{each.key}` | {each.text} |" for each in settings]
            lines.append("")
    if found.variables:
        lines += ["## Set before a start", "", *(f"- `{each}`" for each in found.variables), ""]
    return "\n".join(lines)
