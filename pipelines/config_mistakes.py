"""pydantic's errors in the words of the config file: path, value, what was expected."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipelines.config import RunConfig

_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "keys and values",
    "model_type": "a section of keys and values",
    "string_pattern_mismatch": "text that matches {pattern}",
    "too_short": "at least {min_length} in the list",
    "too_long": "at most {max_length} in the list",
}
_MAX_VALUE_CHARS = 80
_TAG_KEYS = ("method", "kind")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the file an error is."""

    path: tuple[int | str, ...]
    section: type[BaseModel]
    """The innermost section around it."""
    branches: tuple[type[BaseModel], ...] = ()
    """Where the value may be one of several sections: those."""
    branch: type[BaseModel] | None = None
    """The one that this error speaks of."""
    branch_depth: int = 0
    is_key: bool = False
    """The key itself is wrong, not its value."""
    forms: str = ""
    """What is valid, where the value may be of several plain kinds; else empty."""
    tags: tuple[str, ...] = ()
    """Values of the key by which the value is known for one of several sections."""


def explain(
    error: ValidationError, values: Mapping[str, Any], tree: type[BaseModel] = RunConfig
) -> list[str]:
    """One line a mistake, sorted by path, for the values that were validated as a `tree`."""
    found: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        place = _locate(detail["loc"], tree)
        if place.branches and place.branch is not None:
            value: Any = values
            for step in place.path[: place.branch_depth]:
                value = value[step]
            if place.branch is not _nearest_branch(value, place.branches):
                continue
        path, sentence = ".".join(map(str, place.path)), _sentence(detail, place)
        if not path and detail["type"] == "value_error":
            # Such a check is about several sections, and its sentence begins with the path.
            path, _, sentence = detail["msg"].removeprefix("Value error, ").partition(": ")
        found.setdefault(path, f"  {path or 'whole config'}: {sentence}")
    return [found[path] for path in sorted(found)]


def switches_taken_for_numbers(config: BaseModel, values: Mapping[str, Any]) -> list[str]:
    """`true` where a number is expected: YAML's `yes` and `on` would silently become 1."""
    return [
        f"  {path}: got {'true' if given else 'false'}, expected a number"
        for path, given, taken in _leaves(config.model_dump(), values, "")
        if isinstance(given, bool) and not isinstance(taken, bool)
    ]


