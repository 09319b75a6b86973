"""How the HTML pages are rendered: of runs, libraries and trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lib.files import storage
from pipelines.number_texts import FILTERS


def rendered(template: str, /, **values: Any) -> str:
    """The page of a template of this package.

    Raises:
        jinja2.UndefinedError: the template names a value that is not among `values`.
    """
    environment = Environment(
        loader=PackageLoader("pipelines"),
        autoescape=True,  # labels, keys and messages come from other people's files
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template(template).render(values)


def write_page(root: str, page: str, plots: Mapping[str, bytes]) -> str:
    """Write report/index.html below `root`, its plots (plots/NAME -> bytes) before it; plots of an
    earlier page that this one lacks are deleted. Returns the page's path or URL.

    Raises:
        OSError: a file could not be written.
    """
    folder = storage.join(root, "report")
    for name, data in plots.items():
        storage.replace(storage.join(folder, name), data)
    for name in storage.list_names(storage.join(folder, "plots")):
        if f"plots/{name}" not in plots:
            storage.delete(storage.join(folder, "plots", name))
    index = storage.join(folder, "index.html")
    storage.replace(index, page.encode())
    return index
