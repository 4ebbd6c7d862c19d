"""What a digest name stands for."""

import pytest

from mmconvert import digests
from mmconvert.errors import UsageError


def test_the_digests_are_the_published_ones() -> None:
    # xxh3's 128-bit and sha256's digests of nothing, from their specifications.
    assert digests.of("xxh3", b"") == "99aa06d3014798d86001c324468d497f"
    assert digests.of("sha256", b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digests.of("none", b"anything") == ""


@pytest.mark.parametrize("name", digests.NAMES)
def test_how_a_stream_is_cut_makes_no_difference(name: str) -> None:
    data = bytes(range(256)) * 40
    digest = digests.new(name)
    for start in range(0, len(data), 777):
        digest.update(memoryview(data)[start : start + 777])
    assert digest.hexdigest() == digests.of(name, data)


def test_an_unknown_name_is_refused_with_the_choice() -> None:
    with pytest.raises(UsageError, match=r"md5.*xxh3, sha256, none"):
        digests.new("md5")
