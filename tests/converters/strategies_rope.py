"""Rotary scalings as configs may hold them: every type, with and without what it may leave out, in every spelling.

A scaling is drawn in canonical form (`None`, or a mapping with `rope_type`, `factor` and what that type reads); the
other functions draw ways to write the same one.
"""

from __future__ import annotations

from hypothesis import strategies as st

from tests.converters.properties import Config

Draw = st.DrawFn

POSITIVE = st.one_of(st.integers(1, 64), st.floats(0.0625, 64.0))
LENGTHS = st.integers(1, 1 << 20)
ORIGINAL = "original_max_position_embeddings"
NO_SCALING: list[Config | None] = [
    None,
    {},
    {"rope_type": "default"},
    {"type": "default"},
    {"rope_type": "default", "factor": 1},
    {"type": "linear", "factor": 1.0},
]


@st.composite
def scalings(draw: Draw, maximum: int) -> Config | None:
    """A scaling in canonical form, for a config with this `max_position_embeddings`."""
    kind = draw(st.sampled_from(["none", "linear", "llama3", "yarn", "longrope"]))
    if kind == "none":
        return None
    scaling: Config = {"rope_type": kind, "factor": draw(POSITIVE)}
    if kind == "linear":
        # A linear factor of 1 is no scaling.
        return {**scaling, "factor": draw(POSITIVE.filter(lambda factor: factor != 1))}
    scaling[ORIGINAL] = draw(st.one_of(st.just(maximum), LENGTHS))
    if kind == "llama3":
        return scaling | {"low_freq_factor": draw(POSITIVE), "high_freq_factor": draw(POSITIVE)}
    if kind == "yarn":
        optional = dict.fromkeys(("attention_factor", "beta_fast", "beta_slow"), POSITIVE)
        return scaling | draw(st.fixed_dictionaries({}, optional=optional))
    if draw(st.booleans()):
        scaling["factor"] = maximum / scaling[ORIGINAL]
    factors = st.lists(POSITIVE, min_size=1, max_size=4)
    return scaling | {"short_factor": draw(factors), "long_factor": draw(factors)}


@st.composite
def written(draw: Draw, scaling: Config | None, theta: float, maximum: int, default_theta: float) -> Config:
    """The fields of a config that say this scaling and this `rope_theta`, as transformers 4 or 5 writes them."""
    fields: Config = {}
    said: Config | None = draw(st.sampled_from(NO_SCALING)) if scaling is None else _said(draw, scaling, maximum)
    if scaling is not None and said is not None and said.get(ORIGINAL) is None and ORIGINAL in scaling:
        needless = scaling["rope_type"] == "yarn" and scaling[ORIGINAL] == maximum
        if not (needless and draw(st.booleans())):
            fields[ORIGINAL] = scaling[ORIGINAL]
    base = {} if theta == default_theta and draw(st.booleans()) else {"rope_theta": theta}
    if draw(st.booleans()):
        # transformers 5
        whole: Config = draw(st.sampled_from([{}, {"partial_rotary_factor": 1.0}, {"partial_rotary_factor": None}]))
        return fields | {"rope_parameters": {**(said or {"rope_type": "default"}), **base, **whole}}
    unsaid = said is None and draw(st.booleans())
    return fields | base | ({} if unsaid else {"rope_scaling": said})


def _said(draw: Draw, scaling: Config, maximum: int) -> Config:
    """The scaling itself, otherwise spelled; its original length may have gone."""
    said = dict(scaling)
    kind = said.pop("rope_type")
    if kind == "longrope":
        kind = draw(st.sampled_from(["longrope", "su"]))
        if scaling["factor"] == maximum / scaling[ORIGINAL] and draw(st.booleans()):
            del said["factor"]
    if kind == "yarn":
        said |= draw(st.fixed_dictionaries({}, optional={"truncate": st.just(True), "mscale": st.none()}))
    if ORIGINAL in said and draw(st.booleans()):
        # Either beside the scaling, or nowhere.
        said |= {ORIGINAL: None}
    named: Config = draw(st.sampled_from([{"rope_type": kind}, {"type": kind}, {"type": kind, "rope_type": kind}]))
    return said | named
