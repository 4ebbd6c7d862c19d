"""Checkpoints in every format become models, and models become CS folders that load and convert like any other."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmconvert import Hints, api
from mmconvert.errors import InputRefused, OutputRefused, UsageError
from mmsimple import MultimodalModel, build, load_model
from mmsimple.checkpoint import save
from mmsimple.config import (
    AveragePoolingConfig,
    ClassifierConfig,
    IdentityConfig,
    ImageModelConfig,
    LlamaConfig,
    ModelConfig,
    MultimodalConfig,
    ViTConfig,
)
from mmsimple.freeze import freeze
from mmsimple.size import size_of_file

Make = Callable[..., Path]
AsCS = Callable[..., Path]
Contents = Callable[[Path], dict[str, tuple[str, tuple[int, ...], bytes]]]
Tensors = Mapping[str, Tensor]

GOLDEN = Path(__file__).parents[1] / "golden"
HF = GOLDEN / "inputs" / "mmsimple"
ENCODER = ViTConfig(16, 2, 2, 24, (28, 28), (14, 14))
DECODER = LlamaConfig(50, 16, 2, 2, 2, 32, 8, 40)
POOLING = AveragePoolingConfig(16, 16, (1, 2))


def same(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def trainers(tmp_path: Path) -> Path:
    """The golden checkpoint that a trainer saved, in a folder with its params file."""
    folder = tmp_path / "trainers"
    folder.mkdir()
    shutil.copy(GOLDEN / "mdl" / "mmsimple_trainer_checkpoint_3.mdl", folder)
    params = yaml.safe_load((GOLDEN / "mdl" / "mmsimple_trainer_params.yaml").read_text())
    # Cerebras's converter writes it into a class that has no such field.
    del params["trainer"]["init"]["model"]["image_model_list"]["image_models"][0]["image_encoder"]["num_classes"]
    (folder / "config.yaml").write_text(yaml.safe_dump(params))
    return folder


@pytest.fixture
def as_cs(tmp_path: Path) -> AsCS:
    """`as_cs(source, model=…)`: the source as a CS folder of safetensors."""

    def convert(source: Path, **hints: Any) -> Path:
        out = tmp_path / "as-cs"
        options = api.Options(container="safetensors")
        api.convert(source, out, "cs", options=options, hints=Hints(**hints), fsync=False)
        return out

    return convert


def test_what_a_trainer_saved_is_loaded_saved_and_goes_home(trainers: Path, contents: Contents, tmp_path: Path) -> None:
    model = MultimodalModel.from_checkpoint(trainers)
    assert not model.training
    found = {key.removeprefix("model."): ref.read() for key, ref in api.open(trainers).items()}
    assert {key: each.numpy().tobytes() for key, each in model.state_dict().items()} == found
    model.save(tmp_path / "saved")
    assert api.verify(tmp_path / "saved").problems == []
    assert same(MultimodalModel.from_checkpoint(tmp_path / "saved").state_dict(), model.state_dict())
    for source, out in ((trainers, "theirs"), (tmp_path / "saved", "ours")):
        api.convert(source, tmp_path / out, "hf", fsync=False)
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")


def test_a_name_with_and_without_its_prefix_is_refused(as_cs: AsCS) -> None:
    folder = as_cs(HF)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.text_model.ln_f.weight"] = tensors["text_model.ln_f.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputRefused, match=r"model\.safetensors: .*ln_f\.weight are one tensor under two spellings"):
        load_model(folder)


def test_problems_of_tensors_name_the_file_and_the_key_as_it_stands_there(as_cs: AsCS) -> None:
    folder = as_cs(HF)
    tensors = load_file(folder / "model.safetensors")
    tensors = {f"model.{key}": each for key, each in tensors.items()} | {"model.stray": torch.zeros(3)}
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputRefused, match=r"as-cs/model\.safetensors: model\.stray is no tensor of the model \(3\)"):
        load_model(folder)


def test_any_format_is_loaded_as_what_it_would_be_converted_to(as_cs: AsCS, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in HF.parent.rglob("*")}
    model = MultimodalModel.from_checkpoint(HF)
    assert {path: path.stat().st_mtime_ns for path in HF.parent.rglob("*")} == before
    assert list(tmp_path.iterdir()) == []
    assert same(model.state_dict(), load_file(as_cs(HF) / "model.safetensors"))


def test_cs_llava_is_the_same_model_under_other_names(as_cs: AsCS) -> None:
    folder = as_cs(HF, model="llava")
    assert api.recognise(folder).node.model == "llava"
    assert same(load_model(folder).state_dict(), load_model(HF).state_dict())


def test_llava_named_by_a_hint_is_loaded_too() -> None:
    assert same(load_model(HF, hints=Hints(model="llava")).state_dict(), load_model(HF).state_dict())


def test_an_element_type_that_no_mdl_holds_is_loaded_all_the_same(make_llama: Make, tmp_path: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.float8_e4m3fn)

    model = load_model(make_llama(tmp_path / "llama", edit=edit))
    assert model.state_dict()["ln_f.weight"].dtype is torch.float8_e4m3fn


def test_a_head_that_is_tied_but_differs_is_refused(make_llama: Make, tmp_path: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    folder = make_llama(tmp_path / "llama", edit=edit, tie_word_embeddings=True)
    with pytest.raises(InputRefused, match=r"model\.safetensors: lm_head\.weight: differs from model\.embed_tokens"):
        load_model(folder)


def test_a_projector_is_made_only_where_a_seed_is_given() -> None:
    source = GOLDEN / "inputs" / "mmsimple_noproj"
    with pytest.raises(InputRefused, match=r"mm_projector\.0\.weight is missing .*--init projector=uniform:SEED"):
        MultimodalModel.from_checkpoint(source)
    made = [MultimodalModel.from_checkpoint(source, init={"projector": seed}).state_dict() for seed in (1, 1, 2)]
    assert same(made[0], made[1])
    assert not same(made[0], made[2])


def test_what_is_cs_already_has_nothing_to_make(as_cs: AsCS) -> None:
    folder = as_cs(HF)
    with pytest.raises(UsageError, match="is a CS checkpoint, whole or broken; init is for what a conversion lacks"):
        MultimodalModel.from_checkpoint(folder, init={"projector": 1})
    assert MultimodalModel.from_checkpoint(folder, init={}).assets == MultimodalModel.from_checkpoint(folder).assets


@pytest.mark.parametrize("dtype", ["bfloat16", torch.int8, torch.bool, torch.complex64, float])
def test_weights_cannot_be_of_any_other_type(dtype: Any) -> None:
    for load_it in (load_model, MultimodalModel.from_checkpoint):
        with pytest.raises(UsageError, match=r"^dtype is .*, but must be a type of weights, such as torch\.bfloat16$"):
            load_it(HF, dtype=dtype)


@pytest.mark.parametrize("container", ["bin", "", "h5\n"])
def test_a_container_that_cs_does_not_have_is_refused(container: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^container is .*, but a CS checkpoint is in mdl or safetensors$"):
        MultimodalModel.from_checkpoint(HF).save(tmp_path / "cs", container=container)
    assert list(tmp_path.iterdir()) == []


def test_loading_freezes_nothing_and_heeds_no_pattern(as_cs: AsCS) -> None:
    """Not even one that nothing could be trained with: what is loaded may be for inference alone."""
    folder = as_cs(HF)
    params = yaml.safe_load((folder / "config.yaml").read_text())
    params["model"]["freeze"] = ["matches nothing", "(a+)+$"]
    (folder / "config.yaml").write_text(yaml.safe_dump(params))
    model = MultimodalModel.from_checkpoint(folder)
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(UsageError, match="'matches nothing' matches no parameter"):
        freeze(model, model.config.freeze[:1])


def test_a_cs_llava_trains_its_projector(as_cs: AsCS) -> None:
    """Its patterns are of its own names: `^image_model` is the encoder alone."""
    folder = as_cs(GOLDEN / "llava" / "tiny_src", model="llava")
    patterns = yaml.safe_load((folder / "config.yaml").read_text())["model"]["freeze"]
    assert "^image_model" in patterns
    parts = {part.name: part for part in size_of_file(folder).size.freezing.parts}
    assert parts["image_model.projection"].trained == parts["image_model.projection"].parameters > 0
    assert parts["image_model.image_model_list.0.0"].trained == 0
    assert (parts["text_model"].trained == 0) == ("^text_model" in patterns)


def test_a_params_file_alone_is_refused(trainers: Path) -> None:
    with pytest.raises(InputRefused, match=r"config\.yaml: is a params file alone, without weights"):
        load_model(trainers / "config.yaml")


def test_a_decoder_alone_is_no_multimodal_model(llama: Path) -> None:
    with pytest.raises(InputRefused, match="is no multimodal model"):
        MultimodalModel.from_checkpoint(llama)


def test_the_tokenizer_travels_from_folder_to_folder(llava: Path, as_cs: AsCS, tmp_path: Path) -> None:
    MultimodalModel.from_checkpoint(llava).save(tmp_path / "first")
    MultimodalModel.from_checkpoint(tmp_path / "first").save(tmp_path / "second")

    def assets(folder: Path) -> dict[str, bytes]:
        root = folder / "assets"
        return {str(each.relative_to(root)): each.read_bytes() for each in root.rglob("*") if each.is_file()}

    assert "text_model/tokenizer.model" in assets(tmp_path / "second")
    assert assets(tmp_path / "second") == assets(tmp_path / "first") == assets(as_cs(llava))


def test_a_model_may_be_saved_over_the_folder_that_it_came_from(llava: Path, tmp_path: Path) -> None:
    MultimodalModel.from_checkpoint(llava).save(tmp_path / "cs")
    model = MultimodalModel.from_checkpoint(tmp_path / "cs", dtype=torch.float32)
    with pytest.raises(OutputRefused):
        model.save(tmp_path / "cs")
    model.save(tmp_path / "cs", overwrite=True)
    assert same(MultimodalModel.from_checkpoint(tmp_path / "cs").state_dict(), model.state_dict())


@pytest.mark.parametrize("container", ["mdl", "safetensors"])
@pytest.mark.parametrize(
    "config",
    [
        DECODER,
        replace(DECODER, share_embedding_weights=False, attention_sliding_window_length=4),
        ENCODER,
        ClassifierConfig(ENCODER, 5),
        # Projectors that Cerebras has no words for.
        MultimodalConfig((ImageModelConfig(ENCODER),), DECODER, IdentityConfig()),
        MultimodalConfig((ImageModelConfig(ENCODER, POOLING),), DECODER),
    ],
    ids=["llama", "mistral", "encoder", "classifier", "identity", "pooling"],
)
def test_every_model_is_saved_and_loaded(config: ModelConfig, container: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = build(config)
    manifest = save(module, config, tmp_path / "cs", container=container)
    assert {each["key"] for each in manifest["tensors"]} == module.state_dict().keys()
    assert api.verify(tmp_path / "cs").problems == []
    loaded = load_model(tmp_path / "cs")
    assert loaded.config == config
    assert same(loaded.state_dict(), module.state_dict())


def test_a_model_that_nothing_converts_is_known_all_the_same(tmp_path: Path) -> None:
    config = MultimodalConfig((ImageModelConfig(ENCODER),), DECODER, IdentityConfig())
    save(build(config), config, tmp_path / "cs")
    found = api.inspect(tmp_path / "cs")
    assert found.model == "mmsimple-llava"
    assert "image_model_list.global_image_projection" in found.refused["hf"]


def test_a_type_that_the_container_cannot_hold_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match=r"a \.mdl file cannot hold float8_e4m3fn"):
        save(build(DECODER).to(torch.float8_e4m3fn), DECODER, tmp_path / "cs")
    assert list(tmp_path.iterdir()) == []
