"""Payloads in files: read by their extension, written so that they can be read again."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eda_core.errors import LocalError
from eda_core.messages.codec import CBOR, JSON, DecodeError, Limits, decode, encode
from eda_tools.cli.output import jsonable
from eda_tools.cli.status import FAILED, USAGE, ToolError

#: As large as the publishing tools will read; brokers have their own limits, and say so.
LIMITS: Final = Limits(max_bytes=128 * 1024 * 1024)

_EXTENSIONS: Final = {".json": JSON, ".cbor": CBOR}
#: By the content type, for writing.
EXTENSION: Final = {CBOR: "cbor", JSON: "json"}


@dataclass(frozen=True, slots=True)
class Payload:
    """What was read.

    Attributes:
        value: the payload.
        content_type: of the file, in which it is to be published.
    """

    value: Any
    content_type: str


def payload_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``payload`` and ``--data``; :func:`read_payload` takes ``args``."""
    parser.add_argument(
        "payload",
        nargs="?",
        help="path of a JSON or CBOR file, told apart by its extension (.json, .cbor), and published in the same "
        "format; '-' reads standard input, JSON or CBOR",
    )
    parser.add_argument("--data", metavar="JSON", help="the payload itself, instead of a file")


async def read_payload(args: argparse.Namespace) -> Payload:
    """The payload that ``args.payload`` or ``args.data`` says.

    Raises:
        ToolError: neither or both are given, the file cannot be read, or is not what its extension says; it tells the
            file, and where in it.
    """
    if (args.payload is None) == (args.data is None):
        both = "not both" if args.data is not None else "or --data '{…}'"
        raise ToolError(f"give the path of a payload file, {both}", USAGE)
    if args.data is not None:
        return parse_payload(args.data.encode(errors="surrogateescape"), JSON, "--data")
    if args.payload == "-":
        body = await _standard_input()
        return parse_payload(body, JSON if _is_json(body) else CBOR, "standard input")
    return read_file(args.payload)


async def _standard_input() -> bytes:
    """All of it. The event loop goes on, so that time-outs and Ctrl-C are heard while nothing is written there."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        try:
            # Not sys.stdin: its lock, held by a thread that waits, would abort the interpreter when that ends.
            body, error = b"".join(iter(lambda: os.read(0, 65_536), b"")), None
        except OSError as failed:
            body, error = b"", ToolError(f"standard input: {failed.strerror}")
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, body, error)

    def settle(body: bytes, error: ToolError | None) -> None:
        if not found.done():
            found.set_result(body) if error is None else found.set_exception(error)

    threading.Thread(target=read, daemon=True).start()  # cannot be interrupted, and must not be waited for
    return await found


def read_file(path: str) -> Payload:
    """The payload in a file. Raises as :func:`read_payload` does."""
    content_type = _EXTENSIONS.get(Path(path).suffix.lower())
    if content_type is None:
        raise ToolError(f"{path}: the extension is neither .json nor .cbor, so its format is not known", USAGE)
    try:
        body = Path(path).read_bytes()
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}", FAILED) from None
    return parse_payload(body, content_type, path)


def parse_payload(body: bytes, content_type: str, where: str) -> Payload:
    """The payload that ``body`` is.

    Raises:
        ToolError: it is none; it tells ``where``, and where in it.
    """
    kind = content_type.rpartition("/")[2].upper()
    if not (body.strip() if content_type == JSON else body):
        raise ToolError(f"{where}: it is empty, not {kind}")
    try:
        if content_type == JSON:
            _check_json(body, where)
        value = decode(body, content_type, LIMITS)
        encode(value, content_type, LIMITS)  # now, since not all that peers may send can be sent to them: NaN in JSON
        return Payload(value, content_type)
    except (DecodeError, LocalError) as error:
        raise ToolError(f"{where}: {error}") from None


def _check_json(body: bytes, where: str) -> None:
    """Tell line and column in the way compilers do. (Depth is the codec's to check, which it does before parsing.)"""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise ToolError(f"{where}:{line}: not UTF-8, at byte {error.start}") from None
    if len(re.findall(r"[\[{]", text)) > LIMITS.max_depth:
        return  # what nests could be too deep for json; the codec looks first
    try:
        json.loads(text)
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            raise ToolError(f"{where}:{error.lineno}:{error.colno}: malformed JSON: {error.msg}") from None
        raise ToolError(f"{where}: malformed JSON: {error}") from None


def _is_json(body: bytes) -> bool:
    """Whether a body from standard input is JSON, or is meant to be. (Up to three digits are a CBOR document, too.)"""
    for content_type in (JSON, CBOR):
        try:
            decode(body, content_type, LIMITS)
            return content_type == JSON
        except DecodeError:
            continue
    return body.lstrip()[:1] in (b"{", b"[", b'"')


def write_payload(directory: Path, stem: str, payload: Any, content_type: str) -> Path:
    """Save a payload in a new file of ``directory``, whose name begins with ``stem``.

    In JSON, what that has no form for is written as in the tools' ``--json``.

    Raises:
        ToolError: it cannot be written.
    """
    try:
        body = encode(jsonable(payload) if content_type == JSON else payload, content_type, LIMITS)
    except LocalError as error:
        raise ToolError(f"{stem}: {error}") from None
    return write_new(directory, stem, EXTENSION[content_type], body)


def write_new(directory: Path, stem: str, extension: str, body: bytes) -> Path:
    """Save ``body`` under a name that no file has yet: ``stem.extension``, ``stem.2.extension`` …

    Raises:
        ToolError: it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in _names(directory, stem, extension):
            try:
                with (directory / name).open("xb") as file:  # fails if it exists, also for one made meanwhile
                    file.write(body)
                return directory / name
            except FileExistsError:
                continue
    except OSError as error:
        raise ToolError(f"{error.filename or directory}: {error.strerror}") from None
    raise AssertionError("there are always more names")


def _names(directory: Path, stem: str, extension: str) -> Iterator[str]:
    """Names to try, in order; the first that is likely to be free, and those with higher numbers."""
    # A name comes from the network: it must not lead out of the directory, look like an option to a command, nor be
    # longer than file systems allow.
    stem = re.sub(r"[^\w.@=+-]", "_", stem).lstrip(".-") or "_"
    stem = stem.encode()[:200].decode(errors="ignore")
    yield f"{stem}.{extension}"
    taken, free = 1, 2
    while os.path.lexists(directory / f"{stem}.{free}.{extension}"):
        taken, free = free, 2 * free
    while free - taken > 1:  # thousands may be there: not each of them is looked at
        middle = (taken + free) // 2
        if os.path.lexists(directory / f"{stem}.{middle}.{extension}"):
            taken = middle
        else:
            free = middle
    for number in itertools.count(free):
        yield f"{stem}.{number}.{extension}"
