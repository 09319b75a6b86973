"""How large many objects are, without asking for each: a listing of their folder says it of a
thousand at once.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

from lib.files.retries import ask
from lib.files.storage import basename
from lib.files.store_backends import local_path


def listed_sizes(urls: Iterable[str]) -> dict[str, int]:
    """URL -> bytes, of those of `urls` that are there: a look at every local file, one listing of
    every folder of a store.

    Raises:
        OSError: a folder of a store cannot be listed, now or after a while.
    """
    found: dict[str, int] = {}
    folders: dict[str, dict[str, str]] = defaultdict(dict)
    for url in urls:
        path = local_path(url)
        if path is None:
            folders[url.rpartition("/")[0]][basename(url)] = url
        elif os.path.isfile(path):
            found[url] = os.stat(path).st_size
    for folder, wanted in folders.items():
        with suppress(FileNotFoundError):
            for entry in ask(folder, lambda fs, path: list(fs.ls(path, detail=True))):
                name = basename(entry["name"])
                if name in wanted and entry["type"] != "directory":
                    found[wanted[name]] = int(entry["size"] or 0)
    return found
