"""A 70B LLaMA of more than a hundred shards, in files without content: planning and converting at full scale.

    python benchmarks/large.py [--model 70B|7B] [--folder DIR] [--limit 256] [--json FILE]

`mmconvert synth --sparse` makes the checkpoint: files of the full size, all of whose tensors are holes. A conversion
goes through every tensor and block of it, lays every target file out, digests every byte and reads all headers back;
but it neither reads holes nor writes them. So this measures what grows with a checkpoint besides copying: memory, open
files, and the time of all else. How fast bytes are copied, `convert.py` measures.

Every command runs with at most `--limit` open files. Beside the conversions stand what they cannot be faster than:
`cp -r`, which keeps holes too and does not look at them, and xxh3 over as many zeros as the tensors have, by two
processes like the conversion's two workers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, sleep

from convert import CONFIG, ENVIRONMENT, MMCONVERT, clear, machine

SHARD = "1GB"
# Seconds between two looks at a process.
PAUSE = 0.005
MODELS = {
    "7B": {"num_hidden_layers": 32},
    "70B": {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_attention_heads": 64,
        "num_hidden_layers": 80,
        "num_key_value_heads": 8,
    },
}
DIGEST = """
import sys, xxhash
block, digest = bytes(1 << 21), xxhash.xxh3_128()
for _ in range(int(sys.argv[1]) >> 21):
    digest.update(block)
"""


@dataclass(frozen=True)
class Row:
    """What was measured of one command: the most memory and open files that it had, and the files that it wrote.

    `length` is the sum of their lengths, `written` what they take on the disk; `files` is None where nobody can look.
    """

    name: str
    seconds: float
    memory: int
    files: int | None
    length: int = 0
    written: int = 0

    def line(self, digest: Row | None) -> str:
        """A line of the table; `digest` is the row of xxh3, once there is one, whose time is the unit of the others."""
        files = "" if self.files is None else str(self.files)
        wrote = (f"{self.length / 1e9:.1f} GB", f"{self.written / 1e6:.0f} MB") if self.length else ("", "")
        ratio = f"{self.seconds / digest.seconds:.1f}" if digest else ""
        cells = (self.name, f"{self.seconds:.1f} s", ratio, f"{self.memory / 1e6:.0f} MB", files, *wrote)
        return f"| {' | '.join(cells)} |"


HEAD = """\
| command | time | ratio to xxh3 | peak RSS | open files | its files | on the disk |
|---|--:|--:|--:|--:|--:|--:|"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Planning and converting a checkpoint of a hundred shards.")
    parser.add_argument("--model", choices=MODELS, default="70B", help="[default: 70B]")
    parser.add_argument("--folder", default="/var/tmp", help="on a file system with holes  [default: /var/tmp]")
    parser.add_argument("--limit", type=int, default=256, help="of open files, for each command  [default: 256]")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (given.limit, hard))
    print(f"{machine()}; at most {given.limit} open files.\n", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        print(HEAD, flush=True)
        for row in measure(Path(folder), given.model):
            rows.append(row)
            print(row.line(rows[1] if len(rows) > 1 else None), flush=True)
        shards = len(list(Path(folder, "hf").glob("*.safetensors")))
    print(f"\nThe source has {shards} shards of {SHARD} at most. cp and xxh3 are for comparison.")
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def measure(folder: Path, model: str) -> Iterator[Row]:
    """The checkpoint, the digest that the rest is measured by, and the commands."""
    config, source, out = folder / "config.json", folder / "hf", folder / "out"
    config.write_text(json.dumps({**CONFIG, **MODELS[model]}))
    shards = ("--max-shard-size", SHARD)
    made = (MMCONVERT, "synth", "llama", "--config", str(config), "--out", str(source), "--sparse", *shards)
    yield run("`synth --sparse`", (*made, "--no-fsync"), source)
    size = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    yield digest(size)
    yield run("`plan hf-to-cs`", (MMCONVERT, "plan", "hf-to-cs", "--src", str(source)))
    paths = ("--src", str(source), "--out", str(out), "--quiet", "--no-fsync")
    for container, options in (("safetensors", shards), ("mdl", ())):
        command = (MMCONVERT, "hf-to-cs", *paths, "--container", container, *options)
        yield run(f"`hf-to-cs --container {container}`", command, out)
        clear(out)
    yield run("`cp -r`", ("cp", "-r", str(source), str(out)), out)
    clear(out)


def run(name: str, command: tuple[str, ...], out: Path | None = None) -> Row:
    """Run a command, and look at it every few milliseconds; `out` is the folder that it writes."""
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    started = perf_counter()
    process = os.posix_spawnp(command[0], command, ENVIRONMENT, file_actions=quiet)
    most = None
    done = 0
    while not done:
        sleep(PAUSE)
        most = max(most or 0, open_files(process) or 0) or None
        done, status, usage = os.wait4(process, os.WNOHANG)
    seconds = perf_counter() - started
    if status:
        sys.exit(f"failed with {os.waitstatus_to_exitcode(status)}: {' '.join(command)}")
    memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    files = [path.stat() for path in out.rglob("*") if path.is_file()] if out else []
    length, written = sum(each.st_size for each in files), sum(512 * each.st_blocks for each in files)
    return Row(name, seconds, memory, most, length, written)


def open_files(process: int) -> int | None:
    """The number of files that a process has open, where the system has a folder that says so."""
    with suppress(OSError):
        return len(os.listdir(f"/proc/{process}/fd"))
    return None


def digest(size: int) -> Row:
    """Two processes that digest half of `size` zeros each."""
    command = (sys.executable, "-c", DIGEST, str(size // 2))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda name: run(name, command), ("xxh3 of as many zeros",) * 2)
    return Row(first.name, max(first.seconds, second.seconds), first.memory + second.memory, None)


if __name__ == "__main__":
    main()
