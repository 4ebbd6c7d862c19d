"""What the CS models `llava` and `multimodal_simple` have in common against LLaVA's two folders.

Both join a CLIP tower, a projector and a LLaMA or Mistral decoder; they differ in where these stand. A `Multimodal`
says where, and gives the tables and config rows of its model. Side a is `llava_source`'s, in both of its formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmconvert.configs import ConfigTable, Space
from mmconvert.converter import Converter, Format
from mmconvert.paths import ABSENT, get, put
from mmconvert.releases import Release
from mmconvert.rules import ANYTHING, ConfigRow, Rule, Values, at, const, group, renamed
from mmconvert.schema import Schema, load
from mmconvert.spec import A, B, Config, Sizes, Table, key, mount, table

from . import clip, decoder
from . import llava_source as source
from .llava_source import IMAGE, TEXT

HF, CS = A, B
FREEZE_TEXT = "^text_model"


def projector_sizes(config: Config) -> Sizes:
    """Sizes of a CS FeedForwardNetwork: I[j] and U[j] are what layer j takes and gives, E what the first one takes."""
    units = config["layers_units"]
    # One layer alone is a `linear` projector to LLaVA, which names its tensors otherwise.
    linear = len(units) == 1
    return {
        "U": units,
        "I": [config["input_unit"], *units],
        "U0": units[0],
        "E": config["input_unit"],
        "j": 0 if linear else len(units),
        "linear": linear,
        "bias": config["use_bias"],
    }


# fmt: off
PROJECTOR = table(
    key("mm_projector.{p}",      "ffn.0.linear_layer.{p}",   "U0 E",      when="linear", bias="bias", init="projector"),
    key("mm_projector.{2j}.{p}", "ffn.{j}.linear_layer.{p}", "U[j] I[j]",                bias="bias", init="projector"),
    sizes=projector_sizes, source="LLaVA's mm_projector against Cerebras FeedForwardNetwork; checked by forward passes",
)
# fmt: on


@dataclass(frozen=True)
class Multimodal:
    """Where the parts of a CS model stand: paths in its config and prefixes of keys, `{e}` being a number in a list.

    `own_projection` is where encoders of a list have projections of their own, which LLaVA has no place for; `freeze`
    is the pattern that freezes the tower and not its projector.
    """

    encoder: str
    encoder_key: str
    projection: str
    projection_key: str
    layer: str
    mode: str
    freeze: str
    own_projection: tuple[str, str] | None = None

    @property
    def tables(self) -> tuple[Table, ...]:
        return (
            mount(
                clip.VISION,
                part="vision",
                a=f"{IMAGE}/vision_model.",
                b=self.encoder_key,
                config=self.encoder,
            ),
            *source.LEFT_BEHIND,
            *self._own_projections(),
            mount(PROJECTOR, part="projector", a=f"{TEXT}/model.", b=f"{self.projection_key}.", config=self.projection),
            mount(decoder.DECODER, part="text", a=f"{TEXT}/model.", b="text_model.", config=TEXT),
            mount(decoder.HEAD, part="text", a=f"{TEXT}/", b="text_model.", config=TEXT),
        )

    def _own_projections(self) -> Iterator[Table]:
        if self.own_projection is not None:
            path, prefix = self.own_projection
            yield mount(PROJECTOR, part="projector", b=prefix, config=path)

    @property
    def tower(self) -> str:
        """The path of the one encoder that LLaVA has a place for."""
        return self.encoder.replace("{e}", "0")

    def fields(self, name: str) -> tuple[ConfigRow, ...]:
        """The config rows of the model called `name`."""
        return (
            *at(clip.VISION_FIELDS, IMAGE, self.tower),
            *at((*decoder.FIELDS, decoder.WINDOW_IF_ANY), TEXT, TEXT),
            group([f"{TEXT}.mm_vision_select_layer"], [self.layer], self._layer_to_cs, self._layer_to_hf),
            group(
                [f"{TEXT}.mm_projector_type", f"{TEXT}.mm_hidden_size"],
                [self.projection],
                self._projector_to_cs,
                self._projector_to_hf,
            ),
            renamed(f"{TEXT}.mm_vision_select_feature", self.mode, {"patch": "patch", "cls_patch": "cls_patch"}),
            Rule(
                (f"{TEXT}.tune_mm_mlp_adapter",),
                ("freeze",),
                self._freeze_to_cs,
                _freeze_to_hf,
                also=(ANYTHING,),
            ),
            const(CS, "name", name),
            const(CS, "loss_scaling", "num_tokens", also=[ANYTHING]),
            const(CS, "loss_weight", 1.0, also=[ANYTHING]),
            const(CS, f"{self.tower}.name", "ViTModel", also=["vit"]),
            const(CS, f"{TEXT}.name", "LlamaModel", also=["llama"]),
        )

    def parts(self, config: Config) -> Iterator[tuple[str, str]]:
        """Every part of a section that has a schema of its own: its path, and the schema's name."""
        above, listed, below = self.encoder.partition(".{e}")
        models = get(config, above)
        if listed:
            for number in range(len(models) if isinstance(models, list) else 0):
                yield f"{above}.{number}{below}", "cs-image-encoder"
                own = f"{above}.{number}.projection_layer"
                if get(config, own) not in (ABSENT, None):
                    yield own, "cs-feed-forward-network"
        else:
            yield self.encoder, "cs-image-encoder"
        if get(config, self.projection) not in (ABSENT, None):
            yield self.projection, "cs-feed-forward-network"
        yield TEXT, "cs-decoder"

    def space(self, schema: str) -> Space:
        def schemas(config: Config) -> Mapping[str, Schema]:
            return {"": load(schema), **{path: load(name) for path, name in self.parts(config)}}

        def spell(config: Config, names: frozenset[str]) -> Config:
            spelled = dict(config)
            if isinstance(config.get(TEXT), Mapping):
                spelled[TEXT] = decoder.spell_cs(config[TEXT])
            for path, name in self.parts(config):
                if name == "cs-feed-forward-network" and isinstance(get(config, path), Mapping):
                    spelled = put(spelled, path, _spell_projector(get(config, path)))
            return spelled

        return Space(schemas, spell)

    def converters(
        self,
        model: str,
        cs: Format,
        fields: Sequence[ConfigRow],
        space: Space,
        releases: tuple[Release, ...],
        by_name: bool = False,
    ) -> Iterator[Converter]:
        """One converter for each format of LLaVA's two folders."""
        for form, names, note in source.FORMATS:
            yield Converter(
                model=model,
                a=replace(form, by_name=by_name),
                b=cs,
                tables=self.tables,
                configs=ConfigTable((*fields, *source.FIELDS, *names.rules()), source.SPACE, space),
                b_releases=releases,
                note=note,
                advice=source.advice,
                substitutes=(source.TOWER_IN_TEXT,),
            )

    def _layer_to_cs(self, config: Config) -> Values:
        layer, layers = config[TEXT]["mm_vision_select_layer"], config[IMAGE]["num_hidden_layers"]
        if not isinstance(layer, int) or layer == 0 or not -layers <= layer <= layers:
            raise ValueError(
                f"text_model.mm_vision_select_layer is {layer}: valid are {-layers} to -1 and 1 to {layers} "
                f"(0 and {-layers - 1} are the embeddings, which CS cannot select)"
            )
        return {self.layer: layer - 1 if layer > 0 else layer}

    def _layer_to_hf(self, config: Config) -> Values:
        self._check_towers(config)
        index, layers = get(config, self.layer), get(config, self.tower)["num_hidden_layers"]
        if index is None:
            raise ValueError(f"{self.layer} is absent: CS then applies the tower's final norm, which LLaVA cannot say")
        if not -layers <= index < layers:
            raise ValueError(f"{self.layer} is {index}: valid are {-layers} to {layers - 1}")
        return {f"{TEXT}.mm_vision_select_layer": index + 1 if index >= 0 else index}

    def _check_towers(self, config: Config) -> None:
        above, listed, _ = self.encoder.partition(".{e}")
        count = len(get(config, above)) if listed else 1
        if count != 1:
            raise ValueError(
                f"{above} has {count} encoders, and LLaVA one tower; `cs-to-hf --encoder 0` takes one out by itself"
            )

    def _projector_to_cs(self, config: Config) -> Values:
        image, text = config[IMAGE], config[TEXT]
        width, hidden = text["mm_hidden_size"], image["hidden_size"]
        if width != hidden:
            raise ValueError(f"text_model.mm_hidden_size is {width}, but image_model.hidden_size is {hidden}")
        depth = source.projector_depth(text)
        return {
            self.projection: {
                "name": "FeedForwardNetwork",
                "input_unit": image["hidden_size"],
                "layers_units": [text["hidden_size"]] * depth,
                "layers_activation": ["gelu"] * (depth - 1) + [None],
                "use_bias": True,
            }
        }

    def _projector_to_hf(self, config: Config) -> Values:
        projection = get(config, self.projection)
        if projection is None or projection is ABSENT:
            raise ValueError(f"{self.projection} is absent: LLaVA has no model without a projector")
        depth = len(projection["layers_units"])
        return {
            f"{TEXT}.mm_projector_type": "linear" if depth == 1 else f"mlp{depth}x_gelu",
            f"{TEXT}.mm_hidden_size": get(config, self.tower)["hidden_size"],
        }

    def _freeze_to_cs(self, config: Config) -> Values:
        tune_projector_only = config[TEXT]["tune_mm_mlp_adapter"]
        return {"freeze": [self.freeze, FREEZE_TEXT] if tune_projector_only else [self.freeze]}


def _freeze_to_hf(config: Config) -> Values:
    # Patterns are searched for in parameter names; one decoder weight stands for the decoder.
    weight = "text_model.transformer_decoder.layers.0.norm1.weight"
    for pattern in config["freeze"] or ():
        # A repeated group, or repeat upon repeat, can keep a search busy for years.
        if re.search(r"\)[*+{]", pattern) or sum(map(pattern.count, "*+{")) > 4:
            raise ValueError(f"freeze holds the pattern {pattern!r}, which may run away; repeat less, and no groups")
    try:
        frozen = any(re.search(pattern, weight) for pattern in config["freeze"] or ())
    except re.error as error:
        raise ValueError(f"freeze holds a pattern that is no regular expression: {error}") from error
    return {f"{TEXT}.tune_mm_mlp_adapter": frozen}


# How a projector starts and trains; a converted one is there already.
PROJECTOR_TRAINING = {
    "kernel_initializer",
    "bias_initializer",
    "output_layer_initializer",
    "layers_dropout_rates",
    "device",
}


def _spell_projector(projection: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in projection.items() if name not in PROJECTOR_TRAINING}
    return {**rest, "name": "FeedForwardNetwork"} if rest.get("name") == "MLP" else rest
