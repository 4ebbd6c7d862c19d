"""Mistral and Zephyr: `MistralForCausalLM` against CS `mistral`; a LLaMA with a sliding window."""

from __future__ import annotations

from mmconvert.configs import ConfigTable, Space
from mmconvert.converter import Converter, Format
from mmconvert.rules import ANYTHING, const
from mmconvert.schema import load
from mmconvert.spec import A, B, Config

from . import decoder, llama, usage
from .hugging_face import is_called
from .releases import SINCE_2_1, named
from .rope import advice

HF, CS = A, B


def is_mistral(config: Config) -> bool:
    return is_called(config, "mistral", "MistralForCausalLM")


def is_cs_mistral(config: Config) -> bool:
    """Whether a CS model section is a Mistral; before 2.4 only its sliding window tells."""
    name = config.get("name")
    return name == "mistral" or (
        name is None
        and config.get("norm_type") == "rmsnorm"
        and config.get("attention_sliding_window_length") is not None
    )


CONVERTERS = (
    Converter(
        model="mistral",
        a=Format(
            "hf",
            parts={"": is_mistral},
            dtype_fields=("torch_dtype",),
            tokenizer=("", "vocab_size"),
            usage=usage.decoder,
        ),
        b=Format(
            "cs",
            {"": is_cs_mistral},
            aliases=(("model.", ""),),
            changes=(named("mistral"),),
            of_training=decoder.LOSS,
        ),
        tables=llama.TABLES,
        configs=ConfigTable(
            rows=(
                *decoder.FIELDS,
                decoder.WINDOW,
                *decoder.TOKEN_IDS,
                const(CS, "name", "mistral"),
                const(HF, "model_type", "mistral", also=[None]),
                const(HF, "architectures", ["MistralForCausalLM"], also=[ANYTHING]),
            ),
            a=Space(lambda _: {"": load("hf-mistral")}, lambda config, _: decoder.spell_hf(config, mistral=True)),
            b=Space(
                lambda _: {"": load("cs-decoder", "cs-llama", "cs-mistral")}, lambda config, _: decoder.spell_cs(config)
            ),
        ),
        b_releases=SINCE_2_1,
        note="Mistral, Zephyr",
        advice=advice,
    ),
)
