"""Files for other systems, from the templates beside this module."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, values: Mapping[str, Any]) -> str:
    """The text of `template`; filters `quoted` (a YAML or JSON string) and `sh` (one shell word)
    take values of any content.
    """
    environment = Environment(
        loader=PackageLoader("cluster.submission"),
        autoescape=False,  # no HTML; every foreign text goes through a filter
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = lambda value: json.dumps(str(value))
    environment.filters["sh"] = lambda value: shlex.quote(str(value))
    return environment.get_template(template).render(values)
