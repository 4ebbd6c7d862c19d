"""The multimodal model, CS `multimodal_simple`: image encoders, a projector and a decoder.

Images may stand anywhere in the text, several in a sample or none. Parameters have the names that CS checkpoints give
them. Shape letters: B samples, S positions, H hidden, V vocabulary; I image slots of a sample, P tokens of an image, N
images that are really there, C channels; E an encoder's hidden, F all that encoders make of an image, in one row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from mmconvert.api import NO_HINTS, Hints
from mmconvert.errors import InputRefused
from mmsimple.cache import KeyValueCache
from mmsimple.checkpoint import Container, Opened, load, open_checkpoint, save
from mmsimple.config import ImageModelConfig, ModelConfig, MultimodalConfig
from mmsimple.element_types import computed_in
from mmsimple.freeze import rest
from mmsimple.llama import LlamaModel
from mmsimple.loss import divisor, scaled, token_losses
from mmsimple.projector import build_projector, tokens_after
from mmsimple.vit import ViTModel


class ImageModel(nn.Module):
    """Every encoder sees the same image; what they make of it stands one after the other, and is projected."""

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__()
        self.select = config.select
        self.feature_shapes = feature_shapes(config)
        self.image_model_list = nn.ModuleList(_encoder_and_projection(each) for each in config.image_models)
        self.projection = (
            nn.Identity()
            if config.projection is None
            else build_projector(config.projection, config.image_models[0].encoder.grid)
        )

    @property
    def encoders(self) -> list[nn.Module]:
        return [next(each.children()) for each in self.image_model_list]

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, height, width] -> [N, P, H]."""
        return self.project(self.encode(images))

    def encode(self, images: Tensor) -> list[Tensor]:
        """What each encoder makes of images: [N, C, height, width] -> [N, tokens, E] for each of them."""
        first = 1 if self.select == "patch" else 0
        return [encoder(images)[:, first:] for encoder in self.encoders]

    def project(self, features: Sequence[Tensor]) -> Tensor:
        """What encoders have made of images, projected, [N, P, H]."""
        own = []
        for (_, *projections), each in zip(map(nn.Module.children, self.image_model_list), features, strict=True):
            for projection in projections:
                each = projection(each.to(computed_in(projection)))
            own.append(each)
        joined = torch.cat(own, dim=1)
        out: Tensor = self.projection(joined.to(computed_in(self.projection)))
        return out

    def split(self, rows: Tensor) -> list[Tensor]:
        """What each encoder made of images, [N, tokens, E], out of rows with all of it one after the other, [N, F]."""
        sizes = [math.prod(each) for each in self.feature_shapes]
        parts = torch.split(rows, sizes, dim=1)
        return [each.reshape(-1, *shape) for each, shape in zip(parts, self.feature_shapes, strict=True)]


def _encoder_and_projection(config: ImageModelConfig) -> nn.ModuleList:
    parts: list[nn.Module] = [ViTModel(config.encoder)]
    if config.projection is not None:
        parts.append(build_projector(config.projection, config.encoder.grid))
    return nn.ModuleList(parts)


class Batch(NamedTuple):
    """What a model reads, as the data files hold it.

    `text_input_ids` [B, S], any id at image positions; `image_data` [B, I, C, height, width], or in its place
    `image_features` [B, I, F], what encoders have made of it before; `image_data_loc` [B, I, P] the position in the
    text of each of an image's tokens, S for all of them in a slot without image.
    `token_modality_idx` [B, S] is 1 at image tokens. `labels` [B, S] are shifted already; `loss_mask` [B, S] weighs
    them. Padding stands on the right, so that the model needs no `key_padding_mask` [B, S], which is 1 there: it is for
    who counts tokens.
    """

    text_input_ids: Tensor
    image_data: Tensor | None = None
    image_data_loc: Tensor | None = None
    token_modality_idx: Tensor | None = None
    labels: Tensor | None = None
    loss_mask: Tensor | None = None
    key_padding_mask: Tensor | None = None
    image_features: Tensor | None = None


