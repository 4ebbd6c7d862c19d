"""Conversions next to `cp`: seconds and memory, as the Markdown tables of the README.

    python benchmarks/convert.py [--size 1GB --size 4GB] [--runs 5] [--folder DIR] [--json FILE]

A LLaMA-shaped bf16 checkpoint goes to CS and back through the installed `mmconvert`, with its default digest and check.
Every run is a new process whose input lies in the page cache; copies and conversions take turns, and what they wrote is
removed in between. With fsync, `cp -r` is followed by `sync -d` on the copied files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from mmconvert.containers.layout import Outline
from mmconvert.containers.safetensors import lay_out_shards
from mmconvert.dtypes import BY_NAME
from mmconvert.units import parse_size

MMCONVERT = str(Path(sys.executable).with_name("mmconvert"))
HIDDEN, INTERMEDIATE, VOCAB, HEADS = 4096, 11008, 32000, 32
SHARD = 2 * 10**9
BLOCK = 1 << 20
# Python keeps what it has compiled, as it does wherever nobody forbids it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

# The tensors outside the layers, and those of one layer.
FRAME: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (VOCAB, HIDDEN),
    "model.norm.weight": (HIDDEN,),
    "lm_head.weight": (VOCAB, HIDDEN),
}
LAYER: dict[str, tuple[int, ...]] = {
    "input_layernorm.weight": (HIDDEN,),
    **{f"self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"},
    "post_attention_layernorm.weight": (HIDDEN,),
    "mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "max_position_embeddings": 4096,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": VOCAB,
}


@dataclass(frozen=True)
class Journey:
    """A conversion from the checkpoint in folder `source`, by the command line's arguments."""

    name: str
    source: str
    arguments: tuple[str, ...]


TO_MDL = Journey("HF safetensors → `.mdl`", "hf", ("hf-to-cs", "--container", "mdl"))
TO_SAFETENSORS = Journey("HF safetensors → CS safetensors", "hf", ("hf-to-cs", "--container", "safetensors"))
FROM_MDL = Journey("`.mdl` → HF safetensors", "mdl", ("cs-to-hf",))
FROM_SAFETENSORS = Journey("CS safetensors → HF safetensors", "safetensors", ("cs-to-hf",))
JOURNEYS = (TO_MDL, TO_SAFETENSORS, FROM_MDL, FROM_SAFETENSORS)


@dataclass(frozen=True)
class Row:
    """What was measured of a journey: seconds of each run in order, and bytes of memory at the peak."""

    journey: str
    fsync: bool
    cp: list[float]
    mmconvert: list[float]
    memory: int

    def __str__(self) -> str:
        ratios = [ours / theirs for ours, theirs in zip(self.mmconvert, self.cp, strict=True)]
        cells = (
            self.journey,
            "yes" if self.fsync else "no",
            f"{median(self.cp):.2f} s",
            f"{median(self.mmconvert):.2f} s",
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{self.memory / 1e6:.0f} MB",
        )
        return f"| {' | '.join(cells)} |"


