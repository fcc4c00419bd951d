"""Helm and a real control plane for the tests of the chart. Where one is unavailable, a test skips with the reason."""

from __future__ import annotations

import fcntl
import json
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types

FETCH_LIMIT = 300.0
BUILD_LIMIT = 700.0
"""Seconds: limits for a slow network and a slow machine. A build takes about 5 minutes, once, and is cached."""
START_LIMIT = 180.0
WAIT_LIMIT = 120.0
CORE = ("pod", "serviceaccount", "configmap", "secret", "persistentvolumeclaim")
"""Kinds without an API group and with one version."""


class Helm:
    """`helm` and `kubectl` without access to any cluster but the given one."""

    def __init__(self, folder: Path, home: Path, chart: Path) -> None:
        self.chart = chart
        self._folder = folder
        self._environment = {
            **os.environ, "KUBECONFIG": os.devnull, "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"), "HELM_DATA_HOME": str(home / "data"),
        }  # fmt: skip

    def run(self, *arguments: str, program: str = "helm", kubeconfig: Path | None = None) -> str:
        """Run a program; its stdout, or AssertionError with its output if it fails."""
        done = self.attempt(*arguments, program=program, kubeconfig=kubeconfig)
        assert done.returncode == 0, f"{program} {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def attempt(
        self, *arguments: str, program: str = "helm", kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = self._environment | ({} if kubeconfig is None else {"KUBECONFIG": str(kubeconfig)})
        return subprocess.run(
            [str(self._folder / program), *arguments], env=environment, capture_output=True, text=True,
            timeout=WAIT_LIMIT, check=False,
        )  # fmt: skip

    def template(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects that the chart renders, in the order of their kinds."""
        written = self.run("template", "ks", str(self.chart), "--namespace", "trading", *arguments)
        return sorted((each for each in yaml.safe_load_all(written) if each), key=lambda each: str(each["kind"]))

    def refusal(self, *arguments: str) -> str:
        """The message with which the chart refuses to render."""
        done = self.attempt("template", "ks", str(self.chart), *arguments)
        assert done.returncode != 0, "it was rendered"
        return done.stderr


class Cluster:
    """A real API server with its controllers, scheduler and a hollow node."""

    def __init__(self, helm: Helm, kubeconfig: Path) -> None:
        self._helm = helm
        self._kubeconfig = kubeconfig
        config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        self._address: str = config["clusters"][0]["cluster"]["server"]
        self._token: str = config["users"][0]["user"]["token"]
        self._unverified = ssl.create_default_context()  # the API server creates its certificate at its start
        self._unverified.check_hostname = False
        self._unverified.verify_mode = ssl.CERT_NONE

    def helm(self, *arguments: str) -> str:
        return self._helm.run(*arguments, kubeconfig=self._kubeconfig)

    def kubectl(self, *arguments: str) -> str:
        return self._helm.run(*arguments, program="kubectl", kubeconfig=self._kubeconfig)

    def may(self, account: str, verb: str, what: str, namespace: str) -> bool:
        """Whether the API server permits a service account to do that."""
        subject = f"--as=system:serviceaccount:{namespace}:{account}"
        done = self._helm.attempt(
            "auth", "can-i", verb, what, "-n", namespace, subject, program="kubectl", kubeconfig=self._kubeconfig
        )
        assert done.stdout.strip() in ("yes", "no"), done.stderr
        return done.stdout.strip() == "yes"

    def get(self, what: str, namespace: str) -> Any:
        """An object, or None if there is none; for a kind alone, the list of all its objects.

        The core kinds, which tests poll, are requested from the API server directly: a kubectl takes a third of a
        second to start.
        """
        kind, _, name = what.partition("/")
        if kind.removesuffix("s") in CORE:
            return self._request(f"/api/v1/namespaces/{namespace}/{kind.removesuffix('s')}s/{name}".rstrip("/"))
        done = self._helm.attempt(
            "get", what, "-n", namespace, "-o", "json", program="kubectl", kubeconfig=self._kubeconfig
        )
        if done.returncode and "NotFound" in done.stderr:
            return None
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        return found["items"] if found["kind"] == "List" else found

    def _request(self, path: str) -> Any:
        request = Request(self._address + path, headers={"Authorization": f"Bearer {self._token}"})
        try:
            with urlopen(request, timeout=WAIT_LIMIT, context=self._unverified) as answer:
                found = json.load(answer)
        except HTTPError as error:
            with error:
                assert error.code == HTTPStatus.NOT_FOUND, error
            return None
        return found.get("items", found)

    def require_controllers(self, log: Path) -> None:
        """Wait until the controllers work; AssertionError with the end of their log, such as that a port is in use."""
        deadline = time.monotonic() + START_LIMIT
        while self.get("serviceaccount/default", "default") is None:
            end = log.read_text(encoding="utf-8", errors="replace")[-600:]
            assert time.monotonic() < deadline, f"no controller works after {START_LIMIT:g} s: {end}"
            time.sleep(0.1)

    def apply(self, *objects: dict[str, Any], folder: Path) -> None:
        file = folder / "objects.yaml"
        file.write_text(yaml.safe_dump_all(objects), encoding="utf-8")
        self.kubectl("apply", "-f", str(file))


@pytest.fixture(scope="session")
def chart(repository: Path) -> Path:
    """The folder of the chart."""
    return repository / "charts" / "killswitch"


@pytest.fixture(scope="session")
def helm(shared: Path, chart: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """A real helm, downloaded once."""
    folder = built_by(shared / "tools" / "helm-get", FETCH_LIMIT)
    return Helm(folder, tmp_path_factory.mktemp("helm"), chart)


@pytest.fixture(scope="module")
def cluster(shared: Path, helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane for the tests of one module.

    KILLSWITCH_K8S: `build` (the default) builds the control plane if it has not been built yet, `cached` uses it only
    if it has, `no` uses none.
    """
    allowed = os.environ.get("KILLSWITCH_K8S", "build")
    assert allowed in ("build", "cached", "no"), f"KILLSWITCH_K8S is {allowed!r}; write build, cached or no"
    built = Path.home() / ".cache" / "killswitch-tools" / "k8s"
    if allowed == "no" or (allowed == "cached" and not (built / "etcd").exists()):
        pytest.skip(f"needs a control plane, and KILLSWITCH_K8S={allowed} does not let it be built")
    programs = built_by(shared / "tools" / "k8s-build", BUILD_LIMIT)
    state = tmp_path_factory.mktemp("cluster")
    # Some of its programs listen on fixed ports.
    with one_at_a_time("cluster"):
        try:
            # Into a file, not a pipe: background processes that it starts would keep a pipe open.
            with (state / "up.log").open("wb") as log:
                done = subprocess.run(
                    [str(shared / "tools" / "k8s-up"), str(state), str(programs)], stdout=log, stderr=log,
                    timeout=WAIT_LIMIT, check=False,
                )  # fmt: skip
            assert done.returncode == 0, (state / "up.log").read_text(encoding="utf-8")
            cluster = Cluster(helm, state / "kubeconfig")
            cluster.require_controllers(state / "controller.log")
            yield cluster
        finally:
            subprocess.run([str(shared / "tools" / "k8s-down"), str(state)], timeout=WAIT_LIMIT, check=False)


def built_by(tool: Path, limit: float) -> Path:
    """Run `tool`, in one process at a time; the folder that it has built, now or earlier.

    If it fails, the test is skipped with the reason: a machine that cannot build is no defect of the chart.
    """
    if not tool.exists():
        pytest.skip(f"needs the tool {tool.name}, which the shared material does not hold")
    try:
        with one_at_a_time(tool.name):
            done = subprocess.run([str(tool)], capture_output=True, text=True, timeout=limit, check=False)
        problem = None if done.returncode == 0 else done.stderr.strip()[-400:]
    except subprocess.TimeoutExpired:
        problem = f"not done within {limit:g} s"
    if problem is None:
        return Path(done.stdout.strip().splitlines()[-1])
    reason = f"{tool.name} could not provide what this needs: {problem}"
    pytest.skip(reason)


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Hold a lock between parallel test processes, which share the output of a tool."""
    folder = Path.home() / ".cache"
    folder.mkdir(exist_ok=True)
    with (folder / f"killswitch-tests-{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
