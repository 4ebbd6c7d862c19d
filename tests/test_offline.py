"""Nothing here, nor what it starts, reaches another machine."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.conftest import OFFLINE
from tests.offline.sitecustomize import NetworkUsed


def test_the_tests_have_no_network() -> None:
    with pytest.raises(NetworkUsed):
        socket.getaddrinfo("localhost", 80)
    with socket.socket() as unconnected, pytest.raises(NetworkUsed):
        unconnected.connect(("127.0.0.1", 9))


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no such sockets")
def test_processes_of_one_machine_may_talk() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"here")
        assert right.recv(4) == b"here"


def test_nor_have_the_processes_that_they_start() -> None:
    script = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=OFFLINE, timeout=60)
    assert done.returncode == 1
    assert "NetworkUsed" in done.stderr.splitlines()[-1]
