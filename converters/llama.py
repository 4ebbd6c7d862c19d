"""LLaMA, Vicuna, Code Llama: `LlamaForCausalLM` against CS `llama`."""

from __future__ import annotations

from mmconvert.configs import ConfigTable, Space
from mmconvert.converter import Converter, Format
from mmconvert.releases import span
from mmconvert.rules import ANYTHING, const
from mmconvert.schema import load
from mmconvert.spec import A, B, Config, mount

from . import decoder
from .cerebras import NAMED_SINCE
from .hugging_face import is_called
from .rope import advice

HF, CS = A, B

TABLES = (
    mount(decoder.DECODER, part="text", a="model."),
    mount(decoder.HEAD, part="text"),
)


def is_llama(config: Config) -> bool:
    """Whether a Hugging Face config is a LLaMA's, with or without LLaVA's fields beside it."""
    return is_called(config, "llama", "LlamaForCausalLM")


def is_cs_llama(config: Config) -> bool:
    """Whether a CS model section is a LLaMA; releases before 2.4 write no name, so its shape must tell."""
    name = config.get("name")
    return name == "llama" or (
        name is None
        and config.get("position_embedding_type") == "rotary"
        and config.get("norm_type") == "rmsnorm"
        and config.get("attention_sliding_window_length") is None
    )


CONVERTERS = (
    Converter(
        model="llama",
        a=Format("hf", parts={"": is_llama}, dtype_fields=("torch_dtype",), tokenizer=("", "vocab_size")),
        b=Format("cs", parts={"": is_cs_llama}, aliases=(("model.", ""),)),
        tables=TABLES,
        configs=ConfigTable(
            rows=(
                *decoder.FIELDS,
                decoder.NO_WINDOW,
                *decoder.TOKEN_IDS,
                const(CS, "name", "llama", also=["LlamaModel"], since=NAMED_SINCE),
                const(HF, "model_type", "llama", also=[None]),
                const(HF, "architectures", ["LlamaForCausalLM"], also=[ANYTHING]),
            ),
            a=Space(lambda _: {"": load("hf-llama")}, lambda config, _: decoder.spell_hf(config, mistral=False)),
            b=Space(lambda _: {"": load("cs-llama")}, lambda config, _: decoder.spell_cs(config)),
        ),
        b_releases=span("2.1", "2.10"),
        note="LLaMA 1, 2, 3.x, Vicuna, Code Llama",
        advice=advice,
    ),
)
