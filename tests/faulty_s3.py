"""An S3 server in a process of its own (moto), that answers wrongly where it is told to.

    python -m tests.faulty_s3           prints its port, and serves until it is killed

`FaultyS3` starts it and talks to it. A fault hits the first requests that fit it, as often as it
says, and is then over; all requests are counted.
"""

import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CONTROL = "/_faults"

_ANSWERS = {
    "503": ("503 Slow Down", "SlowDown"),
    "404": ("404 Not Found", "NoSuchKey"),
    "403": ("403 Forbidden", "AccessDenied"),
    "expired": ("400 Bad Request", "ExpiredToken"),
    "501": ("501 Not Implemented", "NotImplemented"),
}


@dataclass
class Fault:
    """What happens to requests."""

    kind: str
    """503, 404, 403, expired, 501: the answer; cut: half a body; lost: done, but not answered;
    slow: answered late; unconditional: If-None-Match is passed over."""
    key: str
    """A regular expression that is looked for in the path and query."""
    method: str = "GET"
    times: int = 1
    seconds: float = 0.0
    """How late."""


class FaultyS3:
    """The server, seen from a test."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faulty_s3"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[1],
            text=True,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    @contextmanager
    def faults(self, *faults: Fault) -> Iterator[None]:
        self._ask({"faults": [asdict(fault) for fault in faults]})
        try:
            yield
        finally:
            self._ask({"faults": []})

    def requests(self, key: str, method: str = "GET") -> int:
        """How many requests there were since the faults were last set."""
        lines = self._ask({})["requests"]
        return sum(line.startswith(f"{method} ") and bool(re.search(key, line)) for line in lines)

    def _ask(self, question: dict[str, Any]) -> Any:
        data = json.dumps(question).encode()
        with urllib.request.urlopen(f"{self.url}{CONTROL}", data) as reply:  # noqa: S310
            return json.load(reply)


class _Faulty:
    """A WSGI application around another."""

    def __init__(self, inner: Callable[..., Iterable[bytes]]) -> None:
        self._inner = inner
        self._faults: list[Fault] = []
        self._requests: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == CONTROL:
            return self._control(environ, start)
        fault = self._meet(environ)
        if fault is None:
            return self._inner(environ, start)
        if fault.kind in _ANSWERS:
            return _refuse(environ, start, *_ANSWERS[fault.kind])
        if fault.kind == "unconditional":
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if fault.kind == "slow":
            time.sleep(fault.seconds)
        if fault.kind in ("cut", "lost"):
            return self._break_off(environ, start, fault.kind)
        return self._inner(environ, start)

    def _control(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        question = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        with self._lock:
            if "faults" in question:
                self._faults = [Fault(**fault) for fault in question["faults"]]
                self._requests = [] if self._faults else self._requests
            answer = json.dumps({"requests": self._requests}).encode()
        start("200 OK", [("Content-Length", str(len(answer)))])
        return [answer]

    def _meet(self, environ: dict[str, Any]) -> Fault | None:
        method = environ["REQUEST_METHOD"]
        key = f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        with self._lock:
            self._requests.append(f"{method} {key}")
            for fault in self._faults:
                if fault.times and fault.method == method and re.search(fault.key, key):
                    fault.times -= 1
                    return fault
        return None

    def _break_off(
        self, environ: dict[str, Any], start: Callable[..., Any], kind: str
    ) -> Iterable[bytes]:
        body = b"".join(self._inner(environ, start if kind == "cut" else lambda *_: None))
        if kind == "cut":
            yield body[: len(body) // 2]
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        yield b""


def _refuse(
    environ: dict[str, Any], start: Callable[..., Any], status: str, code: str
) -> Iterable[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
    start(status, [("Content-Length", str(len(body))), ("Content-Type", "application/xml")])
    return [body]


def main() -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = _Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
