"""A venue with hostile responses: some redirect the request elsewhere, some decompress to gigabytes."""

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
    """A gigabyte of blanks as gzip: one self-contained block, repeated."""
    blanks, count = b" " * 2**20, 2**10
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(blanks) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(count):
        checksum = zlib.crc32(blanks, checksum)
    header = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    return header + block * count + packer.flush() + struct.pack("<LL", checksum, len(blanks) * count)


class Gateway:
    """A proxy before a paper venue.

    It answers the first request of each kind, and every `EVERY`th after it, with a redirect and does not forward it; it
    forwards the next one and answers it with a decompression bomb.
    """

    def __init__(self, venue: str) -> None:
        self._venue = urlsplit(venue).netloc
        self._requests: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.redirected: Counter[str] = Counter()
        self.bombed: Counter[str] = Counter()
        self.strayed: list[str] = []
        """Kinds of the requests that followed a redirect."""

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Serve; the gateway's address."""
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with suppress(OSError):
                    gateway.answer(self)

            do_POST = do_DELETE = do_GET  # noqa: N815 - the names that the base class calls

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
                number = self._requests[kind] % EVERY
                self._requests[kind] += 1
        if number == 0:
            self.redirected[kind] += 1
            _send(request, 307, b"", {"Location": f"/strayed{request.path}"})
            return
        status, headers, answer = self._forward(request, body)
        if number == 1:
            self.bombed[kind] += 1
            _send(request, status, _bomb(), {"Content-Encoding": "gzip", "Content-Type": "application/json"})
        else:
            _send(request, status, answer, headers)

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        venue = http.client.HTTPConnection(self._venue, timeout=10)
        try:
            forwarded = {name: value for name, value in request.headers.items() if name in ("Content-Type", "Host")}
            venue.request(request.command, request.path, body, forwarded)
            answer = venue.getresponse()
            returned = {name: value for name, value in answer.getheaders() if name in ("Content-Type", "Rules-Version")}
            return answer.status, returned, answer.read()
        finally:
            venue.close()


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


def test_a_crash_is_closed_although_some_responses_are_redirects_and_bombs(tmp_path: Path) -> None:
    """Responses to orders included; no redirect is followed, and no decompressed gigabyte is kept in memory."""
    with paper(*CRASHING) as address:
        gateway = Gateway(address)
        with gateway.listening() as endpoint:
            site = Site(tmp_path, endpoint)
            with site.running("--live") as runner:
                site.address = address  # the test reads the state of the venue itself
                until(lambda: site.decisions() and site.venue().positions == (), "the book is closed")
                peak = _peak_memory(runner.pid)
    assert peak < 700, f"the runner took {peak} MB"
    assert gateway.strayed == []
    orders = [kind for kind in gateway.redirected if kind.startswith("POST orders")]
    assert orders and all(gateway.bombed[kind] for kind in orders)


def _peak_memory(pid: int) -> int:
    """The peak resident memory of a process, in MB; 0 where the system does not report it."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:")), 0)
