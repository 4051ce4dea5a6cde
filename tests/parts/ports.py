"""A port for whoever has to know it before anybody listens there, or to listen there again."""

from __future__ import annotations

import random
import socket

_AT_HAND = range(15_000, 30_000)


def free_port() -> int:
    """Of this machine's loopback. Below those that systems give to whoever asks for any: nobody is given it by chance
    until it is used."""
    while True:
        try:
            with socket.create_server(("127.0.0.1", random.SystemRandom().choice(_AT_HAND))) as probe:
                port: int = probe.getsockname()[1]
        except OSError:  # somebody else's
            continue
        return port
