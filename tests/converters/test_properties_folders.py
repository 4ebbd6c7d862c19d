"""Any checkpoint of any family, as a folder, through every release and back."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from hypothesis import given
from hypothesis import strategies as st

from mmconvert import Hints, Options, api, spellings
from mmconvert.layouts import recognise
from mmconvert.params import model_section
from mmconvert.spec import A
from tests.converters.checkpoints import contents, weights, write
from tests.converters.properties import CONVERTERS, Sample, every_converter, examples, meaning
from tests.converters.reference import held, written
from tests.converters.reference_rows import through_side_b
from tests.converters.strategies import samples


def can_be_cut(sample: Sample) -> bool:
    """Without a tokenizer, no more rows are cut than two more tokens and a multiple of 64 explain."""
    if sample.text is None or sample.rows is None:
        return True
    return sample.rows <= -(-(sample.text.vocab + 2) // 64) * 64


@every_converter
@examples(3, shrink=False)
@given(data=st.data())
def test_a_checkpoint_goes_through_every_release_and_comes_back(name: str, data: st.DataObject) -> None:
    converter, sample = CONVERTERS[name], data.draw(samples(CONVERTERS[name]).filter(can_be_cut))
    holding, made, hints = held(sample), data.draw(weights()), Hints(model=converter.model)
    tensors = made.held(holding, A, copies=data.draw(st.booleans()), beside=data.draw(st.booleans()))
    # What side a never has is made.
    options = Options(container="safetensors", init=dict.fromkeys(["lm_head"] if holding.only_b else [], 0))
    section = converter.configs.translate(A, sample.plain).target
    with TemporaryDirectory() as root:
        folder = source = write(Path(root, "source"), converter, sample.config, tensors)
        for release in data.draw(st.permutations(converter.b_releases)):
            before, folder = folder, Path(root, str(release))
            api.convert(before, folder, f"cs-{release}", options=options, hints=hints, fsync=False)
            params = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
            assert model_section(params) == spellings.write(converter.b.changes, section, release)
            if before != source:
                assert contents(api.open(folder, hints=hints).values()) == contents(
                    api.open(before, hints=hints).values()
                )
        back = Path(root, "back")
        api.convert(folder, back, converter.a.name, options=options, hints=hints, fsync=False)
        found = recognise(back, hints)
        assert found.node.format == converter.a.name
        assert contents(found.tensors.values()) == through_side_b(tensors, holding, written(sample, converter.a.name))
        assert meaning(converter, found.config) == meaning(converter, sample.plain)
        assert api.verify(source, back, hints_a=hints, hints_b=hints).problems == []
