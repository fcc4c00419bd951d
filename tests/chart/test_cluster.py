"""The chart on a real API server: install, upgrade, uninstall, and the command of its pod.

No container runs on the hollow node. The tests run the pod's command locally, on folders with the contents that the API
server holds.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types

from killswitch.gate.lock_reader import read_lock
from killswitch.store.sqlite import open_store
from tests.chart.conftest import Cluster
from tests.chart.pods import Pod, within_read_only_root
from tests.e2e.processes import POLICY, paper, until

UNMOVING = ("--crash", "7", "--speed", "0")
KEY, TOKEN = "PLANTED-file-8c21", "PLANTED-env-77d0"


def namespace(cluster: Cluster, name: str) -> str:
    """Create a namespace and wait for its default service account, which pods need."""
    cluster.kubectl("create", "namespace", name)
    until(lambda: cluster.get("serviceaccount/default", name), "the namespace has its service account")
    return name


def volume(name: str, space: str, claim: str, size: str = "1Gi") -> dict[str, Any]:
    """A volume that only that claim can bind. The hollow node does not mount it."""
    return {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": f"/nowhere/{name}"},
            "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": space, "name": claim},
        },
    }  # fmt: skip


def running(cluster: Cluster, space: str, name: str = "ks-killswitch-0") -> Any:
    """Wait until the node reports the pod as running; the pod."""

    def running_pod() -> Any:
        pod = cluster.get(f"pod/{name}", space)
        return pod if pod is not None and pod["status"]["phase"] == "Running" else None

    return until(running_pod, f"the pod {name} runs")


def install(
    cluster: Cluster, space: str, folder: Path, chart: Path, values: dict[str, Any], verb: str = "install"
) -> str:
    """Install or upgrade the release `ks` with these values."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return cluster.helm(verb, "ks", str(chart), "--namespace", space, "--values", str(file))


def with_account(address: str, credentials: str = "{}", execution: str = "observe") -> dict[str, Any]:
    account = (
        "apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {name: main}\n"
        f"spec: {{adapter: paper, market: swap, currency: USDT, endpoint: '{address}', execution: {execution}, "
        f"credentials: {credentials}}}\n"
    )
    return {"files": {"account.yaml": account, "policy.yaml": POLICY}}


def test_an_install_creates_one_pod_without_any_permission(cluster: Cluster, chart: Path, tmp_path: Path) -> None:
    """The API server accepts every object and binds the pod, whose service account has no token and no permission."""
    space = namespace(cluster, "install")
    cluster.apply(volume("install", space, "store-ks-killswitch-0"), folder=tmp_path)
    output = install(cluster, space, tmp_path, chart, {
        "policies": with_account("http://127.0.0.1:1"), "networkPolicy": {"enabled": True},
        "podDisruptionBudget": {"enabled": True},
    })  # fmt: skip
    assert "The runner observes" in output
    assert "The claim store-ks-killswitch-0 holds the record" in output
    pod = running(cluster, space)
    assert pod["spec"]["serviceAccountName"] == "ks-killswitch"
    assert [each["name"] for each in pod["spec"]["volumes"]] == ["store", "policies", "tmp"]
    assert [each["name"] for each in pod["spec"]["containers"][0]["volumeMounts"]] == ["policies", "store", "tmp"]
    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    for verb, what in (("get", "secrets"), ("list", "pods"), ("get", "configmaps"), ("create", "pods/exec")):
        assert not cluster.may("ks-killswitch", verb, what, space), f"{verb} {what}"
    assert cluster.get("networkpolicy/ks-killswitch", space)["spec"]["policyTypes"] == ["Ingress", "Egress"]
    budget = cluster.get("poddisruptionbudget/ks-killswitch", space)
    assert budget["apiVersion"] == "policy/v1beta1", "the newest that this API server has"
    assert cluster.get("statefulset/ks-killswitch", space)["spec"]["replicas"] == 1


