"""llava-hf folders that mmconvert makes of LLaVA's own, against what the LLaVA source repository computed of these.

Logits and generated ids were recorded there in float32. Beside them, a picture and a text must become what the source's
own processor and tokenizer make of them; and what the client saves of the model must lead back to the source.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.clients.commands import Checks, convert, problem
from tests.clients.environments import Environment
from tests.clients.hugging_face import GOLDEN, Computed, apart, read, strangers

NAMES = ("tiny_src", "tiny_src_gqa", "tiny_src_sharded", "tiny_src_tower_tuned")
SOURCES = [GOLDEN / "llava" / name for name in NAMES]
# The first of these as transformers 5 and 4.57 saved it, whose tokenizers no older release can load as they are.
SAVED = [GOLDEN / "llava" / name for name in ("tiny_llava_hf", "tiny_llava_hf_457")]
INPUTS = GOLDEN / "llava" / "forward" / "inputs.safetensors"
# As a share of the largest value. Measured: 4.37.2 computes what was recorded, bit for bit; 4.57.6 is off by 1e-6.
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Job:
    """A llava-hf folder, the LLaVA folders that it was made of, and where the client puts what it makes of it."""

    name: str
    source: Path
    folder: Path

    @property
    def target(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.safetensors")

    @property
    def saved(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}-saved")

    def recorded(self, what: str) -> Path:
        # Sharding changes no weight, and so no output.
        return GOLDEN / "llava" / "forward" / f"{self.source.name.removesuffix('_sharded')}.{what}.safetensors"

    def described(self) -> dict[str, str]:
        """For `inside/compute_llava.py`."""
        paths = {"folder": self.folder, "source": self.source, "target": self.target, "saved": self.saved}
        return {field: str(path) for field, path in (paths | {"inputs": INPUTS}).items()}


def check(client: Environment, folder: Path) -> Checks:
    """Every folder of `SOURCES` and `SAVED` as llava-hf, in `client`; `folder` is for what is made on the way."""
    jobs = list(exports(folder))
    (folder / "jobs.json").write_text(json.dumps([job.described() for job in jobs]), "utf-8")
    client.run("compute_llava.py", folder / "jobs.json")
    for job in jobs:
        found, expected = read(job.target), load_file(job.recorded("expected"))
        yield from ((f"{job.name} {what}", problem) for what, problem in compare(expected, found))
        back = convert("hf-to-llava", job.saved, folder / f"{job.folder.name}-back")
        yield f"{job.name} comes back from what the client saves", same_weights(job.source, back)


def exports(folder: Path) -> Iterator[Job]:
    for source in SOURCES:
        yield Job(source.name, source, convert("llava-to-hf", source, folder / source.name))
    for saved in SAVED:
        export = convert("convert", saved, folder / saved.name, "--to", "llava-hf")
        yield Job(saved.name, SOURCES[0], export)
    source = SOURCES[-1]
    cs = convert("llava-to-cs", source, folder / "cs", "--tower", "text")
    export = convert("cs-to-hf", cs, folder / "of-cs", "--layout", "llava-hf")
    yield Job(f"{source.name} through CS", source, export)


def compare(expected: dict[str, torch.Tensor], found: Computed) -> Checks:
    outputs = found.outputs
    yield "has every key and no other", problem(strangers(found))
    # The vocabulary grows by a token for the picture, and some rows that nobody uses.
    logits = outputs["logits"][..., : expected["logits"].shape[-1]]
    off = apart(expected["logits"], logits)
    yield "computes LLaVA's logits", "" if off <= TOLERANCE else f"off by {off:.1e}"
    # What LLaVA generates begins with a filler.
    wanted, got = expected["generated"][0, 1:].tolist(), outputs["generated"][0].tolist()
    yield "generates what LLaVA does", "" if got == wanted else f"{got}, not {wanted}"
    yield "answers a picture from its processor", "" if outputs["reply"].numel() else "with nothing"
    for what in ("pixels", "ids"):
        same = torch.equal(outputs[what], outputs[f"{what} of the source"])
        yield f"makes the same {what} as LLaVA", "" if same else "they differ"


def same_weights(source: Path, back: Path) -> str:
    """A tower in the text file is the one that counts, and comes back in its own folder."""
    expected, found = weights(source), weights(back)
    inside = "model.vision_tower.vision_tower."
    expected |= {key.removeprefix(inside): expected.pop(key) for key in sorted(expected) if key.startswith(inside)}
    faults = [f"{key} is not on both sides" for key in sorted(expected.keys() ^ found.keys())]
    both = sorted(expected.keys() & found.keys())
    return problem(faults + [f"{key} differs" for key in both if not torch.equal(expected[key], found[key])])


def weights(llava: Path) -> dict[str, torch.Tensor]:
    files = llava.glob("*/*.safetensors")
    return {key: tensor for file in files for key, tensor in load_file(file).items()}
