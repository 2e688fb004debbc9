"""The command ``eda asyncapi``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from eda_tools import asyncapi as tool
from eda_tools import eda
from examples.conversations import archive
from examples.conversations.store import Store
from tests.tools.contracts.test_document import wrong
from tests.tools.samples import event, recording

SHOP = "tests.tools.contracts.shop"
#: The services of the demo. The fixture ``demo`` is for tests that make them.
DEMO = [
    "examples.conversations.archive:archive",
    "examples.conversations.anonymizer:Anonymizer",
    "examples.conversations.tagger:Tagger",
]


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The services of the demo. The file that the archive opens is closed at the end."""
    monkeypatch.setenv("ARCHIVE_STATE", str(tmp_path / "archive.sqlite"))
    with ExitStack() as stack:
        monkeypatch.setattr(archive, "Store", lambda path: stack.enter_context(Store(path)))
        yield DEMO


def test_the_document_is_written_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert eda.main(["asyncapi", f"{SHOP}:Orders", f"{SHOP}:Billing"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert wrong(found) == []
    assert found["info"] == {"title": "orders, billing", "version": "0.0.0"}
    assert captured.err.startswith(f"eda asyncapi: {SHOP}:Orders: on_Closed() gets its payload as it comes: ")
    assert len(captured.err.splitlines()) == 1


def test_the_document_is_written_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "doc.json"
    options = ["--title", "Éléments", "--document-version", "2.0", "-o", str(path)]
    assert tool.main([f"{SHOP}:Billing", *options]) == 0
    assert capsys.readouterr().out == ""
    text = path.read_text("utf-8")
    assert json.loads(text)["info"] == {"title": "Éléments", "version": "2.0"}
    assert "Éléments" in text
    assert tool.main([f"{SHOP}:Billing", "-o", str(tmp_path / "none" / "x")]) == 1
    assert capsys.readouterr().err.endswith("No such file or directory\n")


def test_what_a_recording_shows_is_in_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recording(tmp_path / "r", event("Charged", 0, {}, app_id="billing"), event("Other", 1, {}, app_id="other"))
    assert tool.main([f"{SHOP}:Billing", "--observed", path]) == 0
    operations = json.loads(capsys.readouterr().out)["operations"]
    assert operations["billing.send.events.Charged"]["x-known"] == "seen in the recording"
    assert not any("Other" in name for name in operations)
    assert tool.main([f"{SHOP}:Billing", "--observed", str(tmp_path / "none")]) == 1


def test_a_service_that_is_a_function_or_an_object_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([f"{SHOP}:orders"]) == 0
    assert json.loads(capsys.readouterr().out)["info"]["title"] == "orders"


def test_the_demo_has_a_valid_document(demo: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(demo) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found = json.loads(captured.out)
    assert wrong(found) == []
    assert found["components"]["schemas"].keys() == {"Text", "Summary", "Failure", "Anonymized", "Tagged"}


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ([], 2, "the following arguments are required: MODULE:NAME"),
        (["nothing"], 2, "'nothing' is not MODULE:NAME"),
        ([f"{SHOP}:Nothing"], 2, f"{SHOP} has no Nothing"),
        ([f"{SHOP}:Order"], 2, f"{SHOP}:Order is no service"),
        ([f"{SHOP}:Broken"], 2, f"{SHOP}:Broken: PUBLISHES is 'OrderPlaced'"),
        (["tests.tools.contracts.raises:Service"], 1, "tests.tools.contracts.raises cannot be imported: LookupError"),
        (["--help"], 0, ""),
    ],
)
def test_what_cannot_be_read_is_told(
    arguments: list[str], status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(arguments) == status
    assert text in capsys.readouterr().err
