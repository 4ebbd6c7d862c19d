"""The kinds of failure have the exit codes that scripts rely on."""

from __future__ import annotations

from mmconvert import errors


def test_every_kind_has_its_exit_code() -> None:
    codes = {kind.__name__: kind.exit_code for kind in errors.MMConvertError.__subclasses__()}
    assert codes == {
        "UsageError": 2,
        "InputRefused": 3,
        "NoConversion": 4,
        "OutputRefused": 5,
        "VerificationFailed": 6,
        "DiskError": 7,
        "TrainingStopped": 8,
    }
