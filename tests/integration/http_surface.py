"""An ASGI application on a port of this machine, in a thread of its own."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from multiverse.application import free_port


@contextmanager
def surface(app: Any, host: str = "127.0.0.1", log_level: str = "warning", **options: Any) -> Iterator[int]:
    """The port. ``options`` are uvicorn's. The server has ended when the block is left, also by an error."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level=log_level, **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()
