"""The params files that come with mmsimple: each is read and explains its keys, and the tiny ones are of one model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import mmsimple
from mmconvert import api
from mmconvert.paths import differing
from mmsimple import sections
from mmsimple.config import MultimodalConfig
from mmsimple.train.config import Loop, Precision
from mmsimple.train.reading import read_run_file

CONFIGS = Path(mmsimple.__file__).parent / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))
TINY = [CONFIGS / f"tiny_phase{phase}.yaml" for phase in (1, 2)]
GOLDEN = Path(__file__).parents[1] / "golden" / "llava" / "tiny_src"

# A merge, `<<`, is no key: the keys that it brings are explained where they stand.
KEY = re.compile(r"\s*(?:- )*([\w.]+):(?: |$)")
# Type and default, and where there is more to say, the meaning.
COMMENT = re.compile(r"(?:^| )# [^-#;][^;]*, [^;]+(?:; .+)?$")


def unexplained(text: str) -> Iterator[str]:
    """The keys of a params file without a comment of type and default on their line, or directly above it."""
    above = ""
    for line in text.splitlines():
        key = KEY.match(line)
        explained = COMMENT.search(line) or (above.lstrip().startswith("#") and COMMENT.search(above))
        if key and not explained:
            yield key[1]
        above = line


@pytest.mark.parametrize(
    ("text", "missed"),
    [
        ("seed: 1  # int, null", []),
        ("seed: 1  # int, null; of random numbers", []),
        ("# int, null; of random numbers\nseed: 1", []),
        ("seed: 1", ["seed"]),
        ("seed: 1  # of random numbers", ["seed"]),
        ("# int, null; of random numbers\n\nseed: 1", ["seed"]),
        ("loop:  # mapping, required\n  max_steps: 1", ["max_steps"]),
        ("# ------ training, as it is\nseed: 1", ["seed"]),
        ("callbacks:  # list, null\n  - ComputeNorm: {}\n  - csx.flag: &size 2", ["ComputeNorm", "csx.flag"]),
        ("freeze:  # [regex], null\n  - ^text_model\n<<: *images", []),
    ],
)
def test_keys_that_nothing_explains_are_found(text: str, missed: list[str]) -> None:
    assert list(unexplained(text)) == missed


def test_there_are_two_phases_of_each_size() -> None:
    assert [path.name for path in FILES] == [
        *(f"params_mm_llava_llama2_7b_phase{phase}.yaml" for phase in (1, 2)),
        *(path.name for path in TINY),
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_read_and_explains_its_keys(path: Path) -> None:
    run = read_run_file(path)
    assert run.train_data is not None
    assert run.validation_data
    text = path.read_text("utf-8")
    assert list(unexplained(text)) == []
    assert max(map(len, text.splitlines())) <= 120


def test_tiny_runs_are_small_and_for_any_cpu() -> None:
    for path in TINY:
        run = read_run_file(path)
        assert (run.backend, run.loop, run.checkpointing.keep) == ("CPU", Loop(40, None, 2, 20), 1)
        assert run.precision == Precision(max_gradient_norm=1.0)
        assert run.train_data is not None
        assert not run.train_data.image_folder.is_absolute()


def test_tiny_phases_differ_in_what_trains_how_fast_and_on_what() -> None:
    one, two = (yaml.safe_load(path.read_bytes()) for path in TINY)
    rates = "trainer.init.schedulers.0.SequentialLR.schedulers"
    assert {path for path, _ in differing(one, two)} == {
        "trainer.init.model.freeze.1",
        f"{rates}.0.LinearLR.end_learning_rate",
        f"{rates}.1.CosineDecayLR.initial_learning_rate",
        "trainer.fit.train_dataloader.data_dir",
        "trainer.fit.val_dataloader.data_dir",
        "trainer.validate.val_dataloader.data_dir",
        "trainer.validate_all.val_dataloaders.data_dir",
    }
    frozen = [document["trainer"]["init"]["model"]["freeze"] for document in (one, two)]
    assert frozen == [["^image_model.image_model_list", "^text_model"], ["^image_model.image_model_list"]]


def test_tiny_models_are_the_golden_llava(tmp_path: Path) -> None:
    api.convert(GOLDEN, tmp_path / "cs", to="cs")
    golden = sections.read_file(tmp_path / "cs")
    assert isinstance(golden, MultimodalConfig)
    for path in TINY:
        model = read_run_file(path).model
        same = replace(golden, freeze=model.freeze)
        assert dict(differing(sections.write(model)[1], sections.write(same)[1])) == {}
