"""What LLaVA's trainers leave behind: towers in the text file, tower paths of every kind, shards, types, their state.

The way is to llava-hf, which a tower of random numbers would leave in silence.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmconvert import Hints, Options, api
from mmconvert.errors import InputRefused

if TYPE_CHECKING:
    from tests.converters.conftest import Draft, Workshop

Tensors = dict[str, torch.Tensor]
INSIDE = "model.vision_tower.vision_tower."
IMAGE, TEXT = "image_model", "text_model_llava"


def weights(folder: Path) -> Tensors:
    found: Tensors = load_file(folder / "model.safetensors")
    return found


def put_inside(llava: Draft, change: Callable[[torch.Tensor], torch.Tensor]) -> Tensors:
    """Save a tower in the text file as well, and give it."""
    tower = {key: change(tensor) for key, tensor in weights(llava.path / IMAGE).items()}
    text = llava.path / TEXT / "model.safetensors"
    save_file({**load_file(text), **{INSIDE + key: each for key, each in tower.items()}}, text, {"format": "pt"})
    return tower


def tower_of(joined: Path) -> Tensors:
    prefix = "vision_tower."
    return {key.removeprefix(prefix): each for key, each in weights(joined).items() if key.startswith(prefix)}


def equal(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- a tower inside the text checkpoint -------------------------------------------------------------------------------


def test_a_tower_that_was_trained_is_taken_from_the_text_file(llava: Draft, workshop: Workshop) -> None:
    tuned = put_inside(llava, lambda tensor: tensor + 1)
    llava.part(TEXT).set(unfreeze_mm_vision_tower=True)
    assert equal(tower_of(workshop.convert(llava.path, "llava-hf", Options())), tuned)


def test_a_tower_that_should_be_there_and_is_not_is_refused(llava: Draft, workshop: Workshop) -> None:
    llava.part(TEXT).set(unfreeze_mm_vision_tower=True)
    with pytest.raises(InputRefused, match="unfreeze_mm_vision_tower is true, but the checkpoint holds no"):
        workshop.convert(llava.path, "llava-hf", Options())


def test_a_copy_of_the_same_tower_is_left_out_and_listed(llava: Draft, workshop: Workshop) -> None:
    tower = put_inside(llava, lambda tensor: tensor)
    out = workshop.convert(llava.path, "llava-hf", Options())
    assert equal(tower_of(out), tower)
    dropped = workshop.read_json(out / "mmconvert.json")["dropped"]
    assert len([each for each in dropped if INSIDE in each["subject"]]) == len(tower)


@pytest.mark.parametrize("take", [None, "text", "image"])
def test_two_towers_that_differ_need_a_word(llava: Draft, workshop: Workshop, take: str | None) -> None:
    tuned, own = put_inside(llava, lambda tensor: tensor + 1), weights(llava.path / IMAGE)
    if take is None:
        with pytest.raises(InputRefused, match="--tower text or --tower image says which to take"):
            workshop.convert(llava.path, "llava-hf", Options())
    else:
        out = workshop.convert(llava.path, "llava-hf", Options(take=take))
        assert equal(tower_of(out), tuned if take == "text" else own)


# --- where the tower is -----------------------------------------------------------------------------------------------


def joined(text: Path, workshop: Workshop, **hints: Any) -> Path:
    return workshop.convert(text, "llava-hf", Options(), **hints)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("{root}/elsewhere/clip", "elsewhere/clip"),
        ("../clip", "clip"),
        ("clip", "clip"),
        ("inner/clip", f"{TEXT}/inner/clip"),
        ("openai/clip-vit-large-patch14-336", "clip-vit-large-patch14-336"),
        ("openai/clip-vit-large-patch14-336", "image_model"),
        ("/gone/since/image_model", "image_model"),
        ("", "image_model"),
        (None, "image_model"),
    ],
)
def test_a_tower_is_found_by_any_path_that_a_trainer_writes(
    llava: Draft, workshop: Workshop, value: str | None, place: str
) -> None:
    tower = weights(llava.path / IMAGE)
    (llava.path / place).parent.mkdir(parents=True, exist_ok=True)
    (llava.path / IMAGE).rename(llava.path / "moving")
    (llava.path / "moving").rename(llava.path / place)
    llava.part(TEXT).set(mm_vision_tower=value and value.format(root=llava.path))
    assert equal(tower_of(joined(llava.path / TEXT, workshop)), tower)


def test_a_relative_path_may_be_meant_from_where_the_command_runs(
    llava: Draft, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers = workshop.new()
    shutil.copytree(llava.path / IMAGE, towers / "towers/clip")
    shutil.rmtree(llava.path / IMAGE)
    llava.part(TEXT).set(mm_vision_tower="towers/clip")
    monkeypatch.chdir(towers)
    assert equal(tower_of(joined(llava.path / TEXT, workshop)), weights(towers / "towers/clip"))


def test_a_tower_may_be_named_where_it_lies_in_a_hub_s_cache(llava: Draft, workshop: Workshop) -> None:
    tower = weights(llava.path / IMAGE)
    cache = workshop.new() / "models--openai--clip-vit-large-patch14-336"
    shutil.copytree(llava.path / IMAGE, cache / "snapshots/abc")
    shutil.rmtree(llava.path / IMAGE)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("abc")
    llava.part(TEXT).set(mm_vision_tower="openai/clip-vit-large-patch14-336")
    with pytest.raises(InputRefused, match="is not found; name its folder with --vision-tower"):
        joined(llava.path / TEXT, workshop)
    assert equal(tower_of(joined(llava.path / TEXT, workshop, vision_tower=cache)), tower)


# --- what else is there -----------------------------------------------------------------------------------------------


class Trap:
    """What a stranger's pickle may be: it fails the test where anything runs it."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was run",)


