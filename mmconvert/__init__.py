"""mmconvert: checkpoints of multimodal models from one layout to another, planned from headers, proved bit for bit."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmconvert.api import Findings, Hints, Inspection, Options, Plan, convert, inspect, open, plan, verify

__version__ = "0.1.0"

__all__ = ["Findings", "Hints", "Inspection", "Options", "Plan", "convert", "inspect", "open", "plan", "verify"]


class _Package(ModuleType):
    """This package, whose submodules `plan` and `verify` do not hide the functions of these names when imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in __all__ or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    # The engine is imported when first used: a command that lists converters should not wait for it.
    if name in __all__:
        from mmconvert import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
