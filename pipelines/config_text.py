"""A config as a person would write it."""

from __future__ import annotations

from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Block style with lists on one line."""


_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, True)
)


def config_yaml(config: Any) -> str:
    """YAML of plain values, in their order."""
    return str(yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=88))
