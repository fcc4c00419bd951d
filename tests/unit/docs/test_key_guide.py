"""The guide for adding a key, followed on a copy of the tree: the part, the node, and nothing in between."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from killswitch.graph.compile import compile_loaded
from killswitch.policy.loader import load

PART, NODE = "killswitch/policy/schema/unwinding.py", "killswitch/graph/unwinding.py"
PLACES = {PART: ("class Impact(Part):", "\n\n\nclass "), NODE: ("class ImpactRule(", "\n\n\n@")}
"""File → the beginning and the end of the class that gets the block of the page."""

UNWINDING = """apiVersion: killswitch.dev/v1
kind: Unwinding
metadata: {name: careful}
spec:
  reasons: [market]
  impact: {model: linear, at_most: 1%, if_unknown: wholeKEY}
"""
PRINT_RULE = """
from pathlib import Path
from killswitch.graph.compile import compile_loaded
from killswitch.policy.loader import load
policies, problems = compile_loaded(load([Path("unwinding.yaml")]))
print(policies.digest, policies.unwindings[0].impact.least if policies else problems)
"""
PRINT_DISAGREEMENTS = """
from killswitch.policy.schema.unwinding import Impact
from tests.unit.graph.test_freezing import disagreements
print(*disagreements(Impact))
"""


@pytest.fixture
def tree(repository: Path, tmp_path: Path) -> Path:
    """A copy of the program that a test may change."""
    shutil.copytree(repository / "killswitch", tmp_path / "killswitch", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def follow(tree: Path, repository: Path, *files: str) -> None:
    """Write the blocks of the page at the end of their classes."""
    page = (repository / "docs" / "add-a-key.md").read_text(encoding="utf-8")
    blocks = dict(zip(PLACES, re.findall(r"```python\n(.*?)```", page, re.DOTALL), strict=True))
    for file in files:
        begin, end = PLACES[file]
        before, found, rest = (tree / file).read_text(encoding="utf-8").partition(begin)
        body, next_class, after = rest.partition(end)
        assert found
        assert next_class
        text = f"{before}{found}{body}\n{blocks[file].rstrip()}{next_class}{after}"
        (tree / file).write_text(text, encoding="utf-8")


def printed(tree: Path, repository: Path, program: str) -> str:
    """What the program prints, run with the changed tree."""
    path = os.pathsep.join(map(str, (tree, repository / "adapters", repository)))
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": path}
    result = subprocess.run(command, env=environment, cwd=tree, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def digest_here(folder: Path) -> str:
    """The digest of the document by the program without the new key."""
    policies, _ = compile_loaded(load([folder / "unwinding.yaml"]))
    assert policies is not None
    return policies.digest


def test_a_key_in_its_part_and_its_node_is_read(tree: Path, repository: Path) -> None:
    """Its value is in the graph, and a document without it has the digest that it had."""
    follow(tree, repository, PART, NODE)
    (tree / "unwinding.yaml").write_text(UNWINDING.replace("KEY", ", least: 5%"))
    assert printed(tree, repository, PRINT_RULE).endswith(" 0.05")
    (tree / "unwinding.yaml").write_text(UNWINDING.replace("KEY", ""))
    assert printed(tree, repository, PRINT_RULE) == f"{digest_here(tree)} None"
    assert printed(tree, repository, PRINT_DISAGREEMENTS) == ""


def test_a_key_that_its_node_lacks_is_found(tree: Path, repository: Path) -> None:
    """By the test of every part, which names the key and the node."""
    follow(tree, repository, PART)
    assert printed(tree, repository, PRINT_DISAGREEMENTS) == "Impact.least has no field in ImpactRule"
