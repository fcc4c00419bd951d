"""Approvals over HTTP and on the board: what waits, what a key signs, and the way of its statement to the runner."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from playwright.sync_api import Browser, expect

from killswitch.model.applied_set import Approval
from killswitch.model.instant import DAY, HOUR, to_micros
from killswitch.planning.recovery.recoveries import approval_subject
from killswitch.planning.scopes.trigger_status import ResetApprovals
from killswitch.runner.clock import SystemClock
from killswitch.runner.sources.step_approvals import StepApprovals
from killswitch.source.candidate import ArrivalFiring, Review
from killswitch.source.statement_signatures import VerifiedStatement, verify_statement
from killswitch.source.statements import DELIVERED, Statement, read_approval
from killswitch.source.sync_state import Head
from killswitch.store.command_spool import MOST
from killswitch.store.sqlite import open_store
from tests.unit.server.boards import AT, machine, put_source, put_view, run_view, way_back
from tests.unit.server.browsing import DESKTOP, PHONE, BoardPage, axe_script, chromium
from tests.unit.server.conftest import Served
from tests.unit.source.approval_keys import Signer, openpgp_signer, ssh_signer, trust_of
from tests.unit.source.test_step_approvals import trust_file

ANN = ssh_signer("ann@example.com")
BASE, RESULT = "sha256:" + "a" * 64, "sha256:" + "b" * 64
LOOSENING = Review(policy_digest="sha256:x", verdict="LOOSENING", why=("LOOSENING: floor: softer",), approvals_needed=2)
WAITING = Head(folder_digest=RESULT, base=BASE, commit="c" * 40, review=LOOSENING)
SINCE = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
STEP = approval_subject("drawdown", "account/main", 0, SINCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def waiting(served: Served, store_path: Path) -> Served:
    """A run with a source, whose way back on account/main waits for an approval."""
    put_source(store_path)
    put_view(store_path, run_view(datetime.now(UTC), interval=3600.0, recoveries=(way_back(since=SINCE),)))
    return served


def listed(served: Served, who: str = "viewer portfolio", key: str | None = None) -> list[dict[str, Any]]:
    answer = served.ask("GET", "/v1/approvals", who, params={} if key is None else {"fingerprint": key})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["approvals"])


def printed(command: str, key: Signer) -> str:
    """What the shown command prints where the key of a person is."""
    there = command.replace("~/.ssh/id_ed25519", str(key.private))
    environment = {"PATH": "/usr/bin:/bin", "GNUPGHOME": str(key.private)}
    return subprocess.run(["bash", "-c", there], capture_output=True, text=True, check=True, env=environment).stdout


def signed(statement: Statement, key: Signer) -> str:
    """The text of the file of an approval."""
    return key.approval(statement).decode()


@pytest.mark.parametrize("key", [ANN, openpgp_signer("ann@example.com")], ids=["ssh", "openpgp"])
def test_the_command_that_is_shown_signs_what_the_runner_counts(waiting: Served, store_path: Path, key: Signer) -> None:
    """By the tools that everybody has, without the store and without this program; the runner knows who has signed."""
    (found,) = listed(waiting, key=key.fingerprint)
    statement = found["text"] + printed(found["command"], key)
    shown = waiting.ask("POST", "/v1/approvals/preview", "viewer portfolio", json={"statement": statement})
    assert shown.status_code == 200, shown.text
    assert shown.json()["confirm"] == "account/main"
    assert "it is the last one" in shown.json()["summary"][0]
    carried = waiting.ask("POST", "/v1/approvals", "viewer portfolio", json={"statement": statement})
    assert carried.status_code == 202
    (spooled,) = [json.loads(each.read_bytes()) for each in waiting.spool.folder.glob("*.json")]
    content = spooled["instead"]["text"].encode()
    now = to_micros(datetime.now(UTC))
    verified = verify_statement(read_approval(content), trust_of([key]), now)
    assert isinstance(verified, VerifiedStatement)
    assert (verified.principal, verified.statement.subject) == ("ann@example.com", STEP)
    if key.kind == "ssh":
        store = open_store(str(store_path))
        steps = StepApprovals("desk", store, SystemClock())
        steps.pass_on({verified.id: content}, lambda: trust_file(key))
        (event,) = store.pending_events()
        store.close()
        assert (event.kind, event.author, event.approves) == ("approve", "ann@example.com", STEP)


def test_a_change_shows_its_class_its_approvers_and_the_digest_that_is_typed(served: Served, store_path: Path) -> None:
    given = Approval(id="1" * 64, principal="bob@example.com", key="SHA256:b", expires_at=SINCE)
    review = replace(LOOSENING, approvals=(given,), not_counted=("cyd has signed a commit of this change",))
    put_source(store_path, replace(WAITING, review=review))
    (found,) = listed(served, key=ANN.fingerprint)
    assert (found["purpose"], found["missing"], found["given"]) == ("change", 1, ["bob@example.com"])
    assert found["confirm"] == "b" * 12
    assert found["not_counted"] == ["cyd has signed a commit of this change"]
    text = "\n".join(found["lines"])
    assert "LOOSENING: floor: softer" in text
    assert "takes effect 4h after it is approved" in text
    fields = dict(line.split(": ", 1) for line in found["text"].splitlines()[1:])
    assert (fields["base"], fields["result"], fields["class"]) == (BASE, RESULT, "LOOSENING")
    assert (fields["ref"], fields["path"], fields["key"]) == ("refs/heads/main", "policies", ANN.fingerprint)


def test_what_fires_on_arrival_is_an_approval_of_its_own(served: Served, store_path: Path) -> None:
    firing = ArrivalFiring("floor", "account/main", "stop", "would close: sell 1 BTC on main")
    put_source(store_path, replace(WAITING, review=replace(LOOSENING, arrival=(firing,))))
    found = listed(served, key=ANN.fingerprint)
    assert [each["purpose"] for each in found] == ["change", "arrival"]
    assert "would close: sell 1 BTC on main" in found[1]["lines"][0]
    assert "subject: floor/account/main/stop\n" in found[1]["text"]


@pytest.mark.parametrize("who", ["viewer account/main", "admin portfolio"])
def test_what_fires_on_arrival_shows_no_book_that_the_token_may_not_see(
    served: Served, store_path: Path, who: str
) -> None:
    """Neither in the list nor in the preview of a statement: an order says what an account holds."""
    firing = ArrivalFiring("floor", "account/other", "stop", "would close: sell 1 BTC on other")
    reload = ("account/other: stop of floor, level 2, stays in force",)
    put_source(store_path, replace(WAITING, review=replace(LOOSENING, arrival=(firing,), preview=reload)))
    (change, arrival) = listed(served, who, key=ANN.fingerprint)
    assert "stop of floor on account/other, what it does to books that the token may not see" in arrival["lines"][0]
    body = {"statement": arrival["text"] + printed(arrival["command"], ANN)}
    shown = served.ask("POST", "/v1/approvals/preview", who, json=body).text
    assert all("sell 1 BTC" not in text for text in (str(change), str(arrival), shown))
    assert "stays in force" not in str(change)
    assert "stays in force" in str(listed(served)[0])


def test_nothing_waits_where_a_change_tightens_or_nobody_could_approve(served: Served, store_path: Path) -> None:
    put_source(store_path, replace(WAITING, review=replace(LOOSENING, verdict="TIGHTENING")))
    assert listed(served) == []
    put_source(store_path, replace(WAITING, is_protected=False))
    assert listed(served) == []


def test_without_a_source_the_reason_is_shown_and_nothing_can_be_signed(served: Served, store_path: Path) -> None:
    """Nobody's key counts then. A state of an earlier version has no place, which is not guessed."""
    put_view(store_path, run_view(datetime.now(UTC), recoveries=(way_back(),)))
    (found,) = listed(served, key=ANN.fingerprint)
    assert found["text"] is None
    assert "ksctl run --source" in found["problem"]
    put_source(store_path, WAITING, is_placed=False)
    assert [each["text"] for each in listed(served, key=ANN.fingerprint)] == [None, None]


