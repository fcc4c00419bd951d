"""Exports of an incident: for compliance and of the close, as JSON and CSV, and the verb."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.cli.live.report import report
from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.incident_decisions import find_incident
from killswitch.incident.record.results import read_decision
from killswitch.incident.report.exports import as_csv, as_json, closing_report, compliance_report
from tests.incidents import FIRST, RESET, SECOND, FilledStore, filled_store, whole_incident


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilledStore]:
    written = filled_store(tmp_path_factory.mktemp("incident"))
    whole_incident(written)
    yield written
    written.store.close()


def invoke(ended: FilledStore, *words: str) -> Result:
    return CliRunner().invoke(report, [*words, "--store", str(ended.path)])


def test_compliance_reads_who_what_when_and_by_which_authority(ended: FilledStore) -> None:
    """Two firings by the policy, by their lines, and the reset by a person with her reason."""
    found = json.loads(invoke(ended, "export").stdout)
    assert found["format"] == "killswitch.compliance/v1"
    assert [(each["decision"], each["who"]) for each in found["acts"]] == [
        (FIRST, "policy drawdown"), (SECOND, "policy drawdown"), (RESET, "ada"),
    ]  # fmt: skip
    assert found["acts"][0]["authority"].startswith("policies/p.yaml:10, fall ")
    assert {each["policy_set"] for each in found["acts"]} == {"sha256:abc"}


def test_every_order_has_an_owner_or_says_why_none_is_known(ended: FilledStore) -> None:
    """Not one of the incident's orders is missing, and none has neither."""
    chosen = find_incident(ended.store, None)
    incident = incident_of(ended.store, chosen, StartedAs("s"))
    found = compliance_report(incident, [read_decision(ended.store, each) for each in chosen.decisions])
    sent = [each.order for each in found.orders if each.act == "sent"]
    assert sent == [each.client_order_id for each in incident.orders]
    assert all((each.owner is None) != (each.owner_unknown is None) for each in found.orders)


def test_the_closing_report_has_the_sums_of_its_rows(ended: FilledStore) -> None:
    """Fees of the rows add up to the fees of the close, which is compared with the target of a minute."""
    incident = incident_of(ended.store, find_incident(ended.store, None), StartedAs("s"))
    found = closing_report(incident)
    assert found.target_seconds == 60
    assert sum(each.fee or 0 for each in found.orders) == found.fees
    assert found.seconds_to_flat == (max(e.at for e in incident.endings if e.at) - incident.opened_at).total_seconds()
    assert json.loads(as_json(found))["orders"][0]["amount"] == f"{incident.orders[0].amount}"


def test_csv_has_a_row_for_each_order_and_no_formula(ended: FilledStore, tmp_path: Path) -> None:
    """A text that a spreadsheet would compute is quoted, a negative number is not."""
    out = tmp_path / "close.csv"
    assert invoke(ended, "export", "--variant", "closing", "--format", "csv", "--out", str(out)).exit_code == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"))))
    incident = incident_of(ended.store, find_incident(ended.store, None), StartedAs("s"))
    assert [row["client_order_id"] for row in rows] == [each.client_order_id for each in incident.orders]
    numbers = [row[name] for row in rows for name in ("slipped", "slippage", "delay", "fee", "amount") if row[name]]
    assert not [each for each in numbers if "." in each and each.endswith("0")]
    assert all(len(row["slipped"].partition(".")[2]) <= 8 for row in rows)
    chosen = find_incident(ended.store, None)
    found = compliance_report(incident, [read_decision(ended.store, each) for each in chosen.decisions])
    by = {each.decision: (each.who, each.authority, each.policy_set) for each in found.acts}
    for row in csv.DictReader(io.StringIO(as_csv(found))):
        assert (row["who"], row["authority"], row["policy_set"]) == by[row["decision"]]
    from msgspec.structs import replace

    poisoned = replace(found, acts=(replace(found.acts[0], who="=cmd()"),))
    assert next(csv.DictReader(io.StringIO(as_csv(poisoned))))["who"] == "'=cmd()"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "--format", "html"], "write json or csv"),
        (["--format", "csv"], "ksctl report export"),
        (["--variant", "closing"], "--variant is for `ksctl report export`"),
        (["aa", "bb"], "one word too many"),
    ],
)
def test_options_that_do_not_fit_are_refused(ended: FilledStore, words: list[str], message: str) -> None:
    """With what to write instead."""
    result = invoke(ended, *words)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())