def test_changed_policies_roll_the_pod_and_other_changes_do_not(cluster: Cluster, chart: Path, tmp_path: Path) -> None:
    """An upgrade with the same policies keeps the pod; one with another policy replaces it."""
    space = namespace(cluster, "upgrade")
    values: dict[str, Any] = {"policies": with_account("http://127.0.0.1:1"), "store": {"kind": "emptyDir"}}
    install(cluster, space, tmp_path, chart, values)
    first = running(cluster, space)
    install(cluster, space, tmp_path, chart, values | {"podDisruptionBudget": {"enabled": True}}, "upgrade")
    assert cluster.get("poddisruptionbudget/ks-killswitch", space) is not None
    assert running(cluster, space)["metadata"]["uid"] == first["metadata"]["uid"]
    values["policies"]["files"]["policy.yaml"] = POLICY.replace("at_least: 2%", "at_least: 3%")
    install(cluster, space, tmp_path, chart, values, "upgrade")

    def replacement() -> Any:
        pod = cluster.get("pod/ks-killswitch-0", space)
        return pod if pod is not None and pod["metadata"]["uid"] != first["metadata"]["uid"] else None

    second = until(replacement, "the pod is replaced")
    sums = [each["metadata"]["annotations"]["checksum/policies"] for each in (first, second)]
    assert sums[0] != sums[1]
    assert "at_least: 3%" in cluster.get("configmap/ks-killswitch-policies", space)["data"]["policy.yaml"]


def test_uninstalling_keeps_the_claim_of_the_store(cluster: Cluster, chart: Path, tmp_path: Path) -> None:
    """The claim and its volume remain, for a report or the next install; everything else is deleted."""
    space = namespace(cluster, "uninstall")
    cluster.apply(volume("uninstall", space, "store-ks-killswitch-0"), folder=tmp_path)
    install(cluster, space, tmp_path, chart, {"policies": with_account("http://127.0.0.1:1")})
    running(cluster, space)
    cluster.helm("uninstall", "ks", "--namespace", space)
    until(lambda: not cluster.get("pods", space), "the pod is gone")
    kinds = ("statefulsets", "persistentvolumeclaims", "networkpolicies", "poddisruptionbudgets")
    left = {kind: [each["metadata"]["name"] for each in cluster.get(kind, space)] for kind in kinds}
    assert left == {kind: [] for kind in kinds} | {"persistentvolumeclaims": ["store-ks-killswitch-0"]}
    assert cluster.get("configmap/ks-killswitch-policies", space) is None
    assert cluster.get("serviceaccount/ks-killswitch", space) is None
    (claim,) = cluster.get("persistentvolumeclaims", space)
    assert claim["status"]["phase"] == "Bound"


def armed(cluster: Cluster, space: str, folder: Path, chart: Path, address: str) -> Pod:
    """Install an armed release with credentials from a Secret and locks on a separate claim; its pod, with mounts."""
    namespace(cluster, space)
    cluster.apply(
        volume(f"{space}-store", space, "store-ks-killswitch-0"), volume(f"{space}-locks", space, "trading-locks"),
        {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "trading-locks", "namespace": space},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
        {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "venue", "namespace": space},
            "stringData": {"key": KEY, "token": TOKEN, "unused": "never mounted"},
        },
        folder=folder,
    )  # fmt: skip
    policies = with_account(address, "{key: 'file:/run/secrets/venue/key', token: 'env:VENUE_TOKEN'}", "live")
    install(cluster, space, folder, chart, {
        "live": True, "interval": "100ms", "policies": policies,
        "credentials": {"files": [{"secret": "venue", "keys": ["key"]}],
                        "env": [{"name": "VENUE_TOKEN", "secret": "venue", "key": "token"}]},
        "locks": {"claim": "trading-locks", "union": "trading_lock.json"},
        "retention": {"declared": RETENTION},
    })  # fmt: skip
    running(cluster, space)
    return Pod(cluster, space, "ks-killswitch-0", folder / "root")


RETENTION = """
clock_within = "3d"
every = "1d"

[store]
keep = "400d"
archive = "/var/lib/killswitch/audit"
"""


