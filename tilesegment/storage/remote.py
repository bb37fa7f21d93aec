"""Object stores: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.

`RemotePath` has the part of pathlib's interface that this library reads with; what is written
goes through `storage.buckets`. Every request that meets a passing fault (5xx, a reset, a reply cut
short, no answer in time) is repeated after a growing pause. No secret is ever in a path, a
pickle or a message: each process finds its credentials itself, where the AWS, Google and Azure
programs look for theirs.
"""

import asyncio
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from zarr.abc.store import Store
from zarr.storage import LocalStore, ObjectStore

from tilesegment.errors import InputError, StoreError
from tilesegment.retry import Backoff, retried, retried_async

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

Result = TypeVar("Result")

WEB = ("https", "http")
"""Of web servers, which are only read from, and do not list what they have."""
SCHEMES = ("s3", "gs", "az", *WEB)
"""Of the URLs that are opened: s3://bucket/key, gs://bucket/key, az://container/key, https://..."""

_PATIENCE = Backoff(tries=6)
"""About 12 s for one request, beside the time that its tries take."""
_REQUEST_SECONDS = 120
_CONNECT_SECONDS = 10
_CREDENTIALS_LIFE = timedelta(minutes=1)
"""So often the AWS library is asked again: it renews temporary credentials."""

_PAGE = 1000
"""Objects in one reply to a listing."""

_YES = ("1", "true", "yes")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")


class NoAnswerError(OSError):
    """A store that met every try of a request with a passing fault."""


class UnsupportedError(StoreError):
    """A store that does not know what was asked of it, such as a conditional PUT."""


class _PassingError(ConnectionError):
    """A fault that another try may not meet."""


@dataclass(frozen=True, order=True)
class RemotePath:
    """A key in an object store, or a prefix of keys: what a path is on a disk.

    >>> RemotePath("s3", "slides", "a/b.zarr") / "labels" / "nuclei"
    s3://slides/a/b.zarr/labels/nuclei
    """

    scheme: str
    bucket: str
    key: str
    """Without a slash at either end; empty for the bucket itself."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")

    __repr__ = __str__

    def __truediv__(self, part: str) -> "RemotePath":
        return replace(self, key=f"{self.key}/{part}".strip("/"))

    @property
    def is_web(self) -> bool:
        """Whether it is on a web server: nothing is listed or written there."""
        return self.scheme in WEB

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name or self.bucket

    @property
    def parent(self) -> "RemotePath":
        return replace(self, key=self.key.rpartition("/")[0])

    def with_name(self, name: str) -> "RemotePath":
        return self.parent / name

    def relative_to(self, other: "RemotePath") -> PurePosixPath:
        return PurePosixPath(self.key).relative_to(PurePosixPath(other.key))

    def size(self) -> int | None:
        """Bytes of the object; None if there is none under this key."""
        import obstore

        try:
            return int(answered(self, lambda: obstore.head(store_of(self), self.key))["size"])
        except FileNotFoundError:
            return None

    def is_file(self) -> bool:
        return self.size() is not None

    def is_dir(self) -> bool:
        if self.is_web:
            return any((self / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs"))
        return next(self.objects(), None) is not None

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def read_bytes(self) -> bytes:
        """Raises FileNotFoundError, StoreError or NoAnswerError."""
        import obstore

        return answered(self, lambda: bytes(obstore.get(store_of(self), self.key).bytes()))

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def objects(self) -> "Iterator[RemoteObject]":
        """All objects below this prefix, by key."""
        import obstore

        prefix = f"{self.key}/" if self.key else None
        last: str | None = None

        def page() -> Any:
            listed = obstore.list(store_of(self), prefix, offset=last, chunk_size=_PAGE)
            return next(iter(listed), ())

        while batch := answered(self, page):
            for item in batch:
                yield RemoteObject.of(self, item)
            last = batch[-1]["path"]

    def iterdir(self) -> "Iterator[RemotePath]":
        """The objects and prefixes right below this one."""
        import obstore

        prefix = f"{self.key}/" if self.key else None
        found = answered(self, lambda: obstore.list_with_delimiter(store_of(self), prefix))
        for key in (*found["common_prefixes"], *(item["path"] for item in found["objects"])):
            yield replace(self, key=str(key).strip("/"))

    def glob(self, pattern: str) -> "Iterator[RemotePath]":
        """As of a path; each part of the pattern is for one part of the key."""
        first, _, rest = pattern.partition("/")
        if rest and not any(sign in rest for sign in "*?["):
            found = (item / rest for item in self._matching(first))
            yield from (item for item in found if item.exists())
        else:
            yield from self._matching(first)

    def _matching(self, pattern: str) -> "Iterator[RemotePath]":
        return (item for item in self.iterdir() if fnmatchcase(item.name, pattern))


@dataclass(frozen=True)
class RemoteObject:
    """One entry of a listing."""

    path: RemotePath
    size: int
    """Bytes."""
    changed: datetime
    """By the store's clock."""
    tag: str
    """Another one for other content."""

    @classmethod
    def of(cls, listed: RemotePath, item: Any) -> "RemoteObject":
        path = replace(listed, key=item["path"])
        return cls(path, item["size"], item["last_modified"], item["e_tag"] or "")


