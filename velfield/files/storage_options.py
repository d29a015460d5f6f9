"""What a file system needs to know, as an endpoint or credentials: options of a process, by protocol.

They come from `use_options` or from the environment; no URL, setting or store holds them.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
from collections.abc import Mapping
from typing import Any

import fsspec

from velfield.errors import StorageError

# options of S3 by the names that people know, and where s3fs wants them
PLACES = {
    "retries": ("config_kwargs", "retries", "max_attempts"),
    "connect_timeout": ("config_kwargs", "connect_timeout"),
    "read_timeout": ("config_kwargs", "read_timeout"),
    "max_pool_connections": ("config_kwargs", "max_pool_connections"),
    "region_name": ("client_kwargs", "region_name"),
}
TEXT = {"endpoint_url", "key", "secret", "token", "username", "password", "profile", "region_name"}

_options: dict[str, dict[str, Any]] = {}  # by protocol, what `use_options` was given
_before: dict[str, dict[str, Any] | None] = {}  # by protocol, fsspec's own configuration


def use_options(options: Mapping[str, Any], protocol: str = "s3") -> None:
    """Set options of a file system for this process, in addition to those set before.

    They become fsspec's defaults (``fsspec.config.conf``), so all that opens the protocol's URLs has them. Nothing
    stores or prints them.

    Parameters
    ----------
    options : mapping of str to value
        The file system's arguments; of S3 those of ``s3fs.S3FileSystem``: ``endpoint_url``, ``anon``, ``key``,
        ``secret``, ``token``, …, further ``retries``, ``connect_timeout``, ``read_timeout``, ``max_pool_connections``,
        ``region_name``. A dot leads into an option that is itself a mapping: ``client_kwargs.verify``.
    protocol : str
        As in its URLs.
    """
    tree: dict[str, Any] = {}
    for name, value in options.items():
        keys = tuple(name.split("."))
        if protocol == "s3":
            keys = PLACES.get(name, keys)
            _check_known(keys[0])
        place = tree
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
    _before.setdefault(protocol, copy.deepcopy(fsspec.config.conf.get(protocol)))
    _merge(_options.setdefault(protocol, {}), tree)
    _merge(fsspec.config.conf.setdefault(protocol, {}), tree)


def options_in_use() -> dict[str, dict[str, Any]]:
    """By protocol, what `use_options` was given in this process: for another process of the same job."""
    return copy.deepcopy(_options)


def forget_options() -> None:
    """Take back what `use_options` has set in this process."""
    for protocol, before in _before.items():
        fsspec.config.conf.pop(protocol, None)
        if before is not None:
            fsspec.config.conf[protocol] = before
    _before.clear()
    _options.clear()


def parse_option(text: str) -> tuple[str, str, Any]:
    """Protocol, name and value of ``KEY=VALUE`` or ``PROTOCOL:KEY=VALUE``; s3 where no protocol is named.

    A value is read as JSON where it is a number, true, false, null, a list or a mapping.
    """
    name, equals, value = text.partition("=")
    protocol, colon, key = name.rpartition(":")
    if not equals or not key or (colon and not protocol):  # what was given may be a secret: not repeated
        raise StorageError("not a storage option: it has no KEY=VALUE; give, say, endpoint_url=http://host:port")
    if key.rpartition(".")[2] in TEXT or key.rpartition(".")[2].startswith("aws_"):
        return protocol or "s3", key, value
    try:
        return protocol or "s3", key, json.loads(value)
    except ValueError:
        return protocol or "s3", key, value


def _check_known(name: str) -> None:
    known = _s3_arguments()
    if name not in known:
        raise StorageError(f"unknown storage option: option={name}; s3 has {', '.join(sorted(known | set(PLACES)))}")


@functools.cache
def _s3_arguments() -> set[str]:
    import s3fs

    of_class = {
        n for n, p in inspect.signature(s3fs.S3FileSystem.__init__).parameters.items() if p.kind != p.VAR_KEYWORD
    }
    return (of_class | {"profile"}) - {"self", "session", "loop", "asynchronous"}


def _merge(into: dict[str, Any], tree: Mapping[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)
