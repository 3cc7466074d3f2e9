"""One configuration: a preset's name or a YAML file in, a frozen and typed tree of settings out.

A YAML file names the preset it starts from (``base: sample`` or ``base: paper``), then its own values, by dotted
keys or nested. The numbers themselves stand in `birdlib.settings`.
"""

from __future__ import annotations

import difflib
import functools
import operator
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from birdlib.settings import PRESETS, Config
from birdlib.settings_tuning import SEARCHABLE, Range, Space


class ConfigError(ValueError):
    """A setting that cannot be used: what it is, where it stands and what to write instead."""


def load(name_or_file: str | Path = "paper", overrides: Mapping[str, Any] | str | None = None) -> Config:
    """Settings from a preset's name or a YAML file, with overrides on top.

    Parameters
    ----------
    name_or_file : "sample", "paper", or the path of a YAML file that has a line ``base: sample`` or ``base: paper``.
    overrides : dotted keys to values, such as ``{"phase_2.learning_rate": "3e-5"}``; nested mappings and YAML text
        are taken too. A text value is converted by the type of its field.

    Raises
    ------
    ConfigError
        for an unknown preset or key (the nearest known one is named), a value that does not fit, or a file that
        cannot be read.
    """
    if str(name_or_file) in PRESETS:
        return _override(_override(Config(), PRESETS[str(name_or_file)], "preset"), mapping(overrides), "overrides")
    path = Path(name_or_file)
    if not path.is_file():
        raise ConfigError(f"config {str(name_or_file)!r} is neither a preset ({', '.join(PRESETS)}) nor a file")
    values = mapping(_read(path), str(path))
    base = values.pop("base", None)
    if base not in PRESETS:
        raise ConfigError(f"{path}: write which preset it starts from, 'base: sample' or 'base: paper'")
    return _override(_override(load(base), values, str(path)), mapping(overrides), "overrides")


def override(config: Config, values: Mapping[str, Any]) -> Config:
    """`config` with some dotted keys changed. Raises `ConfigError` as `load` does."""
    return _override(config, values, "overrides")


def dump(config: Config) -> str:
    """The whole of the settings as YAML that `load` reads back to an equal tree."""
    return yaml.safe_dump({"base": "paper", **config.model_dump(mode="json")}, sort_keys=False)


def nearest(config: Config) -> tuple[str, dict[str, Any]]:
    """The preset with the fewest differences, and these: dotted key -> value, as JSON and YAML can hold it."""
    found = {name: changed(load(name), config) for name in PRESETS}
    base = min(found, key=lambda name: len(found[name]))
    plain = config.model_dump(mode="json")
    return base, {key: functools.reduce(operator.getitem, key.split("."), plain) for key in found[base]}


def brief(config: Config) -> str:
    """The settings as YAML that `load` reads back to an equal tree: a preset's name, and what differs from it."""
    base, values = nearest(config)
    return yaml.safe_dump({"base": base, **values}, sort_keys=False)


