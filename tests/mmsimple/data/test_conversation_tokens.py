"""One tokenisation of a conversation: where there is loss, where the images are, and what a prompt has of it."""

from __future__ import annotations

import pytest

from mmsimple.data.conversation import BadRecord, Sample, encode
from mmsimple.data.templates import Rendered, render
from mmsimple.data.tokenizer import Encoded, Tokenizer
from tests.mmsimple.data.small_tokenizers import (
    CHATML,
    FAMILIES,
    hugging_face,
    llama_3_files,
    llama_files,
    load,
    small,
    turns,
)

P = 4

ONE = ("<image>\nWhat is this?", "It is a red cat.")
THREE = (*ONE, " Where <image> is the dog? ", "  In the boat: é 😀🫠  ", "<image><image>", "Yes.\n\n- a\n- b\n")
TEMPLATES = [
    *((template, family) for template in ("plain", "vicuna_v1", "llama_2") for family in FAMILIES),
    ("llava_llama_3", "llama_3"),
    ("tokenizer", "chatml"),
    ("tokenizer", "sentencepiece chatml"),
]
CHATS = {
    "chatml": llama_3_files(chat_template=CHATML),
    "sentencepiece chatml": llama_files(chat_template=CHATML, extra_special_tokens=["<|im_start|>", "<|im_end|>"]),
}


def tokenizer_of(family: str) -> Tokenizer:
    return load(CHATS[family]) if family in CHATS else small(family)


