"""What each template writes, character by character, and which of the characters are learned."""

from __future__ import annotations

import pytest

from mmconvert.errors import InputRefused
from mmsimple.data.templates import TEMPLATES, Rendered, default_template, render
from mmsimple.data.tokenizer import Tokenizer
from tests.mmsimple.data.small_tokenizers import (
    CHATML,
    LLAMA_2_CHAT,
    Files,
    hugging_face,
    llama_3_files,
    llama_files,
    load,
    small,
    turns,
)

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
LLAVA = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
HEADER = {role: f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("system", "user", "assistant")}
ONE = ("<image>\nWho?", " A cat.\n")
THREE = (*ONE, "And <image>there? ", "😀", "", "\nYes")


def learned(rendered: Rendered) -> list[str]:
    return [rendered.text[start:end] for start, end in rendered.answers]


def test_vicuna() -> None:
    one = render("vicuna_v1", small("llama"), turns(*ONE))
    assert one.text == f"<s>{VICUNA} USER: <image>\nWho? ASSISTANT:  A cat.\n</s>"
    assert learned(one) == ["  A cat.\n</s>"]
    three = render("vicuna_v1", small("llama"), turns(*THREE))
    assert three.text == f"{one.text}USER: And <image>there?  ASSISTANT: 😀</s>USER:  ASSISTANT: \nYes</s>"
    assert learned(three) == ["  A cat.\n</s>", " 😀</s>", " \nYes</s>"]


def test_vicuna_with_a_tokenizer_of_llama_3() -> None:
    rendered = render("vicuna_v1", small("llama_3"), turns("a", "b"))
    assert rendered.text == f"<|begin_of_text|>{VICUNA} USER: a ASSISTANT: b<|end_of_text|>"


def test_llama_2() -> None:
    one = render("llama_2", small("llama"), turns(*ONE))
    assert one.text == f"<s>[INST] <<SYS>>\n{LLAVA}\n<</SYS>>\n\n<image>\nWho? [/INST]  A cat.\n </s>"
    assert learned(one) == ["  A cat.\n </s>"]
    three = render("llama_2", small("llama"), turns(*THREE))
    assert three.text == f"{one.text}<s>[INST] And <image>there?  [/INST] 😀 </s><s>[INST]  [/INST] \nYes </s>"
    assert learned(three) == ["  A cat.\n </s>", " 😀 </s>", " \nYes </s>"]


def test_llama_3() -> None:
    one = render("llava_llama_3", small("llama_3"), turns(*ONE))
    assert one.text == (
        f"<|begin_of_text|>{HEADER['system']}{LLAVA}<|eot_id|>"
        f"{HEADER['user']}<image>\nWho?<|eot_id|>{HEADER['assistant']} A cat.\n<|eot_id|>"
    )
    assert learned(one) == [" A cat.\n<|eot_id|>"]
    three = render("llava_llama_3", small("llama_3"), turns(*THREE))
    assert three.text == (
        f"{one.text}{HEADER['user']}And <image>there? <|eot_id|>{HEADER['assistant']}😀<|eot_id|>"
        f"{HEADER['user']}<|eot_id|>{HEADER['assistant']}\nYes<|eot_id|>"
    )
    assert learned(three) == [" A cat.\n<|eot_id|>", "😀<|eot_id|>", "\nYes<|eot_id|>"]


def test_plain_drops_what_the_user_says_but_for_the_images() -> None:
    one = render("plain", small("llama"), turns(*ONE))
    assert one.text == "<s><image> A cat.\n</s>"
    assert learned(one) == [" A cat.\n</s>"]
    assert one.words == (" A cat.\n",)
    three = render("plain", small("llama"), turns(*THREE))
    assert three.text == "<s><image> A cat.\n</s><image>😀</s>\nYes</s>"
    assert learned(three) == [" A cat.\n</s>", "😀</s>", "\nYes</s>"]


def test_plain_leaves_the_last_words_of_the_user_after_the_images() -> None:
    prompt = render("plain", small("llama"), turns("a<image>b <image> ", "c", "Look: <image>\n<image>This is"))
    assert prompt.text == "<s><image><image>c</s><image><image>Look: \nThis is"
    assert prompt.words == ("c", "Look: \nThis is")
    assert learned(prompt) == ["c</s>"]


@pytest.mark.parametrize(("template", "family"), [("vicuna_v1", "llama"), ("llama_2", "llama"), ("plain", "llama_3")])
def test_a_bos_in_front_is_set_apart(template: str, family: str) -> None:
    rendered = render(template, small(family), turns(*ONE))
    assert rendered.bos_apart
    assert rendered.text.startswith(small(family).bos)


@pytest.mark.parametrize("template", ["plain", "vicuna_v1", "llama_2"])
def test_a_tokenizer_without_bos_gets_none(template: str) -> None:
    rendered = render(template, load(llama_3_files(bos_token=None)), turns(*THREE))
    assert not rendered.bos_apart
    assert "<|begin_of_text|>" not in rendered.text
    with_bos = render(template, small("llama_3"), turns(*THREE))
    assert rendered.text == with_bos.text.replace("<|begin_of_text|>", "")