Location: TypeAlias = Path | RemotePath
"""Where an image or label image is: both have what this library reads with."""


def locate(given: "str | Location") -> Location:
    """A path or URL as one of the two.

    Raises:
        InputError: for another URL; the message tells its scheme only, the rest may hold a
            password or a signature.
    """
    if isinstance(given, RemotePath):
        return given
    scheme, separator, rest = str(given).partition("://")
    if not separator:
        # pathlib makes one slash of two.
        scheme, separator, rest = str(given).partition(":/")
        separator = separator if scheme in SCHEMES else ""
    if "::" in str(given) or (separator and scheme not in SCHEMES):
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise InputError(
            f"{scheme.partition('::')[0]}:// cannot be opened; give a path on a disk, or one of "
            f"{known}"
        )
    if not separator:
        return Path(given)
    bucket, _, key = rest.rstrip("/").partition("/")
    if not bucket or "@" in bucket or set(key) & set("?#") or ".." in key.split("/"):
        raise InputError(f"{scheme}:// needs a bucket and a key, as {scheme}://bucket/image.zarr")
    return RemotePath(scheme, bucket, key.strip("/"))


def on_disk(location: Location, what: str) -> Path:
    """A place that must be on a disk.

    Args:
        location: the place.
        what: needs it there, for the message.

    Raises:
        InputError: if it is in an object store.
    """
    if isinstance(location, Path):
        return location
    raise InputError(f"{what} works on a disk only, and {location} is elsewhere; copy it first")


def absolute(location: Location) -> Location:
    """What names the same place for a worker in another directory."""
    return location.resolve() if isinstance(location, Path) else location


def size_of(path: Location) -> int | None:
    """Bytes of a file or object; None if there is none."""
    if isinstance(path, RemotePath):
        return path.size()
    return path.stat().st_size if path.is_file() else None


def zarr_store(location: Location, *, read_only: bool = True) -> Store:
    """A place as zarr reads and writes it."""
    if isinstance(location, Path):
        return LocalStore(location, read_only=read_only)
    return RemoteStore(location, read_only=read_only)


class RemoteStore(ObjectStore[Any]):  # type: ignore[misc]
    """Objects below a prefix, for zarr; tries again what may pass, and keeps no secrets."""

    def __init__(self, location: RemotePath, *, read_only: bool = False) -> None:
        super().__init__(_prefixed(location), read_only=read_only)
        self.location = location

    def __reduce__(self) -> tuple[Any, ...]:
        return _remote_store, (self.location, self.read_only)

    def __str__(self) -> str:
        return str(self.location)

    def with_read_only(self, read_only: bool = False) -> "RemoteStore":
        return RemoteStore(self.location, read_only=read_only)

    async def get(
        self,
        key: str,
        prototype: "BufferPrototype",
        byte_range: "ByteRequest | None" = None,
    ) -> "Buffer | None":
        get = super().get
        return await _answered_async(self.location, lambda: get(key, prototype, byte_range))

    async def exists(self, key: str) -> bool:
        exists = super().exists
        return bool(await _answered_async(self.location, lambda: exists(key)))

    async def set(self, key: str, value: "Buffer") -> None:
        put = super().set
        await _answered_async(self.location, lambda: put(key, value))


def _remote_store(location: RemotePath, read_only: bool) -> RemoteStore:
    return RemoteStore(location, read_only=read_only)


def answered(path: RemotePath, request: Callable[[], Result]) -> Result:
    """The answer to a request, which is repeated while its faults may pass.

    Raises:
        FileNotFoundError, FileExistsError: as the store says.
        StoreError: if it refuses.
        NoAnswerError: if no try has succeeded.
    """

    def attempt() -> Result:
        try:
            return request()
        except Exception as error:
            raise translate(error, path) from error

    try:
        return retried(attempt, _PATIENCE, time.sleep, random.random, _may_pass)
    except _PassingError as error:
        raise NoAnswerError(str(error)) from error


async def _answered_async(path: RemotePath, request: Callable[[], Awaitable[Result]]) -> Result:
    async def attempt() -> Result:
        try:
            return await request()
        except Exception as error:
            raise translate(error, path) from error

    try:
        return await retried_async(attempt, _PATIENCE, asyncio.sleep, random.random, _may_pass)
    except _PassingError as error:
        raise NoAnswerError(str(error)) from error


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, _PassingError)


