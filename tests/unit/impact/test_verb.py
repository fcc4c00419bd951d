"""`ksctl impact` from the outside: three texts and exit codes, the table of differences, classes, replays, files."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from killswitch.lab.recording import read
from killswitch.model.applied_set import PolicyOrigin
from killswitch.model.store import TickRecord
from killswitch.operations.impact import revision
from killswitch.operations.impact.policy_side import side_on_disk
from killswitch.planning.interpreter import Interpreter
from killswitch.runner.shadow.comparison import Difference, ShadowReport, StageCount
from killswitch.runner.shadow.record import ShadowRecord, encode_record
from killswitch.store.sqlite import open_store
from tests.browser import measured_in_browser
from tests.unit.impact.policy_desk import PolicyDesk, bars
from tests.unit.proof.policies import policy, stage
from tests.worlds import after

pytest.importorskip("z3", reason="the extra `prove` is not installed")


def fall(name: str, at: str = "7%", confirm: str = "") -> str:
    confirmed = f"confirm: {confirm}, " if confirm else ""
    return f"{name}: {{signal: equity.drawdown, window: 1h, at_least: {at}, {confirmed}on_unknown: hold, grace: 75m}}"


def one(at: str = "7%", name: str = "test", more: str = "", spec: str = "") -> str:
    """A policy that closes everything at a fall."""
    return policy(fall("a", at), stage(1, "any: [a]", more), name, spec)


ACCOUNT = """\
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: NAME}
spec: {adapter: paper, market: swap, currency: USDT, execution: live, credentials: {key: "env:SECRET_OF_NAME"}}
"""
ROUTE = """\
apiVersion: killswitch.dev/v1
kind: NotificationRoute
metadata: {name: desk}
spec: {match: {}, targets: [{apprise: {url: "env:T0P_SECRET"}}]}
"""


def account(name: str = "main") -> str:
    return ACCOUNT.replace("NAME", name)


@pytest.fixture
def spans(tmp_path: Path) -> Path:
    """A crash of 12 minutes, one percent of the price a minute, and a calm time of as many."""
    bars(tmp_path / "bars" / "crash", {"BTC_USDT": [100.0, *(100.0 - minute for minute in range(12)), 88.0, 88.0]})
    bars(tmp_path / "bars" / "calm-hour", {"BTC_USDT": [100.0, 99.0, 97.0, 97.0, 98.0, 98.0]})
    return tmp_path / "bars"


def test_nothing_changed_is_a_text_and_exit_code_0(tmp_path: Path, spans: Path) -> None:
    """Another layout, a comment, and another spelling of the same value are no change."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one("7%")})
    desk.write({"a.yaml": "# a remark\n" + one("0.07")})
    comment, status = desk.comment(spans=spans)
    assert comment.splitlines()[0] == "**Nothing changed: both sides load the same documents with the same meaning.**"
    assert status == 0
    assert desk.comment("--detailed-exitcode", spans=spans)[1] == 0


def test_a_head_that_does_not_compile_is_could_not_tell_with_its_diagnostics_and_exit_code_4(
    tmp_path: Path, spans: Path
) -> None:
    """The comment has file, line, code and fix; it is neither the text of no change nor of a failure."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    desk.write({"a.yaml": one().replace("at_least: 7%", "at_least: seven")})
    comment, status = desk.comment(spans=spans)
    assert status == 4
    assert comment.startswith("**Could not tell: the head does not compile.")
    assert "policies/a.yaml:9:" in comment and "KS2" in comment and "fix:" in comment


def test_a_base_that_cannot_be_read_is_could_not_tell(tmp_path: Path, spans: Path) -> None:
    """An unknown revision, and paths that the base does not have."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    unknown, status = desk.comment(spans=spans, against="nowhere")
    assert status == 4 and "Could not tell: cannot read the revision nowhere" in unknown
    desk.write({"new/b.yaml": one(name="other")})
    found = desk.impact("-o", "json", spans=spans)
    assert found.exit_code == 0
    desk.policies = desk.policies / "new"
    answer, status = desk.answer(spans=spans)
    assert status == 4 and "there is no file at" in answer["sentence"]


