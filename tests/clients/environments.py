"""Virtual environments of client programs, each with the releases that its requirements file names."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HOME = ROOT / ".clients"
INSIDE = HERE / "inside"


@dataclass(frozen=True)
class Environment:
    """The Python of one client, which knows nothing of this repository."""

    name: str
    python: Path

    def run(self, script: str, *arguments: object) -> None:
        """Run one of the scripts in `inside/`, without any network.

        Raises `CalledProcessError` where it fails; what it had to say has been seen by then.
        """
        command = [str(self.python), str(INSIDE / script), *map(str, arguments)]
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        # One thread always adds in the same order, and what is compared bit for bit has been added up.
        env |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "PYTHONNOUSERSITE": "1"}
        subprocess.run(command, env=env, check=True, stdout=sys.stderr)


def own() -> Environment:
    """The environment of this process, with the transformers that mmconvert itself is tested with."""
    return Environment("this environment", Path(sys.executable))


def build(name: str) -> Environment:
    """The environment of `NAME.txt`, as it stands if it was built of the same file and by the same Python.

    Raises `CalledProcessError` where it cannot be built; what pip had to say has been seen by then.
    """
    home = HOME / name
    environment = Environment(name, home / "bin" / "python")
    stamp, wanted = home / ".installed", _digest(name)
    if not stamp.is_file() or stamp.read_text("utf-8") != wanted:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        pip = [str(environment.python), "-m", "pip"]
        subprocess.run([*pip, "install", "--quiet", "-r", str(HERE / f"{name}.txt")], check=True)
        stamp.write_text(wanted, "utf-8")
    return environment


def _digest(name: str) -> str:
    files = (HERE / f"{name}.txt", ROOT / "constraints" / "cpu.txt")
    return hashlib.sha256(b"\0".join([sys.version.encode(), *(file.read_bytes() for file in files)])).hexdigest()
