"""Which side files of a sample are something else than its image, though they may look like one."""

from __future__ import annotations

from pipelines.config import RunConfig
from pipelines.reference_config import ReferenceDiscovery, ReferenceFile
from pipelines.segment_agreement import claimed_files


def side_files(config: RunConfig) -> frozenset[str]:
    """Extensions of masks and references."""
    discover = config.discover
    found = claimed_files(config.segment)
    if isinstance(discover, ReferenceDiscovery) and isinstance(discover.reference, ReferenceFile):
        return found | {discover.reference.file}
    return found
