"""Addresses of HTTP servers, as configurations give them."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from multiverse.serving.access.access import is_loopback

_ADDRESS = re.compile(r"https?://([\w.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?(/[^\s?#@]*)?", re.ASCII | re.IGNORECASE)


def _is_an_address(value: str) -> str:
    # A key in an address would be shown wherever the address is.
    if not _ADDRESS.fullmatch(value):
        raise ValueError("must be an http:// or https:// address without user, query and fragment")
    return value.rstrip("/")


Address = Annotated[str, AfterValidator(_is_an_address)]
"""http:// or https://, without user, query and fragment, and without a slash at its end."""


def on_this_machine(address: str) -> bool:
    """Whether an address is a loopback one."""
    return is_loopback(urlsplit(address).hostname or "")
