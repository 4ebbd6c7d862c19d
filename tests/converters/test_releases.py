"""What releases spell otherwise: every model's section, from any release to any other, and the release told from it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mmconvert import Hints, api, registry, spellings
from mmconvert.errors import InputRefused
from mmconvert.layouts import recognise
from mmconvert.releases import Release

if TYPE_CHECKING:
    from tests.converters.conftest import Configs, Reader, Workshop

LLAMA = {"model_type": "llama", "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2}
MODELS = {
    "llama": "llama_mha",
    "clip-vit": "clip_proj",
    "llava": "llava",
    "mmsimple-llava": "mmsimple",
}


def section(folder: Path) -> dict[str, Any]:
    params = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    found: dict[str, Any] = params["trainer"]["init"]["model"] if "trainer" in params else params["model"]
    return found


def test_1_9_says_use_rms_norm(llama: Configs) -> None:
    old, new = llama.to_cs(LLAMA, "1.9"), llama.to_cs(LLAMA, "2.0")
    assert (old["use_rms_norm"], "norm_type" in old) == (True, False)
    assert (new["norm_type"], "use_rms_norm" in new) == ("rmsnorm", False)
    assert llama.to_hf(old) == llama.to_hf(new)


@pytest.mark.parametrize("said", [True, False])
def test_use_position_embedding_is_read_and_never_written(llama: Configs, said: bool) -> None:
    old = {**llama.to_cs(LLAMA, "1.9"), "use_position_embedding": said}
    if said:
        assert llama.to_hf(old) == llama.to_hf(llama.to_cs(LLAMA))
    else:
        with pytest.raises(InputRefused, match="position_embedding_type is None"):
            llama.to_hf(old)
    assert "use_position_embedding" not in llama.to_cs(LLAMA, "1.9")


def test_a_norm_that_is_no_rmsnorm_is_refused(llama: Configs) -> None:
    with pytest.raises(InputRefused, match="norm_type is 'layernorm'"):
        llama.to_hf({**llama.to_cs(LLAMA, "1.9"), "use_rms_norm": False})


def test_2_3_lists_an_encoder_and_its_projection() -> None:
    changes = next(each.b.changes for each in registry.converters() if each.model == "mmsimple-llava")
    projection = {"name": "FeedForwardNetwork"}
    both = {"image_model_list": {"image_models": [{"image_encoder": {"a": 1}, "projection_layer": projection}]}}
    old = spellings.write(changes, both, Release(2, 3))
    assert old["image_model_list"]["image_models"] == [{"image_model": [{"a": 1}, projection]}]
    assert spellings.read(changes, old)["image_model_list"] == both["image_model_list"]


@pytest.mark.parametrize("model", MODELS)
def test_every_release_leads_to_every_other(
    model: str, golden: Path, workshop: Workshop, facts: Reader, tmp_path: Path
) -> None:
    releases = next(each.b_releases for each in registry.converters() if each.model == model)
    source = golden / "inputs" / MODELS[model]
    direct = {release: workshop.convert(source, f"cs-{release}", model=model) for release in releases}
    newest = facts(direct[releases[-1]])
    # Neighbours, the two ends, and across the changes: the rest is the same step again.
    pairs = {*pairwise(releases), (releases[0], releases[-1]), (releases[-1], releases[0])}
    for start, end in sorted(pairs):
        out = workshop.convert(direct[start], f"cs-{end}")
        assert section(out) == section(direct[end]), (start, end)
        assert facts(out) == newest
        assert recognise(out).node.release == end


@pytest.mark.parametrize(
    ("release", "expected", "words"),
    [
        ("1.9", "1.9", "before 2.0 use_rms_norm is norm_type"),
        ("2.1", "2.3", "2.0 to 2.3"),
        ("2.4", "2.10", "since 2.4 a model section has a name"),
    ],
)
def test_a_release_that_nobody_says_is_told_from_the_params(
    release: str, expected: str, words: str, golden: Path, workshop: Workshop
) -> None:
    folder = workshop.convert(golden / "inputs/llama_mha", f"cs-{release}")
    (folder / "mmconvert.json").unlink()
    found = api.inspect(folder)
    assert (found.release, words in found.release_from) == (expected, True)


def test_a_params_file_tells_it_too(golden: Path, workshop: Workshop) -> None:
    folder = workshop.convert(golden / "inputs/llama_mha", "cs-2.2")
    (folder / "mmconvert.json").unlink()
    params = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    (folder / "config.yaml").write_text(yaml.safe_dump({**params, "runconfig": {"max_steps": 5}}))
    assert api.inspect(folder).release == "2.2"
    assert "params are flat" in api.inspect(folder).release_from
    (folder / "config.yaml").write_text(yaml.safe_dump({"trainer": {"init": params}}))
    assert (api.inspect(folder).release, "under `trainer`" in api.inspect(folder).release_from) == ("2.3", True)


def test_what_the_user_says_is_believed_first(golden: Path, workshop: Workshop) -> None:
    folder = workshop.convert(golden / "inputs/llama_mha", "cs-2.2")
    found = api.inspect(folder, hints=Hints(release=Release(2, 1)))
    assert (found.release, found.release_from) == ("2.1", "--from-release")
    assert (api.inspect(folder).release, api.inspect(folder).release_from) == ("2.2", "mmconvert.json")


def test_an_old_release_s_container_is_said_once(golden: Path, workshop: Workshop) -> None:
    source = golden / "inputs/llama_mha"
    old = api.plan(source, workshop.new(), "cs-2.0").warnings
    assert len([each for each in old if "format 0.5" in each]) == 1
    assert not [each for each in api.plan(source, workshop.new(), "cs-2.1").warnings if "format 0.5" in each]


def test_what_hugging_face_cannot_say_still_goes_from_release_to_release(golden: Path, workshop: Workshop) -> None:
    folder = workshop.convert(golden / "inputs/llama_mha", "cs-2.2")
    params = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    params["model"] |= {"dropout_rate": 0.3, "output_logits_scale": 0.5, "norm_first": True}
    (folder / "config.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(InputRefused, match="output_logits_scale"):
        workshop.convert(folder, "hf")
    out = workshop.convert(folder, "cs-2.10")
    expected = {name: value for name, value in params["model"].items() if name != "norm_first"}
    assert section(out) == {"name": "llama", **expected}
    assert [each["field"] for each in workshop.read_json(out / "mmconvert.json")["config"]["dropped"]] == ["norm_first"]
    assert api.verify(folder, out).problems == []


def test_a_tensor_that_is_no_model_s_is_refused_between_releases_too(golden: Path, workshop: Workshop) -> None:
    folder = workshop.edit(workshop.convert(golden / "inputs/llama_mha", "cs-2.2"))
    folder.change_tensors(lambda tensors: tensors.pop("transformer_decoder.layers.1.norm3.weight"))
    with pytest.raises(InputRefused, match=r"layers\.1\.norm3\.weight is missing \(expected 48\)"):
        workshop.convert(folder.path, "cs-2.10")
