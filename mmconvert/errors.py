"""What can go wrong, and the exit code that each kind of failure has on the command line.

Every exception that a user can meet derives from `MMConvertError`. Its text is one or two lines: what is wrong, in
which file and key, and what to do about it. Anything else that escapes is a bug of ours and exits 1 with a traceback.
"""

from __future__ import annotations

from mmconvert.excerpt import printable

# The longest text in characters. What is wrong comes first and what to do last, so the middle can be spared.
LONGEST = 1200


class MMConvertError(Exception):
    """Base of every failure that is not a bug; `exit_code` is what the process ends with.

    Most texts repeat something of a file that a stranger made. However long that is, and whatever is in it, the text
    is short and prints.
    """

    exit_code = 1

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) > LONGEST:
            text = f"{text[: LONGEST // 2]} [...] {text[-LONGEST // 2 :]}"
        return "\n".join(map(printable, text.split("\n")))


class UsageError(MMConvertError):
    """The command cannot be carried out as asked: a path that does not exist, an option that does not fit."""

    exit_code = 2


class InputRefused(MMConvertError):
    """The source is corrupt, unsafe, incomplete, or says something that the target cannot say."""

    exit_code = 3


class NoConversion(MMConvertError):
    """No converter leads from the source's format to the one asked for."""

    exit_code = 4


class OutputRefused(MMConvertError):
    """The target exists, is locked by another run, is a link, or lies inside the source."""

    exit_code = 5


class VerificationFailed(MMConvertError):
    """Two checkpoints differ, or a folder differs from its own manifest."""

    exit_code = 6


class DiskError(MMConvertError):
    """The disk is full or failed; the message says where, and how much was needed and free."""

    exit_code = 7


class TrainingStopped(MMConvertError):
    """A training run whose loss is not finite any more; what it has saved before is as it was."""

    exit_code = 8
