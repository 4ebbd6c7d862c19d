"""Element types agree with those of the safetensors library and of torch."""

from __future__ import annotations

import torch
from safetensors.torch import save

from mmconvert.dtypes import BY_CODE, BY_NAME


def test_names_widths_and_codes_are_those_of_torch_and_safetensors() -> None:
    for name, dtype in BY_NAME.items():
        kind: torch.dtype = getattr(torch, name)
        tensor = torch.zeros(3).to(kind)
        assert (dtype.itemsize, dtype.is_float) == (kind.itemsize, kind.is_floating_point)
        assert f'"dtype":"{dtype.code}"'.encode() in save({"key": tensor})
        assert BY_CODE[dtype.code] is dtype
