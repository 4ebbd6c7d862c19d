"""A LLaMA without its output head: `LlamaModel` against CS `llama`, which always has one."""

from __future__ import annotations

from dataclasses import replace

from mmconvert.configs import ConfigTable
from mmconvert.converter import Converter, Format
from mmconvert.rules import ANYTHING, const
from mmconvert.spec import A, made, mount, table

from . import decoder, llama, rope, usage

HF = A

HEAD = table(
    made(
        "lm_head.weight",
        "V H",
        when="untied",
        init="lm_head",
        why="a LlamaModel has no output head",
    ),
    decoder.TIED_HEAD,
    sizes=decoder.sizes,
    source=decoder.SOURCE,
)

CONVERTERS = (
    Converter(
        model="llama-headless",
        a=Format(
            "hf",
            {"": llama.is_headless},
            dtype_fields=("torch_dtype",),
            tokenizer=("", "vocab_size"),
            usage=usage.headless,
        ),
        b=replace(llama.CEREBRAS, by_name=True),
        tables=(mount(decoder.DECODER, part="text"), mount(HEAD, part="text")),
        configs=ConfigTable(
            rows=(*llama.FIELDS, const(HF, "architectures", ["LlamaModel"], also=[ANYTHING])),
            a=llama.SPACE_HF,
            b=llama.SPACE_CS,
        ),
        b_releases=llama.RELEASES,
        note="a LLaMA without its output head (LlamaModel)",
        advice=rope.advice,
    ),
)
