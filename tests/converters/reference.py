"""What a checkpoint of a drawn config holds on both sides, worked out without the tables that are to be tested.

Names are joined from those of modules, and rows are moved by reshaping arrays: the same facts as in the tables, come by
in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmconvert.spec import A, Side
from tests.converters.properties import IMAGE, JOINED, MULTIMODAL, TEXT, Decoder, Sample, Tower

Rows = np.ndarray[Any, Any]
Move = Callable[[Rows], Rows]


@dataclass(frozen=True)
class Tensor:
    """One tensor by its name on both sides, of this shape on side b; `move` brings side a's rows into side b's order.

    `a_rows` are those of side a, where it has more. Of a `vocabulary`, some formats have more rows than others.
    """

    a: str
    b: str
    shape: tuple[int, ...]
    move: Move | None = None
    a_rows: int | None = None
    vocabulary: bool = False

    def name(self, side: Side) -> str:
        return self.a if side == A else self.b

    def shape_on(self, side: Side) -> tuple[int, ...]:
        return self.shape if side != A or self.a_rows is None else (self.a_rows, *self.shape[1:])

    def moved(self, data: bytes) -> bytes:
        """Side a's bytes in side b's order, without the rows that side b has not."""
        rows = np.frombuffer(data, "u1").reshape(self.shape_on(A)[0], -1)[: self.shape[0]]
        return (rows if self.move is None else self.move(rows)).tobytes()


@dataclass(frozen=True)
class Holding:
    """All tensors of a checkpoint.

    `copies_a` and `copies_b` are second names: (name, of). `only_a` and `only_b` stay behind when their side is left.
    """

    tensors: tuple[Tensor, ...]
    copies_a: tuple[tuple[str, str], ...] = ()
    copies_b: tuple[tuple[str, str], ...] = ()
    only_a: tuple[tuple[str, tuple[int, ...]], ...] = ()
    only_b: tuple[tuple[str, tuple[int, ...]], ...] = ()


def interleaved(heads: int) -> Move:
    """Halves of a head, (x0, x1, .., y0, y1, ..), as neighbouring pairs, (x0, y0, x1, y1, ..)."""

    def move(rows: Rows) -> Rows:
        return rows.reshape(heads, 2, -1, rows.shape[-1]).swapaxes(1, 2)

    return move


def rolled(rows: Rows) -> Rows:
    """The first row last."""
    return np.roll(rows, -1, axis=0)


def held(sample: Sample) -> Holding:
    """What checkpoints of the sample hold."""
    if sample.model in MULTIMODAL:
        return _llava(sample, sample.form, sample.rows)
    if sample.tower is not None:
        return _clip(sample.model, sample.tower)
    assert sample.text is not None
    return _decoder(sample.text, "" if sample.model == "llama-headless" else "model.", "", sample.model)


def written(sample: Sample, form: str) -> Holding:
    """What checkpoints of the sample hold that are written anew, in this format of side a.

    Where a format has tokens besides the decoder's own, they are two: for pictures and for padding. Its rows are a
    multiple of 64.
    """
    if sample.model not in MULTIMODAL:
        return held(sample)
    assert sample.text is not None
    rows = sample.text.vocab + 2
    return _llava(sample, form, rows + -rows % 64 if form == JOINED else None)


def _module(a: str, b: str, shape: tuple[int, ...], bias: bool, move: Move | None = None) -> Iterator[Tensor]:
    yield Tensor(f"{a}.weight", f"{b}.weight", shape, move)
    if bias:
        yield Tensor(f"{a}.bias", f"{b}.bias", shape[:1], move)


def _decoder(facts: Decoder, a: str, b: str, model: str) -> Holding:
    hidden, inner, keys = facts.hidden, facts.inner, facts.kv_heads * facts.head_dim
    queries, groups = interleaved(facts.heads), interleaved(facts.kv_heads)
    embedding, norm = f"{b}embedding_layer.word_embeddings.weight", f"{b}transformer_decoder.norm.weight"
    tensors = [Tensor(f"{a}embed_tokens.weight", embedding, (facts.vocab, hidden))]
    for layer in range(facts.layers):
        here, there = f"{a}layers.{layer}", f"{b}transformer_decoder.layers.{layer}"
        tensors += _module(f"{here}.input_layernorm", f"{there}.norm1", (hidden,), False)
        tensors += _module(f"{here}.post_attention_layernorm", f"{there}.norm3", (hidden,), False)
        for name, theirs, rows, columns, move in (
            ("q", "q", hidden, hidden, queries),
            ("k", "k", keys, hidden, groups),
            ("v", "v", keys, hidden, None),
            ("o", "output", hidden, hidden, None),
        ):
            ours, other = f"{here}.self_attn.{name}_proj", f"{there}.self_attn.proj_{theirs}_dense_layer"
            tensors += _module(ours, other, (rows, columns), facts.attention_bias, move)
        for name, theirs, rows, columns in (
            ("gate", "0.linear_layer_for_glu", inner, hidden),
            ("up", "0.linear_layer", inner, hidden),
            ("down", "1.linear_layer", hidden, inner),
        ):
            tensors += _module(f"{here}.mlp.{name}_proj", f"{there}.ffn.ffn.{theirs}", (rows, columns), facts.mlp_bias)
    tensors.append(Tensor(f"{a}norm.weight", norm, (hidden,)))
    head, head_a = f"{b}lm_head.weight", f"{a.removesuffix('model.')}lm_head.weight"
    copies_a, copies_b, only_b = [], [(f"{b}ln_f.weight", norm)], []
    if facts.tied:
        copies_b.append((head, embedding))
        if model != "llama-headless":
            copies_a.append((head_a, f"{a}embed_tokens.weight"))
    elif model == "llama-headless":
        only_b.append((head, (facts.vocab, hidden)))
    else:
        tensors.append(Tensor(head_a, head, (facts.vocab, hidden)))
    buffers = tuple(
        (f"{a}layers.{layer}.self_attn.rotary_emb.inv_freq", (facts.head_dim // 2,)) for layer in range(facts.layers)
    )
    return Holding(tuple(tensors), tuple(copies_a), tuple(copies_b), buffers, tuple(only_b))


def _tower(facts: Tower, a: str, b: str) -> list[Tensor]:
    width, patch = facts.hidden, facts.patch
    tensors = [
        Tensor(f"{a}embeddings.class_embedding", f"{b}embedding_layer.cls_embedding", (width,)),
        *_module(
            f"{a}embeddings.position_embedding",
            f"{b}embedding_layer.position_embeddings",
            (facts.positions, width),
            False,
            rolled,
        ),
        *_module(
            f"{a}embeddings.patch_embedding",
            f"{b}embedding_layer.linear_proj",
            (width, facts.channels, patch, patch),
            False,
        ),
        *_module(f"{a}pre_layrnorm", f"{b}embedding_layer.post_embed_ln", (width,), True),
        *_module(f"{a}post_layernorm", f"{b}encoder.transformer_encoder.norm", (width,), True),
    ]
    for layer in range(facts.layers):
        here, there = f"{a}encoder.layers.{layer}", f"{b}encoder.transformer_encoder.layers.{layer}"
        for number in (1, 2):
            tensors += _module(f"{here}.layer_norm{number}", f"{there}.norm{number}", (width,), True)
        for name, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("out", "output")):
            ours, other = f"{here}.self_attn.{name}_proj", f"{there}.self_attn.proj_{theirs}_dense_layer"
            tensors += _module(ours, other, (width, width), True)
        tensors += _module(f"{here}.mlp.fc1", f"{there}.ffn.ffn.0.linear_layer", (facts.inner, width), True)
        tensors += _module(f"{here}.mlp.fc2", f"{there}.ffn.ffn.1.linear_layer", (width, facts.inner), True)
    return tensors


def _beside_a_tower(a: str, positions: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """What a file may hold beside a tower: a buffer, and the text half of a whole CLIPModel."""
    return (
        (f"{a}vision_model.embeddings.position_ids", (1, positions)),
        (f"{a}text_model.embeddings.token_embedding.weight", (7, 3)),
        (f"{a}text_projection.weight", (5, 3)),
        (f"{a}logit_scale", ()),
    )


def _clip(model: str, facts: Tower) -> Holding:
    tensors = _tower(facts, "vision_model.", "vit_model." if model == "clip-vit" else "")
    beside = _beside_a_tower("", facts.positions)
    projection = (facts.classes, facts.hidden)
    if model == "clip-vit":
        classifier = "classifier.classifier.ffn.0.linear_layer.weight"
        tensors.append(Tensor("visual_projection.weight", classifier, projection))
    else:
        beside += (("visual_projection.weight", projection),)
    return Holding(tuple(tensors), only_a=beside)


def _llava(sample: Sample, form: str, rows: int | None) -> Holding:
    assert sample.text is not None
    assert sample.tower is not None
    listed = sample.model == "mmsimple-llava"
    encoder = "image_model.image_model_list.0.0." if listed else "image_model."
    projector = "image_model.projection" if listed else "projector_image_model"
    text, tower = sample.text, sample.tower
    ours = _names(form, sample.depth)
    tensors = _tower(tower, ours.tower, encoder)
    for layer in range(sample.depth):
        shape = (text.hidden, text.hidden if layer else tower.hidden)
        theirs = f"{projector}.ffn.{layer}.linear_layer"
        tensors += _module(ours.projector[layer], theirs, shape, sample.projector_bias)
    decoder = _decoder(text, ours.decoder, f"{TEXT}.", sample.model)
    tokens = (f"{TEXT}.embedding_layer.word_embeddings.weight", f"{TEXT}.lm_head.weight")
    tensors += [replace(each, a_rows=rows, vocabulary=True) if each.b in tokens else each for each in decoder.tensors]
    beside: tuple[tuple[str, tuple[int, ...]], ...]
    if form == JOINED:
        beside = ((f"{ours.tower}embeddings.position_ids", (1, tower.positions)),)
    else:
        beside = _beside_a_tower(f"{IMAGE}/", tower.positions)
        beside += ((f"{IMAGE}/visual_projection.weight", (tower.classes, tower.hidden)),)
    return replace(decoder, tensors=tuple(tensors), only_a=decoder.only_a + beside)


@dataclass(frozen=True)
class Names:
    """What the parts of a LLaVA are called on side a: prefixes, and the modules of a projector."""

    tower: str
    projector: tuple[str, ...]
    decoder: str


def _names(form: str, depth: int) -> Names:
    if form == JOINED:
        linear = ("multi_modal_projector.linear_1", "multi_modal_projector.linear_2")
        return Names("vision_tower.vision_model.", linear, "language_model.model.")
    # One layer alone has no number; of several, every other one is a GELU.
    numbers = [""] if depth == 1 else [f".{2 * layer}" for layer in range(depth)]
    modules = tuple(f"{TEXT}/model.mm_projector{number}" for number in numbers)
    return Names(f"{IMAGE}/vision_model.", modules, f"{TEXT}/model.")
