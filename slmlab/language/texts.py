"""Texts of somebody else's: their encodings and their lines."""

import codecs
import re
from pathlib import Path

from slmlab.errors import LabError

BROKEN = re.compile("[\ud800-\udfff\ufffd]")
"""What stands where bytes are no text."""


def read_text(file: Path, broken: bool = False) -> str:
    """What a text of somebody else's says, in UTF-8, or in UTF-16 where it begins with that mark.

    LabError names the line that is neither; if it may be `broken`, BROKEN finds the place, and writing with
    Python's `surrogateescape` gives bytes that are not UTF-8 back.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        is_gone = isinstance(error, FileNotFoundError)
        reason = "does not exist" if is_gone else f"cannot be read ({error.strerror})"
        raise LabError(f"{file} {reason}: give another file") from None
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16", "replace" if broken else "strict")
        return content.decode("utf-8-sig", "surrogateescape" if broken else "strict")
    except UnicodeDecodeError as error:
        line, byte = error.object[: error.start].count(b"\n") + 1, error.object[error.start]
        raise LabError(f"{file}, line {line} is not UTF-8 (byte {byte:#04x}): save it as UTF-8") from None


def lines_of(text: str) -> list[str]:
    """The lines of a text, which end at LF or CRLF alone: all else that `str` would break at, such as
    U+2028, stands inside people's sentences.
    """
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
