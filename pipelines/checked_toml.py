"""TOML files of ours, checked: a key that is not known, or a value of the wrong type, is refused with file and key."""

from __future__ import annotations

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from typing import Any

from velfield.errors import VelfieldError
from velfield.files import storage

PACKAGE, FOLDER = "velfield.pipelines", "experiments"
SCALES = "scales"  # lies beside the experiments and is none
SPOKEN = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a table",
}
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


def shipped() -> list[str]:
    """Names of the experiments that come with velfield."""
    names = [item.name for item in resources.files(PACKAGE).joinpath(FOLDER).iterdir()]
    return sorted(n.removesuffix(".toml") for n in names if n.endswith(".toml") and n != f"{SCALES}.toml")


def read(name: str, what: str = "experiment") -> tuple[str, dict[str, Any]]:
    """The bare name of a file, which becomes the names of folders, and what is in it.

    ``name`` is the bare name of a file that comes with velfield, or a path or URL.
    """
    packaged = resources.files(PACKAGE).joinpath(FOLDER, f"{name}.toml")
    bare = name.rstrip("/").rpartition("/")[2].removesuffix(".toml")
    if _NAME.fullmatch(name) and (name != SCALES or what == "scales") and packaged.is_file():
        data = packaged.read_bytes()
    else:
        try:
            data = storage.read_bytes(name)
        except (FileNotFoundError, IsADirectoryError) as error:
            instead = choose(name, shipped()) if what == "experiment" else f"leave --{what} out"
            raise VelfieldError(f"no such {what}: name={name}; give a path or URL of its file, or {instead}") from error
    if not _NAME.fullmatch(bare):
        raise VelfieldError(
            f"a name that folders cannot have: file={name}, name={bare}; use small letters, digits, dots and hyphens"
        )
    try:
        return bare, tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise VelfieldError(f"the file is no TOML: file={name}, reason={error}; mend it there") from error


def checked(where: str, table: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    """The table's values as Python has them: each key one of ``hints``, each value of its type; lists become tuples."""
    return {key: _value(f"{where}, key={key}", value, _hint(where, key, hints)) for key, value in table.items()}


def need(where: str, table: Mapping[str, Any], *keys: str) -> None:
    """Refuse a table without these keys."""
    for key in keys:
        if key not in table:
            raise VelfieldError(f"a key is missing: {where}, key={key}; add it")


def one_of(where: str, values: Iterable[Any], known: Iterable[Any]) -> None:
    """Refuse values that are not among the known ones."""
    names = list(known)
    for value in values:
        if value not in names:
            raise VelfieldError(f"not one of the choices: {where}, value={value!r}; {choose(str(value), names)}")


@contextmanager
def said_of(where: str) -> Iterator[None]:
    """Say of errors within where in the file they come from."""
    try:
        yield
    except VelfieldError as error:
        what, _, instead = str(error).partition("; ")
        raise VelfieldError(f"{what}, {where}; {instead}") from error


def choose(name: str, known: Iterable[str]) -> str:
    """The end of an error: what there is, and what may have been meant."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    return f"{f'did you mean {near[0]}? ' if near else ''}choose {', '.join(names)}"


def _hint(where: str, key: str, hints: Mapping[str, Any]) -> Any:
    if key not in hints:
        raise VelfieldError(f"no such key: {where}, key={key}; {choose(key, hints)}")
    return hints[key]


def _value(where: str, value: Any, hint: Any) -> Any:
    kind, of = _kinds(hint)
    if not _is(value, kind) or (of is not None and not all(_is(item, of) for item in value)):
        wanted = SPOKEN[kind] + (f", each of its items {SPOKEN[of]}" if of is not None else "")
        raise VelfieldError(f"a value of the wrong type: {where}, value={value!r}; give {wanted}")
    if kind is list:
        return tuple(float(item) for item in value) if of is float else tuple(value)
    return float(value) if kind is float else value


def _is(value: Any, kind: Any) -> bool:
    return type(value) is kind or (kind is float and type(value) is int)  # True is no number here


def _kinds(hint: Any) -> tuple[Any, Any]:
    """The type that TOML must give for a hint, and that of a list's items where they have one."""
    if isinstance(hint, types.UnionType):
        (hint,) = (one for one in typing.get_args(hint) if one is not types.NoneType)
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return str, None
    if origin is tuple:
        return list, typing.get_args(hint)[0]
    return hint, None
