"""Where the files of the prediction log are: a directory, or a bucket of S3, Google Cloud Storage or Azure.

One small face over pyarrow's file systems: write a file so that nobody sees half of it, list, delete.  Every error
is one of `clients.errors` with a sentence that names the store; credentials come from the files of a Secret or the
process's own environment, never from an address, and never from a machine's metadata service.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from controller.clients import credentials
from controller.clients.errors import ClientError, Denied, NotFound, Unavailable
from controller.clients.redact import redact

SECRET: Final = "log"  # noqa: S105 - the name of a directory
"""Below MAINSPRING_CREDENTIALS: the Secret of the store."""
CONNECT_S, REQUEST_S = 5.0, 20.0
_DENIED: Final = re.compile(
    r"access_?denied|invalid_?access_?key|signature_?does_?not_?match|invalid_?client_?token|expired_?token"
    r"|http status 40[13]|permission.denied|unauthenticated|unauthorized|forbidden|authenticationfailed"
    r"|authorizationfailure|read-only file system|no credentials|anonymous|oauth2 access token",
    re.I,
)
_ABSENT: Final = re.compile(r"no_?such_?bucket|containernotfound|bucket does not exist|http status 404", re.I)
_PARTITION: Final = re.compile(r"day=([0-9]{4}-[0-9]{2}-[0-9]{2})")
_REVISION: Final = re.compile(r"revision=([a-z0-9][-a-z0-9]*)")


@dataclass(frozen=True, slots=True)
class Stored:
    """One file of the log."""

    path: str
    """As `Store.open` takes it."""
    day: str
    revision: str
    size: int


class Store:
    """The files below one address.

    Args:
        uri: `file:///directory`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
        secret: directory with the files of a Secret; None: what the environment has.

    Raises:
        Denied: StoreSecretMissing, SecretKeyMissing, SecretInvalid, StoreDenied.
    """

    def __init__(self, uri: str, secret: Path | None = None) -> None:
        self.uri = uri
        parts = urlsplit(uri)
        self._local = parts.scheme == "file"
        # There pyarrow lists no directory that is only the beginning of names.
        self._flat = parts.scheme == "gs"
        self.root = unquote(parts.path) if self._local else f"{parts.netloc}{unquote(parts.path)}"
        self.root = self.root.rstrip("/")
        with self._errors("is opened"):
            self.filesystem = _filesystem(parts.scheme, secret)

    def write(self, path: str, data: Any) -> None:
        """Write a file below the root, in place of one of that name; it is there whole, or not at all.

        Raises:
            Denied, NotFound, Unavailable: as `_told`.
        """
        where = f"{self.root}/{path}"
        with self._errors(f"takes {path}"):
            if self._local:
                _write_local(Path(where), data)
                return
            with self.filesystem.open_output_stream(where) as out:
                out.write(data)
            # What closed without a word may still be half a file: its size tells.
            size = self.filesystem.get_file_info(where).size
            if size != len(data):
                raise OSError(f"it holds {size} bytes of {len(data)}")

    def days(self) -> list[str]:
        """List the days that there are partitions of."""
        names = self._names("")
        if not names and not self._local:
            self._check_bucket()
        found = (_PARTITION.fullmatch(name) for name in names)
        return sorted(match[1] for match in found if match)

    def _check_bucket(self) -> None:
        """Tell a log without predictions from a bucket that is not there.

        Raises:
            NotFound: StoreNotFound.
        """
        import pyarrow.fs as fs

        with self._errors("is looked for"):
            if self.filesystem.get_file_info(self.root.partition("/")[0]).type == fs.FileType.NotFound:
                raise FileNotFoundError

    def revisions(self, day: str) -> list[str]:
        """List the revisions that a day has partitions of."""
        found = (_REVISION.fullmatch(name) for name in self._names(f"day={day}"))
        return sorted(match[1] for match in found if match)

    def files(self, day: str, revision: str) -> list[Stored]:
        """List the files of one partition; what is still being written, or was left half written, is none."""
        below = f"day={day}/revision={revision}"
        infos = self._infos(below)
        return sorted(
            (
                Stored(i.path, day, revision, i.size)
                for i in infos
                if i.is_file and i.base_name.endswith(".parquet")
            ),
            key=lambda stored: stored.path,
        )

    def delete(self, day: str, revision: str) -> None:
        """Delete a partition; one that is gone already is fine."""
        where = f"{self.root}/day={day}/revision={revision}"
        if self._flat:
            for stored in self.files(day, revision):
                # Another server deletes the same days.
                with self._errors(f"deletes {stored.path}"), contextlib.suppress(FileNotFoundError):
                    self.filesystem.delete_file(stored.path)
            return
        # The same.
        with self._errors(f"deletes the partition of {day}"), contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_dir(where)
        if self._local:
            with contextlib.suppress(OSError):  # other revisions have files of that day
                Path(f"{self.root}/day={day}").rmdir()
        elif not self.revisions(day):
            # What is left of it is an empty object that pyarrow made, so that the day looks like a directory.
            with self._errors(f"deletes {day}"), contextlib.suppress(FileNotFoundError):
                self.filesystem.delete_dir(f"{self.root}/day={day}")

    def _names(self, below: str) -> list[str]:
        if not self._flat:
            return [info.base_name for info in self._infos(below)]
        place = f"{self.root}/{below}".rstrip("/")
        return list(
            dict.fromkeys(i.path[len(place) + 1 :].split("/")[0] for i in self._infos(below, recursive=True))
        )

    def _infos(self, below: str, *, recursive: bool = False) -> list[Any]:
        import pyarrow.fs as fs

        selector = fs.FileSelector(f"{self.root}/{below}".rstrip("/"), allow_not_found=True, recursive=recursive)
        with self._errors("is listed"):
            return list(self.filesystem.get_file_info(selector))

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except ClientError:
            raise
        except FileNotFoundError:
            if self._local:
                raise
            raise NotFound(f"{self.uri}: there is no such bucket: make it", reason="StoreNotFound") from None
        except (OSError, ValueError, TypeError) as error:
            raise _told(self.uri, doing, error) from error


def _told(uri: str, doing: str, error: Exception) -> ClientError:
    """Say in one sentence what a store refused."""
    text = redact(" ".join(str(error).split()), limit=300).replace('"', "'")
    if _DENIED.search(text):
        return Denied(f"{uri} refuses the credentials: {text}", reason="StoreDenied")
    if _ABSENT.search(text):
        return NotFound(f"{uri}: there is no such bucket: {text}", reason="StoreNotFound")
    return Unavailable(f"{uri} does not answer when it {doing}: {text}", reason="StoreUnavailable")


def _write_local(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with hidden.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
    except OSError:
        hidden.unlink(missing_ok=True)
        raise


def secret_directory(environment: dict[str, str] | os._Environ[str]) -> Path | None:
    """Return where the Secret of the store is mounted; None where the ModelSpec names none."""
    at = environment.get("MAINSPRING_CREDENTIALS", "")
    return Path(at) / SECRET if at else None


def _filesystem(scheme: str, secret: Path | None) -> Any:
    import pyarrow.fs as fs

    if scheme == "file":
        return fs.LocalFileSystem()
    login = credentials.store(credentials.of_directory(secret, "predictionLog"), scheme) if secret else {}
    if scheme == "s3":
        return _s3(login)
    if scheme == "gs":
        if secret:
            # Google's own library reads the file; nothing of it passes through here.
            os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = str(secret / credentials.GS_KEY)
        scheme, _, host = login.get("endpoint", "").rpartition("://")
        return fs.GcsFileSystem(
            endpoint_override=host or None, scheme=scheme or "https", retry_time_limit=_span(REQUEST_S)
        )
    if scheme == "az":
        return fs.AzureFileSystem(
            login.get("account") or os.environ.get("AZURE_STORAGE_ACCOUNT", ""),
            account_key=login.get("accountkey") or os.environ.get("AZURE_STORAGE_KEY") or None,
            sas_token=login.get("sastoken") or None,
        )
    raise Denied(f"{scheme}:// is no store that is known; file, s3, gs and az are", reason="StoreDenied")


def _s3(login: dict[str, str]) -> Any:
    import pyarrow.fs as fs

    # Of a machine's metadata service anybody in a pod could ask credentials that were meant for the node.
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    endpoint = login.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL", "")
    scheme, _, host = endpoint.rpartition("://")
    region = login.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return fs.S3FileSystem(
        access_key=login.get("accesskey") or None,
        secret_key=login.get("secretkey") or None,
        session_token=login.get("sessiontoken") or None,
        endpoint_override=host or None,
        scheme=scheme or "https",
        region=region or ("us-east-1" if endpoint else None),
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        background_writes=False,
        allow_delayed_open=True,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2),
    )


def _span(seconds: float) -> Any:
    from datetime import timedelta

    return timedelta(seconds=seconds)
