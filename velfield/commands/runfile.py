"""Run files: one TOML that says what a run is, a section for each verb, keys as the verb's long options.

``--config FILE`` reads the verb's section into click's default map, so that what is given on the command line wins and
what the file leaves out has its usual default. The whole file is checked against the options of all verbs, before
anything runs. A bare name finds a file that comes with velfield. Nothing that opens a door belongs into one.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from typing import Any

import click

from velfield.errors import VelfieldError
from velfield.files import storage

SHIPPED = "velfield.pipelines"
SCHEMA_DIALECT = "http://json-schema.org/draft-07/schema#"  # the one that editors' TOML tools know
TYPES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
}
SPOKEN = {"boolean": "true or false", "integer": "a whole number", "number": "a number", "string": "a text"}
_NAME = re.compile(r"[a-z][a-z0-9.-]*")
_SECRET = re.compile(r"secret|passw|token|credential|access_?key|api_?key|private_?key|(^|\.)key$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"://[^/@]*:[^/@]*@|\bA[KS]IA[0-9A-Z]{16}\b|-----BEGIN")


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--config`` to a verb."""
    return click.option(
        "--config",
        cls=ConfigOption,
        metavar="FILE",
        is_eager=True,  # before the options that it gives defaults to
        expose_value=False,
        callback=_read_into_defaults,
        help=f"Run file: a section for each verb, docs/runfile.md. Shipped: {', '.join(shipped())}.",
    )(command)


class ConfigOption(click.Option):
    """``--config``; its class tells which verbs have one."""


def shipped() -> list[str]:
    """Names of the run files that come with velfield."""
    return sorted(
        item.name.removesuffix(".toml") for item in resources.files(SHIPPED).iterdir() if item.name.endswith(".toml")
    )


def section(name: str, verb: str, verbs: Mapping[str, click.Command]) -> dict[str, Any]:
    """What a run file says for a verb, by click's parameter names; the whole file is checked.

    Parameters
    ----------
    name : str
        Path or URL of a TOML file, or the bare name of one that comes with velfield.
    verb : str
        The section that is wanted.
    verbs : mapping
        The command line's verbs, by name.
    """
    document = _read(name)
    known = takers(verbs)
    values: dict[str, Any] = {}
    for title, entries in document.items():
        if not isinstance(entries, dict):
            raise VelfieldError(f"a key outside of a section: file={name}, key={title}; put it beneath [{verb}]")
        if title not in known:
            raise VelfieldError(f"no such section: file={name}, section={title}; {_choose(title, known)}")
        options = options_of(known[title])
        for key, value in entries.items():
            where = f"file={name}, section={title}, key={key}"
            _refuse_secrets(where, key, value)
            if key not in options:
                raise VelfieldError(f"no such key: {where}; {_choose(key, options)}")
            checked = _checked(where, options[key], value)
            if title == verb:
                values[str(options[key].name)] = checked
    if verb not in document:
        raise VelfieldError(f"no section for this verb: file={name}, section={verb}; it has {', '.join(document)}")
    return values


def takers(verbs: Mapping[str, click.Command]) -> dict[str, click.Command]:
    """The verbs that take run files."""
    return {name: verb for name, verb in verbs.items() if any(isinstance(p, ConfigOption) for p in verb.params)}


def options_of(verb: click.Command) -> dict[str, click.Option]:
    """A verb's options by their keys in a run file."""
    return {
        max(option.opts, key=len).removeprefix("--").replace("-", "_"): option
        for option in verb.params
        if isinstance(option, click.Option) and not isinstance(option, ConfigOption)
    }


def given_instead(context: click.Context, one: str, other: str) -> bool:
    """Whether ``one`` was given on the command line and ``other`` in the run file: then the file's does not count."""
    sources = [context.get_parameter_source(name) for name in (one, other)]
    return sources == [click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.DEFAULT_MAP]


def schema(verbs: Mapping[str, click.Command]) -> dict[str, Any]:
    """The JSON schema of run files, for editors."""
    sections = {
        name: {
            "type": "object",
            "description": (verb.help or "").partition("\n")[0],
            "additionalProperties": False,
            "properties": {key: _schema_of(option) for key, option in sorted(options_of(verb).items())},
        }
        for name, verb in sorted(takers(verbs).items())
    }
    return {
        "$schema": SCHEMA_DIALECT,
        "title": "velfield run file",
        "description": "A section for each verb; keys are its long options, with underscores.",
        "type": "object",
        "additionalProperties": False,
        "properties": sections,
    }


