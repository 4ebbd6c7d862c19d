"""How large a model is: counts that are known, and activations as those of a real step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import process_time

import pytest
import torch
import yaml

import mmsimple
from mmconvert.errors import InputRefused, UsageError
from mmconvert.paths import put
from mmsimple.attention import Attention
from mmsimple.config import ClassifierConfig, ModelConfig, MultimodalConfig
from mmsimple.freeze import freeze
from mmsimple.load import build
from mmsimple.model import Batch, MultimodalModel
from mmsimple.size import Size, kept, size, size_of_file
from mmsimple.workload import Half, Workload, workload
from tests.mmsimple.small import DECODER, MULTIMODAL, VIT, random, token_ids

CONFIGS = Path(mmsimple.__file__).parent / "configs"
PHASE_1 = ("^image_model.image_model_list", "^text_model")
PHASE_2 = ("^image_model.image_model_list",)
FREEZES = [(), PHASE_1, PHASE_2, ("word_embeddings", "layers.0")]
# As wide as layers may be, see the schemas.
LARGEST = replace(DECODER, hidden_size=2**12, num_heads=2**11, rotary_dim=2, filter_size=2**20, vocab_size=2**24)
WORK = Workload(3, "", 24, "", 1, None, "")


def sized(config: ModelConfig, work: Workload = WORK) -> Size:
    return size(config, work, "x.yaml")


def of_a_real_step(config: MultimodalConfig, work: Workload) -> int:
    """What autograd keeps of the model's own loss, on tensors with memory; attention drops nothing, see `size`."""
    model = MultimodalModel(config)
    freeze(model, config.freeze)
    for module in model.modules():
        if isinstance(module, Attention):
            module.dropout = 0.0
    samples, length = work.batch_size, work.sequence_length
    ids = token_ids(samples, length)
    batch = Batch(
        ids,
        random(samples, 1, 3, 28, 28),
        torch.arange(model.tokens_per_image).expand(samples, 1, -1),
        token_modality_idx=torch.zeros_like(ids),
        labels=ids,
        loss_mask=torch.ones(samples, length),
    )
    return kept(model.parameters(), lambda: model.loss(batch), work.half)


@pytest.mark.parametrize("half", [None, "bfloat16", "float16"])
@pytest.mark.parametrize("patterns", FREEZES)
def test_activations_are_those_of_a_real_step(patterns: tuple[str, ...], half: Half | None) -> None:
    config, work = replace(MULTIMODAL, freeze=patterns), replace(WORK, half=half)
    # Besides, a real step keeps where images stand and which tokens count: a few integers for each.
    positions = 6 * 8 * work.batch_size * work.sequence_length
    assert 0 <= of_a_real_step(config, work) - sized(config, work).activations <= positions


@pytest.mark.parametrize("patterns", [*FREEZES, (r"layers\.[01235]\.",), (r"text_model\..*layers\.[34]\.self_attn",)])
@pytest.mark.parametrize("last", [None, 4])
def test_so_they_are_of_many_layers_of_which_most_are_not_computed(last: int | None, patterns: tuple[str, ...]) -> None:
    (images,) = MULTIMODAL.image_models
    encoder = replace(images.encoder, num_hidden_layers=7, image_layer_idx=last)
    config = replace(
        MULTIMODAL,
        image_models=(replace(images, encoder=encoder),),
        text_model=replace(MULTIMODAL.text_model, num_hidden_layers=8),
        freeze=patterns,
    )
    work = replace(WORK, half="bfloat16")
    positions = 6 * 8 * work.batch_size * work.sequence_length
    assert 0 <= of_a_real_step(config, work) - sized(config, work).activations <= positions


def test_a_thousand_layers_take_little() -> None:
    begun = process_time()
    few, many = (sized(replace(DECODER, num_hidden_layers=count)).activations for count in (2, 1024))
    assert process_time() - begun < 8
    first = sized(replace(DECODER, num_hidden_layers=1)).activations
    assert many == few + 1022 * (few - first)


def test_so_they_are_of_a_decoder_with_two_experts_and_a_tied_head() -> None:
    decoder = replace(DECODER, static_dual_expert=True, share_embedding_weights=True, num_kv_heads=4)
    config = replace(MULTIMODAL, text_model=decoder)
    positions = 6 * 8 * WORK.batch_size * WORK.sequence_length
    assert 0 <= of_a_real_step(config, WORK) - sized(config).activations <= positions


def test_attention_keeps_no_scores() -> None:
    """Of twice the length twice as much is kept; scores would be four times as many."""
    decoder = replace(DECODER, embedding_dropout_rate=0.0, dropout_rate=0.0)
    once, twice = (sized(decoder, replace(WORK, sequence_length=length)).activations for length in (512, 1024))
    assert twice < 2.01 * once


def test_dropout_in_attention_changes_nothing() -> None:
    assert sized(DECODER) == sized(replace(DECODER, attention_dropout_rate=0.0))


