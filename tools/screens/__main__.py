"""Writes every picture of `docs/screens.md` into docs/assets/screens/: `make screens`. It takes about three minutes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from markdown_it import MarkdownIt

from tools.screens import live_board, on_call
from tools.screens.capture import MAX_BYTES, SHOWN_FOLDER, excerpt, page_png, terminal_output, terminal_svg

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "docs" / "assets" / "screens"
PORT = "8701"
SHOWN_REPOSITORY = "/srv/killswitch"
"""Shown instead of the folder of this clone."""
PAGE_LINES = 32
"""Lines of the first message of the demo."""
FIRING = 253
"""Ticks of the demo up to the first firing, at 04:13."""
LONGEST_WINDOW = 62.0
"""Seconds after which the triggers of `MISTAKE` have whole windows."""
STORE = "demo-run/killswitch.sqlite"
DESK = """\
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, market: swap, currency: USDT, endpoint: 'http://127.0.0.1:8701', execution: live}
"""
MISTAKE = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: my-first}
spec:
  mode: enforce
  scope: {each: account, match: {account: main}}
  max_gap: 5m
  triggers:
    fall: {signal: equity.drawdwn, window: 10s, at_least: 3%, confirm: 2s, on_unknown: hold}
    rout: {signal: equity.drawdown, window: 1m, at_least: 7%, on_unknown: hold}
  stages:
    - name: halve-losers
      level: 1
      any: [fall]
      cooldown: 1m
      attribution: {source_at_least: 65%, if_mixed: both, if_unknown: both}
      actions:
        - lock_trading: {mode: reduce_only, for: 10m}
        - close: {side: losing, fraction: 50%}
    - name: close-everything
      level: 2
      any: [rout]
      cooldown: 6h
      reset: manual
      actions:
        - lock_trading: {mode: reduce_only}
        - cancel_orders: {kind: all}
        - close: {side: both, fraction: 100%}
"""
"""The policy of the tutorial, with its two mistakes."""


FORGE = """\
body { font: 14px/1.5 'Segoe UI', Helvetica, Arial, sans-serif; color: #1f2328; margin: 0; padding: 16px }
table { border-collapse: collapse; display: block; width: max-content; max-width: 100%; overflow: auto }
td, th { border: 1px solid #d1d9e0; padding: 6px 13px }
pre { background: #f6f8fa; padding: 16px; overflow: auto; font-size: 85% }
code { background: #818b981f; padding: .2em .4em; border-radius: 6px; font-size: 85% }
pre code { background: none; padding: 0 }
"""
"""Tables, code and text as the forges show them in comments."""
PHONE = "height:1500px;border:0"


