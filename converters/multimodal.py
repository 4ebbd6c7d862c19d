"""What the CS models `llava` and `multimodal_simple` have in common.

Both join a CLIP tower, a projector and a LLaMA or Mistral decoder; they differ in where these stand. A `Multimodal`
says where, and makes the tables and config rows of its model against each `Partner`: a format of side a, which says
where the parts stand there (LLaVA's two folders in `llava_source`, transformers' one in `llava_hf`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmconvert.configs import ConfigTable, Space
from mmconvert.converter import Converter, Format, Substitute
from mmconvert.paths import ABSENT, get, put
from mmconvert.releases import Release
from mmconvert.rules import ANYTHING, ConfigRow, Values, at, const, group, renamed
from mmconvert.schema import Schema, load
from mmconvert.spec import B, Config, Table, mount

from . import clip, decoder, projector

CS = B
TEXT = "text_model"


@dataclass(frozen=True)
class Partner:
    """A format of side a, and where the parts of a model stand in it.

    `image` and `text` are the paths of the tower's and the decoder's configs, `layer` and `mode` of which hidden state
    of the tower is read and whether its class token too, `modes` being what CS calls those; `tower_keys`,
    `projector_keys`, `decoder_keys` and `head_keys` are prefixes. `decoder_rows` are the config rows of the decoder,
    and `rows` all those that only this format has, given where the parts stand in CS. See `Converter` and `mount` for
    the others; `origin` is the format whose files travel with a checkpoint, where it is not this one.
    """

    form: Format
    space: Space
    note: str
    image: str
    text: str
    layer: str
    mode: str
    modes: Mapping[str, str]
    tower_keys: str
    projector_table: Table
    projector_keys: str
    decoder_keys: str
    head_keys: str
    rows: Callable[[Multimodal], Sequence[ConfigRow]]
    decoder_rows: Sequence[ConfigRow] = (*decoder.FIELDS, decoder.WINDOW_IF_ANY)
    left_behind: tuple[Table, ...] = ()
    a_sizes: Mapping[str, str] = field(default_factory=dict)
    advice: Callable[[Config, Config], Sequence[str]] = lambda config, carried: ()
    substitutes: tuple[Substitute, ...] = ()
    origin: Format | None = None


@dataclass(frozen=True)
class Multimodal:
    """Where the parts of a CS model stand: paths in its config and prefixes of keys, `{e}` being a number in a list.

    `own_projection` is where encoders of a list have projections of their own, which side a has no place for; `freeze`
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

    def tables(self, partner: Partner) -> tuple[Table, ...]:
        return (
            mount(clip.VISION, part="vision", a=partner.tower_keys, b=self.encoder_key, config=self.encoder),
            *partner.left_behind,
            *self._own_projections(),
            mount(
                partner.projector_table,
                part="projector",
                a=partner.projector_keys,
                b=f"{self.projection_key}.",
                config=self.projection,
            ),
            mount(
                decoder.DECODER,
                part="text",
                a=partner.decoder_keys,
                b="text_model.",
                config=TEXT,
                a_sizes=partner.a_sizes,
            ),
            mount(
                decoder.HEAD, part="text", a=partner.head_keys, b="text_model.", config=TEXT, a_sizes=partner.a_sizes
            ),
        )

    def _own_projections(self) -> Iterator[Table]:
        if self.own_projection is not None:
            path, prefix = self.own_projection
            yield mount(projector.LLAVA, part="projector", b=prefix, config=path)

    @property
    def tower(self) -> str:
        """The path of the one encoder that side a has a place for."""
        return self.encoder.replace("{e}", "0")

    def fields(self, name: str, partner: Partner) -> tuple[ConfigRow, ...]:
        """The config rows of the model called `name`."""
        return (
            *at(clip.VISION_FIELDS, partner.image, self.tower),
            *at(partner.decoder_rows, partner.text, TEXT),
            self._layer(partner),
            renamed(partner.mode, self.mode, partner.modes),
            const(CS, "name", name),
            const(CS, "loss_scaling", "num_tokens", also=[ANYTHING]),
            const(CS, "loss_weight", 1.0, also=[ANYTHING]),
            const(CS, f"{self.tower}.name", "ViTModel", also=["vit"]),
            const(CS, f"{TEXT}.name", "LlamaModel", also=["llama"]),
            *partner.rows(self),
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
                    spelled = put(spelled, path, projector.spell(get(config, path)))
            return spelled

        return Space(schemas, spell)

    def converters(
        self,
        model: str,
        name: str,
        cs: Format,
        partners: Sequence[Partner],
        space: Space,
        releases: tuple[Release, ...],
        more: Sequence[ConfigRow] = (),
        by_name: bool = False,
    ) -> Iterator[Converter]:
        """One converter for each partner; `more` are config rows that only this model has."""
        for partner in partners:
            yield Converter(
                model=model,
                a=replace(partner.form, by_name=by_name),
                b=cs,
                tables=self.tables(partner),
                configs=ConfigTable((*self.fields(name, partner), *more), partner.space, space),
                b_releases=releases,
                note=partner.note,
                advice=partner.advice,
                origin=partner.origin,
                substitutes=partner.substitutes,
            )

    def _layer(self, partner: Partner) -> ConfigRow:
        """Which hidden state is read: 0 are the embeddings on side a, and the first layer's in CS."""

        def to_cs(config: Config) -> Values:
            layer, layers = get(config, partner.layer), get(config, partner.image)["num_hidden_layers"]
            if isinstance(layer, list):
                raise ValueError(f"{partner.layer} is {layer}: CS and LLaVA read one layer of the tower, not several")
            if not isinstance(layer, int) or layer == 0 or not -layers <= layer <= layers:
                raise ValueError(
                    f"{partner.layer} is {layer}: valid are {-layers} to -1 and 1 to {layers} "
                    f"(0 and {-layers - 1} are the embeddings, which CS cannot select)"
                )
            return {self.layer: layer - 1 if layer > 0 else layer}

        def to_hf(config: Config) -> Values:
            self._check_towers(config)
            index, layers = get(config, self.layer), get(config, self.tower)["num_hidden_layers"]
            if index is None:
                raise ValueError(
                    f"{self.layer} is absent: CS then applies the tower's final norm, which LLaVA cannot say"
                )
            if not -layers <= index < layers:
                raise ValueError(f"{self.layer} is {index}: valid are {-layers} to {layers - 1}")
            return {partner.layer: index + 1 if index >= 0 else index}

        return group([partner.layer], [self.layer], to_cs, to_hf)

    def _check_towers(self, config: Config) -> None:
        above, listed, _ = self.encoder.partition(".{e}")
        count = len(get(config, above)) if listed else 1
        if count != 1:
            raise ValueError(
                f"{above} has {count} encoders, and LLaVA one tower; `cs-to-hf --encoder 0` takes one out by itself"
            )

    def one_projection(self, config: Config) -> Mapping[str, Any]:
        """The CS config of the projector. Raises ValueError where there is none: side a has no model without."""
        projection = get(config, self.projection)
        if projection is None or projection is ABSENT:
            raise ValueError(f"{self.projection} is absent: LLaVA has no model without a projector")
        found: Mapping[str, Any] = projection
        return found
