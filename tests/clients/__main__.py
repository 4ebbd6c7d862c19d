"""Whether real programs take what mmconvert writes, and it what they write: `make clients`.

Usage: python -m tests.clients [CLIENT...]. Builds an environment for each client, `.clients/CLIENT`, which takes
minutes and gigabytes the first time; then makes checkpoints for the occasion, and has the client read them and compute
with them. One line for each check and for the time of each part; ends with 1 where any check fails, or a client is not
to be had.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CalledProcessError
from tempfile import TemporaryDirectory

from tests.clients import cerebras, hugging_face, llava_hf, llava_hf_saved
from tests.clients.commands import Checks
from tests.clients.environments import Environment, build

Part = Callable[[Environment, Path], Checks]

CLIENTS: dict[str, tuple[Part, ...]] = {
    "transformers-4.37": (hugging_face.check, llava_hf.check, llava_hf_saved.check),
    "transformers-4.57": (hugging_face.check, llava_hf.check, llava_hf_saved.check),
    "cerebras-2.10": (cerebras.check,),
}


def main(names: list[str]) -> int:
    unknown = set(names) - CLIENTS.keys()
    if unknown:
        raise SystemExit(f"no such client: {', '.join(sorted(unknown))}; there are {', '.join(CLIENTS)}")
    failed = sum(try_client(name) for name in names or CLIENTS)
    print(f"{failed} failed" if failed else "all clients agree")
    return 1 if failed else 0


def try_client(name: str) -> int:
    """How many checks failed."""
    begun = time.perf_counter()
    try:
        environment = build(name)
    except CalledProcessError as error:
        say(name, "installation", f"cannot be installed, so that nothing of it is checked: {error}")
        return 1
    took(name, "installation", begun)
    return sum(try_part(environment, part) for part in CLIENTS[name])


def try_part(environment: Environment, part: Part) -> int:
    what, begun, failed = part.__module__.rpartition(".")[2], time.perf_counter(), 0
    with TemporaryDirectory(prefix="mmconvert-clients-") as folder:
        try:
            for check, problem in part(environment, Path(folder)):
                say(environment.name, f"{what}: {check}", problem)
                failed += bool(problem)
        except CalledProcessError as error:
            say(environment.name, what, f"stopped there, with more to check: {error}")
            failed += 1
    took(environment.name, what, begun)
    return failed


def say(client: str, check: str, problem: str) -> None:
    print(f"FAIL {client}: {check}: {problem}" if problem else f"pass {client}: {check}", flush=True)


def took(client: str, what: str, begun: float) -> None:
    print(f"     {client}: {what} took {time.perf_counter() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
