"""Folders that mmconvert exports, in a transformers of another time: every key is found, and they compute the same.

What an export is compared with is the checkpoint that it came from: one that the client itself saved, the recorded
inputs of the tests, and one that a transformers of today saved, whose CLIP towers no older one can load as they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from tests.clients.commands import Check, Checks, convert, problem
from tests.clients.environments import ROOT, Environment, own

GOLDEN = ROOT / "tests" / "golden"
TOKENIZER = GOLDEN / "llava" / "tiny_src" / "text_model_llava"
RECORDED = ("clip_proj", "llama_gqa", "llama_gqa_bf16", "llama_linear", "llama_tied", "llama31")
# Of the recorded ones, saved by 4.57, what an older release refuses: LLaMA 3.1's rope scaling, in whatever words; and
# linear scaling in the words of that release, but not in ours.
UNKNOWN = {"transformers-4.37": {"llama31"}}
OTHER_WORDS = {"transformers-4.37": {"llama_linear"}}
# As a share of the largest value, between one release's order of adding up and another's.
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Pair:
    """An export, the checkpoint that it must equal, and whether that came from another release."""

    name: str
    original: Path
    export: Path
    foreign: bool = False


@dataclass(frozen=True)
class Computed:
    """What a client said of a checkpoint's keys, and computed."""

    keys: dict[str, list[str]]
    outputs: dict[str, torch.Tensor]


def check(client: Environment, folder: Path) -> Checks:
    """Every export of `exports`, in `client`; `folder` is for what is made on the way."""
    pairs = exports(client, folder)
    exported = compute(client, [pair.export for pair in pairs], folder / "exports")
    originals = {
        **compute(client, [pair.original for pair in pairs if not pair.foreign], folder / "originals"),
        **compute(own(), [pair.original for pair in pairs if pair.foreign], folder / "foreign"),
    }
    for pair in pairs:
        yield compare(pair, originals[pair.original], exported[pair.export])


def exports(client: Environment, folder: Path) -> list[Pair]:
    """Checkpoints, and what is exported of them after a way through CS."""
    client.run("make_models.py", folder / "made")
    own().run("make_models.py", folder / "today")
    pairs = []
    for group in ("made", "today"):
        foreign, back = group == "today", folder / f"{group}-back"
        for source in sorted((folder / group).glob("*-*")):
            pairs.append(Pair(f"{group}/{source.name}", source, _there_and_back(source, back / source.name), foreign))
        for name, tower in _towers(folder / group / "two", back / "two").items():
            pairs.append(Pair(f"{group}/{name}", folder / group / "two" / "image_model", tower, foreign))
    for name in RECORDED:
        if name not in UNKNOWN.get(client.name, ()):
            source, foreign = GOLDEN / "inputs" / name, name in OTHER_WORDS.get(client.name, ())
            export = _there_and_back(source, folder / "recorded-back" / name)
            pairs.append(Pair(f"recorded/{name}", source, export, foreign))
    source = GOLDEN / "llava" / "tiny_src"
    export = convert("cs-to-llava", convert("llava-to-cs", source, folder / "tiny-cs"), folder / "tiny")
    return [*pairs, Pair("recorded/tiny_src's tower", source / "image_model", export / "image_model")]


def _towers(source: Path, out: Path) -> dict[str, Path]:
    """The tower of a multimodal checkpoint, beside its language model and in LLaVA's folders."""
    cs = convert("hf-to-cs", source, out.with_name("two-cs"), "--init", "projector=uniform:1")
    hf = convert("cs-to-hf", cs, out)
    llava = convert("cs-to-llava", cs, out.with_name("two-llava"), "--tokenizer", TOKENIZER)
    return {"a tower beside a decoder": hf / "image_model", "a tower for LLaVA": llava / "image_model"}


def _there_and_back(source: Path, out: Path) -> Path:
    out.parent.mkdir(exist_ok=True)
    return convert("cs-to-hf", convert("hf-to-cs", source, out.with_name(f"{out.name}-cs")), out)


def compute(client: Environment, folders: list[Path], target: Path) -> dict[Path, Computed]:
    """What `client` says of each folder."""
    target.mkdir()
    files = {folder: target / f"{number}.safetensors" for number, folder in enumerate(folders)}
    jobs = target / "jobs.json"
    jobs.write_text(json.dumps([[str(source), str(file)] for source, file in files.items()]), "utf-8")
    client.run("compute.py", jobs)
    return {source: read(file) for source, file in files.items()}


def read(file: Path) -> Computed:
    with safe_open(file, "pt") as opened:
        keys = {kind: json.loads(found) for kind, found in opened.metadata().items()}
        return Computed(keys, {name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118


def compare(pair: Pair, original: Computed, export: Computed) -> Check:
    faults = strangers(export)
    if original.outputs.keys() != export.outputs.keys():
        faults.append(f"outputs {sorted(export.outputs)}, not {sorted(original.outputs)}")
    else:
        allowed = TOLERANCE if pair.foreign else 0.0
        faults += [
            f"{name} is off by {off:.1e}"
            for name, value in original.outputs.items()
            if not (off := apart(value, export.outputs[name])) <= allowed
        ]
    return pair.name, problem(faults)


def strangers(computed: Computed) -> list[str]:
    """Everything that a client has to say of a checkpoint's keys."""
    return [f"{kind}: {', '.join(found)}" for kind, found in computed.keys.items() if found]


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value of `a` where that is above 1."""
    if a.shape != b.shape:
        return float("inf")
    return float((a - b).abs().max() / max(1.0, float(a.abs().max())))