def retained(pod: Pod) -> bool:
    """Whether the store has a line about a retention that the run has started."""
    with closing(open_store(str(pod.at("/var/lib/killswitch/store.sqlite")), read_only=True)) as store:
        return any(b'"kind":"retention"' in line.text for line in store.record_lines())


PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def passed(pod: Pod, name: str) -> bool:
    """Whether a probe passes; it is not run before the lock file exists, which the first tick writes at its end."""
    return pod.at("/var/lib/killswitch-locks/account__main.json").exists() and pod.probe(name).returncode == 0


def test_the_pods_command_ticks_with_its_mounts_and_ends_within_the_grace_period(
    cluster: Cluster, chart: Path, tmp_path: Path
) -> None:
    """Policies, credentials, store and locks are at the pod's mounts; probes pass; SIGTERM ends it cleanly."""
    with paper(*UNMOVING) as address:
        pod = armed(cluster, "command", tmp_path, chart, address)
        secrets = pod.at("/run/secrets/venue")
        assert sorted(each.name for each in secrets.iterdir() if not each.name.startswith("..")) == ["key"]
        assert pod.environment["VENUE_TOKEN"] == TOKEN
        before = [pod.probe(name) for name in PROBES]
        assert [each.returncode for each in before] == [1, 1, 1]
        assert before[0].stdout.startswith("not live: there is no store at ")
        with pod.running() as runner:
            until(lambda: runner.poll() is not None or passed(pod, "readinessProbe"), "the pod is ready")
            assert [pod.probe(name).returncode for name in PROBES] == [0, 0, 0], runner.poll()
            assert pod.probe("livenessProbe").stdout.startswith("live: by the process itself, tick ")
            union = pod.at("/var/lib/killswitch-locks/trading_lock.json")
            assert read_lock(union, datetime.now(UTC)).locked is False
            assert (union.parent / "account__main.json").exists()
            until(lambda: retained(pod), "the run has carried out the declared retention")
            stopped_at = time.monotonic()
            runner.send_signal(signal.SIGTERM)
            _, err = runner.communicate(timeout=pod.spec["terminationGracePeriodSeconds"])
            elapsed = time.monotonic() - stopped_at
        assert runner.returncode == 0, err
        assert elapsed < pod.spec["terminationGracePeriodSeconds"]
        assert "armed: main" in err
        after = pod.probe("livenessProbe")
        assert (after.returncode, after.stdout) == (1, "not live: no runner holds the lease of this store\n")
        written = [path for path in pod.root.rglob("*") if path.is_file() and path.stat().st_size]
        for path in (each for each in written if "secrets" not in each.parts):
            assert KEY.encode() not in path.read_bytes(), path
            assert TOKEN.encode() not in path.read_bytes(), path


def test_the_pods_command_works_with_a_read_only_root(cluster: Cluster, chart: Path, tmp_path: Path) -> None:
    """With a read-only root file system a crash is closed and its report is rendered."""
    probe = within_read_only_root(["sh", "-c", f"! touch {tmp_path}/refused"], [])
    allowed = subprocess.run(probe, capture_output=True, text=True, check=False)
    if allowed.returncode != 0:
        pytest.skip(f"a mount namespace cannot be created here: {allowed.stderr.strip()[-200:]}")
    with paper("--crash", "7", "--skip", "200", "--speed", "240", "--begin-after-readings", "3") as address:
        pod = armed(cluster, "readonly", tmp_path, chart, address)
        with pod.running(read_only_root=True) as runner:
            incidents = pod.at("/var/lib/killswitch")
            until(lambda: runner.poll() is not None or passed(pod, "livenessProbe"), "it ticks")
            until(lambda: runner.poll() is not None or list(incidents.rglob("*.html")), "the crash is reported")
            runner.send_signal(signal.SIGTERM)
            out, err = runner.communicate(timeout=pod.spec["terminationGracePeriodSeconds"])
        assert runner.returncode == 0, err
        assert "close-everything" in out
        assert "Read-only file system" not in err
        lock = json.loads(pod.at("/var/lib/killswitch-locks/trading_lock.json").read_text(encoding="utf-8"))
        assert lock["locked"] is True
