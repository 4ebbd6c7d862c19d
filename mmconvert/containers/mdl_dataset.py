"""One dataset or attribute of an open, foreign `.mdl` file of any checkpoint format: what of it lies in the file.

Whatever would lead HDF5 to another file is refused before it is followed: soft and external links, virtual datasets,
external storage. Of datasets only the place is read, never the data.
"""

from __future__ import annotations

from typing import Any

from mmconvert.errors import InputRefused

# Why a leaf is set aside: outside the model by the scope that it stands in, anywhere by what it is.
NOT_MODEL = {"optimizer": "optimizer state is not converted"}
OTHER = "not a part of the model"
PICKLED = "a pickled Python object, which is never loaded"
NONE = "None stands in its place: a tied weight, as older releases saved it"
PLAIN_VALUE = "a plain value, not a tensor"


def unread(key: str, kind: str) -> InputRefused:
    """The refusal of a leaf of the model that is of a kind that is never read."""
    return InputRefused(f"{key}: the model has a {kind} there, which is not read: it may name code or other files")


def scalar(holder: Any, name: str, called: str) -> Any:
    """The string or number in an attribute of a low-level group or dataset; None where there is none."""
    import numpy
    from h5py import h5a, h5t

    if not h5a.exists(holder, name.encode()):
        return None
    attribute = h5a.open(holder, name.encode())
    known = (h5t.STRING, h5t.INTEGER, h5t.FLOAT, h5t.ENUM)
    if attribute.shape != () or attribute.get_type().get_class() not in known:
        raise InputRefused(f"{called}: not one string or number")
    data = numpy.empty((), attribute.dtype)
    attribute.read(data)
    value = data.item()
    return value.decode() if isinstance(value, bytes) else value


def open_dataset(file: Any, name: str, called: str) -> Any:
    """The low-level dataset under a name of the root. Raises `InputRefused` unless all of it lies in this file."""
    from h5py import h5d, h5l

    if "/" in name or not file.id.links.exists(name.encode()):
        raise InputRefused(f"{called}: the file describes it but does not have its data")
    if file.id.links.get_info(name.encode()).type != h5l.TYPE_HARD:
        raise InputRefused(f"{called}: a soft or external link; the data may lie in another file")
    try:
        dataset = h5d.open(file.id, name.encode())
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise InputRefused(f"{called}: cannot be read as a dataset: {error}") from error
    created = dataset.get_create_plist()
    if created.get_layout() == h5d.VIRTUAL or created.get_external_count():
        raise InputRefused(f"{called}: its data lies in another file")
    return dataset


def stored_type(dtype: str) -> Any:
    """The HDF5 datatype that cerebras_pytorch stores torch's `dtype` as."""
    import numpy
    from h5py import h5t

    # HDF5 has no bfloat16; its bits are kept in an int16.
    return h5t.py_create(numpy.dtype("int16" if dtype == "bfloat16" else dtype).newbyteorder("<"), logical=True)


def location(dataset: Any, called: str) -> dict[str, Any]:
    """Where the bytes of a dataset lie: at an `offset`, or in `chunks`."""
    from h5py import h5d

    if 0 in dataset.shape:
        return {"offset": 0}
    created = dataset.get_create_plist()
    layout = created.get_layout()
    if layout == h5d.CONTIGUOUS and dataset.get_offset() is not None:
        return {"offset": dataset.get_offset()}
    if layout != h5d.CHUNKED:
        raise InputRefused(f"{called}: its data was never written, or lies in the file's headers")
    chunks: list[list[int]] = []
    dataset.chunk_iter(lambda c: chunks.append([*c.chunk_offset, c.byte_offset, c.size, c.filter_mask]))
    filters = [created.get_filter(index)[0] for index in range(created.get_nfilters())]
    return {"chunk": created.get_chunk(), "filters": filters, "chunks": chunks}
