"""Reads payloads from files, whose extension tells the format, and writes them to files. It does not send them."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eda_core.errors import LocalError
from eda_core.messages.codec import CBOR, JSON, DecodeError, Limits, decode, encode
from eda_tools.cli.output import jsonable
from eda_tools.cli.status import USAGE, ToolError, naming_file
from eda_tools.cli.threads import in_daemon_thread

#: The largest payload that tools read. Brokers have limits of their own and report them.
LIMITS: Final = Limits(max_bytes=128 * 1024 * 1024)

_EXTENSIONS: Final = {".json": JSON, ".cbor": CBOR}
#: Extensions by content type, for writing.
EXTENSION: Final = {CBOR: "cbor", JSON: "json"}


@dataclass(frozen=True, slots=True)
class Payload:
    """A payload that was read.

    Attributes:
        value: the payload.
        content_type: the format of the file, in which it will be published.
    """

    value: Any
    content_type: str


def payload_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``payload`` and ``--data``, for :func:`read_payload`."""
    parser.add_argument(
        "payload",
        nargs="?",
        help="path of a JSON or CBOR file; its extension (.json, .cbor) tells which, and it is published in the same "
        "format; '-' reads JSON or CBOR from standard input",
    )
    parser.add_argument("--data", metavar="JSON", help="the payload itself, instead of a file")


async def read_payload(args: argparse.Namespace) -> Payload:
    """Read the payload that ``args.payload`` or ``args.data`` names.

    Raises:
        ToolError: neither or both are given, or the file cannot be read, or its content is not what the extension says.
            The text names the file and the place in it.
    """
    if (args.payload is None) == (args.data is None):
        both = "not both" if args.data is not None else "or --data '{…}'"
        raise ToolError(f"give the path of a payload file, {both}", USAGE)
    if args.data is not None:
        return parse_payload(args.data.encode(errors="surrogateescape"), JSON, "--data")
    if args.payload == "-":
        with naming_file("standard input"):
            body = await in_daemon_thread(_standard_input)
        return parse_payload(body, JSON if _is_json(body) else CBOR, "standard input")
    return read_file(args.payload)


def _standard_input() -> bytes:
    # Not sys.stdin: if a thread waits in it and so holds its lock, the interpreter aborts when it ends.
    return b"".join(iter(lambda: os.read(0, 65_536), b""))


def read_file(path: str) -> Payload:
    """Read the payload in a file. Raises what :func:`read_payload` raises."""
    content_type = _EXTENSIONS.get(Path(path).suffix.lower())
    if content_type is None:
        raise ToolError(f"{path}: the extension is neither .json nor .cbor, so its format is not known", USAGE)
    with naming_file(path):
        body = Path(path).read_bytes()
    return parse_payload(body, content_type, path)


def parse_payload(body: bytes, content_type: str, where: str) -> Payload:
    """Decode ``body``.

    Args:
        where: what ``body`` was read from, for messages.

    Raises:
        ToolError: ``body`` cannot be decoded. The text begins with ``where`` and says at which place.
    """
    kind = content_type.rpartition("/")[2].upper()
    if not (body.strip() if content_type == JSON else body):
        raise ToolError(f"{where}: it is empty, not {kind}")
    try:
        if content_type == JSON:
            _check_json(body, where)
        value = decode(body, content_type, LIMITS)
        encode(value, content_type, LIMITS)  # not everything that can be received can be sent: NaN in JSON
        return Payload(value, content_type)
    except (DecodeError, LocalError) as error:
        raise ToolError(f"{where}: {error}") from None


def _check_json(body: bytes, where: str) -> None:
    """Report malformed JSON with line and column, as compilers do. (The codec checks the depth, before it parses.)"""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise ToolError(f"{where}:{line}: not UTF-8, at byte {error.start}") from None
    if len(re.findall(r"[\[{]", text)) > LIMITS.max_depth:
        return  # it may be too deep for Python's parser, and the codec checks that
    try:
        json.loads(text)
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            raise ToolError(f"{where}:{error.lineno}:{error.colno}: malformed JSON: {error.msg}") from None
        raise ToolError(f"{where}: malformed JSON: {error}") from None


def _is_json(body: bytes) -> bool:
    """Whether a body is JSON, or was meant to be. (A number of up to three digits is valid CBOR as well.)"""
    for content_type in (JSON, CBOR):
        try:
            decode(body, content_type, LIMITS)
            return content_type == JSON
        except DecodeError:
            continue
    return body.lstrip()[:1] in (b"{", b"[", b'"')


def write_payload(directory: Path, stem: str, payload: Any, content_type: str) -> Path:
    """Write a payload to a new file in ``directory``, whose name begins with ``stem``. Returns its path.

    Values that JSON does not have are written as with ``--json``.

    Raises:
        ToolError: it cannot be written.
    """
    try:
        body = encode(jsonable(payload) if content_type == JSON else payload, content_type, LIMITS)
    except LocalError as error:
        raise ToolError(f"{stem}: {error}") from None
    return write_new(directory, stem, EXTENSION[content_type], body)


def write_new(directory: Path, stem: str, extension: str, body: bytes) -> Path:
    """Write ``body`` to a file that does not exist yet: ``stem.extension``, ``stem.2.extension`` … Returns its path.

    Raises:
        ToolError: it cannot be written.
    """
    with naming_file(directory):
        directory.mkdir(parents=True, exist_ok=True)
        for name in _names(directory, stem, extension):
            # The mode "x" fails if the file exists, also if another process has just made it.
            with contextlib.suppress(FileExistsError), (directory / name).open("xb") as file:
                file.write(body)
                return directory / name
    raise AssertionError("there are always more names")


def _names(directory: Path, stem: str, extension: str) -> Iterator[str]:
    """Names to try, beginning with the first that is probably free."""
    # The stem comes from the network. It must not lead out of the directory, look like an option of a command, or be
    # longer than file systems allow.
    stem = re.sub(r"[^\w.@=+-]", "_", stem).lstrip(".-") or "_"
    stem = stem.encode()[:200].decode(errors="ignore")
    yield f"{stem}.{extension}"
    taken, free = 1, 2
    while os.path.lexists(directory / f"{stem}.{free}.{extension}"):
        taken, free = free, 2 * free
    while free - taken > 1:  # there may be thousands of files, so search by halves
        middle = (taken + free) // 2
        if os.path.lexists(directory / f"{stem}.{middle}.{extension}"):
            taken = middle
        else:
            free = middle
    for number in itertools.count(free):
        yield f"{stem}.{number}.{extension}"
