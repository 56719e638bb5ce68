"""Two hosts on one machine: network namespaces with a cable between them, and a Ray node in each."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

CABLE = "cable"
"""The network interface of either host."""


@dataclass(frozen=True)
class Host:
    """namespace: the host's name for `ip netns`."""

    namespace: str
    address: str

    def command(self, *command: str) -> list[str]:
        """The command that runs ``command`` on this host; the process keeps its id."""
        return ["ip", "netns", "exec", self.namespace, *command]


@dataclass(frozen=True)
class Cluster:
    """environment: with the cluster's address and token, for commands on either host."""

    head: Host
    worker: Host
    environment: dict[str, str]


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Skips the test where namespaces cannot be made. At the end, all processes on the hosts are killed."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the command ip (Debian: apt-get install iproute2)")
    names = [f"multiverse-{os.getpid()}-{side}" for side in ("head", "worker")]
    first, second = hosts = (Host(names[0], "10.0.0.1"), Host(names[1], "10.0.0.2"))
    with ExitStack() as undo:
        for host in hosts:
            made = subprocess.run(["ip", "netns", "add", host.namespace], capture_output=True, text=True)
            if made.returncode != 0:
                pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
            undo.callback(_ip, "netns", "delete", host.namespace)
            undo.callback(_kill, host)
        peer = ["peer", "name", CABLE, "netns", second.namespace]
        _ip("link", "add", CABLE, "netns", first.namespace, "type", "veth", *peer)
        for host, other in ((first, second), (second, first)):
            _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", CABLE)
            for link in ("lo", CABLE):
                _ip("-n", host.namespace, "link", "set", link, "up")
            # Ray and vLLM find their own address by asking how the internet would be reached.
            _ip("-n", host.namespace, "route", "add", "default", "via", other.address)
        yield hosts


@contextmanager
def ray_on(hosts: tuple[Host, Host], cpus: int = 1) -> Iterator[Cluster]:
    """A Ray node on each of two hosts, the first one the head. Its control plane asks for a token."""
    head, worker = hosts
    address = f"{head.address}:6379"
    environment = os.environ | {
        "RAY_ADDRESS": address,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    as_head = ["--head", "--port=6379", "--include-dashboard=false"]
    with ExitStack() as undo:
        for host, options in ((head, as_head), (worker, [f"--address={address}"])):
            undo.enter_context(_ray_node(host, [*options, f"--num-cpus={cpus}"], environment))
        yield Cluster(head, worker, environment)


@contextmanager
def _ray_node(host: Host, options: Sequence[str], environment: dict[str, str]) -> Iterator[None]:
    # Not pytest's folder: the paths of Ray's sockets may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    log = folder / "log"
    fixed = [f"--node-ip-address={host.address}", f"--temp-dir={folder}", "--object-store-memory=200000000", "--block"]
    command = [str(Path(sys.executable).with_name("ray")), "start", *fixed, *options]
    with log.open("wb") as output:
        node = subprocess.Popen(
            host.command(*command), env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 60
        while "Ray runtime started" not in log.read_text(errors="replace"):
            assert node.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            time.sleep(0.2)
        yield
    finally:
        # Asked to stop, it would wait for the engines; nobody needs what they do any more.
        _kill(host)
        node.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def _kill(host: Host) -> None:
    """End whatever still runs on the host."""
    while pids := _ip("netns", "pids", host.namespace).split():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.2)
