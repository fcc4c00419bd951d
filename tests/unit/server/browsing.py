"""A real browser on the board: Debian's Chromium under Playwright, and axe for accessibility."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.unit.server.conftest import Served

WANTED = Path(__file__).with_name("axe.json")
MODULES = Path(sys.prefix) / "axe"
INSTALL_LIMIT = 300
PHONE, DESKTOP = (390, 844), (1440, 900)


def axe_script() -> Path:
    """The script of axe-core, installed with npm next to the other tools of tests; skips without npm."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm, which installs axe-core")
    MODULES.mkdir(exist_ok=True)
    with (MODULES / "installing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel test processes wait for the one that installs
        written = MODULES / "package.json"
        if not written.exists() or written.read_text() != WANTED.read_text():
            shutil.copy(WANTED, written)
            try:
                subprocess.run(
                    ["npm", "install", "--silent", "--no-audit", "--no-fund"],
                    cwd=MODULES, check=True, timeout=INSTALL_LIMIT,
                )  # fmt: skip
            except (subprocess.SubprocessError, OSError) as error:
                written.unlink()
                pytest.skip(f"axe-core cannot be installed: {error}")
    return MODULES / "node_modules" / "axe-core" / "axe.min.js"


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser; skips without Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium (on Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class BoardPage:
    """A page of the board in a context of its own, and what went wrong on it."""

    def __init__(
        self, browser: Browser, served: Served, size: tuple[int, int] = DESKTOP, scheme: Any = "light",
        script: Path | None = None,
    ) -> None:  # fmt: skip
        width, height = size
        self._served = served
        self._context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        )
        if script is not None:
            self._context.add_init_script(path=script)
        self.page: Page = self._context.new_page()
        self.problems: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda line: self.problems.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def log_in(self, who: str = "risk portfolio") -> Page:
        """Type a token into the form, and wait for the board."""
        self.page.goto(f"http://{self._served.host}/board")
        self.page.fill("#token", self._served.tokens[who])
        self.page.click("form button")
        self.page.wait_for_selector("#list", state="attached")
        self.page.wait_for_load_state("load")  # the script of the page is deferred, and runs before that
        # What the browser logs for the form itself, which is answered with 401.
        self.problems = [each for each in self.problems if "401" not in each]
        return self.page

    def violations(self) -> list[str]:
        """What axe finds on the page as it is."""
        found = self.page.evaluate("async () => (await axe.run()).violations")
        return [f"{each['id']}: {each['help']}: {[node['html'][:150] for node in each['nodes'][:3]]}" for each in found]

    def close(self) -> None:
        self._context.close()
