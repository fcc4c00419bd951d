"""Results of the mutants of a package: how many were caught, and which survived without a recorded reason."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

EQUIVALENT = Path(__file__).with_name("equivalent.md")
CAUGHT = frozenset({"killed", "timeout", "caught by type check", "segfault"})
_ENTRY = re.compile(r"^- `(?P<place>[\w.]+)`: ``(?P<was>.*?)`` → ``(?P<now>.*?)``: (?P<why>.+)$", re.MULTILINE)

_DIFFS = """
import json, sys
from mutmut.__main__ import find_mutant, get_diff_for_mutant
names = sys.stdin.read().split()
json.dump({name: get_diff_for_mutant(name, path=find_mutant(name).path) for name in names}, sys.stdout)
"""

Change = tuple[str, str, str]
"""The function (as `package.module.function` or `….Class.function`), and its changed lines before and after."""


class Score(Struct, frozen=True):
    """The counts of one package or module. `equivalent`: mutants without an effect that a test could observe."""

    caught: int
    equivalent: int
    survived: int
    untested: int
    pending: int

    @property
    def share(self) -> float:
        """The share caught of the mutants that were tested and are not equivalent."""
        counted = self.caught + self.survived + self.untested
        return self.caught / counted if counted else 0.0

    def line(self, name: str) -> str:
        """The score as one line of text."""
        pending = f", {self.pending} not tried yet" if self.pending else ""
        return (
            f"{name}: {self.share:.1%} of {self.caught + self.survived + self.untested} mutants caught "
            f"({self.survived} survived, {self.untested} met no test, {self.equivalent} change nothing{pending})"
        )


def verdicts(folder: Path) -> dict[str, str]:
    """mutmut's verdict of each mutant in `folder`."""
    output = subprocess.run(
        [sys.executable, "-m", "mutmut", "results", "--all", "true"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found = (line.strip().partition(": ") for line in output.splitlines())
    return {name: verdict for name, colon, verdict in found if colon and "__mutmut_" in name}


def changes(folder: Path, names: list[str]) -> dict[str, Change]:
    """The function and the changed lines of each of these mutants."""
    output = subprocess.run(
        [sys.executable, "-c", _DIFFS], cwd=folder, input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout
    return {name: _change(name, diff) for name, diff in json.loads(output).items()}


def _change(name: str, diff: str) -> Change:
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    was = " ⏎ ".join(line[1:].strip() for line in lines if line.startswith("-"))
    now = " ⏎ ".join(line[1:].strip() for line in lines if line.startswith("+"))
    return place(name), was, now


def place(name: str) -> str:
    """`killswitch.engine.step.xǁMachineǁof__mutmut_2` → `engine.step.Machine.of`."""
    module, _, mangled = name.partition("__mutmut_")[0].removeprefix("killswitch.").rpartition(".")
    function = mangled.removeprefix("x").removeprefix("_") if "ǁ" not in mangled else mangled[2:].replace("ǁ", ".")
    return f"{module}.{function}"


def excused() -> frozenset[Change]:
    """The changes for which `equivalent.md` states a reason."""
    return frozenset(
        (entry["place"], entry["was"], entry["now"]) for entry in _ENTRY.finditer(EQUIVALENT.read_text("utf-8"))
    )


def count_verdicts(found: Mapping[str, str], equivalent: frozenset[str]) -> Score:
    """Count the verdicts; mutants in `equivalent` are not counted unless they were caught."""
    count: Counter[str] = Counter()
    for name, verdict in found.items():
        if verdict in CAUGHT:
            count["caught"] += 1
        elif name in equivalent:
            count["equivalent"] += 1
        elif verdict == "no tests":
            count["untested"] += 1
        elif verdict == "not checked":
            count["pending"] += 1
        else:
            count["survived"] += 1
    return Score(count["caught"], count["equivalent"], count["survived"], count["untested"], count["pending"])
