"""docs/gitops: the steps of the examples for GitHub, GitLab, pre-commit, Argo CD and Flux are run, not only shown."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import pytest
from ruamel.yaml import YAML

from tests.unit.impact.policy_desk import PolicyDesk

pytest.importorskip("z3", reason="the extra `prove` is not installed")

PROGRAM = "import killswitch.cli as c; c.main()"
PULL = 7
THRESHOLD = "at_least: 14%"
"""The outermost one of the shipped policy."""
GH = """\
#!{python}
import json, pathlib, re, sys
store = pathlib.Path({store!r})
notes = json.loads(store.read_text()) if store.exists() else []
words = sys.argv[1:]
assert words[0] == "api", words
url = next(word for word in words if word.startswith("repos/"))
if "--jq" in words:
    wanted = re.search(r'contains\\("(.*)"\\)', words[words.index("--jq") + 1])[1]
    print("\\n".join(str(note["id"]) for note in notes if wanted in note["body"]))
    sys.exit()
file = next(word for word in words if word.startswith("body=@")).removeprefix("body=@")
body = pathlib.Path(file).read_text()
method = words[words.index("--method") + 1]
if method == "POST":
    notes.append({{"id": 100 + len(notes), "body": body, "edits": 0}})
else:
    assert method == "PATCH", method
    note = next(note for note in notes if url.endswith(f"/comments/{{note['id']}}"))
    note["body"], note["edits"] = body, note["edits"] + 1
store.write_text(json.dumps(notes))
"""
"""`gh api` for the comments of one pull request, kept in a file."""


def example(repository: Path, name: str) -> list[Any]:
    text = (repository / "docs" / "gitops" / name).read_text(encoding="utf-8")
    return list(YAML(typ="safe", pure=True).load_all(text))


class Forge:
    """A throw-away origin with a change on a pull request, and the programs that a job finds on its PATH."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.folder = folder
        shipped = {
            file.name: file.read_text(encoding="utf-8")
            for file in (repository / "policies" / "futures-drawdown").glob("*.yaml")
        }
        self.desk = PolicyDesk(folder / "origin", shipped)
        (self.desk.folder / "requirements.txt").write_text("killswitch[prove]\n", encoding="utf-8")
        self.base = self.desk.commit("requirements")
        self.programs = folder / "bin"
        self.programs.mkdir()
        root = f"{repository}:{repository / 'adapters'}"
        self.program("ksctl", f'#!/bin/sh\nPYTHONPATH={root} exec {sys.executable} -c "{PROGRAM}" "$@"\n')
        self.program("pip", f'#!/bin/sh\necho "$PWD $*" >> {folder / "pip.log"}\n')
        self.notes = folder / "notes.json"
        self.program("gh", GH.format(python=sys.executable, store=str(self.notes)))

    def program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def propose(self, old: str, new: str) -> str:
        """Put a change on the pull request; the id of its commit."""
        self.desk.git("checkout", "-q", "-B", "change", self.base)
        policy = self.desk.policies / "policy.yaml"
        text = policy.read_text(encoding="utf-8")
        assert old in text
        policy.write_text(text.replace(old, new), encoding="utf-8")
        # what a stranger would try: a program of the same name in the change, and a folder named like the base
        (self.desk.folder / "ksctl").write_text("#!/bin/sh\necho TIGHTENING\n", encoding="utf-8")
        head = self.desk.commit("a change")
        self.desk.git("update-ref", f"refs/pull/{PULL}/head", head)
        self.desk.git("checkout", "-q", "main")
        return head

    def workspace(self, name: str, commit: str) -> Path:
        """A clone as `actions/checkout` leaves it, at a commit."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["git", "clone", "-q", str(self.desk.folder), str(folder)], check=True, capture_output=True)
        subprocess.run(["git", "checkout", "-q", "--detach", commit], cwd=folder, check=True, capture_output=True)
        return folder

    def run(self, script: str, where: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run one script as a runner does: bash, which ends at the first error."""
        path = f"{self.programs}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script], cwd=where, env={"PATH": path, "HOME": str(where), **env},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip


@pytest.fixture
def forge(tmp_path: Path, repository: Path) -> Forge:
    return Forge(tmp_path, repository)


