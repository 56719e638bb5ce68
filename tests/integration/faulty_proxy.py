"""An HTTP proxy in front of a service, which fails and delays requests as it is told."""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from urllib.parse import urlsplit

Fault = str
"""``none``; ``500`` and ``503``: answered so; ``reset``: the connection ends before the service hears of the request;
``lost``: ... after it has done it, before it is answered; ``slow``: after 0.5 s; ``hang``: never."""


class Proxy:
    """url: where it listens. fault: asked for every request, by method and path. hanging: set once a request hangs."""

    def __init__(self, url: str) -> None:
        self.url, self.fault, self.hanging = url, no_fault, threading.Event()
        self.counts: dict[Fault, int] = {}


def no_fault(method: str, path: str) -> Fault:
    return "none"


def always(fault: Fault) -> Callable[[str, str], Fault]:
    return lambda method, path: fault


def seeded(seed: int, share: float) -> Callable[[str, str], Fault]:
    """The given share of requests meets a fault, drawn from all but ``hang``."""
    random, lock = Random(seed), threading.Lock()

    def fault(method: str, path: str) -> Fault:
        with lock:
            return random.choice(["500", "503", "reset", "lost", "slow"]) if random.random() < share else "none"

    return fault


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[Proxy]:
    """A running proxy to the service at the address ``upstream``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    host, port = urlsplit(upstream).hostname, urlsplit(upstream).port
    proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
    server.proxy, server.connect = proxy, lambda: http.client.HTTPConnection(str(host), port, timeout=60)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def _pass_on(self) -> None:
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        fault = proxy.fault(self.command, self.path)
        proxy.counts[fault] = proxy.counts.get(fault, 0) + 1
        if fault == "reset":
            return self._reset()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault in ("500", "503"):
            return self._answer(int(fault), [], b"")
        if fault == "hang":
            proxy.hanging.set()
            threading.Event().wait()
        if fault == "slow":
            time.sleep(0.5)
        connection = self.server.connect()  # type: ignore[attr-defined]
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("expect", "connection")}
        connection.request(self.command, self.path, body=body, headers=headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if fault == "lost":
            return self._reset()
        self._answer(response.status, response.getheaders(), content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _reset(self) -> None:
        """End the connection as a service that died does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
