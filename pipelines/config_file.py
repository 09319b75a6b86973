"""Config from a YAML file, a preset and `--set` overrides; all mistakes at once, each by its path.

A file may start with `preset: NAME`; the rest is laid over that preset. Sections are merged key by
key, any other value (a list, the regions) is replaced whole.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lib.files import storage
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.config_mistakes import explain, switches_taken_for_numbers
from pipelines.presets import PRESETS

_MAX_CONFIG_BYTES = 1_000_000
_TAGS = ("method", "kind")
"""Keys that say which of several sections one is."""
Tree = TypeVar("Tree", bound=BaseModel)
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def load_config(path_or_preset: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of a YAML file (path or URL) or a preset.

    `overrides` are laid over it, such as `edit.strengths=[-0.1,0.1]`.

    Raises:
        ConfigProblem: names every mistake with its path, the value, and what was expected.

    """
    return load_tree(path_or_preset, overrides, RunConfig, PRESETS)


def load_tree(
    path_or_preset: str,
    overrides: Sequence[str],
    tree: type[Tree],
    presets: Mapping[str, Callable[[], Tree]],
) -> Tree:
    """The same for any config with presets of its own."""
    if path_or_preset in presets and not storage.exists(path_or_preset):
        given, origin = {"preset": path_or_preset}, f"preset {path_or_preset}"
    else:
        given, origin = read_values(path_or_preset, presets), storage.redact(path_or_preset)
    values = _over_preset(given, origin, presets)
    for override in overrides:
        _set(values, override)
    try:
        config = tree.model_validate(values)
    except ValidationError as error:
        mistakes = explain(error, values, tree)
    else:
        mistakes = switches_taken_for_numbers(config, values)
        if not mistakes:
            return config
    raise ConfigProblem("\n".join([f"{origin}: {_counted(len(mistakes))}", *mistakes]))


def read_values(path: str, presets: Collection[str] = tuple(PRESETS)) -> dict[str, Any]:
    """The keys and values of a YAML file (path or URL); `presets` are named where there is none.

    Raises:
        ConfigProblem: there is none, or it is no YAML of keys and values.
    """
    try:
        text = storage.read_bytes(path, max_bytes=_MAX_CONFIG_BYTES).decode()
    except FileNotFoundError as error:
        raise ConfigProblem(
            f"{storage.redact(path)}: expected a YAML file or a preset, found no such file;"
            f" {_preset_hint(path, presets)}"
        ) from error
    except (storage.ObjectTooLargeError, IsADirectoryError, UnicodeDecodeError) as error:
        raise ConfigProblem(
            f"{storage.redact(path)}: expected a YAML text file: {error}"
        ) from error
    values = _parse(text, storage.redact(path))
    if not isinstance(values, dict):
        raise ConfigProblem(
            f"{storage.redact(path)}: expected sections such as `input:` and `output:`,"
            f" got {_kind(values)}"
        )
    return values


class _Loader(yaml.SafeLoader):
    """Safe, and a key that is no text or is given twice is an error instead of a silent choice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                problem = "expected a text key; words such as on, off, yes and no must be quoted"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.value in seen:
                problem = f"the key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigProblem(f"{origin}:{where}: not valid YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        raise ConfigProblem(
            f"{origin}: not valid YAML: a character it does not allow, at position {error.position}"
        ) from error
    except RecursionError as error:
        raise ConfigProblem(f"{origin}: not valid YAML: nested too deeply") from error
    except ValueError as error:  # a date or number that does not exist
        raise ConfigProblem(f"{origin}: not valid YAML: {error}") from error


def _over_preset(
    given: Mapping[str, Any], origin: str, presets: Mapping[str, Callable[[], BaseModel]]
) -> dict[str, Any]:
    values = dict(given)
    if "preset" not in values:
        return values
    name = values.pop("preset")
    if not isinstance(name, str) or name not in presets:
        raise ConfigProblem(
            f"{origin}: 1 mistake\n  preset: got {name!r}; {_preset_hint(str(name), presets)}"
        )
    return _merged(presets[name](), values)


def _merged(section: BaseModel, over: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `section` with `over` laid on them; only sections are merged, key by key."""
    values: dict[str, Any] = section.model_dump(mode="json")
    for key, value in over.items():
        inner = getattr(section, key, None) if key in type(section).model_fields else None
        if isinstance(inner, BaseModel) and isinstance(value, Mapping):
            other_kind = any(
                tag in value and value[tag] != getattr(inner, tag, None) for tag in _TAGS
            )
            values[key] = dict(value) if other_kind else _merged(inner, value)
        else:
            values[key] = value
    return values


def _set(values: dict[str, Any], override: str) -> None:
    path, sign, text = override.partition("=")
    keys = path.strip().split(".")
    if not sign or not all(keys):
        raise ConfigProblem(
            f"--set {override}: expected SECTION.KEY=VALUE, such as edit.strengths=[-0.1,0.1]"
        )
    value = _parse(text, f"--set {override}")
    at = values
    for depth, key in enumerate(keys[:-1]):
        inner = at.get(key, _NOTHING)
        if not isinstance(inner, Mapping):
            raise ConfigProblem(
                f"--set {override}: {'.'.join(keys[: depth + 1])} is {inner!r}, which has no keys"
            )
        at[key] = dict(inner)
        at = at[key]
    if keys == ["discover", "method"] and at.get("method") != value:
        at.clear()  # the other method has other keys
    if keys == ["editor", "kind"] and at.get("kind") != value:
        for key in set(at) - {"name", "region"}:  # what all kinds have alike
            del at[key]
    at[keys[-1]] = value


def _preset_hint(name: str, presets: Collection[str]) -> str:
    near = difflib.get_close_matches(name, presets, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    return f"{hint}presets are {', '.join(sorted(presets))}"


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:60]!r}"


def _counted(mistakes: int) -> str:
    return "1 mistake" if mistakes == 1 else f"{mistakes} mistakes"
