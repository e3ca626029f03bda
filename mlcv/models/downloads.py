"""Whether weights can be downloaded, asked once: hubs try for most of a minute before they give up."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

_PATIENCE = 3.0
"""Seconds to wait for a connection."""


def hub_answers() -> bool:
    """Whether the hub (or the proxy that leads there) takes a connection; one try."""
    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(getproxies().get("https") or constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=_PATIENCE):
            return True
    except (OSError, UnicodeError):
        return False


@contextmanager
def one_try() -> Iterator[None]:
    """What is asked of the hub meanwhile comes from its cache if it cannot be reached, or fails at once."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = not hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