def keys(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every dotted key there is, such as ``phase_1.learning_rate``."""
    found = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        is_section = isinstance(inner, type) and issubclass(inner, BaseModel)
        found += keys(inner, f"{prefix}{name}.") if is_section else [prefix + name]
    return found


def changed(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """The dotted keys whose values differ, each with both values."""
    pairs = ((key, value(one, key), value(other, key)) for key in keys())
    return {key: (old, new) for key, old, new in pairs if old != new}


def value(config: Config, key: str) -> Any:
    """What a dotted key holds."""
    for part in key.split("."):
        config = getattr(config, part)
    return config


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None


def mapping(values: Mapping[str, Any] | str | None, where: str = "overrides") -> dict[str, Any]:
    """`values` (a mapping, YAML text of one, or nothing) as a plain dictionary.

    Raises
    ------
    ConfigError
        if it is neither; `where` says in the message what was read.
    """
    if isinstance(values, str):
        try:
            values = yaml.safe_load(values)
        except yaml.YAMLError as error:
            raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected keys with values, found {values!r}")
    return dict(values)


def _override(config: Config, values: Mapping[str, Any], where: str) -> Config:
    tree, given = config.model_dump(), flat(values)
    for key, value in given:
        annotation = _annotation(key, where)
        *parents, leaf = key.split(".")
        branch = tree
        for part in parents:
            branch = branch[part]
        branch[leaf] = _converted(value, annotation)
    try:
        settled = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_in_words(error)}") from None
    for stage in SEARCHABLE:
        if f"tuning.stage_{stage}" in dict(given):
            space(settled, stage, where)
    return settled


def space(config: Config, stage: int, where: str = "settings") -> Space:
    """What a stage of the tuning searches: dotted key -> its choices, or a range, with values of the key's type.

    Raises
    ------
    ConfigError
        for a key that does not exist or that the stage's trials may not change, or a value that the key cannot have.
    """
    found: Space = {}
    for key, values in getattr(config.tuning, f"stage_{stage}").items():
        here = f"{where}: tuning.stage_{stage}"
        _annotation(key, here)
        if not any(key == one or key.startswith(f"{one}.") for one in SEARCHABLE[stage]):
            raise ConfigError(f"{here}: {key} cannot be searched there, only {', '.join(SEARCHABLE[stage])}")
        is_range = isinstance(values, Range)
        tried = (values.low, values.high) if is_range else values
        taken = tuple(value(_override(config, {key: one}, here), key) for one in tried)
        if is_range and not all(isinstance(one, int | float) and not isinstance(one, bool) for one in taken):
            raise ConfigError(f"{here}: {key} is not a number, so it has no range: list the choices")
        if len(set(taken)) < len(taken):
            raise ConfigError(f"{here}: {key} names a choice twice")
        found[key] = Range(low=taken[0], high=taken[1], log=values.log) if is_range else taken
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested values as (dotted key, value); what is dotted already stays."""
    pairs = []
    for key, value in values.items():
        # A space of the tuning is a value itself, whose keys are dotted settings.
        inner = isinstance(value, Mapping) and f"{prefix}{key}" not in keys()
        pairs += flat(value, f"{prefix}{key}.") if inner else [(f"{prefix}{key}", value)]
    return pairs


def _annotation(key: str, where: str) -> Any:
    known = keys()
    if key not in known:
        sections = [one for one in known if one.startswith(key + ".")]
        near = difflib.get_close_matches(key, known, 1, 0.6) or [
            one for one in known if difflib.get_close_matches(key.split(".")[-1], [one.split(".")[-1]], 1, 0.7)
        ]
        hint = (
            f"it holds {', '.join(sections)}"
            if sections
            else f"did you mean {near[0]!r}?"
            if near
            else "see config.keys()"
        )
        raise ConfigError(f"{where}: {'not a single setting' if sections else 'unknown key'} {key!r}; {hint}")
    model: type[BaseModel] = Config
    *parents, leaf = key.split(".")
    for part in parents:
        model = typing.cast(type[BaseModel], model.model_fields[part].annotation)
    return model.model_fields[leaf].annotation


def _converted(value: Any, annotation: Any) -> Any:
    """Text as the value its field wants; pydantic does the numbers ("3e-5" is text to YAML, a float to a field)."""
    if not isinstance(value, str):
        return value
    if type(None) in typing.get_args(annotation) and value.strip().lower() in {"", "null", "none", "~"}:
        return None
    kind, text = typing.get_origin(annotation), value.strip()
    if kind in (tuple, dict):
        try:
            return yaml.safe_load(f"[{text}]" if kind is tuple and not text.startswith("[") else text)
        except yaml.YAMLError:
            return value  # pydantic says what it should be
    return value


def _in_words(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(part for part in problem["loc"] if isinstance(part, str))  # without the place in a list
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{where}={problem['input']!r}: {message}" if where in keys() else message)
    return "; ".join(lines)
