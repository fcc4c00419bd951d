"""The page of the link of a message in a real browser: one button, no script, and nothing by opening it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.unit.server.browsing import PHONE, axe_script, chromium
from tests.unit.server.conftest import Served
from tests.unit.server.test_acknowledge_page import page_of
from tests.unit.server.test_commands import taken


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def test_a_person_on_a_phone_acknowledges_with_the_one_button_and_nothing_happens_before(
    browser: Browser, served: Served, store_path: Path
) -> None:
    """Opened, reloaded and left, it changes nothing; the button sends what it showed, with the name that was typed."""
    address = page_of(served, store_path, "d1")
    width, height = PHONE
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    page.reload()
    assert page.locator("button, input[type=submit], a").count() == 1
    assert page.get_by_role("button", name="Acknowledge").is_visible()
    assert page.locator("li").inner_text().endswith("[page] d1")
    assert page.evaluate("document.scripts.length") == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert "?" not in page.url and "token" not in page.url
    assert taken(served, store_path) == []
    page.get_by_label("Your name").fill("Bob")
    page.get_by_role("button", name="Acknowledge").click()
    page.wait_for_load_state("load")
    assert page.get_by_role("heading", name="Acknowledged").is_visible()
    (event,) = taken(served, store_path)
    assert (event.kind, event.number, event.author) == ("acknowledge", 1, "Bob (by link)")
    assert problems == []
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_used_by_everybody(browser: Browser, served: Served, store_path: Path, scheme: str) -> None:
    """axe finds nothing, and the keyboard alone reaches name and button in their order."""
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)  # type: ignore[arg-type]  # one of the schemes
    page = context.new_page()
    page.goto(page_of(served, store_path, "d1"))
    page.add_script_tag(path=axe_script())
    found = page.evaluate("async () => (await axe.run()).violations")
    assert [each["id"] for each in found] == []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "name"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"
    context.close()