def test_an_emptied_folder_is_could_not_tell_and_never_a_removal(tmp_path: Path, spans: Path) -> None:
    """A policy folder that is removed or empty."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    (desk.policies / "a.yaml").unlink()
    assert desk.comment(spans=spans)[1] == 4
    desk.policies.rmdir()
    comment, status = desk.comment(spans=spans)
    assert status == 4 and "Could not tell" in comment


def test_a_failure_of_the_tool_is_a_third_text_and_exit_code_1(
    tmp_path: Path, spans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comment file is written in this case too, so that an older verdict does not stay."""
    desk, written = PolicyDesk(tmp_path, {"a.yaml": one()}), tmp_path / "comment.md"
    written.write_text("**TIGHTENING**\n", encoding="utf-8")
    monkeypatch.setattr(revision, "MOST_FILES", "not a number")
    found = desk.impact("--comment", written, spans=spans)
    assert found.exit_code == 1
    assert written.read_text(encoding="utf-8").startswith("**The tool failed: nothing is known of this change.**")
    assert "<!-- killswitch-impact repository=desk" in written.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("head", "word", "detailed"),
    [(one("5%"), "TIGHTENING", 0), (one("9%"), "LOOSENING", 2), (one().replace("hold", "trip"), "TIGHTENING", 0)],
)
def test_an_analysed_change_exits_0_or_2_where_it_loosens(
    tmp_path: Path, spans: Path, head: str, word: str, detailed: int
) -> None:
    """The first line has the verdict; only --detailed-exitcode changes the exit code."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    desk.write({"a.yaml": head})
    comment, status = desk.comment(spans=spans)
    assert (status, comment.startswith(f"**{word}: ")) == (0, True)
    assert desk.comment("--detailed-exitcode", spans=spans)[1] == detailed


def test_each_policy_has_a_class_for_each_part(tmp_path: Path, spans: Path) -> None:
    """A higher threshold loosens the demand, a longer lock would be another part; the set is the sum."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one(), "b.yaml": one(name="other")})
    desk.write({"a.yaml": one("9%"), "b.yaml": one("6%", name="other")})
    answer, _ = desk.answer(spans=spans)
    by_name = {each["policy"]: each for each in answer["classification"]["policies"]}
    assert dict(by_name["test"]["parts"])["demand"] == "LOOSENING"
    assert dict(by_name["other"]["parts"]) == {
        "scope": "EQUIVALENT", "demand": "TIGHTENING", "memory": "EQUIVALENT", "response": "EQUIVALENT",
        "messages": "EQUIVALENT", "tests": "EQUIVALENT",
    }  # fmt: skip
    assert (by_name["test"]["verdict"], by_name["other"]["verdict"], answer["verdict"]) == (
        "LOOSENING", "TIGHTENING", "NEITHER",
    )  # fmt: skip


def test_a_loosening_has_its_witness_as_a_folded_scenario(tmp_path: Path, spans: Path) -> None:
    """`ksctl test` would run it: a fall of 7% that the head no longer answers."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    desk.write({"a.yaml": one("9%")})
    comment, _ = desk.comment(spans=spans)
    folded = comment[comment.index("<details><summary>Witness") : comment.index("</details>")]
    assert "kind: Scenario" in folded and "'equity.drawdown(\"1h\")': '7%'" in folded


def test_removed_triggers_come_first_and_then_documents_that_are_no_longer_loaded(tmp_path: Path, spans: Path) -> None:
    """A file that is renamed to another suffix, one that is emptied of its document, and a trigger that is gone."""
    two = policy(f"{fall('a')}\n{fall('b', '9%')}", stage(1, "any: [a, b]"))
    desk = PolicyDesk(tmp_path, {"a.yaml": two, "b.yaml": one(name="other"), "c.yaml": one(name="third")})
    (desk.policies / "b.yaml").rename(desk.policies / "b.yaml.off")
    desk.write({"a.yaml": one(), "c.yaml": one(name="fourth")})
    comment, status = desk.comment("--detailed-exitcode", spans=spans)
    rows = [line.split(" | ") for line in comment.splitlines() if line.startswith("| ") and " | Policy " in line]
    assert [(row[0].strip("| "), row[1]) for row in rows] == [
        ("trigger removed", "Policy test"), ("no longer loaded", "Policy other"), ("no longer loaded", "Policy third"),
        ("changed", "Policy test"), ("added", "Policy fourth"),
    ]  # fmt: skip
    assert "policies/b.yaml is not there any more" in comment and "policies/c.yaml no longer holds it" in comment
    assert status == 2


def test_a_document_behind_a_link_is_no_longer_loaded(tmp_path: Path, spans: Path) -> None:
    """A folder of the head that is a link is not followed, and the reason names it; on disk it does not compile."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one(), "sub/b.yaml": one(name="other")})
    (desk.policies / "sub").rename(tmp_path / "elsewhere")
    (desk.policies / "sub").symlink_to(tmp_path / "elsewhere")
    comment, status = desk.comment(spans=spans)
    assert status == 4 and "sub" in comment
    desk.git("checkout", "-q", "-b", "change")
    desk.commit("a link")
    answer, _ = desk.answer("--head", "change", spans=spans)
    (found,) = [each for each in answer["differences"] if each["change"] == "no longer loaded"]
    assert found["why"] == "policies/sub is a symbolic link now, which is not followed"
    assert found["verdict"] == answer["verdict"] == "LOOSENING"


