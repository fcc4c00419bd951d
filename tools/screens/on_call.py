"""Pictures of docs/on-call.md, drawn while its own blocks run: `python -m tools.screens.on_call`, two minutes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tools.screens.capture import SHOWN_FOLDER, page_png
from tools.screens.live_board import SIZES, save_picture

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "on-call.md"
BOARD = "http://127.0.0.1:8702/board"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_END = "@@ended"


class Shell:
    """One shell in which the blocks of a page run, so that its variables and background processes last."""

    def __init__(self, folder: Path) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._process = subprocess.Popen(
            ["bash"], cwd=folder, env={**os.environ, "PATH": path, "COLUMNS": "120"}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, commands: str) -> str:
        """Run commands; return what they print. RuntimeError if the last of them fails."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the shell has no pipes")
        self._process.stdin.write(f"{commands}\nlast=$?; echo; echo {_END} $last\n")
        self._process.stdin.flush()
        printed: list[str] = []
        for line in self._process.stdout:
            if line.startswith(_END):
                if line.split()[1] != "0":
                    raise RuntimeError(f"{commands}\nprinted\n{''.join(printed)}")
                return "".join(printed)
            printed.append(line)
        raise RuntimeError(f"the shell has ended in\n{commands}")

    def close(self) -> None:
        """End what the page has started, and the shell."""
        if self._process.stdin is not None:
            self._process.stdin.write("kill $RUN $VENUE 2>/dev/null; wait; exit\n")
            self._process.stdin.close()
        self._process.wait(60)


@contextmanager
def _browser() -> Iterator[Any]:
    """Chromium; FileNotFoundError without it."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise FileNotFoundError("Chromium is not installed (on Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def draw(folder: Path, pictures: Path) -> None:
    """Run the blocks of the page in `folder`, and draw the board, the page of the link and the report."""
    shell = Shell(folder)
    try:
        with _browser() as browser:
            for block in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
                if "rm -rf" in block:
                    return
                if "ksctl approve" in block:
                    shell.run(block.partition("\n")[0])
                    _draw_approval(browser, folder, pictures / "board-approve.png")
                printed = shell.run(block)
                if block.startswith("LINK="):
                    _draw_board(browser, folder, "desktop", pictures / "on-call-board.png")
                    _draw_board(browser, folder, "phone", pictures / "on-call-phone.png")
                    _draw_link(browser, folder, shell.run('echo "$LINK"').strip(), pictures / "on-call-acknowledge.png")
                elif "ksctl report --store" in block:
                    (report,) = (folder / "my.sqlite.incidents").glob("*/report.html")
                    copy = folder / "shown.html"
                    copy.write_text(
                        report.read_text(encoding="utf-8").replace(str(folder), SHOWN_FOLDER), encoding="utf-8"
                    )
                    page_png(copy, pictures / "on-call-report.png", 1100, 900, folder)
                print(printed[:200], flush=True)
    finally:
        shell.close()


def _opened(browser: Any, folder: Path, size: str) -> Any:
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(BOARD)
    page.fill("#token", (folder / "my-token.txt").read_text(encoding="utf-8").split()[0])
    page.click("form button")
    page.wait_for_selector("#list > li")
    time.sleep(1.5)  # it has read one tick
    return page


def _draw_board(browser: Any, folder: Path, size: str, picture: Path) -> None:
    page = _opened(browser, folder, size)
    save_picture(page, picture, folder)
    page.close()


def _draw_approval(browser: Any, folder: Path, picture: Path) -> None:
    """The window of an approval, with the text that the key of this page signs."""
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(folder / "my-ben.key.pub")], capture_output=True, check=True, text=True
    )
    page = _opened(browser, folder, "desktop")
    page.click("#approvals button")
    page.fill("#fingerprint", shown.stdout.split()[1])
    page.click("#compose")
    page.locator("#signing", has_text="END").wait_for()
    save_picture(page, picture, folder)
    page.close()


def _draw_link(browser: Any, folder: Path, link: str, picture: Path) -> None:
    """What the link of a message opens on a phone."""
    width, _ = SIZES["phone"]
    page = browser.new_page(viewport={"width": width, "height": 420})
    page.goto(link)
    page.wait_for_selector("button")
    save_picture(page, picture, folder)
    page.close()


def main() -> None:
    """Draw these pictures alone."""
    with TemporaryDirectory() as scratch:
        for name in ("policies", "runbooks"):
            (Path(scratch) / name).symlink_to(REPOSITORY / name)
        draw(Path(scratch), REPOSITORY / "docs" / "assets" / "screens")


if __name__ == "__main__":
    main()
