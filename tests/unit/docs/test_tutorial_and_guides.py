"""The tutorial and the guides can be followed literally: every command does what its page shows."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from killswitch.graph.compile import compile_loaded
from killswitch.policy.loader import load
from tests.unit.docs.walkthrough import logs, missing_lines, run_blocks, shell_blocks

DEMO, ACTIVATE = "make demo", ". .venv/bin/activate"
"""Replaced: an environment exists already, and output and files of the demo come from its one run for all tests."""
PORT = "8701"
SERVER_PORT = "8702"
TIMEOUT_SECONDS = 400.0
"""Seconds after which a page counts as hanging; on an idle machine it takes about a fifth of that."""


def free_port() -> str:
    """A port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def follow_page(page: str, repository: Path, folder: Path, instead: Mapping[str, str] = MappingProxyType({})) -> None:
    """Follow a page in a folder with the files of a clone; fails at the first block that differs.

    `instead`: command lines and their replacements.
    """
    steps = shell_blocks(page)
    for name in ("policies", "runbooks"):
        shutil.copytree(repository / name, folder / name)
    commands = ["\n".join(instead.get(line, line) for line in step.commands.splitlines()) for step in steps]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    outputs = run_blocks(commands, folder, {"PATH": path, "COLUMNS": "200"}, TIMEOUT_SECONDS)
    assert len(outputs) == len(steps), f"the shell ended in block {len(outputs)}: {outputs[-1:]}"
    for step, (printed, status) in zip(steps, outputs, strict=True):
        lost = [line for shown, differ in step.shown for line in missing_lines(shown, printed, numbers_differ=differ)]
        assert (status, lost) == (step.status, []), f"{step.commands}\nprinted\n{printed}\n{logs(folder)}"


def test_the_tutorial_works_as_written(repository: Path, tmp_path: Path, demo: tuple[Path, str]) -> None:
    """Each block ends with its status and prints what is shown after it, with its numbers unless they may differ."""
    page = (repository / "docs" / "tutorial.md").read_text(encoding="utf-8")
    for written in (DEMO, ACTIVATE, PORT):
        assert written in page
    left, printed = demo
    demo_output = tmp_path / "demo.txt"
    demo_output.write_text(printed, encoding="utf-8")
    copy_demo = f"cp -R {shlex.quote(str(left))} . && cat {demo_output.name} && rm {demo_output.name}"
    follow_page(page.replace(PORT, free_port()), repository, tmp_path, {DEMO: copy_demo, ACTIVATE: ":"})


def test_the_tutorial_removes_only_its_own_files(repository: Path, tmp_path: Path) -> None:
    """A reader's policies and books next to them stay, whatever they are called."""
    own = ["my-book-2.yaml", "my-desk-2/policy.yaml", "my-plan.json", "my-policies/policy.yaml", "my.yaml"]
    left = ["demo-run/recording.jsonl", "my-desk/policy.yaml", "my.jsonl", "my.sqlite", "my.sqlite.incidents/a.md"]
    folder = tmp_path / "clone"
    for name in own + left:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}", encoding="utf-8")
    clean_up = shell_blocks((repository / "docs" / "tutorial.md").read_text(encoding="utf-8"))[-1].commands
    _, status = run_blocks([f"cd {folder}\n{clean_up}"], tmp_path, {"PATH": os.environ["PATH"]}, 60.0)[0]
    assert status == 0
    assert sorted(str(it.relative_to(folder)) for it in folder.rglob("*") if it.is_file()) == own


@pytest.mark.parametrize(
    "name", ["demo-run/x", "my-desk/policy.yaml", "my.jsonl", "my.sqlite", "ks.sqlite.reserve", "ks.sqlite-wal"]
)
def test_git_ignores_what_readme_and_tutorial_leave(repository: Path, name: str) -> None:
    """A reader's `git status` stays empty."""
    if not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-c", "safe.directory=*", "check-ignore", "--quiet", "--no-index", name]
    assert subprocess.run(command, cwd=repository, check=False).returncode == 0


@pytest.mark.parametrize(
    "name",
    [
        "runbooks.md", "notifications.md", "operator-commands.md", "proofs.md", "approvals.md", "impact.md",
        "shadow.md", "gitops.md", "sizing.md", "importing.md", "on-call.md", "backtests.md",
    ],
)  # fmt: skip
def test_a_guide_works_as_written(repository: Path, tmp_path: Path, name: str) -> None:
    """Guides are followed too, so that their documents, templates and diagnostics stay those of the program."""
    page = (repository / "docs" / name).read_text(encoding="utf-8")
    assert shell_blocks(page)
    follow_page(page.replace(PORT, free_port()).replace(SERVER_PORT, free_port()), repository, tmp_path)


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


def test_a_page_that_shows_other_output_than_printed_is_found(tmp_path: Path) -> None:
    """Other numbers pass only where the page marks them as differing; another word, order or status never does."""
    first, second = shell_blocks(PAGE)
    assert (first.status, second.status) == (0, 3)
    (printed, status), (_, other) = run_blocks([first.commands, second.commands], tmp_path, {}, 60.0)
    assert (status, other) == (0, 3)
    ((shown, differ),) = first.shown
    assert missing_lines(shown, printed, numbers_differ=differ) == []
    assert missing_lines(shown, printed, numbers_differ=False) == ["gross 99.9 → 1"]
    assert missing_lines("net 99.9 → 1\n", printed, numbers_differ=True) == ["net 99.9 → 1"]
    assert missing_lines("end\ngross 12.5 …\n", printed, numbers_differ=False) == ["gross 12.5 …"]


def test_the_tutorial_shows_the_digest_of_its_own_files(repository: Path, tmp_path: Path) -> None:
    """Elsewhere all digests count as equal: they depend on the port, and tests take a free one. Here it is the page's.

    The route of the last step names a folder of the reader's own: no digest is shown after it.
    """
    page = (repository / "docs" / "tutorial.md").read_text(encoding="utf-8")
    written = [each.commands for each in shell_blocks(page) if "my-desk/" in each.commands][:2]
    files = "\n".join(line for each in written for line in each.splitlines() if not line.startswith("ksctl "))
    run_blocks([files], tmp_path, {"PATH": os.environ["PATH"]}, TIMEOUT_SECONDS)
    policies, diagnostics = compile_loaded(load([tmp_path / "my-desk"]))
    assert policies is not None, diagnostics
    assert set(re.findall(r"sha256:[0-9a-f]{12}", page)) == {policies.digest[:19]}
