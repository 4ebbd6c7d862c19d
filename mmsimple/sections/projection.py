"""Projectors in a Cerebras section, by their registered names; `Identity` and `AveragePooling` are ours alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mmconvert.errors import InputRefused
from mmsimple.config import ACTIVATIONS, AveragePoolingConfig, FeedForwardConfig, IdentityConfig, ProjectorConfig
from mmsimple.sections.supported import FEED_FORWARD, check_names, require, shown

# Other names of activations; None passes on what it gets.
SPELLINGS = {"swish": "silu", "linear": None}


def read_projection(section: Any, where: str, path: str) -> ProjectorConfig | None:
    """A projection, or None where there is none. Raises InputRefused, naming file and field."""
    if section is None:
        return None
    name = section.get("name")
    known = isinstance(name, str) and name in PROJECTORS
    require(known, where, f"{path}.name is {shown(name)}; registered projectors are {', '.join(PROJECTORS)}")
    return PROJECTORS[name](section, where, path)


def _feed_forward(section: Mapping[str, Any], where: str, path: str) -> FeedForwardConfig:
    full = FEED_FORWARD.complete(section, where, path)
    units = full["layers_units"]
    for name in ("layers_activation", "layers_dropout_rates"):
        given = full[name]
        fits = given is None or len(given) == len(units)
        require(fits, where, f"{path}.{name} is {shown(given)}: layers_units has {len(units)} layers")
    names = full["layers_activation"] or [None] * len(units)
    for name in names:
        known = name is None or name in ACTIVATIONS or name in SPELLINGS
        choices = ", ".join((*ACTIVATIONS, *SPELLINGS))
        require(known, where, f"{path}.layers_activation has {shown(name)}; mmsimple computes {choices} and null")
    return FeedForwardConfig(
        input_unit=full["input_unit"],
        layers_units=tuple(units),
        layers_activation=tuple(SPELLINGS.get(name, name) for name in names),
        layers_dropout_rates=tuple(float(rate or 0.0) for rate in full["layers_dropout_rates"] or [None] * len(units)),
        use_bias=full["use_bias"],
    )


def _identity(section: Mapping[str, Any], where: str, path: str) -> IdentityConfig:
    check_names(section, {"name"}, where, path)
    return IdentityConfig()


def _average_pooling(section: Mapping[str, Any], where: str, path: str) -> AveragePoolingConfig:
    check_names(section, {"name", "input_unit", "output_unit", "grid", "use_bias"}, where, path)
    for name in ("input_unit", "output_unit"):
        value = section.get(name)
        require(_is_count(value), where, f"{path}.{name} is {shown(value)}: it must be an integer of at least 1")
    grid, use_bias = section.get("grid"), section.get("use_bias", True)
    fits = isinstance(grid, list) and len(grid) == 2 and all(map(_is_count, grid))
    require(fits, where, f"{path}.grid is {shown(grid)}: it must be [rows, columns], each at least 1")
    require(isinstance(use_bias, bool), where, f"{path}.use_bias is {shown(use_bias)}: it must be true or false")
    rows, columns = section["grid"]
    return AveragePoolingConfig(section["input_unit"], section["output_unit"], (rows, columns), use_bias)


PROJECTORS: dict[str, Callable[[Mapping[str, Any], str, str], ProjectorConfig]] = {
    "FeedForwardNetwork": _feed_forward,
    "MLP": _feed_forward,
    "Identity": _identity,
    "AveragePooling": _average_pooling,
}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def output_width(projection: ProjectorConfig | None, width: int, where: str, path: str) -> int:
    """What becomes of features of a width. Raises InputRefused for a projection that takes others."""
    match projection:
        case FeedForwardConfig() | AveragePoolingConfig():
            taken = projection.input_unit
            said = f"{path}.input_unit is {shown(taken)}, but it gets features of width {shown(width)}"
            require(taken == width, where, said)
            return projection.output_unit
        case _:
            return width


def check_grid(projection: ProjectorConfig | None, grid: tuple[int, int] | None, where: str, path: str) -> None:
    """Raise InputRefused for a pooling of features that are no grid of patches (None), or of a smaller one."""
    if not isinstance(projection, AveragePoolingConfig):
        return
    if grid is None:
        raise InputRefused(
            f"{where}: {path}: AveragePooling needs the grid of one encoder's patches, without class token "
            "(image_feature_select_mode patch) and not pooled yet; several encoders can have one each"
        )
    (rows, columns), (most_rows, most_columns) = projection.grid, grid
    fits = rows <= most_rows and columns <= most_columns
    require(fits, where, f"{path}.grid is {shown([rows, columns])}, but the encoder's is {[most_rows, most_columns]}")


def write_projection(projection: ProjectorConfig) -> dict[str, Any]:
    """The section of a projection; `read_projection` reads it back."""
    match projection:
        case FeedForwardConfig():
            section = {
                "name": "FeedForwardNetwork",
                "input_unit": projection.input_unit,
                "layers_units": list(projection.layers_units),
                "layers_activation": list(projection.layers_activation),
                "use_bias": projection.use_bias,
            }
            rates = list(projection.layers_dropout_rates)
            return {**section, "layers_dropout_rates": rates} if any(rates) else section
        case AveragePoolingConfig():
            return {
                "name": "AveragePooling",
                "input_unit": projection.input_unit,
                "output_unit": projection.output_unit,
                "grid": list(projection.grid),
                "use_bias": projection.use_bias,
            }
        case IdentityConfig():
            return {"name": "Identity"}
