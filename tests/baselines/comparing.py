"""Every baseline: what it is made of, where it is kept, and how what is made now differs from it."""

from __future__ import annotations

import contextlib
import difflib
import gzip
import io
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from tempfile import gettempdir

from tests.baselines import documents, verbs
from tests.baselines.dumps import dump, restore, settled
from tests.baselines.scenes import GOES_ON, PLAN, SCENES

RECORDED = Path(__file__).parent / "recorded"
"""What an earlier version has left, and later ones must read."""
GOLDEN = Path(__file__).parent / "golden"
"""What it made of it, and later ones must make of it too."""

WORDS = re.compile(r'(\\*"(?:text|reason|why|detail|title|body|label|note|message|fix)\\*": ?)\\*".*?(?<!\\)\\*"')
"""The values in JSON that are sentences for people."""
PAGES = ("closed", "set-aside", "hops", "hedged", "by-hand")
"""Stores whose reports are kept as pages too."""
LENGTH = 40
"""Of the path of the folder that a baseline is made in."""
SHOWN = 3
"""So many lines of the first place that differs are shown, of each side."""


@dataclass(frozen=True)
class Baseline:
    """One comparison. `make` writes into the folder that it is given what it needs, and gives file → text."""

    name: str
    sentence: str
    """What holds while it is the same."""
    kept_in: Path
    make: Callable[[Path], Mapping[str, str]]

    def made(self) -> Mapping[str, str]:
        """What the present code makes, with everything that it says on the way kept quiet."""
        with _folder() as folder, contextlib.redirect_stderr(io.StringIO()):
            return self.make(folder)

    def record(self) -> None:
        """Write anew what is made. What an earlier version has left stays as it was left, as long as it is there."""
        for file, text in self.made().items():
            if self.kept_in != RECORDED or not (RECORDED / file).exists():
                write(self.kept_in / file, text)
            if self.name.startswith("run/") and not (RECORDED / file).exists() and not file.endswith(".txt"):
                write(RECORDED / file, text)

    def differences(self) -> list[str]:
        """How what is made now differs, in lines; nothing where it is the same."""
        found = []
        for file, text in self.made().items():
            path = self.kept_in / file
            if not path.exists():
                found.append(f"{file} was never recorded: python -m tests.baselines record {self.name}")
            elif (kept := read(path)) != text:
                found.append(f"{file}: {difference(kept, text)}")
        return found


def baselines() -> Iterator[Baseline]:
    """All of them, in an order in which each can be recorded after those before it."""
    for name, scene in SCENES.items():
        said = scene.__doc__ or name
        yield Baseline(f"run/{name}", f"the run takes the same course: {first_line(said)}", GOLDEN / "run",
                       partial(_run, name))  # fmt: skip
    for name in GOES_ON:
        yield Baseline(f"goes-on/{name}", f"a run goes on with the store of an earlier version: {name}",
                       GOLDEN / "goes-on", partial(_goes_on, name))  # fmt: skip
    for name in SCENES:
        yield Baseline(f"json/{name}", f"every verb's JSON on the recorded store {name}", GOLDEN / "json",
                       partial(_of_store, name, verbs.machine_readable, ".txt.gz"))  # fmt: skip
        yield Baseline(f"words/{name}", f"every verb's words on the recorded store {name}", GOLDEN / "words",
                       partial(_of_store, name, verbs.readable, ".txt"))  # fmt: skip
    for name in PAGES:
        yield Baseline(f"pages/{name}", f"the reports of the recorded store {name} as pages", GOLDEN / "words",
                       partial(_of_store, name, verbs.pages, ".html.gz"))  # fmt: skip
    parts = (
        documents.shipped, documents.schemas, documents.mistakes, documents.routes, documents.replays,
        documents.backtest,
    )  # fmt: skip
    for part in parts:
        yield Baseline(f"documents/{part.__name__}", first_line(part.__doc__ or ""), GOLDEN / "documents", part)
    yield Baseline("documents/plan", first_line(documents.saved_plan.__doc__ or ""), RECORDED, documents.saved_plan)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """An empty folder, whose path is as long everywhere: tables are as wide as what stands in them."""
    within = Path(gettempdir()).resolve()
    if len(str(within)) > LENGTH - 10:
        within = Path("/tmp")
    folder = within / token_hex(LENGTH)[: LENGTH - len(str(within)) - 1]
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


# What is made


def _run(name: str, folder: Path) -> Mapping[str, str]:
    site = SCENES[name](folder)
    made = {f"{name}.store.jsonl.gz": dump(folder)}
    if site.recording is not None:
        made[f"{name}.recording.jsonl.gz"] = site.recording.read_text(encoding="utf-8")
    if site.reports:
        made[f"{name}.rendered.txt"] = rendered(folder)
    if (folder / PLAN.name).exists():
        made[PLAN.name] = (folder / PLAN.name).read_text(encoding="utf-8")
    return made


def rendered(folder: Path) -> str:
    """The runbooks that a run has left beside its store. Reports are not among them: `words` has them of the store, and
    these would say when each notification left, which is a matter of threads."""
    files = [path for path in sorted(folder.glob("store.sqlite*/**/*.md")) if path.name != "report.md"]
    told = [f"=== {path.relative_to(folder)}\n{path.read_text(encoding='utf-8')}" for path in files]
    return settled("\n".join(told), folder)


def _goes_on(name: str, folder: Path) -> Mapping[str, str]:
    """The market comes to where it was by the scene itself; the store is then the recorded one."""
    site = SCENES[name](folder)
    for path in folder.glob("store.sqlite*"):
        if path.is_file():
            path.unlink()
    restore(read(RECORDED / f"{name}.store.jsonl.gz"), folder)
    begins, until = GOES_ON[name]
    site.run(until, begins=begins)
    return {f"{name}.jsonl.gz": dump(folder)}


def _of_store(name: str, ask: Callable[[Path], str], ending: str, folder: Path) -> Mapping[str, str]:
    return {f"{name}{ending}": ask(restore(read(RECORDED / f"{name}.store.jsonl.gz"), folder))}


# Files


def read(path: Path) -> str:
    """A kept text, packed or not."""
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()


def write(path: Path, text: str) -> None:
    """Keep a text; packed where its name says so, and then the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode()
    path.write_bytes(gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)


# Differences


def difference(kept: str, made: str) -> str:
    """How many lines differ, whether only sentences for people do, and the first place."""
    before, after = kept.splitlines(), made.splitlines()
    changes = [
        (before[a:b], after[c:d])
        for tag, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        if tag != "equal"
    ]
    gone, new = changes[0] if changes else ([], [])
    lines = sum(max(len(old), len(now)) for old, now in changes)
    plain = WORDS.sub(r"\1…", kept) == WORDS.sub(r"\1…", made)
    told = (
        f"{lines} line{'' if lines == 1 else 's'} differ{'s' if lines == 1 else ''}{', in words only' if plain else ''}"
    )
    return "\n".join((told, *_shown(gone, new)))


def _shown(gone: list[str], new: list[str]) -> Iterator[str]:
    """The first lines that differ; of long ones what lies around the first character that does."""
    pairs = list(zip(gone, new, strict=False))
    at = next((i for i, (x, y) in enumerate(zip(*pairs[0], strict=False)) if x != y), 0) if pairs else 0
    begins = max(0, at - 80)
    for mark, lines in (("-", gone), ("+", new)):
        for line in lines[:SHOWN]:
            yield f"    {mark} {'…' if begins else ''}{line[begins : begins + 200]}"
