"""Reading a directory of transcripts."""

import os
from pathlib import Path

import pytest

from examples.conversations.transcripts import Transcript, TranscriptError, read_transcripts


def test_reads_text_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes("\ufeffÀ bientôt\r\nok\r".encode())
    (tmp_path / "a.TXT").write_bytes(b"hello")
    (tmp_path / "notes.md").write_bytes(b"not a transcript")
    (tmp_path / "folder.txt").mkdir()
    assert read_transcripts(tmp_path) == [Transcript("a.TXT", "hello"), Transcript("b.txt", "À bientôt\nok\n")]
    assert read_transcripts(str(tmp_path)) == read_transcripts(tmp_path)


def test_falls_back_to_cp1252(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes("Hélène, 5 €".encode("cp1252"))
    assert read_transcripts(tmp_path) == [Transcript("old.txt", "Hélène, 5 €", "cp1252")]


def test_an_empty_file_is_a_conversation(tmp_path: Path) -> None:
    (tmp_path / "silence.txt").touch()
    assert read_transcripts(tmp_path) == [Transcript("silence.txt", "")]


def test_names_fit_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "a\tb\nc.txt").touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).touch()
    assert {transcript.name for transcript in read_transcripts(tmp_path)} == {"a?b?c.txt", "?.txt"}


def refusal(directory: Path) -> str:
    with pytest.raises(TranscriptError) as caught:
        read_transcripts(directory)
    message = str(caught.value)
    assert "\n" not in message
    assert str(directory) in message
    assert ";" in message, "it says what to do"
    return message


def test_missing_directory(tmp_path: Path) -> None:
    assert "no such directory" in refusal(tmp_path / "missing")


def test_not_a_directory(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.touch()
    assert "not a directory" in refusal(file)


def test_no_transcripts(tmp_path: Path) -> None:
    (tmp_path / "readme.md").touch()
    assert "no *.txt file" in refusal(tmp_path)


def test_undecodable_file(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\x81\xff")
    assert "binary.txt: is neither UTF-8 nor cp1252" in refusal(tmp_path)


def test_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    assert "gone.txt: cannot be read" in refusal(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_permissions(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").touch(mode=0)
    assert "secret.txt: cannot be read" in refusal(tmp_path)


def test_unreadable_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "Permission denied" in refusal(tmp_path)