def test_a_crash_shows_what_fires_earlier_and_how_much_is_closed(tmp_path: Path, spans: Path) -> None:
    """Equity 100,000 and 150,000 long: at 100 → 95 it has lost 7.5%, at 100 → 92 it has lost 12%.

    So a threshold of 7% fires at the close of 95, and one of 11% at the close of 92, three minutes later. Closed
    before the next bar, 1,500 contracts have lost 7,500 to 9,000, or 12,000 to 13,500, and at most 200 of costs.
    """
    desk = PolicyDesk(tmp_path, {"a.yaml": one("7%")})
    desk.write({"a.yaml": one("11%")})
    answer, _ = desk.answer(spans=spans)
    crash = next(each for each in answer["spans"] if each["span"] == "crash")
    (firing,) = crash["firings"]
    assert (firing["word"], firing["stage"], crash["book"]) == ("later", "s1", "long")
    minutes = [firing[side][14:16] for side in ("base_at", "head_at")]
    assert int(minutes[1]) - int(minutes[0]) == 3
    final = [float(crash[side]["final_equity"]) for side in ("base", "head")]
    assert 90_800 < final[0] < 92_500 and 86_300 < final[1] < 88_000
    comment, _ = desk.comment(spans=spans)
    row = next(line for line in comment.splitlines() if line.startswith("| crash, long |"))
    assert row.startswith("| crash, long | 1 later | ") and " → " in row
    assert "later by 3m" in comment


def test_a_calm_span_counts_false_firings(tmp_path: Path, spans: Path) -> None:
    """The calm time falls by 3%, which is 4.5% of the equity: 4% fires there, 7% does not."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one("7%")})
    desk.write({"a.yaml": one("4%")})
    comment, _ = desk.comment(spans=spans)
    assert "| calm-hour, long | 0 | 1 |" in comment


def test_a_replay_gives_no_verdict_and_overrules_none(tmp_path: Path, spans: Path) -> None:
    """A loosening beyond every crash of the library is a loosening, although nothing fires otherwise."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one("60%")})
    desk.write({"a.yaml": one("70%")})
    answer, _ = desk.answer(spans=spans)
    assert answer["verdict"] == "LOOSENING"
    assert not any(each["firings"] for each in answer["spans"])


def test_a_book_that_a_span_cannot_hold_is_named_with_the_reason(tmp_path: Path, spans: Path) -> None:
    """It is no result without a firing."""
    book = tmp_path / "book.yaml"
    book.write_text(
        "name: mine\naccounts:\n- {account: main, market: swap, currency: USDT, equity: 1000, positions: "
        "[{symbol: DOGE_USDT, side: long, notional: 1000, leverage: 5}]}\n",
        encoding="utf-8",
    )
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    desk.write({"a.yaml": one("9%")})
    comment, _ = desk.comment("--book", book, spans=spans)
    assert "crash was not replayed" in comment and "has no DOGE" in comment.replace("\\", "")


