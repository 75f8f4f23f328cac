"""Which addresses are this machine's own."""

from __future__ import annotations

from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def is_local(address: str) -> bool:
    """Whether a host:port is one that only this machine reaches."""
    return urlsplit(f"//{address}").hostname in LOOPBACK
