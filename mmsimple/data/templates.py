"""A conversation as one text, by the templates of LLaVA or the tokenizer's own, and what of the text is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmconvert.errors import InputRefused
from mmsimple.data.tokenizer import IMAGE, Tokenizer

TEMPLATES = ("plain", "vicuna_v1", "llama_2", "llava_llama_3", "tokenizer")

# The system prompts of LLaVA's conversation.py.
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
LLAVA_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
LLAMA_3_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


@dataclass(frozen=True)
class Turn:
    """What one says until the other speaks."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True)
class Rendered:
    """A conversation as one text.

    `answers` are the (start, end) in characters of what is learned: each answer with what ends it, from where a
    generation prompt would end. `words` is what of the text is the speakers' own. With `bos_apart`, the text begins
    with a bos for `Tokenizer.encode` to set apart.
    """

    text: str
    answers: tuple[tuple[int, int], ...]
    words: tuple[str, ...]
    bos_apart: bool = False


class _Text:
    """A text as it is written, piece by piece."""

    def __init__(self, bos: str = "") -> None:
        self.text = bos
        self.bos_apart = bool(bos)
        self.answers: list[tuple[int, int]] = []

    def write(self, text: str) -> None:
        self.text += text

    def learn(self, text: str) -> None:
        self.answers.append((len(self.text), len(self.text) + len(text)))
        self.text += text


def default_template(tokenizer: Tokenizer) -> str:
    return "tokenizer" if tokenizer.has_chat_template else "vicuna_v1"


def render(template: str, tokenizer: Tokenizer, turns: Sequence[Turn]) -> Rendered:
    """The text of a conversation by one of `TEMPLATES`; after a last turn of the user, it ends as a generation prompt.

    The user begins, and the two take turns. Raises InputRefused for a tokenizer that lacks what the template takes.
    """
    if template == "tokenizer":
        return _by_chat_template(tokenizer, turns)
    if template == "plain":
        return _plain(tokenizer, turns)
    text = _NAMED[template](tokenizer, turns)
    return Rendered(text.text, tuple(text.answers), tuple(turn.text for turn in turns), text.bos_apart)


def _plain(tokenizer: Tokenizer, turns: Sequence[Turn]) -> Rendered:
    """Captions alone, of the user's words only the images: phase 1. The words after a last turn of the user remain."""
    out = _Text(tokenizer.bos)
    words = []
    for turn in turns:
        if turn.role == "user":
            out.write(IMAGE * turn.text.count(IMAGE))
        else:
            words.append(turn.text)
            out.learn(turn.text + _eos(tokenizer))
    if turns[-1].role == "user":
        words.append(turns[-1].text.replace(IMAGE, ""))
        out.write(words[-1])
    return Rendered(out.text, tuple(out.answers), tuple(words), out.bos_apart)


def _vicuna_v1(tokenizer: Tokenizer, turns: Sequence[Turn]) -> _Text:
    out = _Text(tokenizer.bos)
    out.write(f"{VICUNA_SYSTEM} ")
    for turn in turns:
        if turn.role == "user":
            out.write(f"USER: {turn.text} ASSISTANT:")
        else:
            out.learn(f" {turn.text}{_eos(tokenizer)}")
    return out


def _llama_2(tokenizer: Tokenizer, turns: Sequence[Turn]) -> _Text:
    out = _Text(tokenizer.bos)
    before = f"[INST] <<SYS>>\n{LLAVA_SYSTEM}\n<</SYS>>\n\n"
    for turn in turns:
        if turn.role == "user":
            out.write(f"{before}{turn.text} [/INST]")
            before = f"{tokenizer.bos}[INST] "
        else:
            out.learn(f" {turn.text} {_eos(tokenizer)}")
    return out


def _llava_llama_3(tokenizer: Tokenizer, turns: Sequence[Turn]) -> _Text:
    for token in LLAMA_3_TOKENS:
        if token not in tokenizer.special_tokens:
            raise InputRefused(
                f"{tokenizer.where}: the template llava_llama_3 takes {token}, no token of the tokenizer's"
            )
    out = _Text()
    out.write(f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{LLAVA_SYSTEM}<|eot_id|>")
    for turn in turns:
        if turn.role == "user":
            out.write(f"<|start_header_id|>user<|end_header_id|>\n\n{turn.text}<|eot_id|>")
            out.write("<|start_header_id|>assistant<|end_header_id|>\n\n")
        else:
            out.learn(f"{turn.text}<|eot_id|>")
    return out


_NAMED = {"vicuna_v1": _vicuna_v1, "llama_2": _llama_2, "llava_llama_3": _llava_llama_3}


def _eos(tokenizer: Tokenizer) -> str:
    if not tokenizer.eos:
        raise InputRefused(f"{tokenizer.where}: the tokenizer has no eos, with which the template ends an answer")
    return tokenizer.eos


def _by_chat_template(tokenizer: Tokenizer, turns: Sequence[Turn]) -> Rendered:
    """By the tokenizer's own chat template, which does not tell what it adds for an answer: that is found by rendering
    the conversation up to it and with it."""
    if not tokenizer.has_chat_template:
        others = ", ".join(TEMPLATES[:-1])
        raise InputRefused(f"{tokenizer.where}: the tokenizer has no chat template of its own; there are {others}")
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    text = tokenizer.render(messages, turns[-1].role == "user")
    answers = []
    for number, turn in enumerate(turns):
        if turn.role == "user":
            continue
        prompt = tokenizer.render(messages[:number], True)
        answered = tokenizer.render(messages[: number + 1], False)
        if not (answered.startswith(prompt) and text.startswith(answered)):
            raise InputRefused(
                f"{tokenizer.where}: its chat template writes turns otherwise when more follow, so that what it adds "
                "for an answer is not known"
            )
        answers.append((len(prompt), _end(answered, tokenizer)))
    return Rendered(text, tuple(answers), tuple(turn.text for turn in turns))


def _end(text: str, tokenizer: Tokenizer) -> int:
    """Where the last answer ends: at its end-of-turn token, without the whitespace that a template writes after it."""
    bare = text.rstrip()
    return len(bare) if bare.endswith(tokenizer.special_tokens) else len(text)
