"""Runs one command under limits and says what it took: `python -IS launcher.py REPORT WALL FILE_SIZE COMMAND…`.

A process of its own, because the kernel counts as a command's peak memory that of whoever started it, and the tests
themselves are large. The report is JSON: how the command ended, the processor seconds and the peak resident bytes of it
and of all that it waited for.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from types import FrameType

# Far above what is allowed: so that what runs away hurts nobody, and is still seen to do so.
CPU_SECONDS = 60
ADDRESS_SPACE = 6 << 30
# Linux counts kilobytes here, macOS bytes.
UNIT = 1 if sys.platform == "darwin" else 1024


def main(report: str, wall: str, file_size: str, *command: str) -> None:
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        if int(file_size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_size), int(file_size)))
        os.execv(command[0], command)

    def stop(number: int, frame: FrameType | None) -> None:
        os.killpg(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(int(wall))
    _, status, usage = os.wait4(child, 0)
    signal.alarm(0)
    with open(report, "w") as file:
        code = os.waitstatus_to_exitcode(status)
        json.dump({"code": code, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss * UNIT}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
