"""Files by URL, on any file system that fsspec knows: whole reads, and writes that are there whole or not at all.

What a file system needs to know, as an endpoint or credentials, is in `velfield.files.storage_options`, whose functions
are offered here, too.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from velfield.errors import StorageError
from velfield.files.storage_options import forget_options as forget_options
from velfield.files.storage_options import options_in_use as options_in_use
from velfield.files.storage_options import parse_option as parse_option
from velfield.files.storage_options import use_options as use_options

AGAIN = 3  # more fetches of a range that came short, from file systems that do not look themselves
AT_ONCE = 16  # requests side by side where fsspec has no call for many files
CLOSE = 0.75  # likeness of a name that was perhaps meant, from 0 to 1
REMOVALS = 20  # tries, 0.1 s apart, to remove a local folder in which somebody still writes


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of ``url`` and the path on it. A ``#`` belongs to the name."""
    url = os.fspath(url)
    if is_object_store(url):
        return object_store(url), object_store(url)._strip_protocol(url)
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise StorageError(
            f"no file system for this URL: url={url}, reason={error}; check its protocol, and install what it needs"
        ) from error


def object_store(url: str, *, asynchronous: bool = False) -> fsspec.AbstractFileSystem:
    """Return the file system of an ``s3://`` URL; made once a process, as long as the options are the same."""
    from velfield.files.object_store import ObjectStore

    return ObjectStore(asynchronous=asynchronous, **ObjectStore._get_kwargs_from_urls(url))


def join(url: str, *parts: str) -> str:
    """Append path elements to a URL."""
    return "/".join([os.fspath(url).rstrip("/"), *parts])


def absolute(url: str) -> str:
    """A path on this machine's disk from its root, as processes in other folders find it; other URLs as they are."""
    url = os.fspath(url)
    return url if "://" in url or not is_local(url) else os.path.abspath(url)


def exists(url: str) -> bool:
    """Whether there is a file or folder at ``url``."""
    fs, path = filesystem(url)
    return bool(fs.exists(path))


def is_folder(url: str) -> bool:
    """Whether there is a folder at ``url``."""
    fs, path = filesystem(url)
    return bool(fs.isdir(path))


def did_you_mean(url: str) -> str:
    """For an error about a path that is not there: ``did you mean NAME? ``, or nothing.

    NAME is most like the part of the path that is the first not to be there, among what lies beside it on this
    machine's disk; nothing is listed elsewhere.
    """
    if not is_local(url):
        return ""
    path = Path(filesystem(url)[1])
    missing = next((one for one in reversed((path, *path.parents)) if not one.exists()), None)
    if missing is None:
        return ""
    try:
        beside = [one.name for one in missing.parent.iterdir() if not one.name.startswith(".")]
    except OSError:
        return ""
    near = difflib.get_close_matches(missing.name, beside, 1, CLOSE)
    return f"did you mean {near[0]}? " if near else ""


def names(url: str) -> list[str]:
    """Names of what lies in the folder, sorted; none if there is no such folder."""
    fs, path = filesystem(url)
    try:
        found = fs.ls(path, detail=False)
    except FileNotFoundError:
        return []
    return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)


def sizes(url: str) -> dict[str, int]:
    """Every file beneath the folder, by its path from there, with its size in bytes."""
    fs, path = filesystem(url)
    fs.invalidate_cache(path)
    found = fs.find(path, detail=True)
    return {name[len(path) :].lstrip("/"): int(about["size"]) for name, about in sorted(found.items())}


def lists(url: str) -> bool:
    """Whether this kind of place can say what lies beneath a folder; a web server cannot."""
    return fsspec.utils.get_protocol(os.fspath(url)) not in ("http", "https")


def sizes_of(url: str, keys: Sequence[str]) -> dict[str, int]:
    """Size in bytes of those of these files beneath the folder that are there, asked for one by one, side by side."""
    fs, path = filesystem(url)

    def size(key: str) -> int | None:
        try:
            return int(fs.info(join(path, *key.split("/")))["size"])
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(keys, pool.map(size, keys), strict=True))
    return {key: size for key, size in found.items() if size is not None}


def read_bytes(url: str) -> bytes:
    """Return the whole file."""
    fs, path = filesystem(url)
    return bytes(fs.cat_file(path))


