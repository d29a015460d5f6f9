"""Files by URL, on any file system that fsspec knows: whole reads, and writes that are there whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

import fsspec


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of ``url`` and the path on it. A ``#`` belongs to the name."""
    return fsspec.core.url_to_fs(os.fspath(url))


def join(url: str, *parts: str) -> str:
    """Append path elements to a URL."""
    return "/".join([os.fspath(url).rstrip("/"), *parts])


def exists(url: str) -> bool:
    """Whether there is a file or folder at ``url``."""
    fs, path = filesystem(url)
    return bool(fs.exists(path))


def is_folder(url: str) -> bool:
    """Whether there is a folder at ``url``."""
    fs, path = filesystem(url)
    return bool(fs.isdir(path))


def names(url: str) -> list[str]:
    """Names of what lies in the folder, sorted; none if there is no such folder."""
    fs, path = filesystem(url)
    if not fs.exists(path):
        return []
    return sorted(found.rstrip("/").rsplit("/", 1)[-1] for found in fs.ls(path, detail=False))


def read_bytes(url: str) -> bytes:
    """Return the whole file."""
    fs, path = filesystem(url)
    return bytes(fs.cat_file(path))


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
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise


def read_json(url: str) -> Any:
    """Return the value that the JSON file holds."""
    return json.loads(read_bytes(url))


def write_json(url: str, value: Any) -> None:
    """Write ``value`` as JSON, whole or not at all."""
    write_bytes(url, (json.dumps(value, indent=2) + "\n").encode())


def remove(url: str) -> None:
    """Remove a file or a whole folder; nothing happens if it is not there."""
    fs, path = filesystem(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)


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
    fs, _ = filesystem(url)
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)
