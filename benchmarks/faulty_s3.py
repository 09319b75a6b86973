"""A real S3 server (moto) on this machine, behind a proxy that counts requests and spoils answers.

    with faulty_s3() as s3:
        fsspec.config.conf["s3"] = {"endpoint_url": s3.url}
        s3.plan = random_faults(seed=1, rate=0.3)

The proxy speaks HTTP/1.1 over TCP, so what a client sees of a cut or a silent connection is what it
would see of a real one.
"""

from __future__ import annotations

import enum
import http.client
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

_KEPT_BY_PROXY = frozenset({"connection", "transfer-encoding", "content-length", "date", "server"})


class Fault(enum.Enum):
    """What may happen to a request."""

    ERROR_500 = "InternalError"
    SLOW_DOWN = "SlowDown"
    CONFLICT = "ConditionalRequestConflict"
    FORBIDDEN = "AccessDenied"
    NO_SUCH_UPLOAD = "NoSuchUpload"
    CUT_BEFORE = "cut before the request reaches the server"
    CUT_AFTER = "done by the server, and cut before the answer"
    CUT_BODY = "cut in the middle of the answer's body"
    STALL = "no answer"
    STALL_BODY = "no more of the answer after half of its body"
    DEAF = "nothing is taken of the request's body"


REFUSALS = {
    Fault.ERROR_500: 500,
    Fault.SLOW_DOWN: 503,
    Fault.CONFLICT: 409,
    Fault.FORBIDDEN: 403,
    Fault.NO_SUCH_UPLOAD: 404,
}
"""Fault -> the status it is answered with."""

PASSING = (
    Fault.ERROR_500,
    Fault.SLOW_DOWN,
    Fault.CONFLICT,
    Fault.CUT_BEFORE,
    Fault.CUT_AFTER,
    Fault.CUT_BODY,
)
"""Those that a client need not wait for."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the proxy saw it."""

    method: str
    path: str
    """With the query."""
    conditional: bool
    """Whether it may write only if there is nothing (If-None-Match)."""
    ranged: bool

    @property
    def operation(self) -> str:
        """The name that S3 has for it, such as GetObject."""
        where = urlsplit(self.path)
        query = parse_qs(where.query, keep_blank_values=True)
        if "/" not in where.path.strip("/"):
            listing = self.method == "GET" and "list-type" in query
            return "ListObjects" if listing else f"{self.method} bucket"
        if "uploads" in query:
            return "CreateMultipartUpload"
        if "uploadId" in query:
            return {
                "PUT": "UploadPart",
                "POST": "CompleteMultipartUpload",
                "DELETE": "AbortMultipartUpload",
            }[self.method]
        return self.method.capitalize() + "Object"


Plan = Callable[[Request], Fault | None]


class FaultyS3:
    """The proxy; `plan` may be set at any time."""

    def __init__(self, server: tuple[str, int], stall_s: float) -> None:
        self.plan: Plan | None = None
        self.message = "spoilt"
        """What refusals say."""
        self.seen: list[tuple[Request, Fault | None]] = []
        self._upstream = server
        self._stall_s = stall_s
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Answer nothing any more."""
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    def counts(self, since: int = 0) -> Counter[str]:
        """Operation -> requests after the first `since` of `seen`, spoilt ones too."""
        return Counter(request.operation for request, _ in self.seen[since:])

    def faults(self) -> Counter[Fault]:
        """What was done to requests."""
        return Counter(fault for _, fault in self.seen if fault is not None)

    def take(self, request: Request) -> Fault | None:
        """Note a request, and say what is to happen to it."""
        with self._lock:
            fault = self.plan(request) if self.plan else None
            self.seen.append((request, fault))
        return fault

    def stall(self) -> None:
        """Wait for longer than the client does."""
        self._closing.wait(self._stall_s)

    def forward(
        self, request: Request, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """The server's answer."""
        # The server looks and then writes; S3 does both in one step.
        with self._writing if request.method in ("PUT", "POST") else nullcontext():
            connection = http.client.HTTPConnection(*self._upstream, timeout=60)
            try:
                connection.request(request.method, request.path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                connection.close()


@contextmanager
def faulty_s3(stall_s: float = 30.0) -> Iterator[FaultyS3]:
    """A fresh server and its proxy; a stalled answer is silent for `stall_s`."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    proxy = FaultyS3(server.get_host_and_port(), stall_s)
    try:
        yield proxy
    finally:
        proxy.close()
        server.stop()


def random_faults(seed: int, rate: float, kinds: tuple[Fault, ...] = PASSING) -> Plan:
    """Spoils a share `rate` of all requests, each in one of `kinds`."""
    draw = random.Random(seed)

    def plan(request: Request) -> Fault | None:
        fault = draw.choice(kinds) if draw.random() < rate else None
        only_then = fault is Fault.CONFLICT and not request.conditional
        return Fault.SLOW_DOWN if only_then else fault

    return plan


def spoil(operation: str, *faults: Fault) -> Plan:
    """Spoils the first requests of an operation, one with each fault."""
    left = list(faults)

    def plan(request: Request) -> Fault | None:
        return left.pop(0) if left and request.operation == operation else None

    return plan


class _Handler(BaseHTTPRequestHandler):
    owner: FaultyS3
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        owner = self.owner
        request = Request(
            self.command,
            self.path,
            "If-None-Match" in self.headers,
            "Range" in self.headers,
        )
        fault = owner.take(request)
        if fault in (Fault.STALL, Fault.DEAF):
            owner.stall()
        if fault in (Fault.STALL, Fault.DEAF, Fault.CUT_BEFORE):
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault in REFUSALS:
            text = f"<Error><Code>{fault.value}</Code><Message>{owner.message}</Message></Error>"
            content = b"" if self.command == "HEAD" else text.encode()
            self._answer(REFUSALS[fault], [("Content-Type", "application/xml")], content)
            return
        status, headers, content = owner.forward(request, dict(self.headers.items()), body)
        if fault is Fault.CUT_AFTER or (fault and len(content) < 2):
            self.close_connection = True
        elif fault:
            self._answer(status, headers, content, sent=len(content) // 2)
            if fault is Fault.STALL_BODY:
                owner.stall()
            self.close_connection = True
        else:
            self._answer(status, headers, content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, sent: int | None = None
    ) -> None:
        self.send_response_only(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in _KEPT_BY_PROXY:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content[:sent])
        self.wfile.flush()

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # the client is gone
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
