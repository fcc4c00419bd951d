"""The API under a fuzzer that is made from its own description: no 5xx, and no answer that it does not name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.server.conftest import Served

EXAMPLES = 8
"""Random requests for each route; those of its bounds and examples come on top. The seed makes every run the same."""
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
)  # fmt: skip
"""What each answer is checked for. A POST that is no JSON is refused before its route is known: 415, and not 405."""


@pytest.mark.parametrize("who", ["risk portfolio", "viewer account/main", None])
def test_the_fuzzer_finds_no_answer_that_is_not_described(served: Served, tmp_path: Path, who: str | None) -> None:
    """With a token that may do everything, with one that may do little, and without one."""
    headers = [] if who is None else ["--header", f"Authorization: Bearer {served.tokens[who]}"]
    command = (
        sys.executable, "-m", "schemathesis.cli", "run", f"http://{served.host}/v1/openapi.json", *headers,
        "--checks", ",".join(CHECKS), "--max-examples", str(EXAMPLES), "--seed", "20261125", "--no-color",
        "--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all",
        "--exclude-path", "/v1/events",  # it has no end, and tests of its own
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
