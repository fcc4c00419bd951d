"""Templates that do not end or fill memory: a crash on the paper venue is closed all the same, and reported."""

from __future__ import annotations

from pathlib import Path

from tests.attack.test_sinks import is_flat, problems
from tests.e2e.processes import POLICY, Site, paper, terminate, until
from tests.e2e.test_run import FALLING

RUNBOOK = """
apiVersion: killswitch.dev/v1
kind: Runbook
metadata: {name: out}
spec: {template: out.md.j2}
"""
HOSTILE = "{% macro m(n) %}{% set x = n ~ n %}{{ m(x) }}{{ m(x) }}{% endmacro %}\n{{ m('x') }}"


def test_a_hostile_template_written_after_the_start_affects_neither_the_close_nor_the_report(tmp_path: Path) -> None:
    """The template was valid when checked; status names it as a problem, and report and generic runbook exist."""
    with paper(*FALLING) as address:
        site = Site(tmp_path, address)
        policy = POLICY.replace("      reset: manual\n", "      reset: manual\n      runbook: out\n")
        (site.policies / "policy.yaml").write_text(policy, encoding="utf-8")
        (site.policies / "runbook.yaml").write_text(RUNBOOK, encoding="utf-8")
        (site.policies / "out.md.j2").write_text("{{ firing.stage }}", encoding="utf-8")
        with site.running("--live") as runner:
            (site.policies / "out.md.j2").write_text(HOSTILE, encoding="utf-8")
            until(lambda: is_flat(site), "the closing ends flat")
            until(lambda: "out.md.j2" in problems(site), "the template is a problem")
            status, _, err = terminate(runner)
        assert status == 0, err
        assert site.venue().positions == ()
        assert list(tmp_path.glob("store.sqlite.incidents/*/report.md"))
    (generic,) = tmp_path.glob("store.sqlite.incidents/*/runbook-close-everything.md")
    assert generic.read_text(encoding="utf-8").startswith("> **This is the generic runbook:**")
