"""What a user may ask of a conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmconvert.dtypes import BY_FLAG, DType
from mmconvert.errors import UsageError

Container = Literal["mdl", "safetensors", "bin"]
Verify = Literal["none", "keys", "bytes", "forward"]


CONTAINER: Container = "mdl"
SHARD_SIZE = 5 * 10**9
TOWER_PATH = "absolute"
SEED_DIGITS = 20


@dataclass(frozen=True)
class Options:
    """What a user may ask of a conversion; every default is what most people want.

    `dtype` gives element types by part (`""`: all others), None where a part keeps its own; `init` gives seeds by the
    name of what may be invented; `only` is the one part that is written. What is None was not said, and is `CONTAINER`,
    `SHARD_SIZE` or `TOWER_PATH` where it matters.
    """

    container: Container | None = None
    dtype: Mapping[str, DType | None] = field(default_factory=dict)
    init: Mapping[str, int] = field(default_factory=dict)
    max_shard_size: int | None = None
    take: str | None = None
    tower_path: str | None = None
    tokenizer: Path | None = None
    only: str | None = None
    params: Path | None = None

    def recorded(self) -> dict[str, Any]:
        """The options as the manifest keeps them: what changes bytes, and nothing of this machine."""
        said: dict[str, Any] = {}
        if self.dtype:
            said["dtype"] = {
                part or "all": dtype.name if dtype else "keep" for part, dtype in sorted(self.dtype.items())
            }
        if self.init:
            said["init"] = {name: f"uniform:{seed}" for name, seed in sorted(self.init.items())}
        if self.take is not None:
            said["tower"] = self.take
        if self.only is not None:
            said["only"] = self.only
        return said

    @staticmethod
    def from_record(said: Mapping[str, Any]) -> Options:
        """The options that `recorded` gave; what is missing or unknown is left at its default."""
        dtypes: dict[str, DType | None] = {"keep": None, **{dtype.name: dtype for dtype in BY_FLAG.values()}}
        dtype = {"" if part == "all" else part: dtypes[name] for part, name in said.get("dtype", {}).items()}
        init = {name: parse_init(f"{name}={rule}")[1] for name, rule in said.get("init", {}).items()}
        take, only = (text if isinstance(text := said.get(name), str) else None for name in ("tower", "only"))
        return Options(dtype=dtype, init=init, take=take, only=only)


DEFAULTS = Options()


def parse_dtype(text: str) -> dict[str, DType | None]:
    """`keep`, `bf16`, or by part: `text=bf16,vision=keep`. Raises UsageError."""
    wanted: dict[str, DType | None] = {}
    for item in text.split(","):
        part, _, name = item.rpartition("=")
        if name != "keep" and name not in BY_FLAG:
            raise UsageError(f"--dtype {item!r}: write keep, {', '.join(BY_FLAG)}, or PART=TYPE with commas between")
        if part.strip() in wanted:
            raise UsageError(f"--dtype {text!r} names {part.strip() or 'all parts'} twice")
        wanted[part.strip()] = BY_FLAG.get(name)
    return {} if wanted == {"": None} else wanted


def parse_init(text: str) -> tuple[str, int]:
    """`projector=uniform:7` as (name, seed). Raises UsageError."""
    name, _, rule = text.partition("=")
    kind, _, seed = rule.partition(":")
    if kind != "uniform" or not seed.isascii() or not seed.isdigit():
        raise UsageError(f"--init {text[:80]!r}: write PART=uniform:SEED, such as projector=uniform:1")
    if len(seed) > SEED_DIGITS:
        raise UsageError(f"--init {text[:80]!r}: a seed has at most {SEED_DIGITS} digits")
    return name, int(seed)
