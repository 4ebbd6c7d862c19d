"""Has a process write down what reading a checkpoint never needs.

Python imports a module of this name when it starts, if its folder is on the path; so do the processes that it starts.
One line for each: a file opened outside the folders that are allowed, a name imported that only a hostile file gives, a
name looked up by a pickle, a program started, a connection made. What C libraries open by themselves is not seen here:
`tests.trust.watching` sees that.
"""

from __future__ import annotations

import os
import sys
from typing import Any

# Where to write, the folders in which anything may be opened, and the modules that must not be imported.
LOG, FOLDERS, NAMES = "TRUST_AUDIT_LOG", "TRUST_AUDIT_FOLDERS", "TRUST_AUDIT_NAMES"
# What Python and the system's own libraries look at: folders, and single files of folders that hold private ones too.
SYSTEM = ("/usr/lib/", "/usr/lib64/", "/usr/share/zoneinfo/", "/sys/devices/system/", "/sys/fs/cgroup/")
BOOT = "/proc/sys/kernel/random/boot_id"
SYSTEM_FILES = (BOOT, "/proc/cpuinfo", "/proc/meminfo", "/dev/null", "/dev/urandom", "/dev/random")
STARTING = ("os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.forkpty", "os.startfile", "pty.spawn")
# The programs that are started: our own, which open HDF5 files, and one that h5py asks for the processor.
OURS = (["-P", "-m", "mmconvert.containers.mdl_child"], ["-P", "-m", "mmsimple.data.h5_child"])
PROCESSOR = ["uname", "-p"]


def _start() -> None:
    log = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    folders = tuple(filter(None, os.environ[FOLDERS].split(os.pathsep)))
    names = frozenset(os.environ[NAMES].split())

    def is_told(event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            return not isinstance(arguments[0], (int, type(None))) and not _is_below(arguments[0], folders)
        if event == "import":
            return str(arguments[0]).partition(".")[0] in names
        if event == "subprocess.Popen":
            program, words = arguments[0], list(arguments[1])
            return words != PROCESSOR and (program != sys.executable or words[1:4] not in OURS)
        return event in STARTING or event == "pickle.find_class" or event.startswith(("socket.connect", "socket.get"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if is_told(event, arguments):
            os.write(log, f"{event} {arguments[:2]!r}\n".encode(errors="replace"))

    sys.addaudithook(hook)


def _is_below(path: str | bytes | os.PathLike[str], folders: tuple[str, ...]) -> bool:
    place = os.path.realpath(os.fsdecode(path))
    # What is not there is not opened; it may also be a name in an open folder, which is not told here.
    if not os.path.exists(place):
        return True
    if place in SYSTEM_FILES or place.startswith((*SYSTEM, f"/proc/{os.getpid()}/")):
        return True
    return any(place == each or place.startswith(each + os.sep) for each in folders)


if LOG in os.environ:
    _start()
