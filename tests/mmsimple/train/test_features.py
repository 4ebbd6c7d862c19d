"""What frozen encoders make of pictures is made once, kept by all that it depends on, and trains as pictures do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from torch import Tensor

from mmconvert.errors import DiskError, InputRefused, UsageError
from mmsimple.data.pictures import DIGEST
from mmsimple.model import ImageModel
from mmsimple.train import features
from mmsimple.train.metrics import read_metrics
from mmsimple.train.reading import read_run_file
from mmsimple.train.run import run
from tests.mmsimple.data.pictures import draw, make_dataset
from tests.mmsimple.data.worked_example import A, B, C
from tests.mmsimple.small import FLOAT32, apart
from tests.mmsimple.train.runs import assert_equal, tensors, write_params

FROZEN = ["^image_model.image_model_list"]
# Of the two pictures of the data: 4 tokens of 32 numbers.
FEATURES = 4 * 32


class Ran(NamedTuple):
    checkpoint: Path
    metrics: list[dict[str, Any]]
    said: str
    # How many pictures encoders have seen.
    seen: int


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_dataset(tmp_path, [A, B, C, B, A])
    return tmp_path


def ran(folder: Path, name: str, *, cache: str = "features", mode: str = "train", **changes: Any) -> Ran:
    """A run of a few epochs, its features, if it has any, in a folder that all runs share."""
    performance = {"cache": cache, "cache_dir": str(folder / "features")}
    wanted = {"init__loop": {"max_steps": 6}, "init__model__freeze": FROZEN, "init__performance": performance}
    config = read_run_file(write_params(folder, **{**wanted, **changes}))
    said: list[str] = []
    seen = 0
    encode = ImageModel.encode

    def counted(model: ImageModel, images: Tensor) -> list[Tensor]:
        nonlocal seen
        seen += len(images)
        return encode(model, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageModel, "encode", counted)
        done = run(config, folder / name, mode=mode, say=said.append)
    assert done.checkpoint is not None
    return Ran(done.checkpoint, list(read_metrics(folder / name)), "\n".join(said), seen)


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "features").rglob("*") if path.is_file())


@pytest.mark.parametrize("frozen", [FROZEN, [*FROZEN, "^text_model"]], ids=["phase 2", "phase 1"])
def test_training_comes_to_the_same(frozen: list[str], folder: Path) -> None:
    plain = ran(folder, "plain", cache="none", init__model__freeze=frozen)
    ours = ran(folder, "ours", init__model__freeze=frozen)
    losses = [[each["loss"] for each in metrics] for metrics in (ours.metrics, plain.metrics)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    found, expected = tensors(ours.checkpoint), tensors(plain.checkpoint)
    for name, tensor in expected.items():
        if name.startswith("/model/"):
            assert apart(found[name], tensor) < FLOAT32, name


def test_pictures_are_seen_once_and_by_another_run_not_at_all(folder: Path) -> None:
    assert ran(folder, "plain", cache="none").seen > 10
    first, second = ran(folder, "first"), ran(folder, "second")
    assert (first.seen, second.seen) == (2, 0)
    assert_equal(second.checkpoint, first.checkpoint)
    assert first.metrics == second.metrics


def test_room_is_announced_and_taken(folder: Path) -> None:
    bytes_each = DIGEST + 4 * FEATURES
    assert f"2 of {bytes_each} B, 1.0 kB in all, 0 of them kept from before" in ran(folder, "first").said
    assert [path.stat().st_size for path in kept(folder)] == 2 * [bytes_each]
    said = ran(folder, "second").said
    assert "2 of them kept from before" in said
    assert "features of pictures: 0 made" in said


def test_half_precision_takes_half_the_room_and_comes_to_the_same(folder: Path) -> None:
    half: dict[str, Any] = {"init__precision": {"fp16_type": "bfloat16", "max_gradient_norm": 1.0}}
    plain, ours = ran(folder, "plain", cache="none", **half), ran(folder, "ours", **half)
    assert [path.stat().st_size for path in kept(folder)] == 2 * [DIGEST + 2 * FEATURES]
    losses = [[each["loss"] for each in metrics] for metrics in (ours.metrics, plain.metrics)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


@pytest.mark.parametrize(
    "changes",
    [
        {"init__seed": 2},
        {"init__precision": {"fp16_type": "bfloat16"}},
        {"init__model__image_model_list__image_models__0__image_encoder__image_layer_idx": 0},
        {"fit__train_dataloader__transforms__0": {"name": "resize", "size": [28, 28], "interpolation": "nearest"}},
    ],
    ids=["weights", "precision", "layer", "transforms"],
)
def test_what_features_depend_on_makes_others(changes: dict[str, Any], folder: Path) -> None:
    ran(folder, "first")
    before = kept(folder)
    assert ran(folder, "second", **changes).seen == 2
    assert len(kept(folder)) == 4
    assert set(before) < set(kept(folder))


def test_what_they_do_not_depend_on_makes_none(folder: Path) -> None:
    ran(folder, "first")
    assert ran(folder, "second", init__model__freeze=[*FROZEN, "^text_model"], init__optimizer={"AdamW": {}}).seen == 0


def test_another_picture_under_the_same_name_has_features_of_its_own(folder: Path) -> None:
    ran(folder, "first")
    draw(folder / "images" / "b.png", 7)
    assert ran(folder, "second").seen == 1
    assert len(kept(folder)) == 3


def test_a_picture_under_two_names_has_features_once(folder: Path) -> None:
    shutil.copy(folder / "images" / "b.png", folder / "images" / "sub" / "a.png")
    ran(folder, "first")
    assert len(kept(folder)) == 1


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:-1] + b"\0", lambda _: b""])
def test_features_that_are_not_what_was_written_are_made_again(damage: Any, folder: Path) -> None:
    ran(folder, "first")
    path = kept(folder)[0]
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))
    assert ran(folder, "second").seen == 1
    assert path.read_bytes() == content


def test_a_run_that_was_stopped_while_it_made_them_goes_on_with_the_same(folder: Path) -> None:
    first = ran(folder, "first")
    contents = {path: path.read_bytes() for path in kept(folder)}
    kept(folder)[0].unlink()
    second = ran(folder, "second")
    assert {path: path.read_bytes() for path in kept(folder)} == contents
    assert_equal(second.checkpoint, first.checkpoint)


def test_workers_read_them(folder: Path) -> None:
    alone = ran(folder, "alone")
    workers = {"num_workers": 2, "prefetch_factor": 2, "persistent_workers": True}
    shutil.rmtree(folder / "features")
    changes: dict[str, Any] = {f"fit__train_dataloader__{name}": value for name, value in workers.items()}
    helped = ran(folder, "helped", **changes)
    assert helped.metrics == alone.metrics
    assert helped.seen == 2


def test_validation_reads_them_and_measures_the_same(folder: Path) -> None:
    plain, ours = ran(folder, "plain", cache="none", mode="train_and_eval"), ran(folder, "ours", mode="train_and_eval")
    assert ours.seen == 2
    last = [next(line for line in reversed(each.said.splitlines()) if "validation" in line) for each in (plain, ours)]
    assert last[0] == last[1]


def test_encoders_that_train_have_no_features(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"performance\.cache is features, but encoders train"):
        ran(folder, "first", init__model__freeze=["^text_model"])
    assert kept(folder) == []


def test_no_room_is_said_before_anything_is_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage(folder))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000, 500, 500))
    with pytest.raises(DiskError, match=r"2 of 520 B, 1\.0 kB in all: 1\.0 kB needed, 500 B free"):
        ran(folder, "first")
    assert kept(folder) == []


def test_bad_pictures_are_what_they_are_without_features(folder: Path) -> None:
    (folder / "images" / "b.png").write_bytes(b"no picture")
    with pytest.raises(InputRefused, match=r"b\.png: holds no JPEG"):
        ran(folder, "error")
    for what in ("skip", "blank"):
        bad: dict[str, Any] = {"fit__train_dataloader__on_bad_sample": what}
        plain, ours = ran(folder, f"plain-{what}", cache="none", **bad), ran(folder, f"ours-{what}", **bad)
        pairs = list(zip(ours.metrics, plain.metrics, strict=True))
        assert [one["bad_samples"] for one, _ in pairs] == [other["bad_samples"] for _, other in pairs]
        assert sum(one["bad_samples"] for one, _ in pairs) > 0
        assert [one["loss"] for one, _ in pairs] == pytest.approx([other["loss"] for _, other in pairs], rel=1e-5)


def test_a_picture_that_changes_while_a_run_trains_is_no_other_picture(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        keep = features._Maker.keep

        def changed(*given: Any) -> Any:
            found = keep(*given)
            draw(folder / "images" / "b.png", 7)
            return found

        patch.setattr(features._Maker, "keep", changed)
        with pytest.raises(InputRefused, match=r"b\.png: has changed since its features were kept"):
            ran(folder, "first")
