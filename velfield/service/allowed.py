"""Places that clients may name: those beneath the prefixes that the service was started with, and no others.

Only this machine's folders and object stores can be allowed: an HTTP server may redirect to anywhere.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from velfield.errors import VelfieldError
from velfield.files import shards, storage
from velfield.service.problems import Problem
from velfield.stores import store

ID = re.compile(r"[0-9a-f]{16}")  # of a store
LONGEST = 1024  # characters of a URL
LISTED = 200  # stores beneath a prefix
FRESH = 30.0  # how long a listing is taken for true [s]
SCHEMES = ("file", "s3", "s3a", "gs", "gcs", "abfs", "az")
PART = re.compile(r"[A-Za-z0-9_+=,~-][A-Za-z0-9_+=,~.-]*")  # of a path: no dot first, so neither .. nor what is hidden
KINDS = ("fields", "velocity")
TOLD = ("redshift", "boxsize", "boxes", "cells", "cellsize", "margin", "rsd", "min_mass", "periodic")


class Allowed:
    """The allow-list."""

    def __init__(self, prefixes: Sequence[str]) -> None:
        self.prefixes = tuple(_prefix(url) for url in prefixes)
        self._listing: tuple[float, list[dict[str, Any]]] = (-FRESH, [])
        self._lock = threading.Lock()

    def missing(self) -> list[str]:
        """Prefixes on this machine where nothing is."""
        return [place for place in self.prefixes if storage.is_local(place) and not os.path.exists(place)]

    def resolve(self, url: str) -> str:
        """The place that a client means; refuses all that is not plainly beneath an allowed prefix."""
        place = normalised(url)
        for prefix in self.prefixes if place else ():
            beneath = place == prefix or str(place).startswith(prefix + "/")
            if beneath and (not storage.is_local(prefix) or _inside(str(place), prefix)):
                return str(place)
        raise Problem(
            422,
            "not a place that this service may read",
            "name a store of GET /stores, or upload a cube to POST /uploads",
        )

    def stores(self) -> list[dict[str, Any]]:
        """The stores that may be named: at the prefixes and right beneath them."""
        with self._lock:
            then, found = self._listing
            if time.monotonic() - then > FRESH:
                found = [about for prefix in self.prefixes for about in _listed(prefix)]
                self._listing = (time.monotonic(), found)
            return found

    def store(self, name: str) -> dict[str, Any]:
        """One of `stores` by its id; 404 where there is none."""
        for about in self.stores():
            if about["id"] == name:
                return about
        raise Problem(404, "no such store", "see GET /stores")

    def input_of(self, about: dict[str, Any]) -> str | None:
        """The field store of `stores` that a velocity store was predicted from, by its fingerprint."""
        for one in self.stores():
            if one["kind"] == "fields" and one["fingerprint"] and one["fingerprint"] == about["fingerprint"]:
                return str(one["url"])
        return None


def normalised(url: str) -> str | None:
    """A URL as ``scheme://host/a/b`` or ``/a/b``; None for one that could mean something else than it shows."""
    if len(url) > LONGEST or not url.isascii() or not url.isprintable() or set(url) & set("\\%?#@ :*[]") - {":"}:
        return None
    scheme, there, rest = url.partition("://")
    if not there:
        scheme, rest = "file", url
    if scheme not in SCHEMES or ":" in rest:
        return None
    if scheme == "file":
        if not rest.startswith("/"):
            return None
        rest = rest[1:]
    parts = rest.removesuffix("/").split("/")
    if not all(PART.fullmatch(part) for part in parts):
        return None
    return "/" + "/".join(parts) if scheme == "file" else f"{scheme}://" + "/".join(parts)


def _prefix(url: str) -> str:
    """A prefix as an operator gives it: a relative path is this folder's, symbolic links are followed."""
    if storage.is_local(url):
        url = os.path.realpath(storage.filesystem(url)[1])
    place = normalised(url)
    if place is None:
        raise VelfieldError(
            f"not a place that can be allowed: allow={url}; give a folder without dots and signs, or s3://bucket/folder"
        )
    return place


def _inside(place: str, prefix: str) -> bool:
    """Whether a local place lies beneath the prefix with all symbolic links followed."""
    real = os.path.realpath(place)
    return real == prefix or real.startswith(prefix + os.sep)


def _listed(prefix: str) -> list[dict[str, Any]]:
    if shards.published(prefix):
        return _about(prefix)
    names = [name for name in storage.names(prefix) if PART.fullmatch(name)][:LISTED]
    return [about for name in names for about in _about(storage.join(prefix, name))]


def _about(url: str) -> list[dict[str, Any]]:
    """What a field store or a velocity store says of itself; nothing if there is none."""
    try:
        attrs = store.attributes(url) if shards.published(url) else {}
    except (OSError, ValueError, VelfieldError):
        return []
    kind = attrs.get("velfield_kind")
    if kind not in KINDS:
        return []
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    fields = attrs.get("fingerprint" if kind == "fields" else "input_fingerprint")  # of what velocities are made of
    told = {name: attrs[name] for name in TOLD if name in attrs}
    return [{"id": name, "url": url, "kind": kind, "fingerprint": fields, "changed": _changed(url), **told}]


def _changed(url: str) -> datetime | None:
    """When a store was finished; None where its file system does not say."""
    fs, path = storage.filesystem(storage.join(url, shards.ROOT))
    try:
        then = fs.modified(path)
    except (OSError, NotImplementedError):
        return None
    return then if then.tzinfo else then.replace(tzinfo=UTC)