def test_a_token_sees_the_steps_of_its_scopes_only(served: Served, store_path: Path) -> None:
    put_source(store_path)
    put_view(store_path, run_view(datetime.now(UTC), recoveries=(way_back(), way_back("account/other"))))
    assert [each["scope"] for each in listed(served)] == ["account/main", "account/other"]
    assert [each["scope"] for each in listed(served, "viewer account/main")] == ["account/main"]


def test_a_reset_that_needs_other_people_waits_for_them_in_its_scope(served: Served, store_path: Path) -> None:
    """Two are needed and ann has approved: one is missing, and what is signed names the firing alone."""
    needs = ResetApprovals(2, ("ann@example.com",))
    more: dict[str, Any] = {"level": 2, "stage": "stop", "decision": "d" * 20, "fired_at": AT, "reset_approvals": needs}
    put_source(store_path)
    put_view(store_path, run_view(datetime.now(UTC), machines=(machine(**more), machine("account/other", **more))))
    (found,) = listed(served, "viewer account/main", key=ANN.fingerprint)
    assert (found["purpose"], found["missing"], found["given"]) == ("reset", 1, ["ann@example.com"])
    assert "accepts the loss" in found["lines"][0]
    assert f"subject: reset/drawdown/account/main/firing/{'d' * 20}\n" in found["text"]


