"""LLaMA, Vicuna, Code Llama: `LlamaForCausalLM` against CS `llama`."""

from __future__ import annotations

from mmconvert.configs import ConfigTable, Space
from mmconvert.converter import Converter, Format
from mmconvert.rules import ANYTHING, const
from mmconvert.schema import load
from mmconvert.spec import A, B, Config, mount

from . import decoder, rope, usage
from .hugging_face import is_called
from .releases import NORM_TYPE, POSITION_EMBEDDING, SINCE_1_9, named

HF, CS = A, B

RELEASES = SINCE_1_9
TABLES = (
    mount(decoder.DECODER, part="text", a="model."),
    mount(decoder.HEAD, part="text"),
)


def is_headless(config: Config) -> bool:
    """Whether a Hugging Face config is a `LlamaModel`'s, which ends before the output head."""
    return is_called(config, "llama", "LlamaModel") and config.get("architectures") == ["LlamaModel"]


def is_llama(config: Config) -> bool:
    """Whether a Hugging Face config is a whole LLaMA's, with or without LLaVA's fields beside it."""
    return is_called(config, "llama", "LlamaForCausalLM") and not is_headless(config)


def is_cs_llama(config: Config) -> bool:
    """Whether a CS model section is a LLaMA; releases before 2.4 write no name, so its shape must tell."""
    name = config.get("name")
    return name in ("llama", "LlamaModel") or (
        name is None
        and config.get("position_embedding_type") == "rotary"
        and (config.get("norm_type") == "rmsnorm" or config.get("use_rms_norm") is True)
        and config.get("attention_sliding_window_length") is None
    )


CEREBRAS = Format(
    "cs",
    {"": is_cs_llama},
    aliases=(("model.", ""),),
    changes=(NORM_TYPE, POSITION_EMBEDDING, named("llama")),
    of_training=decoder.LOSS,
)
FIELDS = (
    *decoder.FIELDS,
    decoder.NO_WINDOW,
    *decoder.TOKEN_IDS,
    const(CS, "name", "llama", also=["LlamaModel"]),
    const(HF, "model_type", "llama", also=[None]),
)
SPACE_HF = Space(lambda _: {"": load("hf-llama")}, lambda config, _: decoder.spell_hf(config, mistral=False))
SPACE_CS = Space(lambda _: {"": load("cs-decoder", "cs-llama")}, lambda config, _: decoder.spell_cs(config))

CONVERTERS = (
    Converter(
        model="llama",
        a=Format(
            "hf", {"": is_llama}, dtype_fields=("torch_dtype",), tokenizer=("", "vocab_size"), usage=usage.decoder
        ),
        b=CEREBRAS,
        tables=TABLES,
        configs=ConfigTable(
            rows=(*FIELDS, const(HF, "architectures", ["LlamaForCausalLM"], also=[ANYTHING])), a=SPACE_HF, b=SPACE_CS
        ),
        b_releases=RELEASES,
        note="LLaMA 1, 2, 3.x, Vicuna, Code Llama",
        advice=rope.advice,
    ),
)
