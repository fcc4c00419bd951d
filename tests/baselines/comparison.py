"""All baselines: how each is generated, where it is stored, and how the present output differs from it."""

from __future__ import annotations

import contextlib
import difflib
import gzip
import io
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from secrets import token_hex
from tempfile import gettempdir

from msgspec import Struct

from tests.baselines import documents, verbs
from tests.baselines.dumps import dump, normalized, restore
from tests.baselines.scenarios import CONTINUED, PLAN, SCENARIOS

RECORDED = Path(__file__).parent / "recorded"
"""Files that an earlier version wrote and later versions must read."""
GOLDEN = Path(__file__).parent / "golden"
"""Its output from these files, which later versions must reproduce."""

PROSE = re.compile(r'(\\*"(?:text|reason|why|detail|title|body|label|note|message|fix)\\*": ?)\\*".*?(?<!\\)\\*"')
"""JSON values that are sentences for people."""
PAGES = ("closed", "set-aside", "hops", "hedged", "by-hand")
"""Stores whose reports are compared as HTML pages too."""
LENGTH = 40
"""Length of the path of the folder in which a baseline is generated."""
SHOWN = 3
"""Lines shown of each side at the first difference."""


class Baseline(Struct, frozen=True):
    """One comparison. `make` works in the given folder and returns file → text."""

    name: str
    sentence: str
    """The property that holds while the output is the same."""
    kept_in: Path
    make: Callable[[Path], Mapping[str, str]]

    def generate(self) -> Mapping[str, str]:
        """The output of the present code; its stderr is discarded."""
        with _folder() as folder, contextlib.redirect_stderr(io.StringIO()):
            return self.make(folder)

    def record(self) -> None:
        """Write the present output. Existing files of an earlier version are never overwritten."""
        for file, text in self.generate().items():
            if self.kept_in != RECORDED or not (RECORDED / file).exists():
                write(self.kept_in / file, text)
            if self.name.startswith("run/") and not (RECORDED / file).exists() and not file.endswith(".txt"):
                write(RECORDED / file, text)

    def differences(self) -> list[str]:
        """One text for each file that differs or was never recorded; empty where all are the same."""
        found = []
        for file, text in self.generate().items():
            path = self.kept_in / file
            if not path.exists():
                found.append(f"{file} was never recorded: python -m tests.baselines record {self.name}")
            elif (kept := read(path)) != text:
                found.append(f"{file}: {difference(kept, text)}")
        return found


def baselines() -> Iterator[Baseline]:
    """All baselines, in an order in which each can be recorded after those before it."""
    for name, scenario in SCENARIOS.items():
        summary = scenario.__doc__ or name
        yield Baseline(f"run/{name}", f"the run is the same: {first_line(summary)}", GOLDEN / "run",
                       partial(_run, name))  # fmt: skip
    for name in CONTINUED:
        yield Baseline(f"goes-on/{name}", f"a run continues with the store of an earlier version: {name}",
                       GOLDEN / "goes-on", partial(_continue, name))  # fmt: skip
    for name in SCENARIOS:
        yield Baseline(f"json/{name}", f"every verb's JSON on the recorded store {name}", GOLDEN / "json",
                       partial(_of_store, name, verbs.machine_readable, ".txt.gz"))  # fmt: skip
        yield Baseline(f"words/{name}", f"every verb's text on the recorded store {name}", GOLDEN / "words",
                       partial(_of_store, name, verbs.readable, ".txt"))  # fmt: skip
    for name in PAGES:
        yield Baseline(f"pages/{name}", f"the reports of the recorded store {name} as pages", GOLDEN / "words",
                       partial(_of_store, name, verbs.pages, ".html.gz"))  # fmt: skip
    parts = (
        documents.shipped, documents.schemas, documents.routes, documents.replays, documents.backtest,
    )  # fmt: skip
    for part in parts:
        yield Baseline(f"documents/{part.__name__}", first_line(part.__doc__ or ""), GOLDEN / "documents", part)
    yield Baseline("documents/plan", first_line(documents.saved_plan.__doc__ or ""), RECORDED, documents.saved_plan)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """An empty folder whose path has the same length everywhere, because the width of tables depends on it."""
    parent = Path(gettempdir()).resolve()
    if len(str(parent)) > LENGTH - 10:
        parent = Path("/tmp")
    folder = parent / token_hex(LENGTH)[: LENGTH - len(str(parent)) - 1]
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


# Generation


def _run(name: str, folder: Path) -> Mapping[str, str]:
    site = SCENARIOS[name](folder)
    made = {f"{name}.store.jsonl.gz": dump(folder)}
    if site.recording is not None:
        made[f"{name}.recording.jsonl.gz"] = site.recording.read_text(encoding="utf-8")
    if site.reports:
        made[f"{name}.rendered.txt"] = rendered(folder)
    if (folder / PLAN.name).exists():
        made[PLAN.name] = (folder / PLAN.name).read_text(encoding="utf-8")
    return made


def rendered(folder: Path) -> str:
    """The runbooks that a run has written beside its store.

    Reports are excluded: `words` compares those of the store, and these would contain the time at which each
    notification was sent, which depends on threads.
    """
    files = [path for path in sorted(folder.glob("store.sqlite*/**/*.md")) if path.name != "report.md"]
    texts = [f"=== {path.relative_to(folder)}\n{path.read_text(encoding='utf-8')}" for path in files]
    return normalized("\n".join(texts), folder)


def _continue(name: str, folder: Path) -> Mapping[str, str]:
    """Play the scenario to restore the market, replace the store by the recorded one, and continue the run."""
    site = SCENARIOS[name](folder)
    for path in folder.glob("store.sqlite*"):
        if path.is_file():
            path.unlink()
    restore(read(RECORDED / f"{name}.store.jsonl.gz"), folder)
    start, until = CONTINUED[name]
    site.run(until, start=start)
    return {f"{name}.jsonl.gz": dump(folder)}


def _of_store(name: str, render: Callable[[Path], str], suffix: str, folder: Path) -> Mapping[str, str]:
    return {f"{name}{suffix}": render(restore(read(RECORDED / f"{name}.store.jsonl.gz"), folder))}


# Files


def read(path: Path) -> str:
    """A stored text, decompressed where its name ends in .gz."""
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()


def write(path: Path, text: str) -> None:
    """Store a text; compressed where its name ends in .gz, with the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode()
    path.write_bytes(gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)


# Differences


def difference(kept: str, made: str) -> str:
    """The number of lines that differ, whether only prose differs, and the first difference."""
    before, after = kept.splitlines(), made.splitlines()
    changes = [
        (before[a:b], after[c:d])
        for tag, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        if tag != "equal"
    ]
    gone, new = changes[0] if changes else ([], [])
    lines = sum(max(len(old), len(now)) for old, now in changes)
    plain = PROSE.sub(r"\1…", kept) == PROSE.sub(r"\1…", made)
    summary = (
        f"{lines} line{'' if lines == 1 else 's'} differ{'s' if lines == 1 else ''}{', in words only' if plain else ''}"
    )
    return "\n".join((summary, *_shown(gone, new)))


def _shown(gone: list[str], new: list[str]) -> Iterator[str]:
    """The first lines that differ; of long ones the part around the first different character."""
    pairs = list(zip(gone, new, strict=False))
    at = next((i for i, (x, y) in enumerate(zip(*pairs[0], strict=False)) if x != y), 0) if pairs else 0
    start = max(0, at - 80)
    for mark, lines in (("-", gone), ("+", new)):
        for line in lines[:SHOWN]:
            yield f"    {mark} {'…' if start else ''}{line[start : start + 200]}"
