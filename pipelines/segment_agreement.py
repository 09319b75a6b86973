"""Whether regions and providers of a config fit together, as far as the config alone can tell, and
which side files they claim.
"""

from __future__ import annotations

from difflib import get_close_matches

from lib.masks.class_names import numbers_of, parts_of
from pipelines.segment_config import (
    Classes,
    LabelMap,
    MaskFile,
    MaskGeneration,
    PartFiles,
    Prompt,
    Segment,
)


def claimed_files(segment: Segment) -> frozenset[str]:
    """Extensions of side files that are masks, and so never a sample's image."""
    found = {r.file for r in segment.regions.values() if isinstance(r, MaskFile)}
    for provider in segment.providers.values():
        if isinstance(provider, PartFiles):
            found.update(provider.files)
        elif isinstance(provider, LabelMap):
            found.add(provider.file)
    return frozenset(found)


def check_sources(segment: Segment) -> None:
    """Raises ValueError, with the path in front, where a region asks for what its provider has not,
    or a provider is there for nothing. Classes of networks are known from their folders alone, see
    `pipelines.mask_models`.
    """
    used: set[str] = set()
    for name, source in segment.regions.items():
        if not isinstance(source, Classes | Prompt):
            continue
        path = f"segment.regions.{name}"
        if source.provider not in segment.providers:
            raise ValueError(f"{path}.from: {_unknown(source.provider, [*segment.providers])}")
        used.add(source.provider)
        try:
            _check(source, segment)
        except ValueError as error:
            raise ValueError(f"{path}.{error}") from error
    unused = sorted(set(segment.providers) - used)
    if unused:
        raise ValueError(
            f"segment.providers.{unused[0]}: no region comes from it; expected one with"
            f" `from: {unused[0]}`, or no such provider"
        )


def _check(source: Classes | Prompt, segment: Segment) -> None:
    provider = segment.providers[source.provider]
    if isinstance(source, Prompt):
        if not isinstance(provider, MaskGeneration):
            raise ValueError(
                f"{'points' if source.points else 'within'}: {source.provider} is of kind"
                f" {provider.kind}, which takes no place; expected labels"
            )
        return
    if isinstance(provider, MaskGeneration):
        raise ValueError(
            f"labels: {source.provider} is of kind mask_generation, which has no classes; expected"
            " points or within"
        )
    try:
        if isinstance(provider, PartFiles):
            for label in source.labels:
                if not isinstance(label, str):
                    raise ValueError(f"part files have names and no numbers, got {label}")
                parts_of(label, provider.parts, unite=provider.unite)
        elif isinstance(provider, LabelMap):
            numbers_of(source.labels, provider.names, unite=provider.unite)
    except ValueError as error:
        raise ValueError(f"labels: {error}") from error


def _unknown(name: str, known: list[str]) -> str:
    nearest = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ";"
    defined = f"defines {sorted(known)}" if known else "defines none"
    return f"no provider is called {name!r}{hint} segment.providers {defined}"