def github_job(forge: Forge, job: Mapping[str, Any], where: Path, head: str) -> int:
    """Run the steps of a job in order; its status is that of the step that ends it."""
    known = {
        "github.event.pull_request.base.sha": forge.base, "github.event.pull_request.head.sha": head,
        "github.event.pull_request.number": str(PULL), "github.repository": "desk/policies", "github.token": "t0ken",
    }  # fmt: skip

    def value(text: str) -> str:
        return re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda found: known[found[1]], text)

    env = {name: value(str(text)) for name, text in job.get("env", {}).items()}
    for step in job["steps"]:
        assert "${{" not in step.get("run", ""), "an expression in a script is code of whoever writes the value"
        if "run" in step:
            done = forge.run(step["run"], where, env)
            assert "t0ken" not in done.stdout + done.stderr
            if done.returncode:
                return done.returncode
    return 0


def test_the_job_of_github_comments_the_impact_once_and_updates_it_in_place(forge: Forge, repository: Path) -> None:
    """A loosening is red and is commented; a second commit updates the same comment."""
    (workflow,) = example(repository, "github-actions.yaml")
    for number, percent in enumerate(("90%", "91%")):
        head = forge.propose(THRESHOLD, f"at_least: {percent}")
        where = forge.workspace("github", forge.base)
        assert github_job(forge, workflow["jobs"]["impact"], where, head) == 2
        (note,) = json.loads(forge.notes.read_text())
        assert note["body"].startswith(("**LOOSENING: ", "**NEITHER: ")) and percent in note["body"]
        assert head[:12] in note["body"] and forge.base[:12] in note["body"]
        assert note["edits"] == number
        assert (where / "impact.html").exists() and list((where / "charts").glob("*.svg"))


def test_the_job_with_the_token_runs_the_program_of_the_base(forge: Forge, repository: Path) -> None:
    """It is installed from the requirements of the base, its files are those of the base before and after, and no
    step of the job checks out the change."""
    (workflow,) = example(repository, "github-actions.yaml")
    job = workflow["jobs"]["impact"]
    head = forge.propose(THRESHOLD, "at_least: 90%")
    where = forge.workspace("github", forge.base)
    github_job(forge, job, where, head)
    at = subprocess.run(["git", "rev-parse", "HEAD"], cwd=where, capture_output=True, text=True, check=True)
    assert at.stdout.strip() == forge.base and not (where / "ksctl").exists()
    assert job["permissions"] == {"contents": "read", "pull-requests": "write"}
    checkouts = [step for step in job["steps"] if "checkout" in step.get("uses", "")]
    assert [step["with"].get("ref") for step in checkouts] == [None]
    checks = workflow["jobs"]["check"]
    assert checks["permissions"] == {"contents": "read"} and "env" not in checks
    assert "secrets." not in (repository / "docs" / "gitops" / "github-actions.yaml").read_text(encoding="utf-8")


def test_a_change_that_changes_nothing_is_green(forge: Forge, repository: Path) -> None:
    """A remark."""
    (workflow,) = example(repository, "github-actions.yaml")
    head = forge.propose("apiVersion:", "# a remark\napiVersion:")
    assert github_job(forge, workflow["jobs"]["impact"], forge.workspace("github", forge.base), head) == 0
    (note,) = json.loads(forge.notes.read_text())
    assert note["body"].startswith("**Nothing changed")


def test_a_change_that_does_not_compile_is_red_and_says_so(forge: Forge, repository: Path) -> None:
    """The job that checks fails at `validate`, the one with the token with 4, and comments."""
    (workflow,) = example(repository, "github-actions.yaml")
    head = forge.propose(THRESHOLD, "at_least: much")
    assert github_job(forge, workflow["jobs"]["impact"], forge.workspace("github", forge.base), head) == 4
    assert json.loads(forge.notes.read_text())[0]["body"].startswith("**Could not tell")
    assert github_job(forge, workflow["jobs"]["check"], forge.workspace("check", head), head) == 1


def test_the_job_that_checks_runs_validate_lint_test_and_prove(forge: Forge, repository: Path) -> None:
    """The shipped set passes all of them."""
    (workflow,) = example(repository, "github-actions.yaml")
    job = workflow["jobs"]["check"]
    names = [step["name"] for step in job["steps"] if "run" in step]
    assert names == ["install", "validate", "lint", "test", "prove"]
    assert github_job(forge, job, forge.workspace("check", forge.base), forge.base) == 0


