"""Stores for payloads that are too large for the broker (docs/howto/large-payloads.rst): a directory, and S3.

They are for services and endpoints whose methods are plain. For ``eda_aio`` put ``InThreads`` around them.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

from eda_core.services import ClaimStore


class DirectoryStore:
    """Keeps payloads in a directory that all services see, such as a network file system.

    Delete files that are older than messages get: ``find DIRECTORY -type f -mtime +30 -delete``.

    Args:
        directory: is made if it does not exist.
    """

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)

    def put(self, key: str, body: bytes) -> None:
        """Store a payload durably. If it is there, its time begins anew."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Nobody ever reads a half of it, and if the machine loses its power, either all of it is there or nothing.
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
        _sync_directory(path.parent)

    def get(self, key: str) -> bytes:
        """Return a payload.

        Raises:
            FileNotFoundError: it is not there, or not there any more.
        """
        return self._path(key).read_bytes()

    def _path(self, key: str) -> Path:
        return self._directory / key[:2] / key


def _sync_directory(directory: Path) -> None:
    if os.name == "posix":
        number = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


class S3Store:
    """Keeps payloads in a bucket of S3, or of a service with the same interface.

    Let a lifecycle rule of the bucket delete objects that are older than messages get.

    Args:
        client: ``boto3.client("s3")``, or an object with the same methods ``put_object`` and ``get_object``.
        bucket: the name of the bucket.
        prefix: the beginning of the names of the objects.
    """

    def __init__(self, client: Any, bucket: str, prefix: str = "claims/") -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix

    def put(self, key: str, body: bytes) -> None:
        """Store a payload."""
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=body)

    def get(self, key: str) -> bytes:
        """Return a payload. It raises what the client raises, such as ``NoSuchKey``."""
        found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
        return bytes(found["Body"].read())


class InThreads:
    """Lets a store work in threads, so that it does not keep an event loop waiting.

    Args:
        store: whose methods are plain functions.
    """

    def __init__(self, store: ClaimStore) -> None:
        self._store = store

    async def put(self, key: str, body: bytes) -> None:
        """Store a payload."""
        await asyncio.to_thread(self._store.put, key, body)

    async def get(self, key: str) -> bytes:
        """Return a payload."""
        body = await asyncio.to_thread(self._store.get, key)
        assert isinstance(body, bytes)
        return body
