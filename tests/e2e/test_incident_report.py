"""Incident reports of real runs on the paper venue: across a kill, and with every suggested command executed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from killswitch.incident.record.document import Incident
from tests.e2e.fork_client import finish, minimal_environment
from tests.e2e.processes import POLICY, WAIT_LIMIT, Site, ksctl, paper, terminate, until

CRASHING = ("--crash", "7", "--skip", "238", "--speed", "600", "--begin-after-readings", "3")
"""Ten bars a second, directly before the crash."""
SLOW = ("--crash", "7", "--speed", "120")
"""A bar every half second in a calm market: orders as large as those of `HEAVY` wait for volume over several bars."""
HEAVY = """
name: heavy
accounts:
  - account: main
    market: swap
    currency: USDT
    equity: 4000000
    positions: [{symbol: ADA_USDT, side: long, notional: 4000000, leverage: 5}]
"""

RUNBOOK = """
apiVersion: killswitch.dev/v1
kind: Runbook
metadata: {name: out}
spec:
  template: out.md.j2
  contacts:
    - {name: desk, role: risk desk, reach: "+49 30 901820"}
    - {name: pager, role: on call, reach: env:DESK_PAGER}
  escalation: [{after: 15m, contact: pager}]
"""
TEMPLATE = """{% extends "close-everything.md.j2" %}
{% block you %}
{% for person in incident.contacts %}
1. Call {{ person.name }}.
{% endfor %}
{{ super() }}
{% endblock %}
"""


def with_runbook(site: Site) -> Site:
    """Add a runbook of its own to the site."""
    policy = POLICY.replace("      reset: manual\n", "      reset: manual\n      runbook: out\n")
    (site.policies / "policy.yaml").write_text(policy, encoding="utf-8")
    (site.policies / "runbook.yaml").write_text(RUNBOOK, encoding="utf-8")
    (site.policies / "out.md.j2").write_text(TEMPLATE, encoding="utf-8")
    return site


def reported(site: Site, *arguments: str) -> str:
    done = ksctl("report", *arguments, "--store", str(site.store))
    assert done.returncode == 0, done.stderr
    return done.stdout


def record(site: Site) -> Incident:
    import msgspec

    return msgspec.json.decode(reported(site, "--output", "json"), type=Incident)


def test_the_incident_of_a_real_run_is_reported_while_it_runs_and_afterwards(tmp_path: Path) -> None:
    """The runner renders it; `report` reads it with and without a live runner; every next command works."""
    with paper(*CRASHING) as address:
        site = with_runbook(Site(tmp_path, address))
        with site.running("--live", "--record", str(tmp_path / "seen.jsonl")) as runner:
            until(site.decisions, "the stage fires")
            rendered = until(lambda: _rendered(site).get("report.md"), "the report is rendered")
            until(lambda: "[x] **Positions confirmed closed**" in _rendered(site)["report.md"], "it follows the close")
            assert reported(site).startswith(rendered.splitlines()[0])
            status, _, err = terminate(runner)
        assert (status, "report" in err) == (0, False), err
        found = record(site)
        (decision,) = site.decisions()
        assert (found.id, found.state, found.stage) == (decision.id, "open", "close-everything")
        assert len(found.orders) >= len(decision.intents)
        assert {order.outcome for order in found.orders} == {"filled"}
        assert found.money.cost is not None
        assert found.money.cost == sum((o.fee or 0) + (o.slippage or 0) for o in found.orders)
        assert found.left == ()
        assert found.course is not None
        (firing,) = found.firings
        assert firing.line is not None
        assert (Path(firing.line.file).name, firing.line.text) == ("policy.yaml", "- name: close-everything")
        assert [person.reach for person in found.contacts] == ["+49 30 901820", "kept in env:DESK_PAGER"]
        book = _rendered(site)["runbook-close-everything.md"]
        assert "1. Call pager." in book
        assert "See at the venue itself that every position is gone" in book
        policy = site.policies / "policy.yaml"
        policy.write_text("# a new first line\n" + policy.read_text(encoding="utf-8"), encoding="utf-8")
        assert record(site).firings[0].line == firing.line, "the line is quoted as it was when it fired"
        _run_printed_commands(found, tmp_path)
        assert record(site).state == "closed"
        assert "ksctl reset" not in reported(site)
        assert reported(site, "list").splitlines()[1].split()[1] == found.id


def _rendered(site: Site) -> dict[str, str]:
    """The Markdown files of the store's incidents, by name."""
    folder = site.store.with_name(site.store.name + ".incidents")
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*/*.md")}


def _run_printed_commands(incident: Incident, folder: Path) -> None:
    """Run every command as the report prints it: a shell splits it, and `ksctl` receives the resulting arguments."""
    (folder / "bin").mkdir()
    script = folder / "bin" / "ksctl"
    script.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n", encoding="utf-8")
    script.chmod(0o755)
    printed = re.findall(r"^```sh\n(.*?)\n```$", _report_text(incident, folder), flags=re.DOTALL | re.MULTILINE)
    assert len(printed) == len(incident.commands)
    for text, command in zip(printed, incident.commands, strict=True):
        assert shlex.split(text.replace("\\\n", "")) == list(command.words), "a line for each option changes no word"
        split = subprocess.run(
            ["/bin/sh", "-c", text], cwd=folder, capture_output=True, text=True, timeout=WAIT_LIMIT, check=True,
            env={"PATH": f"{folder / 'bin'}:/usr/bin:/bin"},
        )  # fmt: skip
        words = split.stdout.split("\0")[:-1]
        if command.words[1:3] == ("close", "--live"):
            continue  # a close by hand holds the scope as well, and the reset would have to name which of them it ends
        done = finish(words, cwd=folder, timeout=WAIT_LIMIT, env=minimal_environment())
        if command.words[1] == "reset":
            assert "the text is empty" in done.stderr, "a blank reason is refused"
            words = [word or "seen" for word in words]
            done = finish(words, cwd=folder, timeout=WAIT_LIMIT, env=minimal_environment())
            assert "Add --live" in done.stderr, "no runner is left, and it says what to add"
            done = finish([*words, "--live"], cwd=folder, timeout=WAIT_LIMIT, env=minimal_environment())
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        assert done.stdout or done.stderr
    verbs = [command.words[1] for command in incident.commands]
    assert verbs == ["status", "explain", "history", "close", "close", "replay", "reset", "report"]
    assert (folder / f"incident-{incident.id}.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def _report_text(incident: Incident, folder: Path) -> str:
    done = ksctl("report", incident.id, "--store", str(folder / "store.sqlite"))
    return done.stdout


def test_after_kill_9_in_mid_close_the_next_run_completes_the_report(tmp_path: Path) -> None:
    """Killed while an order rests: the report shows the close as open, and as proved after the next run."""
    (tmp_path / "book.yaml").write_text(HEAVY, encoding="utf-8")
    with paper(*SLOW, "--book", str(tmp_path / "book.yaml")) as address:
        site = with_runbook(Site(tmp_path, address))
        with site.running("--live", fresh=True) as runner:
            sent = ksctl("close", "--store", str(site.store), "--reason", "operator: drill", "--wait", "1ms")
            assert "sent to the runner" in sent.stderr, "whether it has answered within 1 ms is chance"
            until(lambda: "sending" in {entry.kind for entry in site.journal()}, "an order is sent")
            runner.send_signal(signal.SIGKILL)
            runner.wait()
        killed = record(site)
        assert (killed.by_hand, killed.state) == (True, "open")
        assert {item.key: item.state for item in killed.checklist}["closed"] == "open"
        assert any(command.words[1] == "close" for command in killed.commands)
        with site.running("--live", fresh=True) as runner:
            # The command reads the record again, the page is the runner's rendering of it; in the end they agree.
            until(
                lambda: "| state | **closed**" in _rendered(site).get("report.md", ""), "the interrupted closing ends"
            )
            assert record(site).state == "closed"
            status, _, err = terminate(runner)
        assert status == 0, err
        ended = record(site)
        assert ended.id == killed.id
        assert {item.key: item.state for item in ended.checklist}["closed"] == "proved"


def test_an_operator_close_without_a_runner_writes_its_report_too(tmp_path: Path) -> None:
    """An observing run created the store; the tick of the operator command writes the pages, with contacts."""
    with paper("--crash", "7", "--speed", "600", "--begin-after-readings", "2") as address:
        site = with_runbook(Site(tmp_path, address))
        observed = ksctl("run", *site.place, "--ticks", "1")
        assert observed.returncode == 0, observed.stderr
        closed = ksctl("close", *site.place, "--reason", "operator: drill", "--live")
        assert closed.returncode == 0, closed.stderr
    report = _rendered(site)["report.md"]
    assert "| state | **closed**" in report
    assert "[x] **Positions confirmed closed**" in report
    assert record(site).by_hand
    assert [person.name for person in record(site).contacts] == ["desk", "pager"]


def test_a_template_with_an_unknown_name_starts_nothing(tmp_path: Path) -> None:
    """`run` refuses what `validate` refuses, with the place in the template, and creates no store."""
    site = with_runbook(Site(tmp_path, "http://127.0.0.1:9"))
    (site.policies / "out.md.j2").write_text("{{ incidnet.id }}\n", encoding="utf-8")
    checked = ksctl("validate", str(site.policies), "--output", "json")
    assert checked.returncode == 1
    (problem,) = json.loads(checked.stdout)["diagnostics"]
    assert (problem["code"], problem["line"], problem["column"]) == ("KS6103", 1, 4)
    started = ksctl("run", *site.place, "--ticks", "1")
    assert started.returncode == 69
    assert f"{site.policies / 'out.md.j2'}:1:4: error KS6103" in started.stderr
    assert not site.store.exists()
    shutil.rmtree(site.policies)
