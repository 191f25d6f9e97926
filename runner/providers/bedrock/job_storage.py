"""S3 objects of Bedrock's batch jobs: the file of records, the files of results, and the manifest."""

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing
from typing import Any, BinaryIO

from runner.providers.bedrock.account import AwsAccount
from runner.providers.bedrock.errors import IN_STORAGE, STORING
from runner.providers.bedrock.job_settings import JobSettings

_TIMEOUT_S, _ATTEMPTS = 60.0, 3
"""Of one request. S3's requests may all be sent again: an upload replaces the object that is there."""
_UPLOADS_AT_ONCE = 4
"""Parts of 8 MiB of a file, each in memory once."""
_MANIFEST = "manifest.json.out"
_MAX_MANIFEST_BYTES = 1 << 16


class JobStorage:
    """The two folders of batch jobs. Opens its client on first use."""

    def __init__(self, account: AwsAccount, settings: JobSettings) -> None:
        self._account, self._settings = account, settings
        self._opened: Any = None

    def close(self) -> None:
        """Close the client."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def upload(self, file: BinaryIO, name: str) -> str:
        """Write a job's records to the folder of inputs, in parts; return the object's URI."""
        from boto3.s3.transfer import TransferConfig

        source = f"{self._settings.s3_input}/{name}.jsonl"
        with self._errors(source):
            self._client.upload_fileobj(file, *_split(source), Config=TransferConfig(max_concurrency=_UPLOADS_AT_ONCE))
        return source

    def lines(self, folder: str, suffix: str, max_bytes: int) -> Iterator[bytes]:
        """Yield the lines of a folder's files as they are read; what is read of a longer line is its end.

        Args:
            folder: a job's, with a slash at its end.
            suffix: of the files.
            max_bytes: of a line.
        """
        with self._errors(folder):
            for bucket, key in self._objects(folder):
                if key.endswith(suffix):
                    with closing(self._client.get_object(Bucket=bucket, Key=key)["Body"]) as body:
                        yield from _lines(io.BufferedReader(body), max_bytes)

    def manifest(self, folder: str) -> Mapping[str, Any]:
        """Return the counts of a job's manifest; nothing where there is none, or it cannot be read."""
        lines = list(self.lines(folder, f"/{_MANIFEST}", _MAX_MANIFEST_BYTES))
        return read_object(b"".join(lines)) or {}

    def remove(self, source: str, folder: str | None) -> None:
        """Remove a job's records and, where it was created, its results; nothing outside of the two folders."""
        if source.startswith(f"{self._settings.s3_input}/"):
            with self._errors(source):
                bucket, key = _split(source)
                self._client.delete_object(Bucket=bucket, Key=key)
        if folder is not None:
            with self._errors(folder):
                for bucket, key in list(self._objects(folder)):
                    self._client.delete_object(Bucket=bucket, Key=key)

    @property
    def _client(self) -> Any:
        if self._opened is None:
            address = self._settings.s3_endpoint_url
            is_own = not (address or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))
            style = {} if is_own else {"s3": {"addressing_style": "path"}}  # no name server knows BUCKET.HOST
            self._opened = self._account.connect(
                "s3", address, read_timeout_s=_TIMEOUT_S, max_attempts=_ATTEMPTS, **style
            )
        return self._opened

    def _objects(self, folder: str) -> Iterator[tuple[str, str]]:
        """Yield bucket and key of every object in a folder, in the order of their keys."""
        bucket, prefix = _split(folder)
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            yield from ((bucket, item["Key"]) for item in page.get("Contents", ()))

    def _errors(self, where: str) -> AbstractContextManager[None]:
        return self._account.errors(where, rights=STORING, policies=IN_STORAGE)


def read_object(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line; None where it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _lines(file: io.BufferedReader, max_bytes: int) -> Iterator[bytes]:
    while line := file.readline(max_bytes):
        while not line.endswith(b"\n") and (rest := file.readline(max_bytes)):
            line = rest
        yield line