def test_a_trainers_own_state_is_not_looked_at(llava: Draft, workshop: Workshop, facts: Any) -> None:
    plain = joined(llava.path, workshop)
    text = llava.path / TEXT
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (text / name).write_bytes(pickle.dumps(Trap()))
    (text / "trainer_state.json").write_text("{broken")
    (text / "zero_to_fp32.py").write_text("raise SystemExit")
    (text / "latest").write_text("global_step10")
    (text / "global_step10").mkdir()
    assert facts(joined(llava.path, workshop)) == facts(plain)


def test_a_checkpoint_of_a_run_is_known_by_its_config(llava: Draft, workshop: Workshop, facts: Any) -> None:
    plain = joined(llava.path, workshop)
    run = llava.path / "my-llava-run"
    run.mkdir()
    (llava.path / TEXT).rename(run / "checkpoint-10")
    config = run / "checkpoint-10/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "mm_vision_tower": str(llava.path / IMAGE)}))
    assert facts(joined(run / "checkpoint-10", workshop)) == facts(plain)


@pytest.mark.parametrize("shards", [1, 3])
def test_mixed_types_in_bin_shards_stay_as_they_are(llava: Draft, workshop: Workshop, shards: int) -> None:
    text = llava.path / TEXT
    tensors = {
        key: tensor.half() if "mm_projector" in key else tensor.bfloat16() for key, tensor in weights(text).items()
    }
    (text / "model.safetensors").unlink()
    names = [f"pytorch_model-{n + 1:05d}-of-{shards:05d}.bin" for n in range(shards)]
    names = names if shards > 1 else ["pytorch_model.bin"]
    for number, name in enumerate(names):
        torch.save({key: tensors[key] for key in list(tensors)[number::shards]}, text / name)
    if shards > 1:
        index = {"metadata": {}, "weight_map": {key: names[at % shards] for at, key in enumerate(tensors)}}
        (text / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    out = joined(llava.path, workshop)
    found = weights(out)
    assert found["language_model.model.norm.weight"].dtype == torch.bfloat16
    assert found["multi_modal_projector.linear_1.weight"].dtype == torch.float16
    assert found["vision_tower.vision_model.post_layernorm.weight"].dtype == torch.float32
    assert workshop.read_json(out / "config.json")["torch_dtype"] == "bfloat16"
    back = workshop.convert(out, "llava", Options())
    assert all(torch.equal(each, tensors[key]) for key, each in weights(back / TEXT).items())
    assert not api.verify(llava.path, out, hints_a=Hints()).problems
