"""What LLaVA's loader makes of a tower, and of the projector between it and the language model."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .. import clip
from . import traps_tower
from .traps_files import PREPROCESSOR
from .traps_parts import by, integer
from .view_llava import NEWLINE, TOWER_IN_TEXT, Llava, says

FEATURES = ("patch", "cls_patch")


# --- where the tower is -----------------------------------------------------------------------------------------------


def no_name(llava: Llava) -> Iterator[str]:
    if llava.tower_name is None:
        yield from says(llava, "mm_vision_tower")


def not_found(llava: Llava) -> Iterator[str]:
    if llava.tower_name is not None and not llava.places and not llava.tower_on_hub:
        beside = f"; a tower lies at {llava.sibling.path.absolute()}" if llava.sibling else ""
        yield from says(llava, "mm_vision_tower", f"is {llava.tower_name!r}, which does not exist{beside}")


def on_hub(llava: Llava) -> Iterator[str]:
    if llava.tower_on_hub and not llava.places:
        yield from says(llava, "mm_vision_tower")


def relative(llava: Llava) -> Iterator[str]:
    name = llava.tower_name
    if name is not None and llava.places and not name.startswith("/"):
        yield from says(llava, "mm_vision_tower", f"is {name!r}, found only by a program started in {llava.places[0]}")


def elsewhere(llava: Llava) -> Iterator[str]:
    if llava.linked is not None and llava.sibling is not None and llava.linked is not llava.sibling:
        both = f"leads to {llava.linked.path}, and another tower lies at {llava.sibling.path.absolute()}"
        yield from says(llava, "mm_vision_tower", both)


def no_tower(llava: Llava) -> Iterator[str]:
    folder = llava.tower_folder
    if folder is not None and not clip.is_clip(folder.config):
        what = f"says {folder.config.get('model_type')!r}" if "config.json" in folder.names else "is missing"
        yield f"{folder.at('config.json')}: {what}, where CLIP's vision tower should be"


def wrong_crop(llava: Llava) -> Iterator[str]:
    folder = llava.tower_folder
    # A tower of several scales is given its sizes anew.
    if folder is not None and llava.tower is not None and not llava.text.config.get("s2"):
        yield from traps_tower.wrong_crop(folder.at(PREPROCESSOR), folder.document(PREPROCESSOR), llava.tower)


# --- a tower saved with the language model ----------------------------------------------------------------------------


def unfrozen_without(llava: Llava) -> Iterator[str]:
    if llava.unfrozen and llava.text.tensors and not llava.tower_in_text:
        yield from says(llava, "unfreeze_mm_vision_tower", f"is set, but the weights hold no {TOWER_IN_TEXT}*")


def ignored_in_text(llava: Llava) -> Iterator[str]:
    if llava.tower_in_text and not llava.unfrozen:
        held = f"is not set, and the weights hold {len(llava.tower_in_text)} tensors {TOWER_IN_TEXT}*"
        yield from says(llava, "unfreeze_mm_vision_tower", held)


# --- what is taken from it --------------------------------------------------------------------------------------------


def no_layer(llava: Llava) -> Iterator[str]:
    if integer(llava.text.config, "mm_vision_select_layer") is None:
        yield from says(llava, "mm_vision_select_layer")


def layer_out_of_range(llava: Llava) -> Iterator[str]:
    layer = integer(llava.text.config, "mm_vision_select_layer")
    layers = llava.tower.full.get("num_hidden_layers") if llava.tower else None
    if layer is not None and layers is not None and not -layers - 1 <= layer <= layers:
        span = f"is {layer}, and a tower of {layers} layers has {-layers - 1} to {layers}"
        yield from says(llava, "mm_vision_select_layer", span)


def unknown_feature(llava: Llava) -> Iterator[str]:
    if llava.text.config.get("mm_vision_select_feature", "patch") not in FEATURES:
        yield from says(llava, "mm_vision_select_feature")


def no_width(llava: Llava) -> Iterator[str]:
    if integer(llava.text.config, "mm_hidden_size") is None:
        yield from says(llava, "mm_hidden_size")


def other_width(llava: Llava) -> Iterator[str]:
    said, width = integer(llava.text.config, "mm_hidden_size"), _width(llava)
    if said is not None and width is not None and said != width:
        yield from says(llava, "mm_hidden_size", f"is {said}, and the tower's hidden_size {width}")


def _width(llava: Llava) -> int | None:
    """How wide the features are; unknown where several scales lie beside each other."""
    if llava.tower is None or llava.text.config.get("s2"):
        return None
    return llava.tower.full.get("hidden_size")


def several_scales(llava: Llava) -> Iterator[str]:
    if llava.text.config.get("s2"):
        yield from says(llava, "s2")


def no_grid(llava: Llava) -> Iterator[str]:
    ratio, grid = (llava.text.config.get(name) for name in ("image_aspect_ratio", "image_grid_pinpoints"))
    if "anyres" in str(ratio) and not grid:
        yield from says(llava, "image_aspect_ratio", f"is {ratio!r}, but there are no image_grid_pinpoints")


def no_aspect_ratio(llava: Llava) -> Iterator[str]:
    if llava.text.config.get("image_aspect_ratio") is None:
        yield from says(llava, "image_aspect_ratio")


def no_newline(llava: Llava) -> Iterator[str]:
    kind = llava.text.config.get("mm_patch_merge_type")
    if "unpad" in str(kind) and llava.text.tensors and NEWLINE not in llava.text.tensors:
        yield from says(llava, "mm_patch_merge_type", f"is {kind!r}, but the weights hold no {NEWLINE}")


# --- the projector ----------------------------------------------------------------------------------------------------


def _kind(llava: Llava) -> object:
    return llava.text.config.get("mm_projector_type", "linear")


def _layers_said(llava: Llava) -> list[str] | None:
    """The prefixes of the projector's layers, by its type; None for a type that LLaVA does not know."""
    kind = str(_kind(llava))
    match = re.fullmatch(r"mlp(\d{1,3})x_gelu", kind)
    if match is not None:
        return [f"{2 * at}." for at in range(max(int(match[1]), 1))]
    return {"linear": [""], "identity": []}.get(kind)


