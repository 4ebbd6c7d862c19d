"""What watches a command notices each thing that it is there to notice, and says nothing of what may be done."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from tests.trust.observing import Observed, observe
from tests.trust.watching import CAN_WATCH, watched

Observe = Callable[..., Observed]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "secret").write_text("secret")
    (folder / "payload.py").write_text("run = 1")
    with h5py.File(folder / "other.h5", "w") as file:
        file["w"] = [1, 2, 3]
    return folder


@pytest.fixture
def python(tmp_path: Path, foreign: Path) -> Observe:
    """`python(script)`: what a script is seen to do that stands in the folder of the foreign files."""
    for name in ("notes", "mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "file").write_text("mine")

    def run(script: str, **options: object) -> Observed:
        command = [sys.executable, "-c", f"import os, sys\n{script}"]
        allowed = [tmp_path / "mine"]
        return observe(command, tmp_path / "notes", allowed=allowed, foreign=foreign, **options)  # type: ignore[arg-type]

    return run


MISDEEDS = {
    "open('secret')": "open",
    "open(b'../foreign/secret')": "open",
    "os.open('secret', os.O_RDONLY)": "open",
    "open('/etc/passwd')": "open",
    "open('/proc/1/status')": "open",
    "from pathlib import Path; Path('secret').read_bytes()": "open",
    "sys.path.append('.'); import payload": "import",
    "import importlib; importlib.import_module('torch.nn')": "import",
    "import pickle; pickle.loads(b'cbuiltins\\nlen\\n.')": "pickle.find_class",
    "import pickle, io; pickle._Unpickler(io.BytesIO(b'cbuiltins\\nlen\\n.')).load()": "pickle.find_class",
    "os.system('true')": "os.system",
    "os.execv('/bin/true', ['true'])": "os.exec",
    "os.posix_spawn('/bin/true', ['true'], {})": "os.posix_spawn",
    "os._exit(0) if os.fork() == 0 else os.wait()": "os.fork",
    "import subprocess; subprocess.run(['true'])": "subprocess.Popen",
    "import subprocess; subprocess.run('true', shell=True)": "subprocess.Popen",
    "import subprocess; subprocess.run([sys.executable, '-c', 'pass'])": "subprocess.Popen",
    "import socket; socket.getaddrinfo('127.0.0.1', 9)": "socket.getaddrinfo",
    "import socket; socket.socket().connect_ex(('127.0.0.1', 9))": "socket.connect",
}


@pytest.mark.parametrize("script", MISDEEDS)
def test_a_misdeed_is_noticed(python: Observe, script: str) -> None:
    # An import is followed by the file that it opens.
    assert python(script).events[0].split()[0] == MISDEEDS[script]


def test_what_a_program_that_is_started_does_is_noticed_too(python: Observe) -> None:
    started = "import subprocess; subprocess.run([sys.executable, '-c', 'open(\"secret\")'])"
    assert {each.split()[0] for each in python(started).events} == {"subprocess.Popen", "open"}


def test_what_a_command_has_to_do_is_no_misdeed(python: Observe) -> None:
    script = """
import h5py, json, subprocess
open('../mine/file')
open('../mine/new', 'w')
subprocess.run([sys.executable, '-P', '-m', 'mmconvert.containers.mdl_child', '../mine/file'])
"""
    found = python(script)
    assert found.code == 0
    assert found.events == ()
    assert found.opened == frozenset()
    assert "refused" in found.stdout


@pytest.mark.skipif(not CAN_WATCH, reason="inotify is Linux's")
def test_a_library_that_opens_a_file_by_itself_is_noticed(python: Observe) -> None:
    found = python("import h5py; h5py.File('other.h5')")
    # HDF5 opens its files in C, which no hook in Python sees.
    assert found.events == ()
    assert found.opened == {"other.h5"}


@pytest.mark.skipif(not CAN_WATCH, reason="inotify is Linux's")
def test_a_file_that_is_looked_at_is_not_one_that_is_opened(foreign: Path) -> None:
    with watched(foreign) as opened:
        (foreign / "secret").stat()
        assert list(foreign.iterdir())
        assert opened() == set()
        (foreign / "secret").read_bytes()
        assert opened() == {"secret"}


def test_what_a_command_takes_is_its_own_and_that_of_its_children(python: Observe) -> None:
    """However large the process is that runs the tests."""
    held = bytearray(b"1") * (300 << 20)
    nothing = python("")
    assert nothing.peak < 60e6
    assert nothing.cpu < 1
    some = python("x = bytearray(b'1') * (100 << 20)")
    assert nothing.peak + 100e6 < some.peak < nothing.peak + 130e6
    other = "import subprocess; subprocess.run([sys.executable, '-c', '{}'])"
    assert python(other.format("x = bytearray(100 << 20); x[:] = x")).peak > nothing.peak + 80e6
    assert python(other.format("for _ in range(10**7): pass")).cpu > nothing.cpu + 0.1
    assert len(held) > 0


def test_a_command_that_hangs_is_ended(python: Observe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.trust.observing.WALL", 1)
    assert python("import time; time.sleep(600)").code == -9


def test_a_file_does_not_grow_beyond_its_limit(python: Observe) -> None:
    found = python("open('../mine/new', 'wb', buffering=0).write(bytes(2000)); os.stat('../mine/new')", file_size=1000)
    assert found.code == 0
    assert (
        "File too large"
        in python(
            "f = open('../mine/more', 'wb', buffering=0)\nfor _ in '12': f.write(bytes(600))\nf.write(b'1')",
            file_size=1000,
        ).stderr
    )


def test_the_launcher_gives_the_exit_code_of_what_it_ran(python: Observe) -> None:
    assert python("sys.exit(7)").code == 7
    assert python("os.kill(os.getpid(), 9)").code == -9


def test_the_hook_is_quiet_where_nobody_asked_for_it() -> None:
    hook = Path(__file__).parent / "audit" / "sitecustomize.py"
    done = subprocess.run([sys.executable, "-S", hook], capture_output=True, text=True, check=True)
    assert done.stderr == ""
