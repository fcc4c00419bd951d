"""A venue whose answers attack: some send the request on to somebody else, some unpack to gigabytes."""

from __future__ import annotations

import http.client
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.e2e.processes import Site, paper, until

EVERY = 10
CRASHING = ("--crash", "7", "--skip", "240", "--speed", "60", "--begin-after-readings", "3")


@cache
def _bomb() -> bytes:
    """A gigabyte of blanks as gzip: one block that stands for itself, over and over."""
    blanks, times = b" " * 2**20, 2**10
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(blanks) + packer.flush(zlib.Z_FULL_FLUSH)
    checked = 0
    for _ in range(times):
        checked = zlib.crc32(blanks, checked)
    header = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    return header + block * times + packer.flush() + struct.pack("<LL", checked, len(blanks) * times)


class Gateway:
    """Stands before a paper venue. Of each kind of request the first, and every so often one more, is answered with a
    redirect and never passed on; the one after it is passed on and answered with a bomb."""

    def __init__(self, behind: str) -> None:
        self._behind = urlsplit(behind).netloc
        self._counted: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.redirected: Counter[str] = Counter()
        self.bombed: Counter[str] = Counter()
        self.strayed: list[str] = []
        """What arrived where a redirect had sent it."""

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Its address."""
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with suppress(OSError):
                    gateway.answer(self)

            do_POST = do_DELETE = do_GET  # noqa: N815 - what the class above looks for

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        kind = f"{request.command} {urlsplit(request.path).path.rpartition('/')[2]}"
        if request.path.startswith("/strayed"):
            self.strayed.append(kind)
            request.path = request.path.removeprefix("/strayed")
            number = 3
        else:
            with self._lock:
                number = self._counted[kind] % EVERY
                self._counted[kind] += 1
        if number == 0:
            self.redirected[kind] += 1
            _send(request, 307, b"", {"Location": f"/strayed{request.path}"})
            return
        status, headers, answer = self._passed_on(request, body)
        if number == 1:
            self.bombed[kind] += 1
            _send(request, status, _bomb(), {"Content-Encoding": "gzip", "Content-Type": "application/json"})
        else:
            _send(request, status, answer, headers)

    def _passed_on(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        venue = http.client.HTTPConnection(self._behind, timeout=10)
        try:
            kept = {name: value for name, value in request.headers.items() if name in ("Content-Type", "Host")}
            venue.request(request.command, request.path, body, kept)
            answer = venue.getresponse()
            told = {name: value for name, value in answer.getheaders() if name in ("Content-Type", "Rules-Version")}
            return answer.status, told, answer.read()
        finally:
            venue.close()


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


def test_a_crash_is_closed_while_answers_are_redirects_and_bombs_now_and_then(tmp_path: Path) -> None:
    """Orders among them; nothing is sent to where they point, and a gigabyte that is announced is not kept."""
    with paper(*CRASHING) as address:
        gateway = Gateway(address)
        with gateway.listening() as before:
            site = Site(tmp_path, before)
            with site.running("--live") as runner:
                site.address = address  # the truth is asked of the venue itself
                until(lambda: site.decisions() and site.venue().positions == (), "the book is closed")
                took = _most_memory(runner.pid)
    assert took < 700, f"the runner took {took} MB"
    assert gateway.strayed == []
    orders = [kind for kind in gateway.redirected if kind.startswith("POST orders")]
    assert orders and all(gateway.bombed[kind] for kind in orders)


def _most_memory(pid: int) -> int:
    """The most that a process has had in memory until now, in MB; 0 where the system does not say."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:")), 0)