def _layers_found(llava: Llava) -> list[str]:
    found = [key.removesuffix("weight") for key in llava.projector if key.endswith("weight")]
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def projector_unsaid(llava: Llava) -> Iterator[str]:
    if "mm_projector_type" not in llava.text.config and _layers_found(llava) not in ([], [""]):
        held = f"is absent, and the weights hold a projector of {len(_layers_found(llava))} layers"
        yield from says(llava, "mm_projector_type", held)


def projector_unknown(llava: Llava) -> Iterator[str]:
    if _layers_said(llava) is None:
        yield from says(llava, "mm_projector_type")


def projector_of_other_depth(llava: Llava) -> Iterator[str]:
    said, found = _layers_said(llava), _layers_found(llava)
    if "mm_projector_type" in llava.text.config and said is not None and found and said != found:
        held = ", ".join(f"model.mm_projector.{each}weight" for each in found)
        yield from says(llava, "mm_projector_type", f"is {_kind(llava)!r}, but the weights hold {held}")


def projector_missing(llava: Llava) -> Iterator[str]:
    if llava.text.tensors and not llava.projector and _layers_said(llava):
        yield f"{llava.text.path}: the weights hold no model.mm_projector.*"


def projector_misshapen(llava: Llava) -> Iterator[str]:
    """Tensors of the projector that are missing, or of another shape than tower and language model ask for."""
    layers, width, hidden = _layers_said(llava), _width(llava), llava.decoder.full.get("hidden_size")
    if not layers or layers != _layers_found(llava) or width is None or hidden is None:
        return
    for at, layer in enumerate(layers):
        for name, shape in (("weight", (hidden, hidden if at else width)), ("bias", (hidden,))):
            ref = llava.projector.get(layer + name)
            if ref is None or ref.shape != shape:
                found = "missing" if ref is None else by(ref.shape)
                yield f"model.mm_projector.{layer}{name}: {found}, where {by(shape)} is demanded"