def test_the_accounts_of_the_base_have_a_book_each(tmp_path: Path, spans: Path) -> None:
    """Three Account documents: the generated book has these three, and no venue is opened."""
    files = {f"{name}.yaml": account(name) for name in ("alpha", "beta", "gamma")}
    desk = PolicyDesk(tmp_path, {"a.yaml": one(), **files})
    desk.write({"a.yaml": one("9%")})
    answer, _ = desk.answer(spans=spans)
    crash = next(each for each in answer["spans"] if each["span"] == "crash")
    assert float(crash["base"]["start_equity"]) == 300_000
    assert {each["scope"] for each in crash["firings"]} == {"account/alpha", "account/beta", "account/gamma"}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"b.yaml": account().replace("execution: live", "execution: observe")}, "LOOSENING"),
        ({"b.yaml": account().replace("currency: USDT", "currency: USDC")}, "UNDECIDED"),
        ({"b.yaml": account() + "---\n" + account("second")}, "UNDECIDED"),
        ({"r.yaml": ROUTE}, "UNDECIDED"),
    ],
)
def test_what_the_proof_does_not_compare_is_never_equivalent(
    tmp_path: Path, spans: Path, change: dict[str, str], word: str
) -> None:
    """A2: accounts that are no longer armed, have another currency or are new, and routes."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one(), "b.yaml": account()})
    desk.write(change)
    answer, _ = desk.answer(spans=spans)
    assert answer["verdict"] == word


def test_the_values_of_accounts_and_routes_are_not_shown(tmp_path: Path, spans: Path) -> None:
    """They may name what is not for every reader of the comment; keys are shown, without values."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one(), "b.yaml": account(), "r.yaml": ROUTE})
    desk.write({"b.yaml": account().replace("SECRET_OF", "OTHER_OF"), "r.yaml": ROUTE.replace("T0P", "T1P")})
    texts = [desk.impact("-o", form, spans=spans).output for form in ("markdown", "json", "html", "text")]
    assert all("credentials" in text for text in texts)
    assert not any("SECRET" in text or "OTHER_OF" in text for text in texts)


def test_a_base_that_does_not_compile_is_compared_in_part_and_is_undecided(tmp_path: Path, spans: Path) -> None:
    """A1: the policy with the mistake is undecided with its place; the other one is compared, its loosening shown."""
    broken = one(name="other").replace("at_least: 7%", "at_least: seven")
    desk = PolicyDesk(tmp_path, {"a.yaml": one(), "b.yaml": broken})
    desk.write({"a.yaml": one("9%"), "b.yaml": one(name="other")})
    answer, status = desk.answer("--detailed-exitcode", spans=spans)
    by_name = {each["policy"]: each["verdict"] for each in answer["classification"]["policies"]}
    assert (answer["verdict"], by_name, status) == ("UNDECIDED", {"test": "LOOSENING", "other": "UNDECIDED"}, 2)
    assert any("policies/b.yaml:9" in each for each in answer["classification"]["unfinished"])
    assert any(each["code"] == "KS8501" for each in answer["missing"])


