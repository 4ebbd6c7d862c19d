"""Questions with pictures, and answers in words: what comes with a checkpoint is all that it takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from mmconvert import Options, api
from mmconvert.errors import InputRefused, UsageError
from mmsimple.data.images import open_image
from mmsimple.data.preprocessor import from_preprocessor
from mmsimple.data.templates import VICUNA_SYSTEM
from mmsimple.generation import Sampling, generate
from mmsimple.reply import ChatModel, pieces
from tests.mmsimple.data.pictures import draw
from tests.mmsimple.data.small_tokenizers import small

LLAVA = Path(__file__).parents[1] / "golden" / "llava" / "tiny_src"


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return ChatModel.from_checkpoint(LLAVA)


@pytest.fixture
def picture(tmp_path: Path) -> Image.Image:
    return open_image(draw(tmp_path / "a.png", 3))


def words(chat: ChatModel, text: str, *pictures: Image.Image, **said: Any) -> str:
    return "".join(chat.answer(chat.prompt(text, pictures), max_new_tokens=8, **said))


def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(LLAVA, tmp_path / "llava"))


def set_aspect(source: Path, aspect: str | None) -> None:
    file = source / "text_model_llava" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "image_aspect_ratio": aspect}), "utf-8")


# --- the prompt -----------------------------------------------------------------------------------------------------


def test_a_prompt_is_the_templates_with_pictures_where_they_are(chat: ChatModel, picture: Image.Image) -> None:
    batch = chat.prompt("a <image> b", [picture])
    (ids,) = batch.text_input_ids.tolist()
    assert batch.image_data_loc is not None
    assert batch.image_data is not None
    start, *_, end = batch.image_data_loc.flatten().tolist()
    assert end - start == 3
    assert ids[start : end + 1] == [chat.tokenizer.pad_id] * 4
    assert batch.token_modality_idx is not None
    assert batch.token_modality_idx[0].nonzero().flatten().tolist() == list(range(start, end + 1))
    said = chat.tokenizer.decode(ids[:start], skip_special_tokens=False)
    assert said.startswith("<s>")
    assert chat.transforms is not None
    assert torch.equal(batch.image_data[0, 0], chat.transforms(picture))


def test_pictures_that_the_prompt_does_not_mention_come_first(chat: ChatModel, picture: Image.Image) -> None:
    unsaid, said = (chat.prompt(text, [picture] * 2) for text in ("What?", "<image>\n<image>\nWhat?"))
    assert torch.equal(unsaid.text_input_ids, said.text_input_ids)
    assert unsaid.image_data_loc is not None
    assert unsaid.image_data_loc.shape == (1, 2, 4)


def test_without_pictures_a_prompt_is_text(chat: ChatModel) -> None:
    batch = chat.prompt("What?", [])
    assert (batch.image_data, batch.image_data_loc) == (None, None)


@pytest.mark.parametrize("mentioned", [1, 3])
def test_as_many_pictures_as_are_mentioned_must_be_there(mentioned: int, chat: ChatModel, picture: Image.Image) -> None:
    with pytest.raises(UsageError, match=f"says <image> {mentioned} times, and there are 2 images"):
        chat.prompt("<image>" * mentioned, [picture] * 2)


def test_special_tokens_in_a_prompt_are_refused(chat: ChatModel) -> None:
    with pytest.raises(UsageError, match="special token in the text"):
        chat.prompt("the end</s>", [])


def test_a_prompt_of_nothing_and_one_that_cannot_be_written_are_refused(chat: ChatModel) -> None:
    with pytest.raises(UsageError, match="no text that can be written"):
        chat.prompt("\udcff", [])
    bare = replace(chat, template="plain", tokenizer=small("llama_3"))
    bare.tokenizer.bos, bos = "", bare.tokenizer.bos
    try:
        with pytest.raises(UsageError, match="the prompt is empty"):
            bare.prompt("", [])
    finally:
        bare.tokenizer.bos = bos


def test_a_prompt_longer_than_the_model_reads_is_refused(chat: ChatModel) -> None:
    with pytest.raises(UsageError, match=r"takes \d+ positions, images included, and the model has 256"):
        words(chat, "word " * 300)


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_refused(chat: ChatModel) -> None:
    # Its ids go up to 300 and more, of which the model below has 20.
    config = replace(chat.model.config, text_model=replace(chat.model.config.text_model, vocab_size=20))
    model = replace(chat, model=type(chat.model)(config))
    with pytest.raises(InputRefused, match=r"gives the id \d+, but the model's vocabulary has 20 rows"):
        model.prompt("What?", [])


# --- the answer -----------------------------------------------------------------------------------------------------


def test_the_answer_is_the_generated_tokens_in_words(chat: ChatModel, picture: Image.Image) -> None:
    prompt = chat.prompt("What?", [picture])
    tokens = list(generate(chat.model, prompt, max_new_tokens=8, eos_ids=chat.eos_ids))
    assert "".join(chat.answer(prompt, max_new_tokens=8)) == chat.tokenizer.decode(tokens, skip_special_tokens=True)


def test_the_picture_is_looked_at(chat: ChatModel, picture: Image.Image) -> None:
    black = Image.new("RGB", (40, 40))
    assert words(chat, "What?", picture) != words(chat, "What?", black)
    assert words(chat, "What?", picture) == words(chat, "What?", picture)


def test_an_answer_may_be_drawn(chat: ChatModel) -> None:
    drawn = [words(chat, "What?", sampling=Sampling(temperature=3, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_pieces_are_the_text_and_no_character_is_cut() -> None:
    made = small("llama_3")
    text = "a cat 🐈 über\n\nthe  boat"
    ids = made.encode(text).ids
    found = list(pieces(made, iter(ids)))
    assert "".join(found) == text
    assert "🐈" in "".join(found)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in found)
    assert len(found) > 3


def test_pieces_come_one_by_one() -> None:
    made = small("llama_3")
    taken: list[int] = []

    def tokens() -> Iterator[int]:
        for number in made.encode("a b c d").ids:
            taken.append(number)
            yield number

    stream = pieces(made, tokens())
    next(stream)
    assert len(taken) == 1


def test_an_unfinished_character_comes_at_the_end() -> None:
    made = small("llama_3")
    ids = made.encode("🐈").ids
    assert len(ids) > 1
    assert "".join(pieces(made, iter(ids[:1]))) == "\N{REPLACEMENT CHARACTER}"


# --- what comes with a checkpoint -----------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["cs", "cs-2.3"])
def test_a_conversion_answers_as_its_source_does(
    to: str, chat: ChatModel, picture: Image.Image, tmp_path: Path
) -> None:
    api.convert(LLAVA, tmp_path / "cs", to, options=Options(container="safetensors"), fsync=False)
    converted = ChatModel.from_checkpoint(tmp_path / "cs")
    assert words(converted, "What <image>?", picture) == words(chat, "What <image>?", picture)
    assert (converted.eos_ids, converted.template) == (chat.eos_ids, chat.template)


@pytest.mark.parametrize(("aspect", "pad"), [("pad", True), ("square", False), (None, False)])
def test_pictures_are_treated_as_by_the_encoders_preprocessor_and_llavas_padding(
    aspect: str | None, pad: bool, tmp_path: Path
) -> None:
    source = copy(tmp_path)
    set_aspect(source, aspect)
    config = json.loads((LLAVA / "image_model" / "preprocessor_config.json").read_text("utf-8"))
    found = ChatModel.from_checkpoint(source).transforms
    assert found is not None
    assert found == from_preprocessor(config, "x", pad=pad)
    assert found.output_size == (28, 28)


def test_pictures_in_tiles_are_refused(tmp_path: Path) -> None:
    source = copy(tmp_path)
    set_aspect(source, "anyres")
    with pytest.raises(InputRefused, match="image_aspect_ratio is 'anyres'"):
        ChatModel.from_checkpoint(source)


def test_pictures_are_treated_as_in_training_where_the_params_say_how(tmp_path: Path) -> None:
    api.convert(LLAVA, tmp_path / "cs", "cs", options=Options(container="safetensors"), fsync=False)
    file = tmp_path / "cs" / "config.yaml"
    model = yaml.safe_load(file.read_text("utf-8"))["model"]
    steps = [{"name": "resize", "size": [28, 28]}, {"name": "to_tensor"}]
    trainer = {"init": {"model": model}, "fit": {"train_dataloader": {"transforms": steps}}}
    file.write_text(yaml.safe_dump({"trainer": trainer}), "utf-8")
    transforms = ChatModel.from_checkpoint(tmp_path / "cs").transforms
    assert transforms is not None
    assert len(transforms.steps) == 2


def test_ends_are_the_tokenizers_and_those_of_the_generation_config(tmp_path: Path) -> None:
    source = copy(tmp_path)
    (source / "text_model_llava" / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    assert ChatModel.from_checkpoint(source).eos_ids == {2, 7}


def test_the_template_is_vicunas_or_the_tokenizers_or_the_one_asked_for(chat: ChatModel, tmp_path: Path) -> None:
    assert chat.template == "vicuna_v1"
    decoded = chat.tokenizer.decode(chat.prompt("x", []).text_input_ids[0].tolist(), skip_special_tokens=True)
    assert decoded.replace("▁", " ").startswith(VICUNA_SYSTEM[:6])
    source = copy(tmp_path)
    file = source / "text_model_llava" / "tokenizer_config.json"
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "chat_template": template}), "utf-8")
    assert ChatModel.from_checkpoint(source).template == "tokenizer"
    assert ChatModel.from_checkpoint(source, template="plain").template == "plain"


def test_another_tokenizer_may_be_used(chat: ChatModel, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(LLAVA / "text_model_llava" / "tokenizer.model", tmp_path / "other")
    assert ChatModel.from_checkpoint(LLAVA, tokenizer=tmp_path / "other").tokenizer.where == str(tmp_path / "other")


def test_a_checkpoint_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    source = copy(tmp_path)
    (source / "text_model_llava" / "tokenizer.model").unlink()
    with pytest.raises(InputRefused, match="no tokenizer came with it"):
        ChatModel.from_checkpoint(source)


def test_a_preprocessor_of_another_size_is_refused(tmp_path: Path) -> None:
    source = copy(tmp_path)
    file = source / "image_model" / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "crop_size": 14}), "utf-8")
    with pytest.raises(InputRefused, match=r"makes pictures of \(14, 14\), but its encoder takes \(28, 28\)"):
        ChatModel.from_checkpoint(source)


def test_without_a_preprocessor_only_texts_can_be_asked_about(tmp_path: Path) -> None:
    api.convert(LLAVA, tmp_path / "cs", "cs", options=Options(container="safetensors"), fsync=False)
    (tmp_path / "cs" / "assets" / "image_model" / "preprocessor_config.json").unlink()
    chat = ChatModel.from_checkpoint(tmp_path / "cs")
    assert words(chat, "What?")
    with pytest.raises(InputRefused, match=r"neither preprocessor_config\.json .* nor trainer\.fit\.train_dataloader"):
        words(chat, "What?", Image.new("RGB", (9, 9)))


def test_a_decoder_alone_is_no_chat_model(llama: Path) -> None:
    with pytest.raises(InputRefused):
        ChatModel.from_checkpoint(llama)


def test_a_model_may_answer_in_another_element_type(picture: Image.Image) -> None:
    half = ChatModel.from_checkpoint(LLAVA, dtype=torch.bfloat16)
    assert {each.dtype for each in half.model.parameters()} == {torch.bfloat16}
    assert words(half, "What?", picture)
