"""Pictures of the live board through a crash on the paper venue: `python -m tools.screens.live_board`, two minutes."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

from PIL import Image

from tools.screens.capture import MAX_BYTES, SHOWN_FOLDER

if TYPE_CHECKING:
    from tools.screens.__main__ import Scenes

PORT = "8710"
GENERAL = """([folder, shown]) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(folder, shown);
  for (const each of document.querySelectorAll("input, textarea")) each.value = each.value.replaceAll(folder, shown);
}"""
"""Replaces a folder in every text of a page."""
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}


def draw(scenes: Scenes, folder: Path, pictures: Path) -> None:
    """Draw the board quiet, with a stage that fired, with a preview, and lost. `folder` has the policies `my-desk`.

    FileNotFoundError without Chromium.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise FileNotFoundError("Chromium is not installed (on Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    scenes.run("ksctl serve token --tokens board.json --principal ann --role risk --scope portfolio > board.token")
    token = (folder / "board.token").read_text(encoding="utf-8").split()[0]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        pages = {}
        with scenes.running("ksctl paper --crash 7 --skip 175 --speed 60 --port 8701"):
            scenes.wait_for("cat background.log", "http")
            with scenes.running("ksctl run --policies my-desk --store board.sqlite --live"):
                scenes.wait_for("ksctl status --store board.sqlite", "account")
                serving = f"ksctl serve --store board.sqlite --tokens board.json --listen 127.0.0.1:{PORT}"
                with scenes.running(serving):
                    _wait_for_server()
                    for name, (width, height) in SIZES.items():
                        pages[name] = _opened(browser, token, width, height)
                    save_picture(pages["desktop"], pictures / "board-quiet.png", folder)
                    pages["desktop"].wait_for_selector(".hero.alarm", timeout=240_000)
                    time.sleep(2)
                    for name, page in pages.items():
                        save_picture(page, pictures / f"board-fired-{name}.png", folder)
                    _preview(pages["desktop"], pictures / "board-preview.png", folder)
            # The run has ended, and the server has not.
        with scenes.running(f"ksctl serve --store board.sqlite --tokens board.json --listen 127.0.0.1:{PORT}"):
            _wait_for_server()
            page = _opened(browser, token, *SIZES["desktop"])
            page.wait_for_selector("html.lost", timeout=30_000)
            save_picture(page, pictures / "board-lost.png", folder)
        browser.close()


def _wait_for_server() -> None:
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(PORT)), 1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


def _opened(browser: Any, token: str, width: int, height: int) -> Any:
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(f"http://127.0.0.1:{PORT}/board")
    page.fill("#token", token)
    page.click("form button")
    page.wait_for_selector("#list > li")
    time.sleep(1.5)
    return page


def _preview(page: Any, picture: Path, folder: Path) -> None:
    page.click("#list h3 button")
    page.select_option("#kind", "close")
    page.fill("#reason", "price feed lost")
    page.click("#preview")
    page.wait_for_selector("#sure:not([hidden])", timeout=30_000)
    save_picture(page, picture, folder)


def save_picture(page: Any, picture: Path, folder: Path) -> None:
    """Draw what a page of the browser shows now, with another name of `folder`.

    ValueError if a folder of this machine is left on it, or if the picture is too large for a clone.
    """
    page.evaluate(GENERAL, [str(folder), SHOWN_FOLDER])
    if gettempdir() in page.inner_text("body"):
        raise ValueError(f"{picture.name} would show a folder of this machine")
    page.screenshot(path=picture)
    with Image.open(picture) as taken:
        few = taken.convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(picture, optimize=True)
    print(f"written: {picture.name} ({picture.stat().st_size:,} bytes)", flush=True)
    if picture.stat().st_size > MAX_BYTES:
        raise ValueError(f"{picture} is larger than {MAX_BYTES:,} bytes")


def main() -> None:
    """Draw these pictures alone."""
    from tools.screens.__main__ import DESK, FOLDER, MISTAKE, Scenes, corrected

    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "my-desk").mkdir()
        (folder / "my-desk" / "account.yaml").write_text(DESK, encoding="utf-8")
        (folder / "my-desk" / "policy.yaml").write_text(corrected(MISTAKE), encoding="utf-8")
        draw(Scenes(folder), folder, FOLDER)


if __name__ == "__main__":
    main()
