"""No network: a process that tries to reach another machine ends there and then.

Python imports a module of this name when it starts, if its folder is on the path; so do the processes that it starts.
The tests import it too.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

ASKING = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
REACHING = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg")


class NetworkUsed(BaseException):
    """Nobody catches it, as libraries do that would go on without a network."""


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ASKING or (event in REACHING and arguments[0].family != getattr(socket, "AF_UNIX", None)):
        raise NetworkUsed(f"{event}{arguments[1:]}")


sys.addaudithook(_refuse)