def test_nothing_is_carried_where_no_run_verifies_it(served: Served) -> None:
    """A store without a source: 409 with the way out, and nothing is left for a runner."""
    body = {"statement": signed(now_given(), ANN)}
    answer = served.ask("POST", "/v1/approvals", "viewer portfolio", json=body)
    assert answer.status_code == 409
    assert "ksctl run --source" in answer.json()["detail"]
    assert not served.spool.is_waiting


def test_statements_that_nobody_takes_leave_room_for_what_tightens(waiting: Served) -> None:
    """Anybody with a token may carry one, signed by whomever, while the runner is gone: half of the places at most."""
    path = "/v1/approvals"
    answer = waiting.ask("POST", path, "viewer portfolio", json={"statement": signed(now_given(), ANN)})
    assert answer.status_code == 202
    (first,) = waiting.spool.folder.glob("*.json")
    for number in range(MOST // 2 - 1):
        first.with_name(f"{first.name.removesuffix('.json')}{number}.json").touch()
    other = {"statement": signed(now_given(expires=now_given().given + DAY), ANN)}
    assert waiting.ask("POST", path, "viewer portfolio", json=other).status_code == 503
    lock = waiting.give("trader account/main", "lock-beside-them", kind="lock", scope="account/main", reason="seen")
    assert lock.status_code == 202


def test_statements_that_are_kept_for_ever_never_become_a_load_of_the_ticks(waiting: Served, store_path: Path) -> None:
    """Beyond 4 MiB of them one is refused with the way out; one that the runner has is the same approval as before."""
    first, second = (now_given(expires=now_given().given + days * DAY) for days in (1, 2))
    known = {"statement": signed(first, ANN)}
    store = open_store(str(store_path))
    store.put_live(f"{DELIVERED}{read_approval(known['statement'].encode()).id}", known["statement"].encode())
    for number in range(4):
        store.put_live(f"{DELIVERED}{number:064d}", b"x" * (1 << 20))
    store.close()
    refused = waiting.ask("POST", "/v1/approvals", "viewer portfolio", json={"statement": signed(second, ANN)})
    assert (refused.status_code, waiting.spool.is_waiting) == (409, False)
    assert "ksctl approve" in refused.json()["detail"]
    assert waiting.ask("POST", "/v1/approvals", "viewer portfolio", json=known).status_code == 202


@pytest.mark.parametrize("key", ["", "SHA256:short", "x' OR 1", "SHA256:" + "a" * 43 + "\nEND", "0" * 39])
def test_what_is_no_fingerprint_is_refused(waiting: Served, key: str) -> None:
    """So that no command is shown which a shell would read otherwise."""
    assert waiting.ask("GET", "/v1/approvals", "viewer portfolio", params={"fingerprint": key}).status_code == 422


def now_given(**more: Any) -> Statement:
    now = to_micros(datetime.now(UTC))
    fields: dict[str, Any] = {
        "purpose": "recovery", "source": "desk", "key": ANN.fingerprint, "given": now - HOUR, "expires": now + DAY,
        "ref": "refs/heads/main", "path": "policies", "subject": STEP, **more,
    }  # fmt: skip
    return Statement(**fields)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"subject": STEP.replace("step/1", "step/2")}, "it is of an earlier state"),
        ({"source": "other"}, "it is of an earlier state"),
        ({"purpose": "anchor", "subject": "c" * 40}, "its purpose"),
        ({"expires": 1_700_000_000_000_000}, "sign it again"),
    ],
)
def test_a_statement_that_approves_nothing_that_waits_is_refused_with_the_reason(
    waiting: Served, more: dict[str, Any], why: str
) -> None:
    body = {"statement": signed(now_given(**more), ANN)}
    answer = waiting.ask("POST", "/v1/approvals/preview", "viewer portfolio", json=body)
    assert answer.status_code == 409
    assert why in answer.json()["detail"]


