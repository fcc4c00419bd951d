"""The guides for adding an action and an effect, followed on a copy of the tree: each step is necessary, none lacks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parent / "sample_kind"
SCHEMA = "killswitch/policy/schema/actions.py"
EFFECTS = "killswitch/model/effects.py"
GRAPH, PLANNING = "killswitch/graph/actions/registry.py", "killswitch/planning/actions/registry.py"
PERFORMERS = "killswitch/runner/performers.py"

NEW_FILES = {
    "killswitch/graph/actions/set_mark.py": "graph.py",
    "killswitch/planning/actions/set_mark.py": "planning.py",
    "killswitch/execution/effects/mark.py": "performer.py",
}
"""New file → the sample file that is copied there."""

EDITS = {
    SCHEMA: (
        (
            "class Action(Part):",
            'class SetMark(Part):\n    """Leave a mark."""\n\n'
            '    text: Word\n    """What it says."""\n\n\nclass Action(Part):',
        ),
        (
            "    @property\n    def written(self)",
            '    set_mark: SetMark | None = None\n    """Leave a mark."""\n\n    @property\n    def written(self)',
        ),
    ),
    GRAPH: (
        (
            "from killswitch.graph.actions import ",
            "from killswitch.graph.actions import set_mark\nfrom killswitch.graph.actions import ",
        ),
        (
            "ACTIONS: Final[tuple[AnyActionKind, ...]] = (",
            "ACTIONS: Final[tuple[AnyActionKind, ...]] = (set_mark.KIND, ",
        ),
    ),
    PLANNING: (
        (
            "from killswitch.planning.actions import ",
            "from killswitch.planning.actions import set_mark\nfrom killswitch.planning.actions import ",
        ),
        ("PLANS: Final[tuple[AnyActionPlan, ...]] = (", "PLANS: Final[tuple[AnyActionPlan, ...]] = (set_mark.KIND, "),
    ),
    EFFECTS: (
        (
            "Effect = Orders",
            'class Mark(Struct, frozen=True, tag="mark", tag_field="kind"):\n    text: str\n\n\nEffect = Mark | Orders',
        ),
        (
            ")\n\nWITH_OWN_KEYS",
            '    EffectKind(effect=Mark, rank=99, noun="mark", size=lambda _: 1, merged=lambda one, _: one,\n'
            '        text=lambda mark: f"set the mark {mark.text}"),\n)\n\nWITH_OWN_KEYS',
        ),
    ),
    PERFORMERS: (
        ("        Lock: locks,", "        Mark: MarkPerformer(context),\n        Lock: locks,"),
        (
            "from killswitch.model.effects import ",
            "from killswitch.execution.effects.mark import MarkPerformer\nfrom killswitch.model.effects import Mark, ",
        ),
    ),
}
"""File → the replacements in it."""


@pytest.fixture
def tree(repository: Path, tmp_path: Path) -> Path:
    """A copy of the program that a test may change."""
    shutil.copytree(repository / "killswitch", tmp_path / "killswitch", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def follow_steps(tree: Path, *steps: str) -> None:
    """Follow steps of the pages: create a new file, or edit an existing one."""
    for step in steps:
        if step in NEW_FILES:
            shutil.copy(SAMPLE / NEW_FILES[step], tree / step)
            continue
        text = (tree / step).read_text(encoding="utf-8")
        for before, after in EDITS[step]:
            assert text.count(before) == 1, (step, before)
            text = text.replace(before, after)
        (tree / step).write_text(text, encoding="utf-8")


def run_python(tree: Path, repository: Path, *arguments: str) -> str:
    """Run Python with the changed program. Returns the last line of stdout, or of stderr if it fails."""
    path = os.pathsep.join(map(str, (tree, repository / "adapters", repository)))
    command = [sys.executable, *arguments]
    environment = os.environ | {"PYTHONPATH": path}
    result = subprocess.run(command, env=environment, cwd=tree, capture_output=True, text=True, check=False)
    return (result.stderr if result.returncode else result.stdout).strip().splitlines()[-1]


def test_an_action_with_an_effect_is_compiled_planned_shown_and_performed_once(tree: Path, repository: Path) -> None:
    """By the files that the pages name and no other; it ends the run, and the next run does not repeat it."""
    follow_steps(tree, *NEW_FILES, *EDITS)
    folder = tree / "story"
    folder.mkdir()
    assert run_python(tree, repository, "-m", "tests.unit.docs.sample_kind.scenario", str(folder)) == "performed once"


def test_the_pages_name_each_file_that_is_touched(repository: Path) -> None:
    """In their tables; new files by the key of the kind."""
    pages = "".join(
        (repository / "docs" / f"add-an-{what}.md").read_text(encoding="utf-8") for what in ("action", "effect")
    )
    rows = [line for line in pages.splitlines() if re.match(r"\| \d+ \|", line)]
    named = {name for row in rows for name in re.findall(r"`([a-z_/<>.]+)`", row.split(" | ")[1])}
    touched = {re.sub(r"(set_)?mark\.py$", "<key>.py", each) for each in (*NEW_FILES, *EDITS)}
    assert touched <= named


INCOMPLETE = {
    "the schema alone": (
        (SCHEMA,), "killswitch.graph.compile",
        "`set_mark` is in the schema of a stage's actions, and ACTIONS of killswitch.graph.actions.registry lacks it",
    ),
    "no plan": (
        (SCHEMA, GRAPH, "killswitch/graph/actions/set_mark.py"), "killswitch.planning.interpreter",
        "`set_mark` is in ACTIONS of killswitch.graph.actions.registry, and PLANS of "
        "killswitch.planning.actions.registry lacks it",
    ),
    "no performer": (
        (EFFECTS,), None, "`mark` is in EFFECTS, and the table of performers lacks it",
    ),
}  # fmt: skip
"""Case → the steps that are followed, the module imported then (None: the runner's table is built), and the error."""


@pytest.mark.parametrize("case", INCOMPLETE)
def test_a_kind_that_lacks_a_part_is_refused_with_the_table_that_lacks_it(
    tree: Path, repository: Path, case: str
) -> None:
    """The refusal comes before anything is compiled or performed."""
    steps, module, sentence = INCOMPLETE[case]
    follow_steps(tree, *steps)
    program = f"import {module}"
    if module is None:
        program = (
            "from killswitch.store.sqlite import open_empty_in_memory\n"
            "from tests.performing import table\n"
            "table(open_empty_in_memory())"
        )
    assert run_python(tree, repository, "-c", program).endswith(sentence)


def test_an_effect_without_a_kind_is_refused(tree: Path, repository: Path) -> None:
    """A member of the union without an entry in EFFECTS."""
    module = tree / EFFECTS
    (union, _kind) = EDITS[EFFECTS]
    module.write_text(module.read_text(encoding="utf-8").replace(*union), encoding="utf-8")
    error = run_python(tree, repository, "-c", "import killswitch.model.effects")
    assert error.endswith("`mark` is in Effect, and EFFECTS lacks it")
