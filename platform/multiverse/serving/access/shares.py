"""Limits of the whole server, kept by several routers that do not ask each other."""


def share(limit: int, routers: int) -> int:
    """One router's part of ``limit``, rounded up: together they allow at most ``routers`` - 1 more."""
    return -(-limit // routers)
