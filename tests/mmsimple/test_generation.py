"""Generated tokens against those of LLaVA's own loader and of transformers, and how one is chosen."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmconvert import Options, api
from mmconvert.errors import UsageError
from mmsimple.generation import Sampling, choose, generate
from mmsimple.model import Batch, MultimodalModel
from tests.mmsimple.hugging_face import IMAGE_ID, llava_to_cs, random_llava
from tests.mmsimple.small import MULTIMODAL, drawn, random, token_ids

LLAVA = Path(__file__).parents[1] / "golden" / "llava"
IMAGE = -200
NEW = 16


def recorded_prompt(tokens: int) -> Batch:
    """The recorded prompt, in which one id stands for all tokens of the picture."""
    recorded = load_file(LLAVA / "forward" / "inputs.safetensors")
    (prompt,), images = recorded["input_ids"], recorded["pixel_values"]
    place = int((prompt == IMAGE).nonzero())
    ids = torch.cat((prompt[:place], torch.zeros(tokens, dtype=prompt.dtype), prompt[place + 1 :]))
    return Batch(ids[None], images[:, None], torch.arange(place, place + tokens)[None, None])


def uncached(model: MultimodalModel, prompt: Batch, count: int) -> list[int]:
    """Greedy tokens, with everything computed anew for each."""
    found: list[int] = []
    ids = prompt.text_input_ids
    with torch.inference_mode():
        for _ in range(count):
            grown = torch.cat((ids, torch.tensor([found], dtype=ids.dtype)), dim=1)
            modality = None
            if prompt.token_modality_idx is not None:
                modality = torch.nn.functional.pad(prompt.token_modality_idx, (0, len(found)))
            logits = model(prompt._replace(text_input_ids=grown, token_modality_idx=modality))
            found.append(int(logits[0, -1].argmax()))
    return found


@pytest.mark.parametrize("name", ["tiny_src", "tiny_src_gqa", "tiny_src_tower_tuned"])
def test_greedy_tokens_are_those_of_llavas_own_loader(name: str, tmp_path: Path) -> None:
    api.convert(LLAVA / name, tmp_path / "cs", "cs", options=Options(container="safetensors"), fsync=False)
    model = MultimodalModel.from_checkpoint(tmp_path / "cs")
    # Its generate() gives a bos in front.
    (expected,) = load_file(LLAVA / "forward" / f"{name}.expected.safetensors")["generated"][:, 1:].tolist()
    assert list(generate(model, recorded_prompt(model.tokens_per_image), max_new_tokens=NEW)) == expected


def test_so_they_are_of_text_alone() -> None:
    model = MultimodalModel.from_checkpoint(LLAVA / "tiny_src")
    prompt = load_file(LLAVA / "forward" / "inputs_text.safetensors")["input_ids"]
    (expected,) = load_file(LLAVA / "forward" / "tiny_src.expected_text.safetensors")["generated"][:, 1:].tolist()
    assert list(generate(model, Batch(prompt), max_new_tokens=NEW)) == expected


@pytest.fixture(scope="module")
def theirs() -> Any:
    return random_llava()


@pytest.fixture(scope="module")
def ours(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> MultimodalModel:
    return MultimodalModel.from_checkpoint(llava_to_cs(theirs, tmp_path_factory.mktemp("llava")))


@pytest.mark.parametrize("starts", [[], [0], [8], [5, 14], [9, 13]], ids=str)
def test_greedy_tokens_are_those_of_transformers(starts: list[int], theirs: Any, ours: MultimodalModel) -> None:
    """No picture, text after one, text before one, and two between texts or side by side."""
    ids, images = token_ids(1, 22, IMAGE_ID), random(max(1, len(starts)), 3, 28, 28)
    positions = torch.tensor([[list(range(start, start + 4)) for start in starts]])
    marked = ids.clone()
    prompt = Batch(ids)
    if starts:
        marked[0, positions.flatten()] = IMAGE_ID
        prompt = Batch(ids, images[None], positions)
    said = {"input_ids": marked, "attention_mask": torch.ones_like(marked)}
    if starts:
        said["pixel_values"] = images
    with torch.inference_mode():
        expected = theirs.generate(**said, max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert list(generate(ours, prompt, max_new_tokens=NEW)) == expected[0, 22:].tolist()


@pytest.mark.parametrize("changes", [{"attention_sliding_window_length": 5}, {"static_dual_expert": True}], ids=str)
def test_a_cache_changes_no_token(changes: dict[str, Any]) -> None:
    model = drawn(MultimodalModel(replace(MULTIMODAL, text_model=replace(MULTIMODAL.text_model, **changes))))
    modality = torch.zeros(1, 9, dtype=torch.long)
    modality[0, 3:7] = 1
    prompt = Batch(token_ids(1, 9), random(1, 1, 3, 28, 28), torch.arange(3, 7)[None, None], modality)
    assert list(generate(model, prompt, max_new_tokens=NEW)) == uncached(model, prompt, NEW)


# --- where it ends --------------------------------------------------------------------------------------------------


def test_nothing_follows_an_end(ours: MultimodalModel) -> None:
    prompt = Batch(token_ids(1, 6))
    whole = list(generate(ours, prompt, max_new_tokens=NEW))
    end = whole[5]
    assert list(generate(ours, prompt, max_new_tokens=NEW, eos_ids={end})) == whole[: whole.index(end) + 1]


def test_no_more_tokens_come_than_are_asked_for(ours: MultimodalModel) -> None:
    assert len(list(generate(ours, Batch(token_ids(1, 6)), max_new_tokens=3))) == 3


def test_no_more_tokens_come_than_the_model_has_positions_for(ours: MultimodalModel) -> None:
    longest = ours.config.text_model.max_position_embeddings
    # The last token is not read again.
    assert len(list(generate(ours, Batch(token_ids(1, longest - 2)), max_new_tokens=NEW))) == 3
    assert len(list(generate(ours, Batch(token_ids(1, longest)), max_new_tokens=NEW))) == 1
    with pytest.raises(ValueError, match=f"takes {longest + 1} positions, and the model has {longest}"):
        next(generate(ours, Batch(token_ids(1, longest + 1)), max_new_tokens=NEW))


# --- how a token is chosen ------------------------------------------------------------------------------------------

LOGITS = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()


def shares(sampling: Sampling, logits: Tensor = LOGITS, draws: int = 4000) -> list[float]:
    generator = torch.Generator().manual_seed(sampling.seed)
    counts = Counter(choose(logits, sampling, generator) for _ in range(draws))
    return [counts[token] / draws for token in range(len(logits))]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [1, 0, 0, 0]),
        (Sampling(temperature=1), [0.5, 0.25, 0.15, 0.1]),
        (Sampling(temperature=0.5), [0.7246, 0.1812, 0.0652, 0.029]),
        (Sampling(temperature=1, top_k=2), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(temperature=1, top_k=9), [0.5, 0.25, 0.15, 0.1]),
        (Sampling(temperature=1, top_p=0.7), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(temperature=1, top_p=0.5), [1, 0, 0, 0]),
        (Sampling(temperature=1, top_p=0.76), [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0]),
        (Sampling(temperature=1, top_p=0.01), [1, 0, 0, 0]),
        (Sampling(temperature=1, top_k=3, top_p=0.8), [2 / 3, 1 / 3, 0, 0]),
    ],
    ids=str,
)
def test_tokens_are_drawn_as_often_as_they_are_likely(sampling: Sampling, expected: list[float]) -> None:
    found = shares(sampling)
    assert found == pytest.approx(expected, abs=0.03)
    assert [share == 0 for share in found] == [share == 0 for share in expected]


@pytest.mark.parametrize("temperature", [1e-40, 1e-9, 1e9, 1e300])
@pytest.mark.parametrize("top_p", [1e-300, 1.0])
def test_extreme_numbers_are_computed_with(temperature: float, top_p: float) -> None:
    sampling = Sampling(temperature=temperature, top_p=top_p)
    chosen = choose(LOGITS * 1e4, sampling, torch.Generator().manual_seed(0))
    assert chosen == 0 or (temperature > 1 and top_p == 1)


@pytest.mark.parametrize(
    "numbers", [{"temperature": -1}, {"temperature": float("nan")}, {"top_p": 0}, {"top_p": float("nan")}]
)
def test_numbers_that_say_nothing_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Sampling(**numbers)  # type: ignore[arg-type]


def test_a_seed_gives_the_same_tokens_and_another_seed_others(ours: MultimodalModel) -> None:
    prompt = Batch(token_ids(1, 6))
    first, again, other = (
        list(generate(ours, prompt, max_new_tokens=NEW, sampling=Sampling(temperature=2, seed=seed)))
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
