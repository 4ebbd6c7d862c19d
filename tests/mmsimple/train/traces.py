"""Short runs that must stay what they are, to guard a change that is to change nothing.

They begin with recorded weights, and learn from records and pictures that arithmetic makes. `tests/golden/train/` holds
the loss and the norm of the gradients of each update. Where a change is meant to change them, record them anew, and say
in the commit why they are others:

    python -m tests.mmsimple.train.traces
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

import mmsimple
from mmconvert import api
from mmsimple.data.job import job_of
from mmsimple.data.prepare import prepare
from mmsimple.train.config import TrainConfig
from mmsimple.train.metrics import read_metrics
from mmsimple.train.reading import read_run_file
from mmsimple.train.run import run

GOLDEN = Path(__file__).parents[2] / "golden"
LLAVA = GOLDEN / "llava" / "tiny_src"
RECORDED = GOLDEN / "train"
CONFIGS = Path(mmsimple.__file__).parent / "configs"

UPDATES = 20
# No multiple of a batch: updates hold samples of two epochs.
RECORDS = 22
SIDE = 28
WORDS = ("this", "is", "a", "large", "car", "on", "the", "left", "question", "in", "there")

Values = Mapping[str, list[float]]


@dataclass(frozen=True)
class Kind:
    """A run of a small params file of the package, `changes` being of its `trainer`; how exactly it must come again."""

    phase: Literal[1, 2]
    changes: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 2e-5


# Gradients that are cut, in samples that are many parts of an update, and numbers so large that their places show: eps
# outside of the bias correction, no decay of norms and biases.
HARD: dict[str, Any] = {
    "init.optimizer.AdamW": {"betas": [0.9, 0.95], "eps": 1e-3, "weight_decay": 2.0},
    "init.precision.max_gradient_norm": 0.5,
    "init.loop.grad_accum_steps": 2,
    "init.callbacks": [{"ScopedTrainFlags": {"csx.performance.micro_batch_size": 2}}],
    "fit.train_dataloader.batch_size": 3,
}
WHOLE: dict[str, Any] = {"init.callbacks": []}
BFLOAT16: dict[str, Any] = {"init.precision": {"fp16_type": "bfloat16", "max_gradient_norm": 1.0}}
FLOAT16: dict[str, Any] = {"init.precision": {"fp16_type": "float16", "max_gradient_norm": 0.5}}
KINDS = {
    "phase1": Kind(1),
    "phase2": Kind(2, WHOLE),
    "phase2_accumulated": Kind(2, HARD),
    "phase2_bfloat16": Kind(2, {**WHOLE, **BFLOAT16}, 2e-2),
    "phase2_float16": Kind(2, {**HARD, **FLOAT16}, 2e-3),
}


def make_start(folder: Path) -> Path:
    """`cs/`, the weights, and the training files of both phases."""
    api.convert(LLAVA, folder / "cs", "cs", fsync=False)
    (folder / "images").mkdir()
    for number in range(RECORDS):
        _picture(number).save(folder / "images" / f"{number}.png")
    (folder / "records.json").write_text(json.dumps([_record(number) for number in range(RECORDS)]))
    for phase in (1, 2):
        job = job_of(_params(phase), LLAVA / "text_model_llava", folder / "images", phase)
        made = prepare(folder / "records.json", folder / f"data{phase}", job, phase=phase)
        assert made.params["samples"] == RECORDS
    return folder


def config_of(kind: Kind, start: Path) -> TrainConfig:
    loader = "fit.train_dataloader"
    places = {f"{loader}.data_dir": f"{start}/data{kind.phase}", f"{loader}.img_data_dir": f"{start}/images"}
    changes = {"init.loop.max_steps": UPDATES, **places, **kind.changes}
    return read_run_file(_params(kind.phase), [f"trainer.{path}={json.dumps(each)}" for path, each in changes.items()])


def trace(kind: Kind, start: Path, folder: Path) -> Values:
    """The loss and the gradients' norm of each update."""
    run(config_of(kind, start), folder, mode="train", init_from=start / "cs", say=lambda text: None)
    updates = [each for each in read_metrics(folder) if "loss" in each]
    return {name: [each[name] for each in updates] for name in ("loss", "gradient_norm")}


def recorded(name: str) -> Values:
    found: Values = json.loads((RECORDED / f"{name}.json").read_text("utf-8"))
    return found


def _params(phase: int) -> Path:
    return CONFIGS / f"tiny_phase{phase}.yaml"


def _picture(number: int) -> Image.Image:
    rows, columns = np.indices((SIDE, SIDE))
    channels = [(number * (37 + 20 * each) + rows * (each + 3) + columns * (number % 5 + 2)) for each in range(3)]
    return Image.fromarray((np.stack(channels, axis=-1) % 256).astype(np.uint8))


def _record(number: int) -> dict[str, Any]:
    """Every fifth is of text alone, and every third asks twice; answers are of one to nine words."""
    is_seen = number % 5 != 4
    texts = [("<image>\n" if is_seen else "") + _words(number, 3), _words(number + 1, number % 9 + 1)]
    if number % 3 == 0:
        texts += [_words(number + 2, 2), _words(number + 3, 4)]
    turns = [{"from": ("human", "gpt")[at % 2], "value": text} for at, text in enumerate(texts)]
    return {"conversations": turns, **({"image": f"{number}.png"} if is_seen else {})}


def _words(first: int, count: int) -> str:
    return " ".join(WORDS[(first * 3 + at * 7) % len(WORDS)] for at in range(count))


def main() -> None:
    torch.set_num_threads(1)
    RECORDED.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        start = make_start(Path(folder))
        for name, kind in KINDS.items():
            values = trace(kind, start, Path(folder) / name)
            (RECORDED / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
