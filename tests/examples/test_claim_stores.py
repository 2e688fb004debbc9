"""The stores of the examples: what is put is got, whole, and what is not there raises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eda_core.services import ClaimCheck, ClaimStore
from examples.claim_stores import DirectoryStore, InThreads, S3Store

KEY = "ab" * 32


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a simulated S3, with a bucket."""
    import boto3
    import moto

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with moto.mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="payloads")
        yield client


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ClaimStore:
    if request.param == "directory":
        return DirectoryStore(tmp_path / "claims")
    return S3Store(request.getfixturevalue("s3"), "payloads")


def test_what_is_put_is_got(store: Any) -> None:
    body = bytes(range(256)) * 10_000
    store.put(KEY, body)
    store.put(KEY, body)
    assert store.get(KEY) == body
    ClaimCheck(store)


def test_what_is_not_there_raises(store: Any) -> None:
    with pytest.raises(Exception, match=r"No such file|NoSuchKey"):
        store.get(KEY)


def test_a_store_may_work_in_threads(store: Any) -> None:
    async def scenario() -> None:
        threaded = InThreads(store)
        await threaded.put(KEY, b"body")
        assert await threaded.get(KEY) == b"body"

    asyncio.run(scenario())


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    fsync: Callable[[int], None] = full
    monkeypatch.setattr("os.fsync", fsync)
    store = DirectoryStore(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        store.put(KEY, b"body")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    with pytest.raises(FileNotFoundError):
        store.get(KEY)
