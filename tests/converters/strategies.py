"""Random configs of every family, as they are found: fields left out, renamed, moved, or said twice.

Each is drawn as facts first (`Decoder`, `Tower`), which say what its checkpoint holds whatever the converters think,
and then written down twice: `plain`, with every field stated, and `config`, in one of the ways that mean the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from mmconvert.converter import Converter
from tests.converters.properties import JOINED, MULTIMODAL, Sample
from tests.converters.strategies_llava import in_one_folder, in_two_folders
from tests.converters.strategies_parts import IDENTITY, STRANGERS, Draw, alone_or_in_clip, decoder, left_out, tower


def samples(converter: Converter, large: bool = False) -> st.SearchStrategy[Sample]:
    """Configs of a converter's side a; `large` ones may be of the class's own size, too large to be written.

    A new model needs an entry.
    """
    if converter.model in MULTIMODAL:
        return (in_one_folder if converter.a.name == JOINED else in_two_folders)(converter, large)
    known = {
        "clip-encoder": _towers,
        "clip-vit": _towers,
        "llama": _decoders,
        "llama-headless": _decoders,
        "mistral": _decoders,
    }
    return known[converter.model](converter, large)


@st.composite
def _decoders(draw: Draw, converter: Converter, large: bool) -> Sample:
    mistral = converter.model == "mistral"
    facts, plain, found = draw(decoder(mistral, large))
    architecture = {"mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM", "llama-headless": "LlamaModel"}
    name = {"model_type": "mistral" if mistral else "llama", "architectures": [architecture[converter.model]]}
    spelled = draw(left_out(found, converter.configs.a.schemas({**name, **plain})[""]))
    # The oldest configs have no type; all but a LLaMA without its head are known without their architecture.
    spare = [(), ("model_type",)] if converter.model == "llama-headless" else [(), *((each,) for each in IDENTITY)]
    unsaid: Sequence[str] = draw(st.sampled_from(spare))
    said = {field: value for field, value in name.items() if field not in unsaid}
    strangers = draw(st.fixed_dictionaries({}, optional=STRANGERS))
    return Sample(converter.model, {**strangers, **said, **spelled}, {**name, **plain}, text=facts)


@st.composite
def _towers(draw: Draw, converter: Converter, large: bool) -> Sample:
    facts, plain, found = draw(tower(converter.configs.a.schemas({})[""], large))
    return Sample(converter.model, draw(alone_or_in_clip(found)), plain, tower=facts)