def test_a_proof_that_takes_too_long_is_undecided_with_its_place(tmp_path: Path, spans: Path) -> None:
    """A1: with no time at all, the first policy is where it ended; nothing is proved."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    desk.write({"a.yaml": one("5%")})
    answer, status = desk.answer("--timeout", "1ms", "--detailed-exitcode", spans=spans)
    assert (answer["verdict"], status) == ("UNDECIDED", 2)
    assert any("ended the proof at test" in each for each in answer["classification"]["unfinished"])


def test_a_folder_of_the_head_does_not_pass_for_a_branch_of_its_name(
    tmp_path: Path, spans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change adds a folder `main` that holds what the change has, so that it would compare with itself."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    desk.write({"a.yaml": one("9%")})
    (desk.folder / "main").mkdir()
    (desk.folder / "main" / "a.yaml").write_text(one("9%"), encoding="utf-8")
    monkeypatch.chdir(desk.folder)
    assert desk.answer(spans=spans)[0]["verdict"] == "LOOSENING"
    assert desk.answer(spans=spans, against="./main")[0]["conclusion"] == "nothing changed"


def test_a_head_at_a_revision_is_read_without_checking_it_out(tmp_path: Path, spans: Path) -> None:
    """The files on disk are those of the base's job; the change is data."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    desk.git("checkout", "-q", "-b", "change")
    desk.write({"a.yaml": one("9%")})
    commit = desk.commit("loosen")
    desk.git("checkout", "-q", "main")
    answer, _ = desk.answer("--head", "change", spans=spans)
    assert (answer["verdict"], answer["head"]["commit"]) == ("LOOSENING", commit)
    assert answer["base"]["commit"] == desk.git("rev-parse", "main")


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, spans: Path) -> None:
    """Comment, JSON, page and drawings, in two runs."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one(), "b.yaml": account()})
    desk.write({"a.yaml": one("9%")})
    for run in ("first", "second"):
        folder = tmp_path / run
        folder.mkdir()
        desk.impact(
            "--comment", folder / "c.md", "--html", folder / "p.html", "--json", folder / "a.json", "--charts",
            folder / "charts", spans=spans,
        )  # fmt: skip
    first, second = (
        {file.relative_to(tmp_path / run): file.read_bytes() for file in (tmp_path / run).rglob("*") if file.is_file()}
        for run in ("first", "second")
    )
    assert first == second
    assert {file.suffix for file in first} == {".md", ".html", ".json", ".svg"}
    assert b"<svg" in next(text for file, text in first.items() if file.suffix == ".html")


def test_a_recording_is_compared_by_decisions_only(tmp_path: Path, spans: Path) -> None:
    """A fall of 8%, which 7% answers and 9% does not."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    desk.write({"a.yaml": one("9%")})
    recording = recorded(tmp_path / "run.jsonl", ["1000", "1000", "920", "920"])
    comment, _ = desk.comment("--recording", recording, spans=spans)
    part = comment[comment.index("### Recording run.jsonl") :]
    assert "1 firing over 4 snapshots, 1 differ" in part and "| no more | test/s1 |" in part


