"""Free ports on 127.0.0.1, the same ones again where that is possible."""

from __future__ import annotations

import random
import socket
from collections.abc import Container

HOST = "127.0.0.1"

# Below the range that systems hand out to outgoing connections, so that a remembered port is free again next time.
_RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set it too: a connection in TIME_WAIT does not keep them from listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def accepts(port: int) -> bool:
    """Whether something accepts connections on `port`."""
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def choose(remembered: int | None, avoid: Container[int]) -> int:
    """The remembered port if it is free, else another free one that is not in `avoid`."""
    if remembered is not None and remembered not in avoid and is_free(remembered):
        return remembered
    # At random: copies that start at the same moment do not race for one port.
    candidates = random.sample(_RANGE, 200)
    for port in candidates:
        if port not in avoid and is_free(port):
            return port
    with socket.socket() as probe:  # a crowded machine: whatever the system has left
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
