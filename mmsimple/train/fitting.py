"""Whether data is for the model that it is to train, told in words before torch fails at it."""

from __future__ import annotations

from mmconvert.errors import InputRefused
from mmsimple.config import MultimodalConfig
from mmsimple.data.dataset import MultimodalDataset
from mmsimple.data.section import DataConfig
from mmsimple.model import Batch, image_tokens


def check_data(data: DataConfig, model: MultimodalConfig) -> None:
    """Look at the headers of training files, and for the folder of their pictures.

    Raises InputRefused for such as are not for the model, or none at all.
    """
    dataset = MultimodalDataset(data)
    layout = dataset.layout
    folders = ", ".join(str(folder) for source in data.sources for folder in source.folders)
    encoder = model.image_models[0].encoder
    wanted = (encoder.num_channels, *encoder.image_size)
    if data.image_size != wanted:
        raise InputRefused(f"image_data_size is {list(data.image_size)}, but the model's encoder sees {list(wanted)}")
    if layout.image_slots and layout.image_tokens != image_tokens(model):
        problem = f"has {layout.image_tokens} tokens for each image, but the model makes {image_tokens(model)} of one"
        raise InputRefused(f"{folders}: {problem}; `mmsimple prepare` it with the params file of this model")
    if not data.image_folder.is_dir() and any(dataset.picture_names()):
        raise InputRefused(f"{data.image_folder}: img_data_dir is no folder, but the data has pictures")


def check_tokens(batch: Batch, model: MultimodalConfig) -> None:
    """Look at the tokens of a batch that is not on a GPU yet. Raises InputRefused for ids that the model lacks."""
    rows = model.text_model.vocab_size
    learned = None if batch.labels is None or batch.loss_mask is None else batch.labels[batch.loss_mask != 0]
    for ids in (batch.text_input_ids, learned):
        if ids is not None and ids.numel() and int(ids.max()) >= rows:
            problem = f"the data has the token id {int(ids.max())}, but the model's vocab_size is {rows}"
            raise InputRefused(f"{problem}; `mmsimple prepare` it with the tokenizer of this model")
