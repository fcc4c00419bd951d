"""The first hour and the guides can be followed word for word: every command does what the page says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from killswitch.graph.compile import compile_loaded
from killswitch.policy.loader import load
from tests.unit.docs.walkthrough import blocks, do, missing

DEMO, ACTIVATE = "make demo", ". .venv/bin/activate"
"""There is an environment already; and what the demo prints and leaves is taken from its run for all tests."""
PORT = "8701"
PATIENCE = 400.0
"""Seconds after which something hangs; on a quiet machine it takes about a fifth of that."""


def free_port() -> str:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def follow(page: str, repository: Path, folder: Path, instead: Mapping[str, str] = MappingProxyType({})) -> None:
    """Do what a page says, in a folder that holds what a clone holds; fails at the first block that differs.

    `instead`: lines of commands that something else takes the place of.
    """
    steps = blocks(page)
    for name in ("policies", "runbooks"):
        shutil.copytree(repository / name, folder / name)
    commands = ["\n".join(instead.get(line, line) for line in step.commands.splitlines()) for step in steps]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = do(commands, folder, {"PATH": path, "COLUMNS": "200"}, PATIENCE)
    assert len(said) == len(steps), f"the shell ended in block {len(said)}: {said[-1:]}"
    for step, (printed, status) in zip(steps, said, strict=True):
        lost = [line for shown, differ in step.shown for line in missing(shown, printed, numbers_differ=differ)]
        assert (status, lost) == (step.status, []), f"{step.commands}\nprinted\n{printed}"


def test_the_first_hour_goes_as_the_page_says(repository: Path, tmp_path: Path, demo: tuple[Path, str]) -> None:
    """Each block ends with its status, and prints what is shown after it; numbers too, where they cannot differ."""
    page = (repository / "docs" / "tutorial.md").read_text(encoding="utf-8")
    for written in (DEMO, ACTIVATE, PORT):
        assert written in page
    left, printed = demo
    said = tmp_path / "demo.txt"
    said.write_text(printed, encoding="utf-8")
    again = f"cp -R {shlex.quote(str(left))} . && cat {said.name} && rm {said.name}"
    follow(page.replace(PORT, free_port()), repository, tmp_path, {DEMO: again, ACTIVATE: ":"})


@pytest.mark.parametrize("name", ["runbooks.md", "notifications.md", "operator-commands.md"])
def test_a_guide_goes_as_it_says(repository: Path, tmp_path: Path, name: str) -> None:
    """Guides are done too, so that their documents, templates and diagnostics stay what the program takes and says."""
    page = (repository / "docs" / name).read_text(encoding="utf-8")
    assert blocks(page)
    follow(page.replace(PORT, free_port()), repository, tmp_path)


PAGE = """\
```sh
echo 'gross 12.5 → 0.00'; echo end
```

<!-- numbers differ -->
```text
gross 99.9 → 1
…
```

<!-- exits 3 -->
```sh
exit_with() { return 3; }; exit_with
```
"""


def test_a_page_that_shows_what_was_not_printed_is_found(tmp_path: Path) -> None:
    """Other numbers pass only where they are said to differ; another word, order or status never does."""
    first, second = blocks(PAGE)
    assert (first.status, second.status) == (0, 3)
    (printed, status), (_, other) = do([first.commands, second.commands], tmp_path, {}, 60.0)
    assert (status, other) == (0, 3)
    ((shown, differ),) = first.shown
    assert missing(shown, printed, numbers_differ=differ) == []
    assert missing(shown, printed, numbers_differ=False) == ["gross 99.9 → 1"]
    assert missing("net 99.9 → 1\n", printed, numbers_differ=True) == ["net 99.9 → 1"]
    assert missing("end\ngross 12.5 …\n", printed, numbers_differ=False) == ["gross 12.5 …"]


def test_the_tutorial_shows_the_digest_that_its_own_files_have(repository: Path, tmp_path: Path) -> None:
    """Elsewhere digests count as alike: the port is part of one, and tests take a free one. Here it is the page's.

    The route of the last step names a folder of the reader's own: no digest is shown after it.
    """
    page = (repository / "docs" / "tutorial.md").read_text(encoding="utf-8")
    written = [each.commands for each in blocks(page) if "my-desk/" in each.commands][:2]
    files = "\n".join(line for each in written for line in each.splitlines() if not line.startswith("ksctl "))
    do([files], tmp_path, {"PATH": os.environ["PATH"]}, PATIENCE)
    policies, told = compile_loaded(load([tmp_path / "my-desk"]))
    assert policies is not None, told
    assert set(re.findall(r"sha256:[0-9a-f]{12}", page)) == {policies.digest[:19]}
