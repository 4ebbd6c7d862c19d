"""What a params file, a tokenizer and a phase make of every record."""

from __future__ import annotations

from pathlib import Path

from mmconvert import api
from mmconvert.errors import UsageError
from mmconvert.paths import get
from mmsimple import sections
from mmsimple.config import MultimodalConfig
from mmsimple.data.h5 import Layout
from mmsimple.data.prepare import Job, TooLong
from mmsimple.data.templates import default_template
from mmsimple.data.tokenizer import load_tokenizer
from mmsimple.model import image_tokens

SLOTS = "trainer.fit.train_dataloader.max_num_img"


def job_of(
    config: Path,
    tokenizer: Path,
    images: Path,
    phase: int,
    template: str | None = None,
    max_seq_length: int | None = None,
    max_num_img: int | None = None,
    too_long: TooLong = "skip",
) -> Job:
    """The job of a phase for the model of a params file. What is None is as the file says, or as most people want.

    Raises UsageError for what does not fit together, InputRefused for a file or tokenizer that is none.
    """
    found = api.recognise(config)
    if found.node.format != "cs":
        raise UsageError(f"{config}: is no Cerebras (CS) params file, which says what the data must fit")
    model = sections.read(found.node.model, found.config, found.config_from)
    if not isinstance(model, MultimodalConfig):
        raise UsageError(f"{config}: is of a {found.node.model}, which reads no pictures")
    if phase == 1 and template not in (None, "plain"):
        raise UsageError(f"--template {template}: phase 1 is captions alone, which is the template plain")
    longest = model.text_model.max_position_embeddings
    if max_seq_length is not None and max_seq_length > longest:
        raise UsageError(f"--max-seq-length {max_seq_length}: the model in {config} has {longest} positions")
    slots = get(found.params, SLOTS)
    return Job(
        tokenizer=tokenizer,
        images=images,
        template=template or ("plain" if phase == 1 else default_template(load_tokenizer(tokenizer))),
        layout=Layout(
            max_seq_length or longest,
            max_num_img if max_num_img is not None else slots if isinstance(slots, int) else 1,
            image_tokens(model),
        ),
        vocab_size=model.text_model.vocab_size,
        too_long=too_long,
    )
