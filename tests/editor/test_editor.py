"""Policies in an editor: the shipped schema in yaml-language-server, which YAML support in editors uses."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
MODULES = Path(sys.prefix) / "editor"
INSTALL_LIMIT, ANSWER_LIMIT = 300, 120
"""Seconds; a server that does not answer is killed."""

POLICY = "apiVersion: killswitch.dev/v1\nkind: Policy\nmetadata: {name: x}\nspec:\n  mode: enforce\n"
TRIGGER = POLICY + "  triggers:\n    fall:\n"

Shown = Mapping[str, Mapping[str, list[str]]]
Open = Callable[[Mapping[str, str]], Shown]


@pytest.fixture(scope="module")
def editor(repository: Path) -> Open:
    """A function that opens documents by name with the editor settings of the README."""
    if shutil.which("npm") is None:
        pytest.skip("needs node and npm, which install yaml-language-server")
    _install()
    schema = (repository / "policies" / "killswitch.schema.json").as_uri()

    def open_documents(documents: Mapping[str, str]) -> Shown:
        session = {"modules": str(MODULES / "node_modules"), "schemas": {schema: "*.yaml"}, "documents": documents}
        done = subprocess.run(
            ["node", str(HERE / "session.mjs")],
            input=json.dumps(session), capture_output=True, text=True, timeout=ANSWER_LIMIT, check=True,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return open_documents


def _install() -> None:
    MODULES.mkdir(exist_ok=True)
    wanted = (HERE / "package.json").read_text()
    with (MODULES / "installing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel test processes wait for the one that installs
        written = MODULES / "package.json"
        if written.exists() and written.read_text() == wanted:
            return
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--prefix", str(MODULES)]
        (MODULES / "package.json").write_text(wanted)
        try:
            subprocess.run(command, capture_output=True, timeout=INSTALL_LIMIT, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            written.unlink()
            pytest.skip(f"npm cannot install yaml-language-server: {(error.stderr or b'').decode()[-200:] or error}")


def test_an_editor_shows_no_problem_in_a_shipped_document(editor: Open, repository: Path) -> None:
    """No policy set and no example of the reference has a problem; each of them with a misspelt key has one."""
    shipped = sorted((repository / "policies").rglob("*.yaml"))
    shipped += sorted((repository / "tools" / "reference" / "examples").glob("*.yaml"))
    assert len(shipped) >= 15
    texts = {f"{path.parent.name}-{path.name}": path.read_text() for path in shipped}
    shown = editor(texts | {f"wrong-{name}": text.replace("spec:", "spce:", 1) for name, text in texts.items()})
    assert {name: shown[name]["problems"] for name in texts if shown[name]["problems"]} == {}
    assert all(shown[f"wrong-{name}"]["problems"] for name in texts)


def test_an_editor_completes_keys_kinds_enumerations_and_signals(editor: Open) -> None:
    """At the cursor it offers the permitted values, also in the second document of a file."""
    shown = editor({
        "kind.yaml": "apiVersion: killswitch.dev/v1\nkind: |@|\n",
        "mode.yaml": "apiVersion: killswitch.dev/v1\nkind: Policy\nmetadata: {name: x}\nspec:\n  mode: |@|\n",
        "signal.yaml": TRIGGER + "      signal: |@|\n",
        "unknown.yaml": TRIGGER + "      signal: equity.drawdown\n      on_unknown: |@|\n",
        "action.yaml": POLICY + "  stages:\n    - name: a\n      actions:\n        - |@|\n",
        "second.yaml": POLICY + "---\napiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {name: m}\n"
        "spec:\n  execution: |@|\n",
    })  # fmt: skip
    assert {"Policy", "Account", "DeadMansSwitch"} <= set(shown["kind.yaml"]["completions"])
    assert shown["mode.yaml"]["completions"] == ["enforce", "observe"]
    assert {"equity.drawdown", "venue.age"} <= set(shown["signal.yaml"]["completions"])
    assert "position.loss" not in shown["signal.yaml"]["completions"]
    assert shown["unknown.yaml"]["completions"] == ["hold", "trip", "warn"]
    assert {"lock_trading", "cancel_orders", "close"} <= set(shown["action.yaml"]["completions"])
    assert shown["second.yaml"]["completions"] == ["observe", "live"]


def test_an_editor_shows_a_mistake_on_its_line(editor: Open) -> None:
    """An unknown signal, a value outside an enumeration, an unknown key, a duration without a unit."""
    wrong = (
        POLICY.replace("enforce", "enforced") + "  scop: {}\n  triggers:\n    fall:\n"
        "      signal: equity.drawdwn\n      window: 15\n      at_least: 4%\n      on_unknown: hold\n"
    )
    problems = editor({"wrong.yaml": wrong})["wrong.yaml"]["problems"]
    lines = {problem.partition(":")[0] for problem in problems if "Missing" not in problem}
    assert lines == {"5", "6", "9", "10"}
