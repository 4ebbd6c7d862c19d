"""Load checkpoints as a user of transformers does, and keep what they compute. Runs in a client's environment.

Usage: python compute.py JOBS. JOBS is a JSON list of pairs: a checkpoint folder, and the safetensors file to write. It
gets every output of the model that the folder's config names, in float32, for inputs that are the same each time; and,
as its metadata, what transformers says of the keys that it did not find or had no use for.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def load(folder: Path) -> tuple[Any, dict[str, str]]:
    """The model by the class that its config names, and its keys that are missing, unexpected or mismatched."""
    transformers: Any = importlib.import_module("transformers")
    (name,) = json.loads((folder / "config.json").read_text("utf-8"))["architectures"]
    # What 4.37 would take by itself, sdpa, forgets the sliding window of a Mistral.
    found = getattr(transformers, name).from_pretrained(folder, attn_implementation="eager", output_loading_info=True)
    model, info = found
    return model.float().eval(), {kind: json.dumps(sorted(map(str, found))) for kind, found in info.items()}


def outputs(model: Any) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    config = model.config
    with torch.no_grad():
        if "CLIP" in type(model).__name__:
            side = config.image_size
            pixels = torch.randn(2, config.num_channels, side, side, generator=draw)
            found = model(pixel_values=pixels, output_hidden_states=True)
        else:
            ids = torch.randint(config.vocab_size, (2, 24), generator=draw)
            found = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    states = {f"hidden_states.{n}": state for n, state in enumerate(found.hidden_states)}
    return states | {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def main(jobs: list[tuple[str, str]]) -> None:
    for folder, target in jobs:
        model, info = load(Path(folder))
        # Some outputs share their memory, which the file cannot say.
        save_file({name: value.clone() for name, value in outputs(model).items()}, target, info)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
