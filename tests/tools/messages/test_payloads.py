"""Payload files: read by their extension, with errors that tell file and place; saved under names that are new."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import tempfile
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core.messages.codec import CBOR, JSON
from eda_tools.cli.status import FAILED, USAGE, ToolError
from eda_tools.messages.payloads import (
    Payload,
    parse_payload,
    payload_arguments,
    read_file,
    read_payload,
    write_new,
    write_payload,
)


def asked(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    payload_arguments(parser)
    return parser.parse_args(arguments)


def read(*arguments: str, stdin: bytes = b"") -> Payload:
    """Read the payload that the arguments name, with ``stdin`` on standard input."""
    with tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        before = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            return asyncio.run(read_payload(asked(*arguments)))
        finally:
            os.dup2(before, 0)
            os.close(before)


@pytest.mark.parametrize(("name", "content_type"), [("p.json", JSON), ("p.cbor", CBOR), ("p.JSON", JSON)])
def test_the_extension_tells_the_format(tmp_path: Path, name: str, content_type: str) -> None:
    value = {"é": [1, 2.5, None]}
    body = b'\n{"\xc3\xa9": [1, 2.5, null]}\n' if content_type == JSON else cbor2.dumps(value)
    (tmp_path / name).write_bytes(body)
    assert read_file(str(tmp_path / name)) == Payload(value, content_type)


@pytest.mark.parametrize(
    ("name", "body", "told", "status"),
    [
        ("p.json", b'{"a": 1 2}', "p.json:1:9: malformed JSON: ", FAILED),
        ("p.json", b'{\n "a": 1\n "b": 2}', "p.json:3:2: malformed JSON: ", FAILED),
        ("p.json", b'{\n "a": "\xff"}', "p.json:2: not UTF-8, at byte 9", FAILED),
        ("p.json", b"[" * 100_000, "p.json: malformed JSON: nested deeper than 32 levels", FAILED),
        ("p.json", b" \n", "p.json: it is empty, not JSON", FAILED),
        ("p.json", b'{"a": NaN}', "p.json: payload cannot be written as application/json: ", FAILED),
        ("p.json", b'{"a": 1e999}', "p.json: payload cannot be written as application/json: ", FAILED),
        ("p.cbor", b"\xa1\x61", "p.cbor: malformed CBOR: ", FAILED),
        ("p.cbor", b"\x01\x01", "p.cbor: malformed CBOR: 1 bytes after the end of the payload", FAILED),
        ("p.cbor", b"", "p.cbor: it is empty, not CBOR", FAILED),
        ("p.txt", b"{}", "p.txt: the extension is neither .json nor .cbor", USAGE),
        ("p.json", None, "p.json: No such file or directory", FAILED),
    ],
)
def test_errors_tell_the_file_and_the_place(
    tmp_path: Path, name: str, body: bytes | None, told: str, status: int
) -> None:
    if body is not None:
        (tmp_path / name).write_bytes(body)
    with pytest.raises(ToolError) as caught:
        read_file(str(tmp_path / name))
    assert str(caught.value).startswith(str(tmp_path / told))
    assert caught.value.status == status


def test_a_directory_is_no_payload(tmp_path: Path) -> None:
    (tmp_path / "d.json").mkdir()
    with pytest.raises(ToolError, match="Is a directory"):
        read_file(str(tmp_path / "d.json"))


@pytest.mark.parametrize(
    ("body", "value", "content_type"),
    [
        (b'{"a": 1}\n', {"a": 1}, JSON),
        (b"12", 12, JSON),
        (b'"text"', "text", JSON),
        (b"false\r\n", False, JSON),
        (cbor2.dumps({"a": 1}), {"a": 1}, CBOR),
        (cbor2.dumps("{}"), "{}", CBOR),
        (cbor2.dumps(-1), -1, CBOR),
    ],
)
def test_standard_input_is_either(body: bytes, value: Any, content_type: str) -> None:
    assert read("-", stdin=body) == Payload(value, content_type)


@pytest.mark.parametrize(
    ("body", "told"), [(b"{a", ":1:2: malformed JSON"), (b"\xff", ": malformed CBOR"), (b"", ": it is empty")]
)
def test_standard_input_that_is_neither(body: bytes, told: str) -> None:
    with pytest.raises(ToolError) as caught:
        read("-", stdin=body)
    assert str(caught.value).startswith(f"standard input{told}")


@given(st.recursive(st.integers(-(2**70), 2**70) | st.text() | st.none(), lambda inner: st.lists(inner), max_leaves=5))
def test_cbor_documents_are_not_taken_for_json(value: Any) -> None:
    body = cbor2.dumps(value)
    assert body.isdigit() or read("-", stdin=body).value == value  # -49 is the bytes "80"


def test_data_stands_on_the_command_line() -> None:
    assert read("--data", '{"é": 1}') == Payload({"é": 1}, JSON)
    with pytest.raises(ToolError, match=r"^--data:1:2: malformed JSON"):
        read("--data", "{a: 1}")


@pytest.mark.parametrize("arguments", [(), ("p.json", "--data", "{}")])
def test_one_payload_is_needed(arguments: tuple[str, ...]) -> None:
    with pytest.raises(ToolError) as caught:
        read(*arguments)
    assert caught.value.status == USAGE


# --- saving ---


def test_what_is_saved_can_be_read(tmp_path: Path) -> None:
    value = {"at": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "raw": b"\x00", "é": [1]}
    exact = write_payload(tmp_path / "new" / "deeper", "Ev.1", value, CBOR)
    assert read_file(str(exact)).value == value
    plain = write_payload(tmp_path, "Ev.1", value, JSON)
    assert plain.name == "Ev.1.json"
    assert read_file(str(plain)).value == {"at": "2026-01-02T00:00:00+00:00", "raw": "AA==", "é": [1]}


def test_no_file_is_written_over(tmp_path: Path) -> None:
    written = [write_new(tmp_path, "Ev", "cbor", bytes([number])) for number in range(4)]
    assert [path.name for path in written] == ["Ev.cbor", "Ev.2.cbor", "Ev.3.cbor", "Ev.4.cbor"]
    assert [path.read_bytes()[0] for path in written] == [0, 1, 2, 3]
    written[1].unlink()
    later = [write_new(tmp_path, "Ev", "cbor", b"") for _ in range(40)]
    assert sorted(int(path.name.split(".")[1]) for path in later) == [2, *range(5, 44)]


def test_a_thousand_names_are_found_by_looking_at_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Path] = []
    exists = os.path.lexists

    def look(path: Path) -> bool:
        looked_at.append(path)
        return exists(path)

    monkeypatch.setattr(os.path, "lexists", look)
    for number in range(1_000):
        (tmp_path / f"Ev.{number}.cbor").touch()
    (tmp_path / "Ev.cbor").touch()
    assert write_new(tmp_path, "Ev", "cbor", b"").name == "Ev.1000.cbor"
    assert len(looked_at) < 25


def test_two_who_save_at_once_write_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "lexists", lambda path: False)  # the other one makes them just then
    for number in range(3):
        assert write_new(tmp_path, "Ev", "cbor", b"").name == ("Ev.cbor", "Ev.2.cbor", "Ev.3.cbor")[number]


@given(
    st.text()
    | st.sampled_from(["../../etc/passwd", "/etc/passwd", "..", ".", "", "a\x00b", "-rf", "x" * 300, "é" * 200])
)
def test_names_from_the_network_stay_in_the_directory(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    directory = tmp_path_factory.getbasetemp() / "names"
    written = write_new(directory, name, "cbor", b"x")
    assert written.parent == directory
    assert written.resolve().parent == directory.resolve()
    assert not written.name.startswith((".", "-"))
    written.unlink()


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolError, match=r"file.*(Not a directory|File exists)"):
        write_new(tmp_path / "file", "Ev", "cbor", b"x")
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(ToolError, match="Permission denied"):
            write_new(tmp_path / "closed", "Ev", "cbor", b"x")


def test_what_json_has_no_form_for_is_refused_with_its_name() -> None:
    with pytest.raises(ToolError, match=r"^here: malformed CBOR"):
        parse_payload(b"\xd8\x23\x61a", CBOR, "here")  # tag 35, a regular expression
