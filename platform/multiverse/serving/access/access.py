"""Who sent a request: the one place where keys are asked for."""

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass

from multiverse.serving.access.key_store import KeyStore
from multiverse.serving.access.keys import KeyLimits
from multiverse.serving.access.limits import Account
from multiverse.serving.access.refusals import Refused


@dataclass(frozen=True, slots=True)
class Caller:
    """``name``: of the key; None on a server without keys, where ``tenant`` is empty and the account has no limits."""

    name: str | None
    tenant: str
    account: Account


def anybody() -> Caller:
    """The caller of a server that asks nobody."""
    return Caller(None, "", Account("", KeyLimits()))


class Access:
    """Checks keys. Without a `KeyStore` it serves connections inside this machine only.

    open_metrics: ``/metrics`` needs no key. shared_prefix_cache: one prefix cache for all tenants; how fast an answer
    comes then tells a tenant whether another has sent the same beginning. routers: how many there are; each holds keys
    to its share of their limits.
    """

    def __init__(
        self,
        store: KeyStore | None,
        *,
        open_metrics: bool = False,
        shared_prefix_cache: bool = False,
        routers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.open_metrics = open_metrics
        self.shared_prefix_cache = shared_prefix_cache
        self._store = store
        self._routers = routers
        self._clock = clock
        self._anybody = anybody()
        self._accounts: dict[str, Account] = {}

    @property
    def keyed(self) -> bool:
        return self._store is not None

    def caller(self, authorization: str | None, address: str | None) -> Caller:
        """Who sends this ``Authorization`` header to the server's own ``address``. Raises Refused."""
        if self._store is None:
            if address is None or not is_loopback(address):
                raise Refused(
                    "not_local",
                    "this server has no API keys, so it answers on the loopback address of its machine only; "
                    "configure access.keys_file to serve others",
                )
            return self._anybody
        scheme, _, presented = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not presented.strip():
            raise Refused("unauthorized", "an API key is needed: send the header 'Authorization: Bearer KEY'")
        # ASGI gives the header's bytes as Latin-1.
        key = self._store.find(presented.strip().encode("latin-1"))
        if key is None:
            raise Refused("unauthorized", "the API key is not known here")
        limits = key.limits.share(self._routers)
        account = self._accounts.setdefault(key.name, Account(key.name, limits, self._clock, self._routers))
        account.limits = limits
        return Caller(key.name, key.tenant, account)

    def cache_tenant(self, caller: Caller) -> str:
        """Whose prefix cache a request uses."""
        return "" if self.shared_prefix_cache else caller.tenant


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``: an address or ``localhost``. Other names are not looked up."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
