"""`.mdl` files between mmconvert and Cerebras' own library: what one writes, the other reads, to the last bit.

Checkpoints come of conversions, in each element type that these write; the state of a training run, with optimizer
and random numbers, is what `mmsimple train` leaves.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mmconvert
from tests.clients.commands import Checks, command, convert, problem
from tests.clients.environments import ROOT, Environment
from tests.clients.leaves import leaves

GOLDEN = ROOT / "tests" / "golden"
CONVERSIONS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "fp32": ("hf-to-cs", "inputs/llama_gqa", ()),
    "fp16": ("hf-to-cs", "inputs/llama_gqa", ("--dtype", "fp16")),
    "bf16": ("hf-to-cs", "inputs/llama_gqa_bf16", ()),
    "tied weights": ("hf-to-cs", "inputs/llama_tied", ()),
    "a tower": ("hf-to-cs", "inputs/clip_proj", ()),
    "an older release": ("hf-to-cs", "inputs/llama_gqa", ("--to-release", "2.4")),
    "a multimodal model": ("llava-to-cs", "llava/tiny_src", ()),
}


def check(client: Environment, folder: Path) -> Checks:
    """Both ways; `folder` is for what is made on the way."""
    ours = {
        f"mmconvert's {name}": convert(which, GOLDEN / source, folder / name, *options) / "model.mdl"
        for name, (which, source, options) in CONVERSIONS.items()
    }
    trained = train(folder / "run")
    ours["a run of mmsimple's"] = trained
    ours["a nested state"] = nested(folder / "nested.mdl")
    theirs = read(client, list(ours.values()), folder / "read")
    for name, file in ours.items():
        yield f"reads {name}", differences(leaves(file), theirs[file])

    (folder / "written").mkdir()
    client.run("states.py", "write", folder / "written")
    for file in sorted((folder / "written").glob("*.mdl")):
        expected = json.loads(file.with_suffix(".json").read_text("utf-8"))
        yield f"is read: {file.stem}", differences(expected, leaves(file))

    client.run("states.py", "copy", trained, folder / "copy.mdl")
    yield "a run that it loaded and saved is read", differences(leaves(trained), leaves(folder / "copy.mdl"))


def train(folder: Path) -> Path:
    """A checkpoint of two updates on the recorded LLaVA, with pictures and questions."""
    tiny = GOLDEN / "llava" / "tiny_src"
    params = ROOT / "mmsimple" / "configs" / "tiny_phase2.yaml"
    subprocess.run([sys.executable, ROOT / "docs" / "small_pictures.py", folder], check=True)
    images, data = folder / "images", folder / "data"
    records = ("--annotations", folder / "questions.json", "--images", images)
    tokenizer = ("--tokenizer", tiny / "text_model_llava")
    command("mmsimple", "prepare", "--quiet", *records, *tokenizer, "--phase", 2, "--config", params, "--out", data)
    settings: list[str] = []
    for loader in ("fit.train_dataloader", "validate_all.val_dataloaders"):
        settings += ["--set", f"trainer.{loader}.data_dir={data}", "--set", f"trainer.{loader}.img_data_dir={images}"]
    where = ("--model-dir", folder / "model", "--init-from", tiny, "--max-steps", 2)
    command("mmsimple", "train", params, "--quiet", *where, *settings)
    return folder / "model" / "checkpoint_2.mdl"


def nested(file: Path) -> Path:
    """A file of what `write_state` can write: leaves of each kind, deep and empty places, a key that is a number."""
    tensors = mmconvert.open(GOLDEN / "inputs" / "llama_tied")
    inner = {"tensor": tensors["model.norm.weight"], "none": None, "yes": True, "one": 1, "half": 0.5, "text": "ä\n"}
    big = {"large": 2**63 - 1, "negative": -(2**40), "small": 5e-324}
    again = [tensors["model.norm.weight"], [inner, [], {}], {"0": big, "a.b": "dotted"}]
    mmconvert.write_state(file, {"model": dict(tensors), "list": again, "empty": {}})
    return file


def read(client: Environment, files: list[Path], target: Path) -> dict[Path, dict[str, Any]]:
    """Every leaf of each file, as Cerebras' library reads it."""
    target.mkdir()
    answers = {file: target / f"{number}.json" for number, file in enumerate(files)}
    jobs = target / "jobs.json"
    jobs.write_text(json.dumps([[str(file), str(answer)] for file, answer in answers.items()]), "utf-8")
    client.run("states.py", "read", jobs)
    return {file: json.loads(answer.read_text("utf-8")) for file, answer in answers.items()}


def differences(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """Leaves that one has alone or that are not the same, whose JSON tells True from 1, and 1 from 1.0."""
    a, b = ({key: json.dumps(leaf) for key, leaf in side.items()} for side in (expected, found))
    faults = [f"without {key}" for key in a if key not in b] + [f"with {key}" for key in b if key not in a]
    return problem(faults + [f"{key} is {b[key]}, not {a[key]}" for key in a if key in b and a[key] != b[key]])
