"""`/metrics`: the state of a store in the text format of Prometheus, read by Prometheus' own parser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types
from prometheus_client.parser import text_string_to_metric_families

from killswitch.model.instant import to_micros
from killswitch.operations.prometheus import Family, Sample, prometheus_text
from killswitch.runner.status_blob import LIVE_NAME, encode_view
from killswitch.store.sqlite import open_store
from tests.incidents import FilledStore, filled_store, whole_incident
from tests.outboxes import START, waiting
from tests.unit.server.boards import machine, put_view, run_view
from tests.unit.server.conftest import Served
from tests.worlds import after

CHART = Path(__file__).parents[3] / "charts" / "killswitch"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilledStore]:
    written = filled_store(tmp_path_factory.mktemp("incident"))
    whole_incident(written)
    yield written
    written.store.close()


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Every metric by its name, with the labels and value of each line."""
    return {
        family.name: [(dict(each.labels), each.value) for each in family.samples]
        for family in text_string_to_metric_families(text)
    }


def test_the_text_is_what_prometheus_parses(ended: FilledStore) -> None:
    """Closes of the last day by hand: of three filled orders the worst slipped by 1 of 50, which is 2%."""
    found = samples(prometheus_text(ended.store, after(minutes=20)))
    assert found["killswitch_runner_up"] == [({}, 0.0)]
    assert {labels["severity"] for labels, _ in found["killswitch_alerts_active"]} == {"page", "warning", "info"}
    assert 0 <= found["killswitch_close_success_ratio"][0][1] <= 1
    assert found["killswitch_close_slippage_worst_ratio"][0][1] == pytest.approx(0.02)


def test_what_is_unknown_has_no_line(tmp_path: Path) -> None:
    """An empty store has no close, no message and no tick: none of them is 0."""
    store = open_store(str(tmp_path / "empty.sqlite"))
    found = samples(prometheus_text(store, after()))
    store.close()
    assert set(found) == {"killswitch_runner_up", "killswitch_alerts_active"}


def test_closes_of_another_day_do_not_count(ended: FilledStore) -> None:
    """Two days later the share of successful closes is not known."""
    assert "killswitch_close_success_ratio" not in samples(prometheus_text(ended.store, after(hours=49)))


def test_a_label_is_escaped() -> None:
    """A quote, a backslash and a line break in a name break no line."""
    from killswitch.operations import prometheus

    hostile = 'a"b\\c\nd'
    family = Family("killswitch_stage_level", "gauge", "x", (Sample(1.0, (("scope", hostile),)),))
    text = "".join(f"{line}\n" for line in prometheus.lines_of(family))
    assert samples(text) == {"killswitch_stage_level": [({"scope": hostile}, 1.0)]}


NAMED = re.compile(r"\bkillswitch_[a-z_]+\b")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What is exported of a store that has something of everything."""
    folder = tmp_path_factory.mktemp("everything")
    written = filled_store(folder)
    whole_incident(written)
    waiting(written.store, ["arrived"])
    written.store.settle("arrived", to_micros(START), None)
    locks = folder / "locks"
    locks.mkdir()
    (locks / "account__main.json").write_text("{}", encoding="utf-8")  # no lock file: unreadable, so it locks
    view = run_view(after(minutes=20), machines=(machine(),), lock_folder=str(locks))
    written.store.put_live(LIVE_NAME, encode_view(view))
    text = prometheus_text(written.store, after(minutes=20))
    written.store.close()
    yield text


def lines_named(text: str) -> dict[str, list[frozenset[str]]]:
    """The names of labels of each line, by the name of its metric."""
    found: dict[str, list[frozenset[str]]] = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            found.setdefault(each.name, []).append(frozenset(each.labels))
    return found


def rules() -> list[dict[str, object]]:
    found = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))
    return [rule for group in found["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [*(str(rule["expr"]) for rule in rules()), *panels]


def test_every_alert_rule_and_every_panel_uses_a_metric_that_is_exported(exported: str) -> None:
    """By what is answered, not by what a source file spells: a rule on a name that nothing exports never fires."""
    used = {name for text in queries() for name in NAMED.findall(text)}
    names = set(lines_named(exported))
    assert used <= names
    assert names - used == {"killswitch_account_positions", "killswitch_notifications_delivered"}


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_query_groups_and_selects_by_labels_that_the_metric_has(exported: str, query: str) -> None:
    """A group by a label that no line has is one group of everything, and a selector of it selects nothing."""
    lines = lines_named(exported)
    for labels, name in re.findall(r"by \(([a-z_, ]+)\) \((killswitch_[a-z_]+)", query):
        assert all(set(labels.split(", ")) <= each for each in lines[name])
    for name, label in re.findall(r"(killswitch_[a-z_]+)\{([a-z_]+)=", query):
        assert all(label in each for each in lines[name])


def test_the_server_answers_with_text_that_prometheus_parses_and_its_own_counts(
    served: Served, store_path: Path
) -> None:
    """State of the book and counters of the server in one answer, each metric once, with the version of the format."""
    put_view(store_path, run_view(after()))
    answer = served.ask("GET", "/metrics", "viewer portfolio")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    names = [family.name for family in text_string_to_metric_families(answer.text)]
    assert len(names) == len(set(names))
    assert {"killswitch_stage_level", "killswitch_account_up"} <= set(names)
    assert any(name.startswith("killswitch_server_") for name in names)


def test_probes_tell_a_process_that_answers_from_a_store_that_can_be_read(served: Served, store_path: Path) -> None:
    """`/healthz` and `/readyz` need no token, and say nothing of the book."""
    assert [served.ask("GET", path).json() for path in ("/healthz", "/readyz")] == [{"status": "ok"}] * 2
    for path in (store_path, *store_path.parent.glob("ks.sqlite-*")):
        path.unlink(missing_ok=True)
    assert [served.ask("GET", path).status_code for path in ("/healthz", "/readyz")] == [200, 503]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    """A severity for the route, a summary, and the command to run next."""
    assert rule["labels"]["severity"] in ("page", "warning")
    assert "ksctl " in rule["annotations"]["description"]


def test_panels_do_not_overlap_and_have_titles() -> None:
    """In Grafana's grid of 24 columns."""
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert panel["title"]
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
