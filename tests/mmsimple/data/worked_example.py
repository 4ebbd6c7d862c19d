"""Two samples as the layout's description spells them out: S = 16 positions, I = 2 image slots, P = 4 tokens, pad 0."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from mmsimple.data.h5 import Layout, Row, file_bytes

S = 16
EMPTY = [S] * 4


def row(
    ids: list[int], labels: list[int], loss: list[int], modality: list[int], paths: list[str], places: list[list[int]]
) -> Row:
    """A sample from what is not padding; `loss` and `modality` are positions."""
    data = np.zeros((5, S), np.int32)
    data[0, : len(ids)] = ids
    data[1, loss] = 1
    data[2, : len(labels)] = labels
    data[3, len(ids) :] = 1
    data[4, modality] = 1
    return Row(data, tuple(paths), np.array(places, np.int32))


# [1 11] image [12 13], then the answer [21 22 2].
A = row(
    [1, 11, 0, 0, 0, 0, 12, 13, 21, 22],
    [11, 0, 0, 0, 0, 12, 13, 21, 22, 2],
    [7, 8, 9],
    [2, 3, 4, 5],
    ["sub/a.png", "None"],
    [[2, 3, 4, 5], EMPTY],
)
# [1] image [14] image [15], then the answer [23 2].
B = row(
    [1, 0, 0, 0, 0, 14, 0, 0, 0, 0, 15, 23],
    [0, 0, 0, 0, 14, 0, 0, 0, 0, 15, 23, 2],
    [10, 11],
    [1, 2, 3, 4, 6, 7, 8, 9],
    ["sub/a.png", "b.png"],
    [[1, 2, 3, 4], [6, 7, 8, 9]],
)
# [1 12 21], all text.
C = row([1, 12, 21], [12, 21, 2], [1, 2], [], ["None", "None"], [EMPTY, EMPTY])


def file_of(rows: list[Row]) -> bytes:
    """A training file of samples that are alike."""
    layout = Layout(rows[0].data.shape[1], *rows[0].positions.shape)
    return file_bytes(layout, rows, len(rows))


def write_with_h5py(path: Path, rows: list[Row]) -> None:
    """A file as any other program would write it, with nothing of ours."""
    with h5py.File(path, "w") as file:
        file.attrs["n_examples"] = len(rows)
        data = np.stack([each.data for each in rows])
        file.create_dataset("data", data=data, chunks=(1, 5, S), compression="gzip")
        file.create_dataset("img_path", data=[list(each.paths) for each in rows], dtype=h5py.string_dtype("utf-8"))
        file.create_dataset("img_data_loc", data=np.stack([each.positions for each in rows]))
        file.create_dataset("has_img", data=[[any(name != "None" for name in each.paths)] for each in rows])
