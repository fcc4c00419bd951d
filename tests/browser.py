"""A page measured in headless Chromium."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def measured_in_browser(shown: str, tmp_path: Path, width: int) -> dict[str, Any]:
    """The width that a page takes in a frame of `width`, how many of its tables are cut, and how its drawings are
    displayed; skips without Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    (tmp_path / "page.html").write_text(shown, encoding="utf-8")
    # A frame of the wanted width, because windows have a least width; the policy against scripts is the page's own.
    (tmp_path / "frame.html").write_text(
        f"<iframe id=f src=page.html style='width:{width}px;height:900px;border:0'></iframe><pre id=o></pre><script>"
        "f.onload = () => { const d = f.contentDocument; o.textContent = JSON.stringify({"
        "page: d.documentElement.scrollWidth,"
        "cut: [...d.querySelectorAll('.box')].filter(box => box.scrollWidth > box.clientWidth).length,"
        "wide: getComputedStyle(d.querySelector('.wide') || d.body).display,"
        "narrow: getComputedStyle(d.querySelector('.narrow') || d.body).display}) }</script>",
        encoding="utf-8",
    )
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=5000", "--window-size=1400,1000", "--dump-dom",
        (tmp_path / "frame.html").as_uri(),
    ]  # fmt: skip
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    measured = json.loads(dumped.split('<pre id="o">')[1].split("</pre>")[0])
    return dict(measured)