def _read_into_defaults(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is None or context.resilient_parsing:
        return
    root = context.find_root().command
    verbs = root.commands if isinstance(root, click.Group) else {}
    context.default_map = {**(context.default_map or {}), **section(value, str(context.command.name), verbs)}


def _read(name: str) -> dict[str, Any]:
    packaged = resources.files(SHIPPED).joinpath(f"{name}.toml")
    if _NAME.fullmatch(name) and packaged.is_file():
        data = packaged.read_bytes()
    else:
        try:
            data = storage.read_bytes(name)
        except (FileNotFoundError, IsADirectoryError) as error:
            names = dict.fromkeys(shipped())
            raise VelfieldError(
                f"no such run file: config={name}; give a path or URL, or {_choose(name, names)}"
            ) from error
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise VelfieldError(f"the run file is no TOML: file={name}, reason={error}; mend it there") from error


def _checked(where: str, option: click.Option, value: Any) -> Any:
    """A value as click wants it; refuses what the option would refuse, and what it would quietly change."""
    if option.multiple:
        if isinstance(value, dict) and _takes_pairs(option):
            value = list(_pairs(where, value))
        items = value if isinstance(value, list) else [value]
        return [_one(where, option, item) for item in items]
    return _one(where, option, value)


def _one(where: str, option: click.Option, value: Any) -> Any:
    wanted = _schema_of(option, single=True)
    if type(value) not in TYPES[wanted["type"]]:  # True is no number here
        if "enum" in wanted:
            raise VelfieldError(f"not one of the choices: {where}, value={value!r}; choose {_listed(wanted['enum'])}")
        raise VelfieldError(f"a value of the wrong type: {where}, value={value!r}; give {SPOKEN[wanted['type']]}")
    if "enum" in wanted and value not in wanted["enum"]:
        near = difflib.get_close_matches(value, wanted["enum"], 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise VelfieldError(f"not one of the choices: {where}, value={value!r}; {hint}choose {_listed(wanted['enum'])}")
    try:
        return option.type.convert(value, option, None)
    except click.UsageError as error:
        raise VelfieldError(f"a value that is refused: {where}, value={value!r}; {error.message}") from error


def _takes_pairs(option: click.Option) -> bool:
    return "=" in (option.metavar or "")


def _pairs(where: str, table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """A table as the key=value items that the command line takes; deeper tables have dots in their keys."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _pairs(where, value, f"{prefix}{key}.")
        elif isinstance(value, list):
            raise VelfieldError(f"a list within a table: {where}.{prefix}{key}, value={value!r}; give single values")
        else:
            yield f"{prefix}{key}={json.dumps(value) if isinstance(value, bool) else value}"


def _refuse_secrets(where: str, path: str, value: Any) -> None:
    """A run file is kept, shared and committed: nothing that opens a door may be in it."""
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_secrets(where, f"{path}.{key}", item)
    elif isinstance(value, list):
        for item in value:
            _refuse_secrets(where, path, item)
    name = value.partition("=")[0] if isinstance(value, str) and "=" in value else ""
    if _SECRET.search(path) or _SECRET.search(name) or (isinstance(value, str) and _SECRET_VALUE.search(value)):
        raise VelfieldError(
            f"a secret in a run file: {where}, at={path if not name else f'{path}.{name}'}; "
            "take it out of the file, and give it in the environment"
        )


def _schema_of(option: click.Option, *, single: bool = False) -> dict[str, Any]:
    kind = option.type
    about: dict[str, Any]
    if option.is_flag or isinstance(kind, click.types.BoolParamType):
        about = {"type": "boolean"}
    elif isinstance(kind, click.Choice):
        about = {"type": "string", "enum": list(kind.choices)}
    elif isinstance(kind, click.types.IntParamType):
        about = {"type": "integer"}
    elif isinstance(kind, click.types.FloatParamType):
        about = {"type": "number"}
    else:
        about = {"type": "string"}
    if isinstance(kind, click.IntRange | click.FloatRange):
        about |= {k: v for k, v in (("minimum", kind.min), ("maximum", kind.max)) if v is not None}
    if single:
        return about
    default = option.to_info_dict()["default"]
    if option.multiple:
        table = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "object"]}}
        about = {"anyOf": [about, {"type": "array", "items": about}, *([table] if _takes_pairs(option) else [])]}
    if option.help:
        about["description"] = option.help
    if isinstance(default, bool | int | float | str | tuple | list):
        about["default"] = list(default) if isinstance(default, tuple) else default
    return about


def _choose(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"{f'did you mean {near[0]}? ' if near else ''}choose {_listed(known)}"


def _listed(names: Any) -> str:
    return ", ".join(map(str, names))