def test_a_larger_batch_keeps_more_in_proportion() -> None:
    once, twice = (sized(MULTIMODAL, replace(WORK, batch_size=count)).activations for count in (4, 8))
    assert 1.9 * once < twice <= 2 * once


def test_frozen_parts_keep_less() -> None:
    everything, phase_1, phase_2 = (sized(replace(MULTIMODAL, freeze=each)).activations for each in FREEZES[:3])
    assert phase_1 < phase_2 < everything


def test_weights_gradients_and_moments_are_float32() -> None:
    found = sized(replace(MULTIMODAL, freeze=PHASE_1))
    projector = 32 * 48 + 48 + 48 * 48 + 48
    parameters = sum(each.numel() for each in build(MULTIMODAL).parameters())
    assert (found.weights, found.gradients, found.optimizer) == (4 * parameters, 4 * projector, 8 * projector)
    assert found.total == found.weights + found.gradients + found.optimizer + found.activations


@pytest.mark.parametrize("config", [DECODER, VIT, ClassifierConfig(VIT, 10)])
def test_a_decoder_or_an_encoder_alone_is_one_part_that_trains(config: ModelConfig) -> None:
    found = sized(config)
    assert [part.name for part in found.freezing.parts] == ["model"]
    assert found.freezing.trained == sum(each.numel() for each in build(config).parameters())
    assert found.activations > 0


def test_a_sample_must_have_room_for_an_image() -> None:
    with pytest.raises(UsageError, match=r"x.yaml: a sample of 3 positions \(here\) has no room for .* takes 4"):
        sized(MULTIMODAL, replace(WORK, sequence_length=3, sequence_length_from="here"))
    assert sized(MULTIMODAL, replace(WORK, sequence_length=4)).activations > 0


def test_patterns_that_match_nothing_are_refused_with_the_files_name() -> None:
    with pytest.raises(UsageError, match=r"x.yaml: freeze: 'tex_model' matches no parameter"):
        sized(replace(MULTIMODAL, freeze=("tex_model",)))


@pytest.mark.parametrize(
    ("phase", "training"), [(1, {"image_model.projection"}), (2, {"image_model.projection", "text_model"})]
)
def test_the_llava_configs_are_of_7_billion_parameters(phase: int, training: set[str]) -> None:
    path = CONFIGS / f"params_mm_llava_llama2_7b_phase{phase}.yaml"
    found = size_of_file(path, batch_size=1).size
    assert {part.name: part.parameters for part in found.freezing.parts} == {
        "image_model.image_model_list.0.0": 303_507_456,
        "image_model.projection": 20_979_712,
        "text_model": 6_738_415_616,
    }
    assert {part.name for part in found.freezing.parts if part.trained == part.parameters} == training
    assert {part.name for part in found.freezing.parts if part.trained} == training
    assert found.workload.sequence_length == 2048
    assert found.workload.half == "bfloat16"


@pytest.mark.parametrize(
    ("config", "batch_size", "length"),
    [
        (LARGEST, 2**12, 2**24),
        (LARGEST, 2**30, 2**6),
        (replace(LARGEST, attention_sliding_window_length=9), 1, 2**24),
        (replace(VIT, hidden_size=2**20, filter_size=2**20, image_size=(2**16, 2**16), patch_size=(1, 1)), 16, None),
    ],
)
def test_the_largest_step_that_is_taken_can_be_reckoned_with(
    config: ModelConfig, batch_size: int, length: int | None
) -> None:
    work = workload(config, {}, "", batch_size=batch_size, sequence_length=length)
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13) and batch_size * (length or 0) ** 2 > 2**50:
        with pytest.raises(UsageError, match="more than torch can reckon with"):
            sized(config, work)
    else:
        assert sized(config, work).activations > 2**40


def test_it_is_said_how_much_of_a_file_is_checked(tmp_path: Path) -> None:
    run = CONFIGS / "params_mm_llava_llama2_7b_phase2.yaml"
    found = size_of_file(run, batch_size=1, sequence_length=640)
    assert "every field of the file is checked, data and checkpoints that it names are not" in found.assumptions
    document = yaml.safe_load(run.read_text("utf-8"))
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(put(document, "trainer.init.loop.max_step", 3)), "utf-8")
    with pytest.raises(InputRefused, match=r"loop\.max_step: no such field; did you mean max_steps\?"):
        size_of_file(tmp_path / "odd.yaml")
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"model": document["trainer"]["init"]["model"]}), "utf-8")
    found = size_of_file(tmp_path / "model.yaml", batch_size=1, sequence_length=640)
    assert "the file describes no run, so that only its model is checked" in found.assumptions


def test_a_checkpoint_of_another_format_is_no_params_file(llama: Path) -> None:
    with pytest.raises(UsageError, match=r"is no Cerebras \(CS\) params file"):
        size_of_file(llama)