HEAD = """\
| journey | fsync | `cp -r` | `mmconvert` | ratio (min to max) | peak RSS |
|---|---|--:|--:|--:|--:|"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Conversions next to cp: seconds and memory.")
    parser.add_argument("--size", action="append", help="of the checkpoint; may be repeated  [default: 1GB and 4GB]")
    parser.add_argument("--runs", type=int, default=5, help="of each command that count  [default: 5]")
    parser.add_argument("--folder", default="/var/tmp", help="with room for four checkpoints  [default: /var/tmp]")
    parser.add_argument("--json", type=Path, help="a file for the figures of every run")
    given = parser.parse_args()
    print(f"{machine()}; medians of {given.runs} runs.\n", flush=True)
    rows: dict[str, list[Row]] = {}
    for size in given.size or ("1GB", "4GB"):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            written = make_checkpoint(Path(folder, "hf"), parse_size(size))
            print(f"{size}: {written / 1e9:.2f} GB of bf16\n\n{HEAD}", flush=True)
            rows[size] = []
            for row in measure(Path(folder), given.runs):
                print(row, flush=True)
                rows[size].append(row)
            _, memory = run(sys.executable, "-m", "mmconvert.containers.mdl_child", f"{folder}/mdl/model.mdl")
            print(f"\nThe process that opens the `.mdl` with HDF5: {memory / 1e6:.0f} MB\n")
    ours, bare = (
        median(run(*command)[0] for _ in range(2 * given.runs))
        for command in ((MMCONVERT, "list"), (sys.executable, "-c", "pass"))
    )
    print(f"`mmconvert list`: {ours:.2f} s, `python -c pass`: {bare:.2f} s")
    if given.json:
        figures = {size: [asdict(row) for row in each] for size, each in rows.items()}
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


def machine() -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    system = f"{platform.system()} {platform.release()} on {platform.machine()}"
    return f"{os.cpu_count()} cores, {memory / 2**30:.0f} GiB RAM, {system}, Python {platform.python_version()}"


def make_checkpoint(folder: Path, size: int) -> int:
    """A Hugging Face folder of random bytes, of as many layers as `size` bytes have room for; returns its size."""
    frame, layer = outlines(FRAME), outlines(LAYER)
    count = max(1, (size - sum(each.nbytes for each in frame)) // sum(each.nbytes for each in layer))
    tensors = frame + [each for i in range(count) for each in outlines(LAYER, f"model.layers.{i}.")]
    folder.mkdir()
    layouts, index = lay_out_shards("model", tensors, SHARD)
    for layout in layouts:
        with (folder / layout.name).open("wb") as file:
            file.writelines(data for _, data in layout.frame)
            while room := layout.size - file.tell():
                file.write(os.urandom(min(room, BLOCK)))
    if index is not None:
        (folder / "model.safetensors.index.json").write_bytes(index)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": count}))
    return sum(layout.size for layout in layouts)


def outlines(shapes: dict[str, tuple[int, ...]], prefix: str = "") -> list[Outline]:
    return [Outline(prefix + key, BY_NAME["bfloat16"], shape) for key, shape in shapes.items()]


def measure(folder: Path, runs: int) -> Iterator[Row]:
    """Every journey that starts from the checkpoint in `folder`/hf or from what it becomes, without and with fsync."""
    for there, back in ((TO_MDL, FROM_MDL), (TO_SAFETENSORS, FROM_SAFETENSORS)):
        convert(there, folder, folder / back.source, fsync=False)
    out = folder / "out"
    for journey in JOURNEYS:
        for fsync in (False, True):
            cp, ours, memory = [], [], 0
            for number in range(runs + 1):
                copied = copy(folder / journey.source, out, fsync)
                clear(out)
                converted, peak = convert(journey, folder, out, fsync)
                clear(out)
                memory = max(memory, peak)
                if number:  # the first pair only fills the page cache
                    cp.append(copied)
                    ours.append(converted)
            yield Row(journey.name, fsync, cp, ours, memory)


def convert(journey: Journey, folder: Path, out: Path, fsync: bool) -> tuple[float, int]:
    paths = ("--src", str(folder / journey.source), "--out", str(out))
    return run(MMCONVERT, *journey.arguments, *paths, "--quiet", *(() if fsync else ("--no-fsync",)))


def copy(source: Path, out: Path, fsync: bool) -> float:
    seconds, _ = run("cp", "-r", str(source), str(out))
    if fsync:
        seconds += run("sync", "-d", *(str(path) for path in out.rglob("*") if path.is_file()))[0]
    return seconds


def clear(folder: Path) -> None:
    """Remove a folder and let the disk come to rest, so that no run pays for the one before it."""
    shutil.rmtree(folder)
    os.sync()


def run(*command: str) -> tuple[float, int]:
    """Seconds that a process took, and the most memory in bytes that it, or one of its children, had at a time."""
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    started = perf_counter()
    process = os.posix_spawnp(command[0], command, ENVIRONMENT, file_actions=quiet)
    _, status, usage = os.wait4(process, 0)
    seconds = perf_counter() - started
    if status:
        sys.exit(f"failed with {os.waitstatus_to_exitcode(status)}: {' '.join(command)}")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
