"""Helm and a real control plane for the tests of the chart. Where they are not to be had, a test says why it skips."""

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
import yaml  # type: ignore[import-untyped]

FETCHING = 300.0
BUILDING = 700.0
"""Seconds: bounds for a slow network and a slow machine. A build takes about 5 minutes, once, and is kept."""
STARTING = 180.0
WAIT_LIMIT = 120.0
CORE = ("pod", "serviceaccount", "configmap", "secret", "persistentvolumeclaim")
"""Kinds that have no group and one version only."""


class Helm:
    """`helm` and `kubectl`, which see no other cluster than the one they are given."""

    def __init__(self, folder: Path, home: Path, chart: Path) -> None:
        self.chart = chart
        self._folder = folder
        self._environment = {
            **os.environ, "KUBECONFIG": os.devnull, "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"), "HELM_DATA_HOME": str(home / "data"),
        }  # fmt: skip

    def run(self, *arguments: str, program: str = "helm", kubeconfig: Path | None = None) -> str:
        """What it prints; AssertionError with its own words if it fails."""
        done = self.tried(*arguments, program=program, kubeconfig=kubeconfig)
        assert done.returncode == 0, f"{program} {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def tried(
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
        """What it says when it refuses to render."""
        done = self.tried("template", "ks", str(self.chart), *arguments)
        assert done.returncode != 0, "it was rendered"
        return done.stderr


class Cluster:
    """A real API server with its controllers, scheduler and a hollow node."""

    def __init__(self, helm: Helm, kubeconfig: Path) -> None:
        self._helm = helm
        self._kubeconfig = kubeconfig
        said = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        self._address: str = said["clusters"][0]["cluster"]["server"]
        self._token: str = said["users"][0]["user"]["token"]
        self._unverified = ssl.create_default_context()  # the certificate is the API server's own, made at its start
        self._unverified.check_hostname = False
        self._unverified.verify_mode = ssl.CERT_NONE

    def helm(self, *arguments: str) -> str:
        return self._helm.run(*arguments, kubeconfig=self._kubeconfig)

    def kubectl(self, *arguments: str) -> str:
        return self._helm.run(*arguments, program="kubectl", kubeconfig=self._kubeconfig)

    def may(self, account: str, verb: str, what: str, namespace: str) -> bool:
        """Whether a service account may do that, as the API server says."""
        subject = f"--as=system:serviceaccount:{namespace}:{account}"
        done = self._helm.tried(
            "auth", "can-i", verb, what, "-n", namespace, subject, program="kubectl", kubeconfig=self._kubeconfig
        )
        assert done.stdout.strip() in ("yes", "no"), done.stderr
        return done.stdout.strip() == "yes"

    def get(self, what: str, namespace: str) -> Any:
        """An object, or None if there is none; a kind alone gives the list of all.

        What tests wait for is asked of the API server itself: a kubectl takes a third of a second to start.
        """
        kind, _, name = what.partition("/")
        if kind.removesuffix("s") in CORE:
            return self._asked(f"/api/v1/namespaces/{namespace}/{kind.removesuffix('s')}s/{name}".rstrip("/"))
        done = self._helm.tried(
            "get", what, "-n", namespace, "-o", "json", program="kubectl", kubeconfig=self._kubeconfig
        )
        if done.returncode and "NotFound" in done.stderr:
            return None
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        return found["items"] if found["kind"] == "List" else found

    def _asked(self, path: str) -> Any:
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
        """Wait until controllers work; AssertionError with the end of their log, such as that a port is taken."""
        deadline = time.monotonic() + STARTING
        while self.get("serviceaccount/default", "default") is None:
            said = log.read_text(encoding="utf-8", errors="replace")[-600:]
            assert time.monotonic() < deadline, f"no controller works after {STARTING:g} s: {said}"
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
    """A real helm, fetched once."""
    folder = made_by(shared / "tools" / "helm-get", FETCHING)
    return Helm(folder, tmp_path_factory.mktemp("helm"), chart)


@pytest.fixture(scope="module")
def cluster(shared: Path, helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane of its own, for the tests of one module.

    KILLSWITCH_K8S says what may be done for it: `build` (also if it is not set) builds the control plane where it has
    not been built yet, `cached` uses it only if it has, `no` uses none.
    """
    allowed = os.environ.get("KILLSWITCH_K8S", "build")
    assert allowed in ("build", "cached", "no"), f"KILLSWITCH_K8S is {allowed!r}; write build, cached or no"
    built = Path.home() / ".cache" / "killswitch-tools" / "k8s"
    if allowed == "no" or (allowed == "cached" and not (built / "etcd").exists()):
        pytest.skip(f"needs a control plane, and KILLSWITCH_K8S={allowed} does not let it be built")
    programs = made_by(shared / "tools" / "k8s-build", BUILDING)
    state = tmp_path_factory.mktemp("cluster")
    # Some of its programs listen at ports that are always the same.
    with one_at_a_time("cluster"):
        try:
            # Into a file, not a pipe: what it starts in the background would keep a pipe open.
            with (state / "up.log").open("wb") as said:
                done = subprocess.run(
                    [str(shared / "tools" / "k8s-up"), str(state), str(programs)], stdout=said, stderr=said,
                    timeout=WAIT_LIMIT, check=False,
                )  # fmt: skip
            assert done.returncode == 0, (state / "up.log").read_text(encoding="utf-8")
            started = Cluster(helm, state / "kubeconfig")
            started.require_controllers(state / "controller.log")
            yield started
        finally:
            subprocess.run([str(shared / "tools" / "k8s-down"), str(state)], timeout=WAIT_LIMIT, check=False)


def made_by(tool: Path, patience: float) -> Path:
    """The folder that `tool` makes or has made, one process at a time.

    Where it cannot, the test is skipped and says why: what a machine lacks to build with is no defect of the chart.
    """
    if not tool.exists():
        pytest.skip(f"needs the tool {tool.name}, which the shared material does not hold")
    try:
        with one_at_a_time(tool.name):
            done = subprocess.run([str(tool)], capture_output=True, text=True, timeout=patience, check=False)
        problem = None if done.returncode == 0 else done.stderr.strip()[-400:]
    except subprocess.TimeoutExpired:
        problem = f"not done within {patience:g} s"
    if problem is None:
        return Path(done.stdout.strip().splitlines()[-1])
    words = f"{tool.name} could not provide what this needs: {problem}"
    pytest.skip(words)


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Test processes beside each other share what a tool makes."""
    folder = Path.home() / ".cache"
    folder.mkdir(exist_ok=True)
    with (folder / f"killswitch-tests-{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
