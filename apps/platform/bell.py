"""A worker elsewhere tells the driver that a task has begun, and on which host. A datagram: one that is lost is not missed.

Not here: who listens, and what for (workflows/driver/overdue.py).
"""

from __future__ import annotations

import os
import platform
import socket
from contextlib import suppress

BELL = "MERIT_BELL"  # ADDRESS,…/PORT/TOKEN, in the environment of workers; absent: nobody listens


def ring(key: str, fresh: bool = False) -> None:
    """The task of this key has begun here; `fresh`: in a process that has nothing loaded yet."""
    if not (told := os.environ.get(BELL)):
        return
    addresses, port, token = told.split("/")
    news = f"{token} {key} {platform.node()} {fresh:d}".encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        for address in addresses.split(","):
            with suppress(OSError):  # the driver has several, and not all are reached from everywhere
                line.sendto(news, (address, int(port)))
