"""Reads a directory of transcripts. Knows nothing of messages, so that any endpoint can publish what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: The transcripts that come with the example.
SHIPPED: Final = Path(__file__).parent / "transcripts"


class TranscriptError(Exception):
    """A directory or file that cannot be read; the message says what, where and what to do."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """One conversation as text.

    Attributes:
        name: the file's name, in a form that can be printed on one line and sent in a message.
        text: the content, with ``\\n`` line ends.
        encoding: what the file was read as, ``utf-8`` or ``cp1252``.
    """

    name: str
    text: str
    encoding: str = "utf-8"


def read_transcripts(directory: Path | str) -> list[Transcript]:
    """Read every ``*.txt`` file of ``directory`` (not of its sub-directories), in the order of their names.

    Raises:
        TranscriptError: the directory is missing, is none, or cannot be read; it holds no ``*.txt`` file; or one of
            them cannot be read.
    """
    root = Path(directory)
    try:
        entries = sorted(entry for entry in root.iterdir() if entry.suffix.lower() == ".txt" and not entry.is_dir())
    except FileNotFoundError:
        raise TranscriptError(f"{root}: no such directory; give the directory that holds the transcripts") from None
    except NotADirectoryError:
        raise TranscriptError(f"{root}: is not a directory; give the directory that holds the transcripts") from None
    except OSError as error:
        raise TranscriptError(f"{root}: cannot be read ({_reason(error)}); check its permissions") from None
    if not entries:
        raise TranscriptError(f"{root}: holds no *.txt file; put transcripts there or give another directory")
    return [_read(entry) for entry in entries]


def _read(path: Path) -> Transcript:
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = _reason(error)
        raise TranscriptError(f"{path}: cannot be read ({reason}); check its permissions or remove it") from None
    try:
        text, encoding = content.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        try:
            text, encoding = content.decode("cp1252"), "cp1252"
        except UnicodeDecodeError:
            raise TranscriptError(f"{path}: is neither UTF-8 nor cp1252 text; convert it to UTF-8") from None
    return Transcript(_printable(path.name), text.replace("\r\n", "\n").replace("\r", "\n"), encoding)


def _printable(name: str) -> str:
    # A file name may hold tabs, line ends and bytes that are not UTF-8; none of them may break a line or a message.
    return "".join(character if character.isprintable() else "?" for character in name)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