def find_bytes(url: str) -> bytes | None:
    """Return the whole file, None where there is none: one request, where asking first would be two."""
    try:
        return read_bytes(url)
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_many(urls: Sequence[str]) -> list[bytes]:
    """Return whole files, fetched side by side."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(read_bytes, urls))


def read_ranges(
    url: str, paths: Sequence[str], starts: Sequence[int], stops: Sequence[int], *, whole: bool = True
) -> list[Any]:
    """Ranges of files on the file system of ``url``, all at once where it can: bytes, or the error of each.

    One that fails, or comes short though ``whole`` says that the file holds it, is fetched again, so that what stays
    short is the file's end. `ObjectStore` sees to that itself; a local disk does not change its mind.
    """
    fs, _ = filesystem(url)
    found: list[Any] = list(fs.cat_ranges(list(paths), list(starts), list(stops), on_error="return"))
    if is_local(url) or is_object_store(url):
        return found
    for attempt in range(AGAIN):
        again = [i for i, data in enumerate(found) if _came_short(data, stops[i] - starts[i] if whole else 0)]
        if not again:
            break
        time.sleep(0.2 * 2**attempt)
        ranges = [[of[i] for i in again] for of in (paths, starts, stops)]
        for i, data in zip(again, fs.cat_ranges(*ranges, on_error="return"), strict=True):
            found[i] = data
    return found


def _came_short(data: Any, length: int) -> bool:
    if isinstance(data, BaseException):
        return isinstance(data, OSError) and not isinstance(data, FileNotFoundError | PermissionError)
    return len(data) < length


def write_bytes(url: str, data: bytes) -> None:
    """Write a file so that no reader ever sees a part of it.

    An object store's PUT is whole by itself; on a local disk the data go to a file beside the target, which is then
    renamed.
    """
    fs, path = filesystem(url)
    if not is_local(url):
        fs.pipe_file(path, data)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = f"{path}.{uuid.uuid4().hex[:8]}.part"
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        if os.path.exists(part):
            os.remove(part)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = path  # a full disk does not say where
        raise


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # which libraries tell with words of their own


@contextmanager
def written_aside(url: str) -> Iterator[str]:
    """Yield the path of a new local file, which becomes the one at ``url`` if no exception passes: whole or not at all.

    On a local disk it lies beside its target and is renamed; elsewhere it is a temporary file that is sent. What the
    system says of the new file, as of a full disk, is said of the target.
    """
    fs, path = filesystem(url)
    local = is_local(url)
    if local:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    folder = None if local else tempfile.mkdtemp()
    part = f"{path}.{uuid.uuid4().hex[:8]}.part" if folder is None else os.path.join(folder, "part")
    try:
        yield part
        if local:
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        else:
            fs.put_file(part, path)
    except OSError as error:
        if error.errno in FULL or error.filename == part:
            where = path if local else part
            raise OSError(error.errno, os.strerror(error.errno or 0), where) from error
        raise
    finally:
        if os.path.exists(part):
            os.remove(part)
        if folder is not None:
            os.rmdir(folder)


def read_json(url: str) -> Any:
    """Return the value that the JSON file holds."""
    return json.loads(read_bytes(url))


def write_json(url: str, value: Any) -> None:
    """Write ``value`` as JSON, whole or not at all."""
    write_bytes(url, (json.dumps(value, indent=2) + "\n").encode())


def remove(url: str) -> None:
    """Remove a file or a whole folder; nothing happens if it is not there.

    A task that outlives its job may still write into a local folder that is being removed: then it is tried again.
    """
    fs, path = filesystem(url)
    for left in reversed(range(REMOVALS)):
        try:
            if fs.exists(path):
                fs.rm(path, recursive=True)
            return
        except OSError as error:
            if not left or error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise
            time.sleep(0.1)


def remove_torn(url: str) -> None:
    """Remove what writers that were killed have left in a local folder: files that were never renamed to their target.

    ``.part`` is the ending of `write_bytes`, ``.partial`` that of Zarr. Object stores keep no such files.
    """
    if not is_local(url):
        return
    _, path = filesystem(url)
    for folder, _, files in os.walk(path):
        for name in files:
            if name.endswith((".part", ".partial")):
                os.remove(os.path.join(folder, name))


def is_local(url: str) -> bool:
    """Whether ``url`` names this machine's disk."""
    return fsspec.utils.get_protocol(os.fspath(url)) in ("file", "local")


def is_object_store(url: str) -> bool:
    """Whether ``url`` is S3's, which `velfield.files.object_store` looks after."""
    return fsspec.utils.get_protocol(os.fspath(url)) in ("s3", "s3a")


def versions(urls: Sequence[str]) -> list[str]:
    """What changes when a file does, of each: its size and its tag, or where there is none the time of its last change.

    A job that goes on after an interruption compares them, so that it never mixes work on two versions of its input.
    """
    if not urls:
        return []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_version, urls))


def version(urls: Sequence[str]) -> str:
    """One hex digest of the names and `versions` of files, whatever folder they are in."""
    lines = [[os.fspath(url).rsplit("/", 1)[-1], found] for url, found in zip(urls, versions(urls), strict=True)]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def _version(url: str) -> str:
    fs, path = filesystem(url)
    if is_local(url):
        found = os.stat(path)
        return f"{found.st_size} {found.st_mtime_ns}"
    about = fs.info(path)
    known = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")
    return f"{about.get('size')} {next((about[key] for key in known if about.get(key)), '')}"