def translate(error: Exception, path: RemotePath) -> Exception:
    """What an error of the object store's library means.

    The library tells the status of a reply, and S3's error code in its body, in its text only.
    """
    from obstore import exceptions

    status, code = (found[1] if found else "" for found in map(_search(error), (_STATUS, _CODE)))
    if code == "NoSuchBucket":
        return StoreError(f"there is no bucket {path.scheme}://{path.bucket}")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(str(path))
    if isinstance(error, (exceptions.AlreadyExistsError, exceptions.PreconditionError)):
        # S3 answers 409 while another request is writing the same key.
        return _PassingError(f"{path}: {code}") if status == "409" else FileExistsError(str(path))
    if not isinstance(error, exceptions.BaseError):
        return error
    if isinstance(error, exceptions.NotSupportedError) or status == "501":
        what = (
            "give parts of a file, which shards need" if path.is_web else "do what was asked of it"
        )
        return UnsupportedError(f"{path.scheme}://{path.bucket} cannot {what}")
    if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
        return _refused(path, status or "403", code)
    if status.startswith("3"):
        return StoreError(
            f"{path.scheme}://{path.bucket} is in another region; set AWS_REGION to the bucket's"
        )
    if status.startswith("4") and status not in ("408", "409", "412", "429"):
        return _refused(path, status, code)
    reason = " ".join(filter(None, (status, code))) or "no whole reply"
    return _PassingError(f"{path.scheme}://{path.bucket} does not answer ({reason})")


def _search(error: Exception) -> Callable[[re.Pattern[str]], "re.Match[str] | None"]:
    return lambda pattern: pattern.search(str(error))


def _refused(path: RemotePath, status: str, code: str) -> StoreError:
    reason = " ".join(filter(None, (status, code)))
    who = "anonymous access" if is_anonymous(path) else "the credentials found"
    return StoreError(
        f"{path.scheme}://{path.bucket} refuses {who} ({reason}); set or renew AWS_PROFILE or "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        if path.scheme == "s3"
        else f"{path.scheme}://{path.bucket} refuses {who} ({reason}); set or renew them"
    )


def is_anonymous(path: RemotePath) -> bool:
    """Whether requests are not signed: for want of credentials, or as the environment says."""
    return path.scheme == "s3" and "skip_signature" in _s3_settings()


def store_of(path: RemotePath) -> Any:
    """What obstore's functions take; the path's key is the key in it."""
    return _bucket(path.scheme, path.bucket)


def _prefixed(location: RemotePath) -> Any:
    return _bucket(location.scheme, location.bucket, location.key)


@lru_cache(maxsize=64)
def _bucket(scheme: str, bucket: str, prefix: str = "") -> Any:
    """The library's store; it holds connections, and one per process is enough."""
    try:
        from obstore import exceptions, store
    except ImportError as error:
        raise InputError(
            f"{scheme}:// needs the extra s3: pip install 'tilesegment[s3]'"
        ) from error
    client = {
        "timeout": f"{_REQUEST_SECONDS}s",
        "connect_timeout": f"{_CONNECT_SECONDS}s",
        # A server on this machine, for tests; the AWS endpoint is https.
        "allow_http": True,
    }
    # Tries are counted here, by `_PATIENCE`.
    common: dict[str, Any] = {"client_options": client, "retry_config": {"max_retries": 0}}
    try:
        if scheme in WEB:
            client["allow_http"] = scheme == "http"
            return store.HTTPStore.from_url(f"{scheme}://{bucket}/{prefix}", **common)
        if scheme == "s3":
            return store.S3Store(bucket, prefix=prefix or None, **common, **_s3_settings())
        kind = store.GCSStore if scheme == "gs" else store.AzureStore
        return kind(bucket, prefix=prefix or None, **common)
    except exceptions.BaseError as error:
        raise StoreError(
            f"{scheme}://{bucket} cannot be reached: its settings are wrong"
        ) from error


@lru_cache(maxsize=1)
def _s3_settings() -> dict[str, Any]:
    """Endpoint, region and credentials, by the rules of the AWS command line.

    They come from the environment (AWS_PROFILE, AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID
    and the like), ~/.aws, or the machine's role. Without credentials, or with
    AWS_NO_SIGN_REQUEST=yes, requests are anonymous.

    Raises:
        StoreError: if the profile does not exist, or its credentials cannot be had.
    """
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    session = Session()
    try:
        region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
        region = region or "us-east-1"
        unsigned = Config(signature_version=UNSIGNED)
        client = session.create_client("s3", region_name=region, config=unsigned)
        wanted = os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() not in _YES
        credentials = session.get_credentials() if wanted else None
    except BotoCoreError as error:
        raise StoreError(f"S3 cannot be used: {error}") from error
    settings: dict[str, Any] = {"region": region, "endpoint": client.meta.endpoint_url}
    if credentials is None:
        return {**settings, "skip_signature": True}
    return {**settings, "credential_provider": _Credentials(credentials)}


@dataclass(frozen=True)
class _Credentials:
    """What the AWS library has found, as obstore asks for it."""

    found: Any

    def __call__(self) -> dict[str, Any]:
        now = self.found.get_frozen_credentials()
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_LIFE,
        }
