"""A question with pictures in it, and a model's answer in words.

What turns words into tokens and pictures into tensors comes with the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mmconvert.api import NO_HINTS, Hints
from mmconvert.documents import parse_json
from mmconvert.errors import InputRefused, UsageError
from mmconvert.paths import ABSENT, get
from mmsimple.checkpoint import Opened, open_checkpoint
from mmsimple.data.conversation import BadRecord, encode, is_text
from mmsimple.data.preprocessor import from_preprocessor
from mmsimple.data.templates import Turn, default_template, render
from mmsimple.data.tokenizer import IMAGE, Tokenizer, load_tokenizer, tokenizer_of
from mmsimple.data.transforms import Transforms, read_transforms
from mmsimple.generation import GREEDY, Sampling, generate
from mmsimple.model import Batch, MultimodalModel

PREPROCESSOR = "preprocessor_config.json"
# Where a trainer's params file says what became of the pictures that it learned from.
TRANSFORMS = "trainer.fit.train_dataloader.transforms"
# Tokens that are one character in several pieces end in this until the last piece is there.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class ChatModel:
    """A model with what it takes to talk to it; `template` is one of `mmsimple.data.templates.TEMPLATES`.

    Without `transforms` it can only be asked about texts.
    """

    model: MultimodalModel
    tokenizer: Tokenizer
    transforms: Transforms | None
    template: str
    eos_ids: frozenset[int]

    @classmethod
    def from_checkpoint(
        cls,
        path: Path,
        *,
        hints: Hints = NO_HINTS,
        tokenizer: Path | None = None,
        template: str | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> ChatModel:
        """That of a checkpoint, see `MultimodalModel.from_checkpoint`; `tokenizer` is a folder with another one.

        Pictures are treated as in training, where the params file says how, and otherwise as by the preprocessor that
        came with the encoder. Raises InputRefused where the checkpoint has no tokenizer.
        """
        opened = open_checkpoint(path, hints)
        found = load_tokenizer(tokenizer) if tokenizer is not None else tokenizer_of(opened.assets, str(path))
        transforms = _transforms(opened)
        model = MultimodalModel.from_opened(opened, dtype=dtype, device=device)
        encoder = model.config.image_models[0].encoder
        if transforms is not None and transforms.output_size != encoder.image_size:
            sizes = f"{transforms.output_size}, but its encoder takes {encoder.image_size}"
            raise InputRefused(f"{path}: what came with it makes pictures of {sizes}")
        return cls(model, found, transforms, template or default_template(found), _eos_ids(found, opened))

    def prompt(self, text: str, pictures: Sequence[Image.Image]) -> Batch:
        """A question as the model reads it. Pictures stand where the text says `<image>`, or all in front.

        Raises UsageError where these are of another number, and for a text that holds a special token or none at all;
        InputRefused for pictures where nothing came with the checkpoint that says how to treat them.
        """
        if not is_text(text):
            raise UsageError("the prompt is no text that can be written")
        mentioned = text.count(IMAGE)
        if mentioned == 0:
            text = f"{IMAGE}\n" * len(pictures) + text
        elif mentioned != len(pictures):
            raise UsageError(f"the prompt says {IMAGE} {mentioned} times, and there are {len(pictures)} images")
        rendered = render(self.template, self.tokenizer, [Turn("user", text)])
        try:
            sample = encode(rendered, self.tokenizer, self.model.tokens_per_image)
        except BadRecord as error:
            raise UsageError(f"the prompt cannot be read: {error.reason}") from error
        if not sample.ids:
            raise UsageError("the prompt is empty")
        rows = self.model.config.text_model.vocab_size
        if max(sample.ids) >= rows:
            problem = f"its tokenizer gives the id {max(sample.ids)}, but the model's vocabulary has {rows} rows"
            raise InputRefused(f"{self.tokenizer.where}: {problem}")
        device = self.model.text_model.lm_head.weight.device
        ids = torch.tensor([sample.ids], device=device)
        modality = torch.zeros_like(ids)
        for start, end in sample.images:
            modality[:, start:end] = 1
        if not pictures:
            return Batch(ids, token_modality_idx=modality)
        if self.transforms is None:
            raise InputRefused(
                f"{self.tokenizer.where}: neither {PREPROCESSOR} came with the checkpoint (in assets/image_model) nor "
                f"{TRANSFORMS} in its params file, so that nothing says how to treat pictures"
            )
        positions = torch.stack([torch.arange(*place, device=device) for place in sample.images])
        images = torch.stack([self.transforms(picture) for picture in pictures]).to(device)
        return Batch(ids, images[None], positions[None], modality)

    def answer(self, prompt: Batch, *, max_new_tokens: int, sampling: Sampling = GREEDY) -> Iterator[str]:
        """The answer's words as they come, in pieces. Raises UsageError for a prompt longer than the model reads."""
        length, longest = prompt.text_input_ids.shape[1], self.model.config.text_model.max_position_embeddings
        if length > longest:
            raise UsageError(f"the prompt takes {length} positions, images included, and the model has {longest}")
        tokens = generate(self.model, prompt, max_new_tokens=max_new_tokens, eos_ids=self.eos_ids, sampling=sampling)
        yield from pieces(self.tokenizer, tokens)


def pieces(tokenizer: Tokenizer, tokens: Iterator[int]) -> Iterator[str]:
    """What each token adds to a text; a character of several tokens comes with the last of them.

    All that there is is decoded each time, because a token's letters can depend on those before it.
    """
    ids: list[int] = []
    told = ""
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        if not text.endswith(UNFINISHED) and text.startswith(told) and text != told:
            yield text[len(told) :]
            told = text
    rest = tokenizer.decode(ids, skip_special_tokens=True)[len(told) :]
    if rest:
        yield rest


def _transforms(opened: Opened) -> Transforms | None:
    steps = get(opened.params, TRANSFORMS)
    if steps is not ABSENT:
        return read_transforms(steps, opened.where, TRANSFORMS)
    name = next((name for name in opened.assets if name.endswith(PREPROCESSOR)), None)
    if name is None:
        return None
    config = _asset(opened, name)
    aspect = _asset(opened, "text_model/config.json").get("image_aspect_ratio")
    if aspect not in (None, "square", "pad"):
        raise InputRefused(
            f"{opened.path}: image_aspect_ratio is {aspect!r:.40}; mmsimple shows whole pictures, or pads"
        )
    return from_preprocessor(config, f"{opened.path}: {name}", pad=aspect == "pad")


def _asset(opened: Opened, name: str) -> dict[str, Any]:
    """A JSON file that came with a checkpoint; empty where it did not."""
    data = opened.assets.get(name)
    found = {} if data is None else parse_json(data, f"{opened.path}: {name}")
    if not isinstance(found, dict):
        raise InputRefused(f"{opened.path}: {name} must be a JSON object")
    return found


def _eos_ids(tokenizer: Tokenizer, opened: Opened) -> frozenset[int]:
    """The ends that the tokenizer knows, and those of the generation config."""
    said = _asset(opened, "text_model/generation_config.json").get("eos_token_id")
    return tokenizer.eos_ids | {each for each in (said if isinstance(said, list) else [said]) if isinstance(each, int)}