def words(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text of tokens; the first token's space is lost in a tokenizer's own decoding, if nothing is before it."""
    mark = tokenizer.eos
    return tokenizer.decode([*tokenizer.encode(mark).ids, *ids], False).removeprefix(mark)


def learned(tokenizer: Tokenizer, sample: Sample) -> str:
    weighted = zip(sample.ids, sample.weights, strict=True)
    return words(tokenizer, [number for number, weight in weighted if weight])


def spaced(template: str, family: str, answers: list[str]) -> str:
    """Answers as the tokens give them back: after a special token, some tokenizers put a space in front."""
    apart = template == "plain" and family in ("legacy", "converted")
    spaces = (" " if apart and not (family == "legacy" and each.startswith(" ")) else "" for each in answers)
    return "".join(space + each for space, each in zip(spaces, answers, strict=True))


@pytest.mark.parametrize("texts", [ONE, THREE], ids=["one", "three"])
@pytest.mark.parametrize(("template", "family"), TEMPLATES)
def test_the_loss_is_on_the_answers_and_what_ends_them(template: str, family: str, texts: tuple[str, ...]) -> None:
    tokenizer = tokenizer_of(family)
    rendered = render(template, tokenizer, turns(*texts))
    sample = encode(rendered, tokenizer, P)
    answers = [rendered.text[start:end] for start, end in rendered.answers]
    assert len(answers) == len(texts) // 2
    assert all(text in answer for text, answer in zip(texts[1::2], answers, strict=True))
    assert learned(tokenizer, sample) == spaced(template, family, answers)


@pytest.mark.parametrize("texts", [ONE, THREE], ids=["one", "three"])
@pytest.mark.parametrize(("template", "family"), TEMPLATES)
def test_the_ids_are_those_of_the_whole_text_with_one_bos(template: str, family: str, texts: tuple[str, ...]) -> None:
    tokenizer = tokenizer_of(family)
    theirs = hugging_face(CHATS.get(family) or FAMILIES[family])
    rendered = render(template, tokenizer, turns(*texts))
    if rendered.bos_apart:
        expected = theirs(rendered.text.removeprefix(tokenizer.bos))["input_ids"]
    else:
        expected = theirs(rendered.text, add_special_tokens=False)["input_ids"]
    sample = encode(rendered, tokenizer, 1)
    image, pad = theirs.convert_tokens_to_ids("<image>"), tokenizer.pad_id
    assert sample.ids == [pad if number == image else number for number in expected]
    assert [at for at, _ in sample.images] == [at for at, number in enumerate(expected) if number == image]
    bos_in_text = rendered.text.count(tokenizer.bos)
    assert sample.ids.count(theirs.bos_token_id) == bos_in_text
    if template != "llama_2" and template != "tokenizer":
        assert bos_in_text == 1


def has_prefix(tokenizer: Tokenizer, template: str, texts: tuple[str, ...]) -> bool:
    """Whether a conversation without its last answer has the first ids of the whole."""
    whole, prompt = (encode(render(template, tokenizer, turns(*each)), tokenizer, P) for each in (texts, texts[:-1]))
    assert not any(prompt.weights[len(prompt.ids) :])
    return whole.ids[: len(prompt.ids)] == prompt.ids and whole.images == prompt.images


@pytest.mark.parametrize("answer", ["It is", " It", "  It", "\nIt", "\n\n\n", "é", "😀", "...", "\tIt", "3", " "])
@pytest.mark.parametrize(("template", "family"), TEMPLATES)
def test_a_prompt_has_the_first_ids_of_what_was_learned(template: str, family: str, answer: str) -> None:
    # Of the user's words after the images, phase 1 has learned none.
    question = "<image>" if template == "plain" else "<image>\nWhat is this?"
    expected = True
    if family in ("llama_3", "chatml") and template in ("llava_llama_3", "tokenizer"):
        # The newlines that end these prompts are one token with those that begin the answer.
        expected = not answer.startswith("\n")
    assert has_prefix(tokenizer_of(family), template, (question, "Yes.", question, answer)) == expected


def test_there_is_no_loss_in_a_token_that_begins_before_the_answer() -> None:
    tokenizer = small("llama_3")
    sample = encode(render("llava_llama_3", tokenizer, turns("Who?", "\n\nYes")), tokenizer, P)
    assert learned(tokenizer, sample) == "Yes<|eot_id|>"


def test_a_token_without_length_counts_where_it_stands() -> None:
    class Fake:
        special_tokens, image_id, pad_id = (), 9, 0

        def encode(self, text: str, *, bos_apart: bool) -> Encoded:
            return Encoded([1, 2, 3, 4, 5, 6, 7], [0, 1, 1, 2, 3, 3, 4], [1, 1, 2, 3, 3, 4, 4])

    sample = encode(Rendered("abcd", ((1, 3),), ()), Fake(), P)  # type: ignore[arg-type]
    assert sample.weights == [0, 1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("question", "places"),
    [
        ("<image>ab", [0]),
        ("a <image> b", [2]),
        ("ab<image>", [2]),
        ("<image><image>", [0, 4]),
        ("<image> a<image>", [0, 5]),
        ("ab", []),
    ],
)
def test_images_stand_where_the_text_has_them(question: str, places: list[int]) -> None:
    tokenizer = load(llama_3_files(chat_template=CHATML))
    sample = encode(render("tokenizer", tokenizer, turns(question, "c")), tokenizer, P)
    before = len(tokenizer.encode("<|im_start|>user\n").ids)
    assert sample.images == tuple((before + at, before + at + P) for at in places)
    for start, end in sample.images:
        assert sample.ids[start:end] == [tokenizer.pad_id] * P
        assert sample.weights[start:end] == [0] * P
    assert tokenizer.image_id not in sample.ids


def test_a_last_turn_of_the_user_gives_a_prompt_without_loss() -> None:
    tokenizer = small("llama")
    sample = encode(render("vicuna_v1", tokenizer, turns("<image>\nWho?")), tokenizer, P)
    assert not any(sample.weights)
    assert words(tokenizer, sample.ids).endswith(" ASSISTANT:")


@pytest.mark.parametrize(
    ("family", "token"), [("llama", "</s>"), ("llama", "<unk>"), ("llama_3", "<|eot_id|>"), ("llama_3", "<|im_end|>")]
)
def test_a_special_token_in_the_words_of_either_is_a_bad_record(family: str, token: str) -> None:
    for texts in ((f"a{token}b", "c"), ("a", f"b {token}"), ("a", "b", token, "c")):
        with pytest.raises(BadRecord) as caught:
            encode(render("vicuna_v1", small(family), turns(*texts)), small(family), P)
        assert caught.value.reason == "special token in the text"


def test_a_special_token_in_words_that_phase_1_drops_does_no_harm() -> None:
    rendered = render("plain", small("llama"), turns("<image></s>", "c"))
    assert rendered.text == "<s><image>c</s>"
    assert encode(rendered, small("llama"), P).images == ((1, 5),)
