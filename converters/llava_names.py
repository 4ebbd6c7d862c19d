"""How the text part of a LLaVA is known and called, in LLaVA's own folders and in transformers' layouts."""

from __future__ import annotations

from dataclasses import dataclass

from mmconvert.rules import ANYTHING, Rule, derived
from mmconvert.spec import A, Config

from .llama import is_llama
from .mistral import is_mistral
from .multimodal import TEXT

HF = A
IMAGE = "image_model"
# What to do with what neither CS nor llava-hf can say.
KEEP = "keep this model in LLaVA's own layout"


def is_llava_text(config: Config) -> bool:
    """A LLaVA text config, by its type; llava-hf says `llava` too, but keeps its parts in one config."""
    kind = config.get("model_type")
    return kind in ("llava_llama", "llava_mistral") or (kind == "llava" and not is_joined(config))


def is_joined(config: Config) -> bool:
    """Whether a config holds those of the parts, as transformers' own LLaVA does; it may leave out either of them."""
    joined = {"text_config", "vision_config", "image_token_index"} & config.keys()
    return bool(joined) or config.get("architectures") == ["LlavaForConditionalGeneration"]


def is_plain_text(config: Config) -> bool:
    return is_llama(config) or is_mistral(config)


def is_llavas_own(name: str) -> bool:
    """Whether a field of a LLaVA text config is not its language model's."""
    own = ("mm_", "tune_mm_", "freeze_mm_", "unfreeze_mm_", "use_mm_", "image_", "tokenizer_", "s2")
    return name.startswith(own)


def is_mistral_text(text: Config) -> bool:
    return text.get("model_type") in ("mistral", "llava_mistral")


@dataclass(frozen=True)
class Names:
    """What the text part at a path is called: (`model_type`, `architectures`) of a LLaMA and of a Mistral."""

    llama: tuple[str, str]
    mistral: tuple[str, str]

    path: str = TEXT

    def rules(self) -> tuple[Rule, Rule]:
        """In CS only a sliding window tells a Mistral from a LLaMA."""

        def chosen(cs: Config) -> tuple[str, str]:
            return self.llama if cs[TEXT].get("attention_sliding_window_length") is None else self.mistral

        return (
            derived(HF, f"{self.path}.model_type", lambda cs: chosen(cs)[0], also=[ANYTHING]),
            derived(HF, f"{self.path}.architectures", lambda cs: [chosen(cs)[1]], also=[ANYTHING]),
        )

    def settle(self, config: Config, original: Config) -> Config:
        """A Mistral without a window looks like a LLaMA in CS, and is one; the original still knows its name.

        Its window must then be said to be null: left out, it would mean 4096.
        """
        text = config[self.path]
        if text.get("sliding_window") is not None or not is_mistral_text(original.get(TEXT) or {}):
            return config
        kind, architecture = self.mistral
        named = {"model_type": kind, "architectures": [architecture], "sliding_window": None}
        return {**config, self.path: {**text, **named}}


COMPONENT_NAMES = Names(("llama", "LlamaForCausalLM"), ("mistral", "MistralForCausalLM"))
LLAVA_NAMES = Names(("llava_llama", "LlavaLlamaForCausalLM"), ("llava_mistral", "LlavaMistralForCausalLM"))