@pytest.mark.parametrize(
    ("template", "files"),
    [
        ("vicuna_v1", llama_files()),
        ("llama_2", llama_files()),
        ("llava_llama_3", llama_3_files()),
        ("tokenizer", llama_3_files(chat_template=CHATML)),
        ("tokenizer", llama_files(chat_template=LLAMA_2_CHAT)),
    ],
)
def test_a_generation_prompt_ends_where_the_answer_begins(template: str, files: Files) -> None:
    tokenizer = load(files)
    for texts in (ONE, THREE):
        whole, prompt = (render(template, tokenizer, turns(*each)) for each in (texts, texts[:-1]))
        assert prompt.text == whole.text[: whole.answers[-1][0]]
        assert prompt.answers == whole.answers[:-1]
        assert (prompt.words, whole.words) == (texts[:-1], texts)


def test_llama_3_names_the_first_special_token_that_is_not_there() -> None:
    with pytest.raises(InputRefused, match=r": the template llava_llama_3 takes <\|begin_of_text\|>, no token of"):
        render("llava_llama_3", small("llama"), turns("a", "b"))


@pytest.mark.parametrize("template", ["plain", "vicuna_v1", "llama_2"])
def test_an_answer_takes_an_eos(template: str) -> None:
    tokenizer = load(llama_3_files(eos_token=None))
    with pytest.raises(InputRefused, match="the tokenizer has no eos, with which the template ends an answer"):
        render(template, tokenizer, turns("a", "b"))
    assert not render(template, tokenizer, turns("a")).answers


def test_the_tokenizers_own_template() -> None:
    tokenizer = load(llama_3_files(chat_template=CHATML))
    rendered = render("tokenizer", tokenizer, turns(*THREE))
    assert rendered.text == (
        "<|im_start|>user\n<image>\nWho?<|im_end|>\n<|im_start|>assistant\n A cat.\n<|im_end|>\n"
        "<|im_start|>user\nAnd <image>there? <|im_end|>\n<|im_start|>assistant\n😀<|im_end|>\n"
        "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n\nYes<|im_end|>\n"
    )
    assert learned(rendered) == [" A cat.\n<|im_end|>", "😀<|im_end|>", "\nYes<|im_end|>"]


@pytest.mark.parametrize(
    "files", [llama_files(chat_template=LLAMA_2_CHAT), llama_3_files(chat_template=CHATML)], ids=["llama_2", "chatml"]
)
def test_the_tokenizers_own_template_gives_the_tokens_that_transformers_gives(files: Files) -> None:
    tokenizer = load(files)
    rendered = render("tokenizer", tokenizer, turns(*THREE))
    messages = [{"role": turn.role, "content": turn.text} for turn in turns(*THREE)]
    expected = hugging_face(files).apply_chat_template(messages, tokenize=True, return_dict=False)
    assert tokenizer.encode(rendered.text, bos_apart=rendered.bos_apart).ids == expected


def chat(template: str) -> Tokenizer:
    return load(llama_3_files(chat_template=template))


def test_an_answer_without_an_end_keeps_its_own_spaces() -> None:
    tokenizer = chat("{% for message in messages %}{{ message['role'] + ':' + message['content'] }}{% endfor %}")
    rendered = render("tokenizer", tokenizer, turns("a", "b "))
    assert rendered.text == "user:aassistant:b "
    assert learned(rendered) == ["assistant:b "]


@pytest.mark.parametrize(
    "template",
    [
        # The prompt ends in words that an answer does not follow.
        CHATML.replace("assistant\n{%", "assistant\n<think>{%"),
        # Of earlier answers, some is left out.
        "{% for m in messages %}{{ m['content'] if loop.last or loop.index0 % 2 == 0 else m['content'][:1] }}|"
        "{% endfor %}",
    ],
    ids=["prompt", "earlier answer"],
)
def test_a_template_that_writes_turns_otherwise_when_more_follow_is_refused(template: str) -> None:
    with pytest.raises(InputRefused, match=r"^/.*: its chat template writes turns otherwise .*$") as caught:
        render("tokenizer", chat(template), turns("Hello", "Good day", "Who?", "You"))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_a_chat_template_is_refused_with_the_others_named() -> None:
    with pytest.raises(InputRefused, match=r"has no chat template of its own; there are plain, vicuna_v1,"):
        render("tokenizer", small("llama"), turns("a", "b"))


def test_the_tokenizers_own_template_is_the_default_where_it_has_one() -> None:
    assert default_template(chat(CHATML)) == "tokenizer"
    assert default_template(small("llama_3")) == "vicuna_v1"
    assert {"tokenizer", "vicuna_v1"} < set(TEMPLATES)