def recorded(path: Path, equities: list[str], begins: int = 0) -> Path:
    """A recording of one account with a position, a minute a line, from 11:50 on."""
    lines = []
    for number, equity in enumerate(equities):
        at = f"2026-03-02T11:{50 + begins + number:02}:00Z"
        position: dict[str, Any] = {
            "symbol": "BTC/USDT:USDT", "side": "long", "contracts": "1", "entry_price": "1000", "mark_price": equity,
            "notional": equity, "unrealized_pnl": str(int(equity) - 1000),
        }  # fmt: skip
        found = {
            "account": "main", "venue": "paper", "market": "swap", "currency": "USDT", "observed_at": at,
            "quality": "ok", "equity": equity, "positions": [position], "orders": [], "fills": [],
        }  # fmt: skip
        lines.append(json.dumps({"format": "killswitch.snapshot/v1", "as_of": at, "accounts": [found]}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_what_would_fire_on_arrival_is_shown_for_a_present_snapshot(tmp_path: Path, spans: Path) -> None:
    """A8: a book that has lost 5%: the base waits for 7%, the head would close it at its first tick."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    desk.write({"a.yaml": one("4%")})
    live = recorded(tmp_path / "run.jsonl", ["1000", "1000", "950"], begins=7)
    comment, status = desk.comment("--live", live, spans=spans)
    assert status == 0
    assert "would fire on arrival: test/s1 of account/main, closes 100% of the gross with 1 order" in comment
    assert "On arrival 1 stage would fire that the base does not." in comment.splitlines()[0]
    assert "Snapshot: 2026-03-02T11:59:00Z, 1m old" in comment
    assert "BTC/USDT" not in comment, "positions are not shown to everybody who reads the pull request"


@pytest.mark.parametrize(
    ("lines", "begins", "reason"),
    [(["1000", "950"], 0, "it does not answer"), ([], 0, "has none"), (["1000"], 9, "")],
)
def test_a_runner_that_does_not_answer_is_said_and_is_not_green(
    tmp_path: Path, spans: Path, lines: list[str], begins: int, reason: str
) -> None:
    """A snapshot of nine minutes ago, and a recording without a snapshot, could not tell; one of a minute ago can."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    desk.write({"a.yaml": one("5%")})
    live = recorded(tmp_path / "run.jsonl", lines, begins)
    comment, status = desk.comment("--live", live, spans=spans)
    assert status == (4 if reason else 0)
    if reason:
        assert comment.startswith("**Could not tell: ") and reason in comment
        assert "What is proved of the change: TIGHTENING." in comment


def test_a_missing_recording_of_the_runner_is_not_green(tmp_path: Path, spans: Path) -> None:
    """The file is not there: no runner has made a snapshot."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    desk.write({"a.yaml": one("5%")})
    comment, status = desk.comment("--live", tmp_path / "none.jsonl", spans=spans)
    assert status == 4 and "no snapshot of a runner" in comment


def test_the_marker_has_repository_environment_and_set(tmp_path: Path, spans: Path) -> None:
    """Two jobs keep two comments; no part can end the marker."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    names = ("--repository", "desk/policies", "--environment", "prod --> <b>", "--set", "eu")
    comment, _ = desk.comment(*names, spans=spans)
    assert comment.splitlines()[-1] == (
        "<!-- killswitch-impact repository=desk/policies environment=prod%20%2D%2D%3E%20%3Cb%3E set=eu -->"
    )


def test_two_processes_give_the_same_bytes_as_one(tmp_path: Path, spans: Path) -> None:
    """The order of the spans does not depend on which process ends first."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    desk.write({"a.yaml": one("9%")})
    assert desk.answer("--jobs", "2", spans=spans) == desk.answer("--jobs", "1", spans=spans)


def test_a_file_that_is_too_large_is_could_not_tell(tmp_path: Path, spans: Path) -> None:
    """In the head by its diagnostic, in the base by its size, which is known before it is read."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    desk.write({"b.yaml": "#" * (2 << 20)})
    comment, status = desk.comment(spans=spans)
    assert status == 4 and "KS1003" in comment
    desk.commit("large")
    (desk.policies / "b.yaml").unlink()
    comment, status = desk.comment(spans=spans)
    assert status == 4 and "larger than 1 MiB" in comment


def test_a_shallow_clone_without_the_base_is_could_not_tell(tmp_path: Path, spans: Path) -> None:
    """A job that fetched one commit knows no other."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    base = desk.git("rev-parse", "HEAD")
    desk.write({"a.yaml": one("9%")})
    desk.commit("loosen")
    desk.git("clone", "-q", "--depth", "1", f"file://{desk.folder}", str(tmp_path / "shallow"))
    desk.policies = tmp_path / "shallow" / "policies"
    comment, status = desk.comment(spans=spans, against=base)
    assert status == 4 and "Could not tell: cannot read the revision" in comment


def test_a_broken_test_of_the_base_is_named(tmp_path: Path, spans: Path) -> None:
    """The change takes the invariant away that it breaks; the base still demands it (A2)."""
    invariant = (
        "apiVersion: killswitch.dev/v1\nkind: Invariant\nmetadata: {name: answers-7}\nspec:\n  policies: [test]\n"
        "  holds: '!(equity.drawdown(\"1h\") >= 0.07) || stage.level >= 1'\n"
    )
    desk = PolicyDesk(tmp_path, {"a.yaml": one(), "i.yaml": invariant})
    desk.write({"a.yaml": one("9%")})
    (desk.policies / "i.yaml").unlink()
    comment, _ = desk.comment(spans=spans)
    assert "no longer loaded | Invariant answers-7" in comment
    assert "the invariant answers-7 of the base is broken" in comment


def test_a_stage_that_is_in_force_already_does_not_fire_on_arrival(tmp_path: Path, spans: Path) -> None:
    """A8, R10: with the store of the runner, it has closed the book; another threshold closes nothing again."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    base = side_on_disk([desk.policies], None).policies
    assert base is not None
    live = recorded(tmp_path / "run.jsonl", ["1000", "1000", "900"], begins=7)
    store_at = str(tmp_path / "ks.sqlite")
    with closing(open_store(store_at)) as store:
        ticks = Interpreter(base)
        decisions = [each for snapshot in read(live) for each in ticks.tick(snapshot).decisions]
        assert [each.stage for each in decisions] == ["s1"]
        at = decisions[0].as_of
        store.commit_tick(TickRecord(at, base.digest, ticks.states(), (), tuple(decisions), (), (), None, (), 0, ()))
    desk.write({"a.yaml": one("5%")})
    alone, _ = desk.comment("--live", live, spans=spans)
    stored, status = desk.comment("--live", live, "--store", store_at, spans=spans)
    assert status == 0
    assert "states: the runner's store" in stored
    assert "nothing fires on arrival that the base does not fire" in stored
    assert "s1" in stored[stored.index("### On arrival") :]
    assert "states: 2 earlier snapshots of the recording" in alone


@pytest.mark.parametrize("width", [1280, 420])
def test_the_page_fits_a_desktop_and_a_phone(tmp_path: Path, spans: Path, width: int) -> None:
    """Measured in Chromium: nothing is wider than the window, and the drawing for it is the one that is shown."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one()})
    desk.write({"a.yaml": one("9%")})
    page = tmp_path / "impact.html"
    desk.impact("--html", page, spans=spans)
    (tmp_path / "shown").mkdir()
    measured = measured_in_browser(page.read_text(encoding="utf-8"), tmp_path / "shown", width)
    assert measured["page"] <= width
    hidden = measured["narrow" if width > 1000 else "wide"]
    assert hidden == "none"


def test_thirty_loosenings_are_all_named_and_the_first_have_a_witness(tmp_path: Path, spans: Path) -> None:
    """A person reads no more than twenty scenarios; each change without one says so."""
    desk = PolicyDesk(tmp_path, {f"{n}.yaml": one(name=f"policy-{n:02}") for n in range(30)})
    desk.write({f"{n}.yaml": one("9%", name=f"policy-{n:02}") for n in range(30)})
    answer, _ = desk.answer(spans=spans)
    changes = answer["classification"]["changes"]
    assert [each["policy"] for each in changes] == [f"policy-{n:02}" for n in range(30)]
    assert {each["verdict"] for each in changes} == {"LOOSENING"}
    assert [bool(each["scenario"]) for each in changes] == [True] * 20 + [False] * 10
    assert all("only the first 20" in each["why_none"] for each in changes[20:])


def shadow_file(path: Path, digest: str) -> Path:
    """The report of a set with this digest, which fired once in two days while the deployed one never did."""
    record = ShadowRecord(
        id="abc", reason="candidate", origin=PolicyOrigin(source="desk"), digest=digest, begun_at=after(), store_at="",
    )  # fmt: skip
    report = ShadowReport(
        record=record, until=after(seconds=172_800), seconds=172_800.0, ticks=172_800, missed=0, gaps=(), unread=None,
        counts=(StageCount("test", "account/main", "level-1", 1, 0),), firings=(), unseen=(),
        differences=(Difference(after(seconds=5), "test", "account/main", "level-1", "only the shadow set fires it"),),
    )  # fmt: skip
    path.write_bytes(encode_record({"reports": [report]}))
    return path


def test_what_the_head_did_in_shadow_is_in_the_comment(tmp_path: Path, spans: Path) -> None:
    """A report of another set says nothing of this one, and that is said; a file that is no report is an error."""
    desk = PolicyDesk(tmp_path, {"a.yaml": one("7%")})
    desk.write({"a.yaml": one("5%")})
    head = side_on_disk([desk.policies], None).policies
    assert head is not None
    comment, status = desk.comment("--shadow", shadow_file(tmp_path / "shadow.json", head.digest), spans=spans)
    assert status == 0
    assert "### In shadow" in comment
    assert "level-1 of test on account/main would have fired once in 2d; the deployed set never" in comment
    assert "only the shadow set fires it" in comment

    other, status = desk.comment("--shadow", shadow_file(tmp_path / "other.json", "sha256:0"), spans=spans)
    assert status == 0
    assert "### In shadow" not in other and "KS8507" in other

    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    broken = desk.impact("--shadow", tmp_path / "broken.json", spans=spans)
    assert broken.exit_code == 1
    assert "is not the JSON of `ksctl shadow report`" in broken.output