def test_an_approval_is_given_on_the_board_and_only_after_its_scope_was_typed(
    browser: Browser, waiting: Served, store_path: Path
) -> None:
    """With the keyboard alone. The signature is made elsewhere; the page says once the runner has counted it."""
    shown = BoardPage(browser, waiting)
    page = shown.log_in("viewer portfolio")
    page.focus("#approvals button")
    page.keyboard.press("Enter")
    expect(page.locator("#approves")).to_contain_text("step 1 of 1 of the way back of drawdown on account/main")
    page.fill("#fingerprint", ANN.fingerprint)
    page.press("#fingerprint", "Enter")
    expect(page.locator("#signing")).to_contain_text(f"subject: {STEP}")
    page.fill("#signed", printed(page.inner_text("#signing"), ANN))
    page.focus("#approval-preview")
    page.keyboard.press("Enter")
    expect(page.locator("#carried")).to_contain_text("it is the last one")
    page.fill("#approval-typed", "account/mai")
    page.press("#approval-typed", "Enter")
    expect(page.locator("#carry")).to_be_disabled()
    assert not waiting.spool.is_waiting
    page.fill("#approval-typed", "account/main")
    page.press("#approval-typed", "Enter")
    expect(page.locator("#carried")).to_contain_text("on its way to the runner")
    (spooled,) = [json.loads(each.read_bytes()) for each in waiting.spool.folder.glob("*.json")]
    assert read_approval(spooled["instead"]["text"].encode()).statement.subject == STEP
    put_view(store_path, run_view(datetime.now(UTC), interval=3600.0))
    expect(page.locator("#carried")).to_contain_text("The runner has counted it")
    expect(page.locator("#approvals button")).to_have_count(0)
    assert shown.problems == []
    shown.close()


def test_the_board_refuses_a_signature_of_another_text(browser: Browser, waiting: Served) -> None:
    """An approval of an earlier step, as a file: what is wrong is said, and nothing can be sent."""
    shown = BoardPage(browser, waiting)
    page = shown.log_in()
    page.click("#approvals button")
    page.fill("#signed", signed(now_given(subject=STEP.replace("step/1", "step/9")), ANN))
    page.click("#approval-preview")
    expect(page.locator("#carried .wrong")).to_contain_text("nothing waits for this statement")
    expect(page.locator("#carry")).not_to_be_visible()
    shown.close()


def test_nothing_is_carried_from_another_page(waiting: Served) -> None:
    """A request with the cookie of a session and without its proof, as another site could make one."""
    headers = {"Content-Type": "application/json"}
    login = waiting.ask("POST", "/board/login", json={"token": waiting.tokens["viewer portfolio"]}, headers=headers)
    cookie = {"Cookie": login.headers["Set-Cookie"].split(";")[0]}
    body = {"statement": signed(now_given(), ANN)}
    for path in ("/v1/approvals", "/v1/approvals/preview"):
        assert waiting.ask("POST", path, json=body, headers=cookie).status_code == 403
    assert not waiting.spool.is_waiting


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "light"), (DESKTOP, "dark")])
def test_everybody_can_approve_whatever_they_use(
    browser: Browser, waiting: Served, size: tuple[int, int], scheme: str
) -> None:
    """axe finds nothing with the window open and a command in it, and nothing is wider than the screen."""
    shown = BoardPage(browser, waiting, size, scheme, axe_script())
    page = shown.log_in()
    page.click("#approvals button")
    page.fill("#fingerprint", ANN.fingerprint)
    page.click("#compose")
    expect(page.locator("#signing")).to_contain_text("ssh-keygen -Y sign")
    assert shown.violations() == []
    assert page.evaluate("document.querySelector('#approval').scrollWidth") <= size[0]
    shown.close()
