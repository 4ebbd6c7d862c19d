"""Arrays into torch and back."""

from __future__ import annotations

import numpy as np
import torch

from mmsimple.parity.arrays import arrays, ids, pixels


def test_ids_become_integers_and_pixels_floats_of_their_own() -> None:
    given = np.array([[1, 2]], dtype=np.int32)
    given.flags.writeable = False
    assert ids(given).dtype == torch.int64
    assert pixels(given).dtype == torch.float32
    assert arrays({"x": ids(given)})["x"].dtype == np.float32
