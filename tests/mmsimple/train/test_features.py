"""What frozen encoders make of pictures is made once, kept by all that it depends on, and trains as pictures do."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from mmconvert import staging
from mmconvert.errors import DiskError, InputRefused, UsageError
from mmsimple.data.pictures import DIGEST
from mmsimple.freeze import freeze
from mmsimple.model import ImageModel, MultimodalModel
from mmsimple.train import features
from mmsimple.train.features import with_features
from mmsimple.train.metrics import read_metrics
from mmsimple.train.reading import read_run_file
from mmsimple.train.run import run
from tests.mmsimple.data.pictures import draw, make_dataset
from tests.mmsimple.data.worked_example import A, B, C
from tests.mmsimple.small import FLOAT32, MULTIMODAL, apart
from tests.mmsimple.train.runs import assert_equal, tensors, write_params
from tests.mmsimple.train.test_resume import started

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
    assert f"pictures, 2 of {bytes_each} B, 1.0 kB in all, 2 to be made" in ran(folder, "first").said
    assert [path.stat().st_size for path in kept(folder)] == 2 * [bytes_each]
    draw(folder / "images" / "b.png", 7)
    # What is there from before is none of those that are to be made, however many that is.
    said = ran(folder, "second").said
    assert "1.0 kB in all, 1 to be made" in said
    assert "features of pictures: 1 made" in said


@pytest.mark.parametrize("projection", [True, False], ids=["linear next", "none"])
@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_half_precision_takes_half_the_room_where_it_comes_to_the_same(
    half: str, projection: bool, folder: Path
) -> None:
    changes: dict[str, Any] = {"init__precision": {"fp16_type": half, "max_gradient_norm": 1.0}}
    size = 2 if projection else 4
    if not projection:
        encoder = "init__model__image_model_list__image_models__0__image_encoder__hidden_size"
        changes |= {"init__model__image_model_list__global_image_projection": None, encoder: 48}
    plain, ours = ran(folder, "plain", cache="none", **changes), ran(folder, "ours", **changes)
    width = 32 if projection else 48
    assert [path.stat().st_size for path in kept(folder)] == 2 * [DIGEST + size * 4 * width]
    losses = [[each["loss"] for each in metrics] for metrics in (ours.metrics, plain.metrics)]
    # An encoder in float32 has what is kept to the bit, or nearly, on whatever machine.
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


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


@pytest.mark.parametrize("whom", [os.kill, os.killpg], ids=["one process", "all of them"])
def test_a_run_that_is_ended_while_it_makes_them_ends_at_once_and_quietly(
    whom: Callable[[int, int], None], tmp_path: Path
) -> None:
    rows = [A._replace(paths=(f"{number}.png", "None")) for number in range(600)]
    make_dataset(tmp_path, rows)
    for number in range(len(rows)):
        draw(tmp_path / "images" / f"{number}.png", number)
    loader: dict[str, Any] = {"fit__train_dataloader__num_workers": 2, "init__model__freeze": FROZEN}
    path = write_params(tmp_path, init__performance={"cache": "features"}, **loader)
    process = started(path, tmp_path)
    deadline = monotonic() + 60
    while len(kept(tmp_path)) < 2 and monotonic() < deadline:
        sleep(0.01)
    whom(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    # One of two may not have been finished.
    assert 1 <= len(kept(tmp_path)) < len(rows)
    assert "Traceback" not in said
    assert "Error" not in said


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
    ran(folder, "first")
    draw(folder / "images" / "b.png", 7)
    before = kept(folder)
    monkeypatch.setattr(staging, "_free", lambda path: staging.MARGIN + 519)
    with pytest.raises(DiskError, match=r"not enough room; .* needed, .* free"):
        ran(folder, "second")
    assert kept(folder) == before


def test_a_write_that_fails_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("mmsimple.data.pictures.os.replace", full)
        with pytest.raises(DiskError, match="No space left"):
            ran(folder, "first")
    assert kept(folder) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_features_that_cannot_be_read_are_told_in_a_line(workers: int, folder: Path) -> None:
    helped: dict[str, Any] = {"fit__train_dataloader__num_workers": workers}
    ran(folder, "first")
    path = kept(folder)[0]
    path.unlink()
    path.mkdir()
    with pytest.raises(DiskError) as caught:
        ran(folder, "second", **helped)
    assert str(caught.value).startswith(f"{path}: Is a directory")
    assert "\n" not in str(caught.value)


def test_features_of_other_samples_are_not_made(folder: Path) -> None:
    assert ran(folder, "first", fit__train_dataloader__data_subset="0.0-0.2").seen == 1


def test_pictures_are_seen_one_by_one_on_a_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    encode = ImageModel.encode

    def noted(model: ImageModel, images: Tensor) -> list[Tensor]:
        sizes.append(len(images))
        return encode(model, images)

    monkeypatch.setattr(ImageModel, "encode", noted)
    ran(folder, "first")
    assert sizes == [1, 1]


@pytest.mark.parametrize("change", ["second encoder", "select", "nothing"])
def test_every_encoder_and_what_is_taken_of_them_counts(change: str, folder: Path) -> None:
    def keys() -> set[str]:
        return {path.parent.parent.name for path in kept(folder)}

    model = MultimodalModel(replace(MULTIMODAL, image_models=2 * MULTIMODAL.image_models))
    freeze(model, FROZEN)
    config = read_run_file(write_params(folder, init__performance={"cache": "features"}))
    config = replace(config, validation_data=())
    with_features(config, model, folder, torch.device("cpu"), lambda _: None)
    (before,) = keys()
    if change == "second encoder":
        with torch.no_grad():
            next(model.image_model.encoders[1].parameters()).add_(1)
    if change == "select":
        model.config = replace(model.config, select="full")
        model.image_model.select = "full"
    with_features(config, model, folder, torch.device("cpu"), lambda _: None)
    assert len(keys()) == (1 if change == "nothing" else 2)
    assert before in keys()


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