class MultimodalModel(nn.Module):
    """The whole model; see `mmsimple.config.MultimodalConfig`.

    All of it trains, whatever `config.freeze` says, until `freeze(model, model.config.freeze)`.
    """

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__()
        self.config = config
        # The files that came with the weights, such as the tokenizer, by their names below `assets/`.
        self.assets: Mapping[str, bytes] = {}
        self.image_model = ImageModel(config)
        self.text_model = LlamaModel(config.text_model)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        hints: Hints = NO_HINTS,
        init: Mapping[str, int] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> MultimodalModel:
        """The model of a checkpoint, in eval mode: a CS folder, `.mdl` or safetensors, or what mmconvert makes one of.

        Weights keep their element types unless `dtype` is given, and are read straight into their places. `hints` say
        what a checkpoint does not (`Hints(config=...)` names its params file); `init` gives seeds for what may be made
        where it is missing: `{"projector": 1}`.

        Nothing is frozen, for a model that is only to answer must not fail for what its config says of training:
        `freeze(model, model.config.freeze)` does that, from `mmsimple.freeze`.

        Raises InputRefused, naming file and key, for what is broken, incomplete, of several element types within one
        part or no multimodal model; UsageError for a `dtype` that is none of weights and for `init` of a CS checkpoint.
        """
        return cls.from_opened(open_checkpoint(Path(path), hints, init), dtype=dtype, device=device)

    @classmethod
    def from_opened(
        cls, opened: Opened, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> MultimodalModel:
        """The model of a checkpoint that is open; see `from_checkpoint`."""

        def build(config: ModelConfig) -> MultimodalModel:
            if not isinstance(config, MultimodalConfig):
                problem = "is no multimodal model; `mmsimple.load_model` loads decoders and encoders"
                raise InputRefused(f"{opened.path}: {problem}")
            return cls(config)

        model = load(opened, build, dtype=dtype, device=device)
        model.assets = opened.assets
        return model

    def save(self, out: str | Path, *, container: Container = "mdl", overwrite: bool = False) -> None:
        """Write a CS checkpoint to the folder `out`, with the tokenizer and other files that came with the model.

        The folder appears whole or not at all. Raises OutputRefused, DiskError, and UsageError for another container.
        """
        save(self, self.config, Path(out), assets=self.assets, container=container, overwrite=overwrite)

    def train(self, mode: bool = True) -> Self:
        """Train mode for all but what is frozen: that has no dropout."""
        super().train(mode)
        if mode:
            rest(self)
        return self

    @property
    def tokens_per_image(self) -> int:
        """P: how many positions of the text an image takes."""
        return image_tokens(self.config)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, S, V] of every position."""
        logits: Tensor = self.text_model.lm_head(self.hidden_states(batch))
        return logits

    def loss(self, batch: Batch, divided_by: float | None = None) -> Tensor:
        """The training loss, a scalar.

        It is divided by the batch's own `mmsimple.loss.divisor`, or by that of a larger batch that this is a part of:
        the losses of the parts add up to that of the whole.

        Of a batch of text alone nothing reaches a projector: where only that trains, such a loss has no gradient.
        Raises NothingToLearn for a batch without any token that counts, where the loss is a mean over tokens.
        """
        losses, weights = self.losses(batch)
        config = self.config
        if divided_by is None:
            assert batch.loss_mask is not None
            divided_by = divisor(batch.loss_mask, config.loss_scaling)
        return scaled(losses, weights, divided_by, config.loss_scaling, config.loss_weight)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of each token that counts and its weight, both [T]; the head sees no more than these tokens."""
        if batch.labels is None or batch.loss_mask is None:
            raise ValueError("a loss needs labels and a loss_mask")
        counts = batch.loss_mask != 0  # [B, S]
        hidden_states = self.hidden_states(batch)[counts]  # [T, H]
        return token_losses(self.text_model.lm_head(hidden_states), batch.labels[counts]), batch.loss_mask[counts]

    def hidden_states(self, batch: Batch, cache: KeyValueCache | None = None) -> Tensor:
        """What the head reads, [B, S, H]; with a cache, the batch's text is kept in it.

        Raises ValueError for images whose shapes do not fit.
        """
        embeddings = self.text_model.embed(batch.text_input_ids)
        field = "image_data" if batch.image_features is None else "image_features"
        images: Tensor | None = getattr(batch, field)
        positions = batch.image_data_loc
        if images is not None and positions is not None:
            self._check_shapes(len(embeddings), field, images, positions)
            embeddings = self._with_images(embeddings, images, positions)
        elif images is not None or positions is not None:
            given, lacking = ("image_data_loc", field) if images is None else (field, "image_data_loc")
            raise ValueError(f"{given} is given, but {lacking} is missing")
        return self.text_model.decode(embeddings, batch.token_modality_idx, cache)

    def _check_shapes(self, samples: int, field: str, images: Tensor, positions: Tensor) -> None:
        """By shapes alone, for to look at values would make a GPU wait."""
        encoder = self.config.image_models[0].encoder
        outer, tokens = tuple(positions.shape[:-1]), self.tokens_per_image
        if len(outer) != 2 or (outer[0], positions.shape[-1]) != (samples, tokens):
            raise ValueError(f"image_data_loc is {tuple(positions.shape)}, but must be ({samples}, I, {tokens})")
        is_kept = field == "image_features"
        each = (features_per_image(self.config),) if is_kept else (encoder.num_channels, *encoder.image_size)
        if images.shape != (*outer, *each):
            found, wanted = tuple(images.shape), (*outer, *each)
            raise ValueError(f"{field} is {found}, but must be {wanted} beside such an image_data_loc")

    def _with_images(self, embeddings: Tensor, images: Tensor, positions: Tensor) -> Tensor:
        """The embeddings [B, S, H] with images at their positions; slots without image cost nothing."""
        length = embeddings.shape[1]
        filled = (positions < length).any(-1)  # [B, I]
        if not filled.any():
            return embeddings
        seen = images[filled]  # [N, C, height, width], or [N, F]
        features = self.image_model.split(seen) if seen.dim() == 2 else self.image_model.encode(seen)
        projected = self.image_model.project(features).to(embeddings.dtype)  # [N, P, H]
        samples = filled.nonzero()[:, :1].expand(-1, projected.shape[1])  # [N, P]
        # One position more than there are: what an image has too many of falls there, and goes.
        room = nn.functional.pad(embeddings, (0, 0, 0, 1))
        return room.index_put((samples, positions[filled].long()), projected)[:, :length]


def feature_shapes(config: MultimodalConfig) -> list[tuple[int, int]]:
    """Tokens and hidden of what each encoder makes of an image, before any projection."""
    extra = 0 if config.select == "patch" else 1
    return [(each.encoder.num_patches + extra, each.encoder.hidden_size) for each in config.image_models]


def features_per_image(config: MultimodalConfig) -> int:
    """F: how many numbers all encoders make of an image."""
    return sum(tokens * size for tokens, size in feature_shapes(config))


def image_tokens(config: MultimodalConfig) -> int:
    """P: how many positions of the text an image takes, over all encoders and after every projection."""
    shapes = zip(config.image_models, feature_shapes(config), strict=True)
    tokens = sum(tokens_after(each.projection, tokens) for each, (tokens, _) in shapes)
    return tokens_after(config.projection, tokens)