def _leaves(taken: Any, given: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(given, Mapping) and isinstance(taken, Mapping):
        for key, value in given.items():
            yield from _leaves(taken.get(key), value, f"{path}.{key}" if path else str(key))
    elif isinstance(given, list | tuple) and isinstance(taken, list | tuple):
        for position, (one, other) in enumerate(zip(taken, given, strict=False)):
            yield from _leaves(one, other, f"{path}.{position}")
    else:
        yield path, given, taken


def _locate(loc: Sequence[int | str], tree: type[BaseModel]) -> _Place:
    """Follow pydantic's location through the types; unlike the file it names union branches."""
    kind: Any = tree
    path: list[int | str] = []
    section = tree
    branches: tuple[type[BaseModel], ...] = ()
    branch: type[BaseModel] | None = None
    depth = 0
    for step in loc:
        options = _options(kind)
        if step == "[key]":
            return _Place(tuple(path), section, is_key=True)
        if _is_union(kind) and not options:
            # pydantic goes on with the name of one of the kinds that were tried
            return _Place(tuple(path), section, branches, branch, depth, forms=_forms(kind))
        if options:
            kind = branch = next(o for o in options if _is_branch(o, str(step)))
            depth, section = len(path), kind
            branches = () if _tag_key(kind) else options
            continue
        path.append(step)
        if _is_section(kind):
            section = kind
            kind = _annotation(kind, str(step))
        elif get_origin(kind) in (dict, tuple):
            kind = get_args(kind)[1 if get_origin(kind) is dict else 0]
            plain = get_args(kind)[0] if get_origin(kind) is Annotated else None
            kind = plain if _is_union(plain) else kind
        else:
            kind = None
        if _is_section(kind):
            section = kind if step is not loc[-1] else section
    return _Place(tuple(path), section, branches, branch, depth, tags=_tags(_options(kind)))


def _annotation(section: type[BaseModel], key: str) -> Any:
    fields = section.model_fields.items()
    return next((field.annotation for n, field in fields if (field.alias or n) == key), None)


def _keys(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def _options(kind: Any) -> tuple[type[BaseModel], ...]:
    if not _is_union(kind):
        return ()
    return tuple(each for each in get_args(kind) if _is_section(each))


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _forms(kind: Any) -> str:
    """What a union of plain kinds takes, in words."""
    words: list[str] = []
    for each in get_args(kind):
        plain = get_args(each)[0] if get_origin(each) is Annotated else each
        if get_origin(plain) is Literal:
            words += map(str, get_args(plain))
        elif plain is int:
            words.append("a whole number from 1" if plain is not each else "a whole number")
        elif plain is float:
            words.append("a number" + _between(each))
        elif get_origin(plain) is tuple:
            words.append("a list of lists" if get_origin(get_args(plain)[0]) else "a list")
        elif get_origin(plain) is dict:
            words.append("keys and values")
        elif plain is str:
            words.append("text")
    return " or ".join(words)


def _between(kind: Any) -> str:
    """The bounds of a number, in words; empty without two."""
    rules = [rule for field in get_args(kind)[1:] for rule in field.metadata]
    low = next((rule.ge for rule in rules if hasattr(rule, "ge")), None)
    high = next((rule.le for rule in rules if hasattr(rule, "le")), None)
    return "" if low is None or high is None else f" from {low:g} to {high:g}"


def _is_branch(option: type[BaseModel], step: str) -> bool:
    """pydantic writes a discriminator's value, `ClassName` or `function-after[..., ClassName]`."""
    if _tag_key(option):
        return step in _tags([option])
    return step == option.__name__ or step.endswith(f" {option.__name__}]")


def _tag_key(option: type[BaseModel]) -> str:
    """The key by which the section is known among others; empty if it is known by its keys."""
    return next((key for key in _TAG_KEYS if key in option.model_fields), "")


def _tags(options: Sequence[type[BaseModel]]) -> tuple[str, ...]:
    fields = [option.model_fields.get(_tag_key(option)) for option in options]
    return tuple(str(get_args(f.annotation)[0]) for f in fields if f is not None)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _nearest_branch(value: Any, branches: Sequence[type[BaseModel]]) -> type[BaseModel]:
    """The section whose keys resemble the given ones most; the first if none do."""
    given = [str(key) for key in value] if isinstance(value, Mapping) else []

    def likeness(branch: type[BaseModel]) -> float:
        return sum(
            max(difflib.SequenceMatcher(None, one, other).ratio() for other in _keys(branch))
            for one in given
        )

    return max(branches, key=likeness)


def _sentence(detail: ErrorDetails, place: _Place) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if place.is_key:
        return (
            f"got the name {_shown(detail['input'])}, expected a letter, then letters, digits,"
            " _ or -, at most 64"
        )
    if kind == "extra_forbidden":
        return _unknown_key(str(place.path[-1]), _keys(place.section))
    if kind == "missing":
        return "is missing, and is required"
    key = str(context.get("discriminator")).strip("'")
    if kind == "union_tag_invalid":
        return f"got {key} {_shown(context['tag'])}, expected {context['expected_tags']}"
    if kind == "union_tag_not_found":
        tags = ", ".join(place.tags)
        return f"got {_shown(detail['input'])}, expected a key `{key}`: one of {tags}"
    if kind == "model_type" and place.branches and len(place.path) == place.branch_depth:
        forms = dict.fromkeys(f"{{{_keys(each)[0]}: ...}}" for each in place.branches)
        return f"got {_shown(detail['input'])}, expected {' or '.join(forms)}"
    if place.forms:
        return f"got {_shown(detail['input'])}, expected {place.forms}"
    expected = _EXPECTED.get(kind, "").format(**context) or detail["msg"]
    for beginning in ("Value error, ", "Input should be ", "Input should ", "expected "):
        expected = expected.removeprefix(beginning)
    return f"got {_shown(detail['input'])}, expected {expected}"


def _unknown_key(key: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`? " if near else ""
    return f"unknown key; {hint}valid keys here: {', '.join(valid)}"


def _shown(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[: _MAX_VALUE_CHARS - 3]}..."