@contextmanager
def notes_server() -> Iterator[tuple[str, list[dict[str, Any]], list[str]]]:
    """The notes of one merge request at GitLab, on loopback: its address, the notes, and the tokens that came."""
    notes: list[dict[str, Any]] = []
    tokens: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, value: object) -> None:
            tokens.append(self.headers.get("PRIVATE-TOKEN", ""))
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _body(self) -> str:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            return parse_qs(text)["body"][0]

        def do_GET(self) -> None:
            self._answer(notes)

        def do_POST(self) -> None:
            notes.append({"id": 100 + len(notes), "body": self._body(), "edits": 0})
            self._answer(notes[-1])

        def do_PUT(self) -> None:
            note = next(each for each in notes if self.path.endswith(f"/notes/{each['id']}"))
            note.update(body=self._body(), edits=note["edits"] + 1)
            self._answer(note)

        def log_message(self, *_: object) -> None:
            """Keep the output of the tests quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/projects/1", notes, tokens
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_job_of_gitlab_comments_the_impact_once_and_updates_it_in_place(forge: Forge, repository: Path) -> None:
    """Its lines are one shell; the token goes to the API and nowhere else."""
    (pipeline,) = example(repository, "gitlab-ci.yaml")
    script = "\n".join(pipeline["impact"]["script"])
    with notes_server() as (api, notes, tokens):
        for number, percent in enumerate(("90%", "91%")):
            head = forge.propose(THRESHOLD, f"at_least: {percent}")
            env = {
                "BASE": forge.base, "HEAD": head, "NUMBER": str(PULL), "REPOSITORY": "desk/policies", "API": api,
                "COMMENT_TOKEN": "t0ken",
            }  # fmt: skip
            where = forge.workspace("gitlab", head)
            done = forge.run(script, where, env)
            assert done.returncode == 2, done.stderr
            assert "t0ken" not in done.stdout + done.stderr
            (note,) = notes
            assert percent in note["body"] and note["edits"] == number
    assert set(tokens) == {"t0ken"}
    assert not (where / "ksctl").exists(), "the files are those of the base"


def test_the_checks_of_gitlab_pass_for_a_shipped_set(forge: Forge, repository: Path) -> None:
    """Validate, lint, test, prove."""
    (pipeline,) = example(repository, "gitlab-ci.yaml")
    done = forge.run("\n".join(pipeline["check"]["script"]), forge.workspace("gitlab", forge.base), {})
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_hooks_of_pre_commit_pass_for_a_shipped_set_and_stop_a_loosening(forge: Forge, repository: Path) -> None:
    """Each entry is a command; only the impact ends a loosening."""
    (config,) = example(repository, "pre-commit-config.yaml")
    hooks = {hook["id"]: shlex.join(shlex.split(hook["entry"])) for hook in config["repos"][0]["hooks"]}
    where = forge.workspace("clone", "main")
    forge.run("git branch -f main HEAD", where, {})
    assert {name: forge.run(entry, where, {}).returncode for name, entry in hooks.items()} == dict.fromkeys(hooks, 0)
    policy = where / "policies" / "policy.yaml"
    policy.write_text(policy.read_text(encoding="utf-8").replace(THRESHOLD, "at_least: 90%"), encoding="utf-8")
    assert forge.run(hooks["ksctl-impact"], where, {}).returncode == 2


def test_argo_cd_and_flux_remove_nothing_when_a_folder_is_emptied(repository: Path) -> None:
    """Neither prunes, both follow the same branch and path."""
    (application,) = example(repository, "argocd/application.yaml")
    source, kustomization = example(repository, "flux/policies.yaml")
    assert application["spec"]["syncPolicy"]["automated"]["prune"] is False
    assert kustomization["spec"]["prune"] is False
    assert application["spec"]["source"]["targetRevision"] == source["spec"]["ref"]["branch"] == "main"
    assert kustomization["spec"]["path"].removeprefix("./") == application["spec"]["source"]["path"]
    assert kustomization["spec"]["sourceRef"]["name"] == source["metadata"]["name"]


def test_the_config_map_of_the_example_holds_a_set_that_compiles(forge: Forge, repository: Path) -> None:
    """The files of the generator, laid out as in a mount, are read."""
    (kustomization,) = example(repository, "argocd/kustomization.yaml")
    assert kustomization["generatorOptions"]["disableNameSuffixHash"] is True
    mount = forge.folder / "mount"
    mount.mkdir()
    for name in kustomization["configMapGenerator"][0]["files"]:
        shutil.copy(repository / "policies" / "futures-drawdown" / name, mount / name)
    assert forge.run(f"ksctl validate {mount}", forge.folder, {}).returncode == 0
