"""``multiverse serve``: the Serve application on this machine's Ray, until Ctrl-C."""

import signal
import threading
from pathlib import Path

from multiverse.application import serving
from multiverse.config import AppConfig


def run(config: AppConfig, config_path: Path | None, host: str | None, port: int | None) -> None:
    """Serve until SIGINT or SIGTERM. Then the application is stopped, and Ray unless it ran before."""
    stopped = threading.Event()
    with serving(config, config_path, host, port) as url:
        handlers = {
            number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)
        }
        print(f"{config.name} is served at {url} (Ctrl-C stops it)", flush=True)
        stopped.wait()
        for number, handler in handlers.items():
            signal.signal(number, handler)