class Scenes:
    """The commands that are shown, run in a folder like a clone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        hidden = {"COLUMNS", "LINES", "NO_COLOR"}
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        self._environment = {**kept, "PATH": path, "TERM": "xterm-256color"}

    def shown(self, name: str, columns: int, command: str, *cuts: tuple[str, str]) -> str:
        """Run a command on a terminal and draw it; return what it printed."""
        printed = terminal_output(["bash", "-c", command], self._folder, columns, self._environment)
        _write(FOLDER / f"{name}.svg", terminal_svg(excerpt(self._general(printed), *cuts), command, columns))
        return printed

    def run(self, commands: str) -> None:
        """Run commands of a page, one after the other."""
        subprocess.run(["bash", "-c", commands], cwd=self._folder, env=self._environment, check=False, timeout=120)

    @contextmanager
    def running(self, command: str) -> Iterator[None]:
        """Run a command in the background until the block ends."""
        with (self._folder / "background.log").open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command.split(), cwd=self._folder, env=self._environment, stdout=log, stderr=log
            )  # fmt: skip
            try:
                yield
            finally:
                process.terminate()
                process.wait(30)

    def wait_for(self, command: str, words: str) -> None:
        """Repeat a command until it prints `words`. TimeoutError after two minutes."""
        until = time.monotonic() + 120
        while words not in (printed := self._output(command)):
            if time.monotonic() > until:
                raise TimeoutError(f"{command} did not print {words!r} but {printed}")
            time.sleep(0.3)

    def _output(self, command: str) -> str:
        done = subprocess.run(
            command.split(), cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def page(self, name: str, page: Path, height: int = 1200, width: int = 1280) -> None:
        """Draw a page as a screen of this width shows it."""
        copy = page.with_stem(f"{page.stem}-shown")
        copy.write_text(self._general(page.read_text(encoding="utf-8")), encoding="utf-8")
        page_png(copy, FOLDER / f"{name}.png", width, height, self._folder)
        _check_size(FOLDER / f"{name}.png")

    def _general(self, text: str) -> str:
        """The text without the folders of this machine."""
        return text.replace(str(self._folder), SHOWN_FOLDER).replace(str(REPOSITORY), SHOWN_REPOSITORY)


def _write(picture: Path, drawn: str) -> None:
    picture.write_text(drawn, encoding="utf-8")
    _check_size(picture)


def _check_size(picture: Path) -> None:
    print(f"written: {picture.relative_to(REPOSITORY)} ({picture.stat().st_size:,} bytes)")
    if picture.stat().st_size > MAX_BYTES:
        raise ValueError(f"{picture} is larger than {MAX_BYTES:,} bytes")


def _demo(scenes: Scenes, folder: Path) -> None:
    scenes.shown(
        "demo", 100, "ksctl demo --pace 0",
        ("LINK_USDT: filled 900.41", "closing ended"), ("closing ended", "LEVEL 2 FIRES"),
        ("8 orders: gross 134", "Final equity"),
    )  # fmt: skip
    scenes.shown("notification", 100, f"head -n {PAGE_LINES} demo-run/messages.log")
    recorded = (folder / "demo-run/recording.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "until-0413.jsonl").write_text("".join(recorded[:FIRING]), encoding="utf-8")
    scenes.shown(
        "plan", 100, "ksctl plan --policies policies/futures-degross --snapshot until-0413.jsonl",
        (", cut-most", "WOULD FIRE"),
    )  # fmt: skip
    scenes.shown("explain", 120, f"ksctl explain 4cd09 --store {STORE}")
    scenes.shown(
        "report", 100, f"ksctl report --store {STORE}", ("Exposure and P&L of the whole", "Timeline"),
        ("Timeline", "Checklist"), ("Debrief held", ""),
    )  # fmt: skip
    (report,) = (folder / f"{STORE}.incidents").glob("*/report.html")
    scenes.page("report-page", report)
    scenes.page("backtest-page", folder / "demo-run/backtest.html", 2050)


def _impact(scenes: Scenes, folder: Path) -> None:
    """The comment of the change of docs/impact.md, as a forge renders it on a wide screen and on a phone."""
    page = (REPOSITORY / "docs" / "impact.md").read_text(encoding="utf-8")
    commands = re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    scenes.run("\n".join(commands[:3]))
    comment = (folder / "my-policies" / "comment.md").read_text(encoding="utf-8")
    rendered = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(comment)
    shown = folder / "comment.html"
    shown.write_text(f"<!doctype html><meta charset=utf-8><style>{FORGE}</style>{rendered}", encoding="utf-8")
    scenes.page("impact-comment", shown, 1150)
    # Windows have a least width: the phone is a frame in a window.
    phone = folder / "phone.html"
    phone.write_text(f"<body style=margin:0><iframe src={shown.name} style='width:420px;{PHONE}'>", encoding="utf-8")
    scenes.page("impact-comment-phone", phone, 1500, 500)


def _mistakes(scenes: Scenes, folder: Path) -> None:
    for name, text in (("account.yaml", DESK), ("policy.yaml", MISTAKE)):
        (folder / "my-desk").mkdir(exist_ok=True)
        (folder / "my-desk" / name).write_text(text, encoding="utf-8")
    scenes.shown("validate", 100, "ksctl validate my-desk")
    (folder / "my-desk" / "policy.yaml").write_text(corrected(MISTAKE), encoding="utf-8")


def corrected(policy: str) -> str:
    """The policy without its two mistakes."""
    return policy.replace("drawdwn", "drawdown").replace(
        "      cooldown: 1m", "      reset: manual\n      cooldown: 1m"
    )


def _crash(scenes: Scenes) -> None:
    """`status` of a quiet book, once history is as long as the longest window, and with a stage that has fired."""
    status = "ksctl status --store my.sqlite"
    with scenes.running(f"ksctl paper --crash 7 --skip 160 --speed 60 --port {PORT}"):
        scenes.wait_for("cat background.log", "http")
        with scenes.running("ksctl run --policies my-desk --store my.sqlite --live"):
            scenes.wait_for(status, "all quiet")
            time.sleep(LONGEST_WINDOW)
            scenes.shown("status-quiet", 100, status)
            scenes.wait_for(status, "1 stage latched")
            scenes.shown("status-trouble", 100, status)


def main() -> None:
    """Draw every picture."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("policies", "runbooks"):
            (folder / name).symlink_to(REPOSITORY / name)
        scenes = Scenes(folder)
        _demo(scenes, folder)
        _impact(scenes, folder)
        _mistakes(scenes, folder)
        _crash(scenes)
        live_board.draw(scenes, folder, FOLDER)
        (folder / "on-call").mkdir()
        on_call.draw(folder / "on-call", FOLDER)
        site = folder / "site"
        subprocess.run(
            [Path(sys.executable).parent / "mkdocs", "build", "--quiet", "--site-dir", site], cwd=REPOSITORY,
            env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=True,
        )  # fmt: skip
        scenes.page("site-home", site / "index.html")


if __name__ == "__main__":
    main()
