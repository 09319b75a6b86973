"""Names that a person gives to the clusters of a region model: a small JSON beside it.

A name holds several clusters. The file says which model it names, because a model that is made
again may number its clusters anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from lib.discovery.statistics_files import StatisticsDamageError
from lib.files import storage
from lib.ledger.merged_regions import FILE_NAME
from lib.masks.cluster_files import RegionModel, decode_model
from lib.problems import ConfigProblem

_ENDING = ".safetensors"


@dataclass(frozen=True, slots=True)
class NamedRegions:
    """A region model with its names."""

    url: str
    sha256: str
    """Of the model's file."""
    model: RegionModel
    names: Mapping[int, str]
    """Cluster -> name, where it has one; ascending."""

    @property
    def by_name(self) -> dict[str, tuple[int, ...]]:
        """Name -> its clusters."""
        names = sorted(set(self.names.values()))
        return {name: tuple(k for k, v in self.names.items() if v == name) for name in names}

    def resolved(self, labels: Sequence[int | str]) -> tuple[int, ...]:
        """The clusters that numbers and names mean, ascending.

        Raises:
            ConfigProblem: there is no such cluster or name.
        """
        found: set[int] = set()
        for label in labels:
            if isinstance(label, int) or (label.isdigit() and label not in self.by_name):
                number = int(label)
                if not 0 <= number < self.model.clusters:
                    raise ConfigProblem(
                        f"{storage.redact(self.url)}: expected a cluster below"
                        f" {self.model.clusters}, got {label}"
                    )
                found.add(number)
            elif label in self.by_name:
                found.update(self.by_name[label])
            else:
                nearest = get_close_matches(label, self.by_name, n=1, cutoff=0.5)
                hint = f"did you mean {nearest[0]!r}? " if nearest else ""
                raise ConfigProblem(
                    f"{storage.redact(self.url)}: expected a name of a region, which are"
                    f" {sorted(self.by_name) or 'none yet'}, or a cluster's number, got {label!r};"
                    f" {hint}give names with `deltah regions name`"
                )
        return tuple(sorted(found))


def read_regions(path: str) -> NamedRegions:
    """The region model of a run folder, or in a file of its own, with its names.

    Raises:
        ConfigProblem: there is none, it is damaged, or its names are of another model.
    """
    url = path if path.endswith(_ENDING) else storage.join(path, "merged", FILE_NAME)
    where = storage.redact(url)
    try:
        data = storage.read_bytes(url)
        model = decode_model(data, where)
    except FileNotFoundError as error:
        raise ConfigProblem(
            f"{where}: expected a region model, found none; make one with `pipeline: region_model`,"
            " and let that run come to its end"
        ) from error
    except StatisticsDamageError as error:
        raise ConfigProblem(str(error)) from error
    sha256 = hashlib.sha256(data).hexdigest()
    return NamedRegions(url, sha256, model, _names(url, sha256))


def write_names(regions: NamedRegions, names: Mapping[int, str]) -> NamedRegions:
    """Add names to those that are there; an empty one takes the old one away.

    Raises:
        ConfigProblem: there is no such cluster.
    """
    regions.resolved(sorted(names))
    now = {k: v for k, v in sorted({**regions.names, **names}.items()) if v}
    content = {"model": regions.sha256, "names": {str(k): v for k, v in now.items()}}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    storage.replace(names_url(regions.url), text.encode())
    return NamedRegions(regions.url, regions.sha256, regions.model, now)


def names_url(url: str) -> str:
    """Where the names of the model at `url` lie."""
    return f"{url.removesuffix(_ENDING)}.names.json"


def _names(url: str, sha256: str) -> dict[int, str]:
    where = names_url(url)
    try:
        content = json.loads(storage.read_bytes(where))
        names = {int(k): str(v) for k, v in content["names"].items()}
        model = content["model"]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigProblem(
            f"{storage.redact(where)}: expected names as `deltah regions name` writes them: {error}"
        ) from error
    if model != sha256:
        raise ConfigProblem(
            f"{storage.redact(where)} names the regions of another model than"
            f" {storage.redact(url)}, which has been made again since; look at it with `deltah"
            " regions show`, delete the names, and name its regions anew"
        )
    return dict(sorted(names.items()))
