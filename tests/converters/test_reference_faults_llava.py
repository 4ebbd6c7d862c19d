"""What the reference gets wrong with a LLaVA's folders: preprocessor, paths, towers, projectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mmconvert import Options, api

if TYPE_CHECKING:
    from tests.conftest import Make
    from tests.converters.conftest import Draft, Reader, Workshop

TOWER_IN_TEXT = "model.vision_tower.vision_tower."
PROJECTOR = Options(container="safetensors", init={"projector": 7})


@pytest.fixture
def tuned(workshop: Workshop) -> Draft:
    """A LLaVA whose trained tower lies inside the text checkpoint, flagged so."""
    return workshop.draft("llava/tiny_src_tower_tuned")


# --- preprocessor, tokenizer, paths -----------------------------------------------------------------------------------


def test_a_preprocessor_is_carried_byte_for_byte(workshop: Workshop, llava: Draft) -> None:
    name = "image_model/preprocessor_config.json"
    (llava.path / name).write_text('{"image_mean": [0.1, 0.2, 0.3],  "crop_size": 28}')
    back = workshop.convert(workshop.convert(llava.path, "cs-2.10"), "llava")
    assert (back / name).read_bytes() == (llava.path / name).read_bytes()


def test_an_absent_preprocessor_is_derived_from_the_config(workshop: Workshop, llava: Draft) -> None:
    name = "image_model/preprocessor_config.json"
    (llava.path / name).unlink()
    derived = workshop.read_json(workshop.convert(workshop.convert(llava.path, "cs-2.10"), "llava") / name)
    assert (derived["size"], derived["crop_size"]) == ({"shortest_edge": 28}, {"height": 28, "width": 28})
    assert derived["image_mean"] == [0.48145466, 0.4578275, 0.40821073]
    assert derived["image_std"] == [0.26862954, 0.26130258, 0.27577711]
    assert derived["resample"] == 3


def test_tokenizer_and_generation_config_are_carried(workshop: Workshop, llava: Draft) -> None:
    back = workshop.convert(workshop.convert(llava.path, "cs-2.10"), "llava")
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        path = Path("text_model_llava", name)
        assert (back / path).read_bytes() == (llava.path / path).read_bytes()


def test_mm_vision_tower_is_a_path_that_works(workshop: Workshop, llava: Draft) -> None:
    back = workshop.convert(workshop.convert(llava.path, "cs-2.10"), "llava")
    tower = Path(workshop.read_json(back / "text_model_llava/config.json")["mm_vision_tower"])
    assert tower.is_absolute()
    assert (tower / "config.json").samefile(back / "image_model/config.json")
    # The text folder alone leads to the whole model.
    assert api.inspect(back / "text_model_llava").problem is None


def test_a_moved_export_is_pointed_anew(workshop: Workshop, llava: Draft, facts: Reader) -> None:
    first = workshop.convert(llava.path, "llava")
    moved = first.rename(workshop.new())
    assert not Path(workshop.read_json(moved / "text_model_llava/config.json")["mm_vision_tower"]).exists()
    again = workshop.convert(moved, "llava")
    tower = Path(workshop.read_json(again / "text_model_llava/config.json")["mm_vision_tower"])
    assert (tower / "config.json").samefile(again / "image_model/config.json")
    assert facts(again) == facts(moved)


# --- a tower inside the text checkpoint -------------------------------------------------------------------------------


def add_tower_to_text(draft: Draft, offset: float = 0.0) -> None:
    """Save the tower of `image_model/` inside the text file too, every value moved by `offset`."""
    tower = draft.part("image_model").tensors()
    copies = {TOWER_IN_TEXT + key: array + np.float32(offset) for key, array in tower.items()}
    draft.part("text_model_llava").change_tensors(lambda tensors: tensors.update(copies))


def tower_of(facts: Reader, path: Path, prefix: str = "image_model/") -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in facts(path).items() if key.startswith(prefix)}


def test_a_flagged_tower_inside_the_text_checkpoint_is_used(workshop: Workshop, tuned: Draft, facts: Reader) -> None:
    inside = tower_of(facts, tuned.path, f"text_model/{TOWER_IN_TEXT}")
    assert inside != tower_of(facts, tuned.path)
    back = workshop.convert(workshop.convert(tuned.path, "cs-2.10"), "llava")
    assert tower_of(facts, back) == inside
    assert workshop.read_json(back / "text_model_llava/config.json")["unfreeze_mm_vision_tower"] is False


def test_a_flag_without_the_tower_is_refused(workshop: Workshop, llava: Draft) -> None:
    llava.part("text_model_llava").set(unfreeze_mm_vision_tower=True)
    assert "unfreeze_mm_vision_tower is true, but" in workshop.refusal(llava.path)


def test_an_equal_tower_without_the_flag_is_noted(workshop: Workshop, llava: Draft, facts: Reader) -> None:
    expected = tower_of(facts, llava.path)
    add_tower_to_text(llava)
    cs = workshop.convert(llava.path, "cs-2.10")
    dropped = {each["subject"] for each in workshop.read_json(cs / "mmconvert.json")["dropped"]}
    assert {f"text_model/{TOWER_IN_TEXT}{key}" for key in expected} <= dropped
    assert tower_of(facts, workshop.convert(cs, "llava")) == expected


def test_a_different_tower_without_the_flag_is_refused_unless_one_is_chosen(
    workshop: Workshop, llava: Draft, facts: Reader
) -> None:
    add_tower_to_text(llava, offset=1.0)
    assert "--tower text" in workshop.refusal(llava.path)
    towers = {"image": "image_model/", "text": f"text_model/{TOWER_IN_TEXT}"}
    for choice, prefix in towers.items():
        cs = workshop.convert(llava.path, "cs-2.10", Options(container="safetensors", take=choice))
        assert tower_of(facts, workshop.convert(cs, "llava")) == tower_of(facts, llava.path, prefix)


def test_a_failed_run_leaves_nothing_that_blocks_the_next(workshop: Workshop, llava: Draft) -> None:
    add_tower_to_text(llava, offset=1.0)
    out = workshop.new()
    workshop.refusal(llava.path, out)
    assert sorted(workshop.root.iterdir()) == [llava.path]
    api.convert(llava.path, out, "cs-2.10", options=Options(take="image"), fsync=False)
    assert out.is_dir()


# --- a missing projector ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "ending"), [(0, "weight"), (2, "weight"), (2, "bias")])
def test_a_projector_tensor_under_another_name_is_named_beside_a_plain_decoder(
    number: int, ending: str, workshop: Workshop, make_llava: Make
) -> None:
    """As adapters leave them. A plain config does not say how deep the projector is: its other tensors do."""
    other = f"model.mm_projector.{number}.base_layer.{ending}"

    def rename(tensors: dict[str, Any]) -> None:
        tensors[other] = tensors.pop(f"model.mm_projector.{number}.{ending}")

    folder = make_llava(workshop.new(), edit=rename)
    path = folder / "text_model_llava" / "config.json"
    spoken = json.loads(path.read_text())
    plain = {name: value for name, value in spoken.items() if not name.startswith("mm_")}
    path.write_text(json.dumps({**plain, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    assert f"{other}: no tensor of this name" in workshop.refusal(folder)


def test_a_missing_projector_is_refused_unless_asked_for(golden: Path, workshop: Workshop) -> None:
    message = workshop.refusal(golden / "inputs/mmsimple_noproj")
    assert "mm_projector.0.weight is missing" in message
    assert "--init projector=uniform:SEED" in message


def test_an_invented_projector_is_seeded_and_listed(golden: Path, workshop: Workshop, facts: Reader) -> None:
    source = golden / "inputs/mmsimple_noproj"
    first, second = (workshop.convert(source, "cs-2.10", PROJECTOR) for _ in range(2))
    other = workshop.convert(source, "cs-2.10", Options(container="safetensors", init={"projector": 8}))
    assert facts(first) == facts(second)
    changed = {key for key, value in facts(other).items() if value != facts(first)[key]}
    manifest = workshop.read_json(first / "mmconvert.json")
    assert {each["subject"] for each in manifest["invented"]} == changed
    assert changed == {key for key in facts(first) if ".projection." in key}
    assert manifest["options"]["init"] == {"projector": "uniform:7"}


def test_an_invented_projector_has_the_checkpoint_s_element_type(workshop: Workshop) -> None:
    draft = workshop.draft("inputs/mmsimple_noproj")
    for part in ("image_model", "text_model"):
        draft.part(part).change_tensors(
            lambda tensors: tensors.update({key: array.astype("float16") for key, array in tensors.items()})
        )
    tensors = api.open(workshop.convert(draft.path, "cs-2.10", PROJECTOR))
    assert {ref.dtype.name for ref in tensors.values()} == {"float16"}
