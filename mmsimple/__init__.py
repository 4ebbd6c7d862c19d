"""mmsimple: the simple multimodal model, an image encoder and a projector in front of a language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsimple.load import build, load_model
    from mmsimple.model import Batch, MultimodalModel

__all__ = ["Batch", "MultimodalModel", "build", "load_model"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: not before something is used that needs it.
    if name in ("Batch", "MultimodalModel"):
        from mmsimple import model

        return getattr(model, name)
    if name in __all__:
        from mmsimple import load

        return getattr(load, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
