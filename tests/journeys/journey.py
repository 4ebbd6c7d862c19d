"""The way from a hub to answers, in a folder: commands as a user types them, and what comes of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Literal

import mmsimple
from mmsimple.data.images import open_image
from mmsimple.reply import ChatModel
from tests.journeys.models import save_models
from tests.journeys.pictures import Example, make

if TYPE_CHECKING:
    from tests.conftest import Run

CONFIGS = Path(mmsimple.__file__).parent / "configs"
Phase = Literal[1, 2]
Pictures = Literal["images", "blank"]

TRAIN, HELD_OUT = 640, 128
BATCH = 16
RECORDS: dict[Phase, str] = {1: "captions", 2: "questions"}
UPDATES: dict[Phase, int] = {1: 80, 2: 240}
RATES: dict[Phase, float] = {1: 1e-2, 2: 4e-3}
WARM_UP = 10


@dataclass(frozen=True)
class Journey:
    """`seed` is that of the models' weights, of the pictures and of the order in which they come."""

    folder: Path
    seed: int
    mmconvert: Run
    mmsimple: Run

    # --- what a user has ---

    def begin(self) -> list[Example]:
        """`hub/`, `train/` and `held_out/`; the examples that are held out."""
        save_models(self.folder / "hub", self.seed)
        make(self.folder / "train", TRAIN, self.seed)
        return make(self.folder / "held_out", HELD_OUT, self.seed + 1000)

    # --- commands ---

    def convert(self) -> Path:
        """The models as one checkpoint, and the params file of each phase with the shape of it."""
        init = ["--init", f"projector=uniform:{self.seed}"]
        _ok(self.mmconvert("hf-to-cs", "--src", self.folder / "hub", *init, *self._params(1)))
        _ok(self.mmconvert("cs-to-cs", "--src", self.folder / "phase1", *self._params(2)))
        return self.folder / "phase1" / "model.mdl"

    def prepare(self, phase: Phase) -> None:
        for part in ("train", "held_out"):
            here, records = self.folder / part, RECORDS[phase]
            given = ["--annotations", here / f"{records}.json", "--images", here / "images"]
            given += ["--tokenizer", self.folder / "hub" / "llama", "--config", self._file(phase)]
            _ok(self.mmsimple("prepare", *given, "--phase", phase, "--out", here / records))

    def train(self, phase: Phase, begin: Path) -> Path:
        """The checkpoint of the last update."""
        run = self.folder / f"run{phase}"
        given = [self._file(phase), "--model-dir", run, "--init-from", begin, "--mode", "train"]
        _ok(self.mmsimple("train", *given, *self._settings(phase)))
        return run / f"checkpoint_{UPDATES[phase]}.mdl"

    def held_out_loss(self, phase: Phase, checkpoint: Path, pictures: Pictures = "images") -> float:
        given = [self._file(phase), "--model-dir", self.folder / "eval", "--init-from", checkpoint, "--mode", "eval"]
        said = _ok(self.mmsimple("train", *given, *self._settings(phase, pictures), "--json"))
        (found,) = json.loads(said)["validation"]
        return float(found["loss"])

    def generate(self, checkpoint: Path, example: Example) -> str:
        """One answer, by the command."""
        image = self.folder / "held_out" / "images" / example.name
        given = ["--checkpoint", checkpoint, "--image", image, "--prompt", example.question]
        return _ok(self.mmsimple("generate", *given, "--max-new-tokens", 8)).rstrip("\n")

    def answers(self, checkpoint: Path, examples: Sequence[Example], pictures: Pictures = "images") -> list[str]:
        """Many answers, as the command gives each, without loading the model for each."""
        chat = ChatModel.from_checkpoint(checkpoint)
        images = [open_image(self.folder / "held_out" / pictures / each.name) for each in examples]
        asked = [chat.prompt(each.question, [image]) for each, image in zip(examples, images, strict=True)]
        return ["".join(chat.answer(prompt, max_new_tokens=8)) for prompt in asked]

    def export(self, checkpoint: Path) -> Path:
        """The folders of LLaVA, which compute what the checkpoint does."""
        out = self.folder / "llava"
        _ok(self.mmconvert("cs-to-llava", "--src", checkpoint, "--out", out))
        _ok(self.mmconvert("verify", checkpoint, out))
        _ok(self.mmconvert("verify", checkpoint, out, "--forward"))
        return out

    # --- params ---

    def _params(self, phase: Phase) -> list[object]:
        return ["--params", CONFIGS / f"tiny_phase{phase}.yaml", "--out", self.folder / f"phase{phase}"]

    def _file(self, phase: Phase) -> Path:
        return self.folder / f"phase{phase}" / "config.yaml"

    def _settings(self, phase: Phase, pictures: Pictures = "images") -> Iterator[str]:
        """What differs from the small params files of the package."""
        rate, updates = RATES[phase], UPDATES[phase]
        rising = {"initial_learning_rate": 0.0, "end_learning_rate": rate, "total_iters": WARM_UP}
        falling = {"initial_learning_rate": rate, "end_learning_rate": 0.0, "total_iters": updates - WARM_UP}
        schedule = {"SequentialLR": {"schedulers": [{"LinearLR": rising}, {"CosineDecayLR": falling}]}}
        changes = {
            "init.seed": self.seed,
            "init.schedulers": [schedule],
            "init.loop": {"max_steps": updates},
            "init.checkpoint.steps": None,
            "init.callbacks": [],
        }
        for path, part in (("fit.train_dataloader", "train"), ("validate_all.val_dataloaders", "held_out")):
            changes[f"{path}.data_dir"] = str(self.folder / part / RECORDS[phase])
            changes[f"{path}.img_data_dir"] = str(self.folder / part / pictures)
            changes[f"{path}.num_patches"] = 16
            changes[f"{path}.batch_size"] = BATCH
            changes[f"{path}.shuffle_seed"] = self.seed
        for path, value in changes.items():
            yield from ("--set", f"trainer.{path}={json.dumps(value)}")


def _ok(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout
