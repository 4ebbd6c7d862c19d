"""What a params file, a tokenizer and a phase make of every record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from mmconvert import api
from mmconvert.errors import UsageError
from mmconvert.paths import ABSENT, get
from mmsimple import sections
from mmsimple.config import MultimodalConfig
from mmsimple.data.h5 import Layout
from mmsimple.data.templates import default_template
from mmsimple.data.tokenizer import load_tokenizer
from mmsimple.data.transforms import Transforms, read_transforms
from mmsimple.model import image_tokens
from mmsimple.sections.supported import require, shown

TooLong: TypeAlias = Literal["skip", "truncate"]
LOADER = "trainer.fit.train_dataloader"


@dataclass(frozen=True)
class Job:
    """What is made of a record, the same for all.

    `config` is the params file that will be trained with, `vocab_size` its model's; `transforms` are its pictures', if
    it says so.
    """

    config: Path
    tokenizer: Path
    images: Path
    template: str
    layout: Layout
    vocab_size: int
    too_long: TooLong = "skip"
    transforms: Transforms | None = None


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
    where = found.config_from
    model = sections.read(found.node.model, found.config, where)
    if not isinstance(model, MultimodalConfig):
        raise UsageError(f"{config}: is of a {found.node.model}, which reads no pictures")
    if phase == 1 and template not in (None, "plain"):
        raise UsageError(f"--template {template}: phase 1 is captions alone, which is the template plain")
    longest = model.text_model.max_position_embeddings
    if max_seq_length is not None and max_seq_length > longest:
        raise UsageError(f"--max-seq-length {max_seq_length}: the model in {config} has {longest} positions")
    transforms = get(found.params, f"{LOADER}.transforms")
    layout = Layout(
        max_seq_length or longest,
        _slots(get(found.params, f"{LOADER}.max_num_img"), where) if max_num_img is None else max_num_img,
        image_tokens(model),
    )
    if layout.image_slots * layout.image_tokens > layout.sequence_length:
        raise UsageError(f"{config}: {layout} do not fit: choose --max-num-img and --max-seq-length")
    return Job(
        config=config,
        tokenizer=tokenizer,
        images=images,
        template=template or ("plain" if phase == 1 else default_template(load_tokenizer(tokenizer))),
        layout=layout,
        vocab_size=model.text_model.vocab_size,
        too_long=too_long,
        transforms=None if transforms is ABSENT else read_transforms(transforms, where, f"{LOADER}.transforms"),
    )


def _slots(said: object, where: str) -> int:
    """How many pictures a sample may have by a params file; one, where it does not say."""
    if said is ABSENT or said is None:
        return 1
    fits = isinstance(said, int) and not isinstance(said, bool) and said >= 0
    require(fits, where, f"{LOADER}.max_num_img is {shown(said)}, but must be a number of pictures")
    return int(str(said))
