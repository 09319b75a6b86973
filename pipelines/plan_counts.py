"""The counts of a plan: images, edits, network evaluations, and how they are written."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.output_sizes import OutputSizes


@dataclass(frozen=True, slots=True)
class Plan:
    """Counts an image, and estimated sizes."""

    shards: int
    images: int
    """Estimated from the sizes of the shards, and what the first readable one holds."""
    timesteps: tuple[int, int]
    """The highest and the lowest that is edited, or studied where nothing is edited."""
    output: OutputSizes
    """Estimated, of the whole run, from the config alone."""
    edits: int = 0
    """An image, at most; 0 where nothing is edited."""
    sampled_from: int = 0
    """Edits of an image before `edit.plan.sample` of them are chosen."""
    directions: int = 0
    """Found in an image; 0 where they are read, or learned from all images."""
    inversion: int = 0
    """Network evaluations; with guidance two an estimate of the noise, here and below."""
    reading: int = 0
    """Network evaluations that read h or features."""
    decoding: int = 0
    """Network evaluations, a decoder-only pass counted as one."""
    jacobian_products: int = 0
    """Forward and reverse products of the decoder half together, estimated; 0 for a library."""
    mask_networks: tuple[str, ...] = ()
    """Providers whose networks see every image once."""
    measuring: int = 0
    """Network evaluations of the posterior gap."""
    window_found: bool = False
    """Whether the run finds the lowest timestep; counted is for the whole of `edit.window`."""

    @property
    def evaluations(self) -> int:
        """Network evaluations an image, without the Jacobian's products."""
        return self.inversion + self.reading + self.decoding + self.measuring

    def rows(self) -> list[tuple[str, str]]:
        """Label and value, ready to print."""
        high, low = self.timesteps
        what = "edited" if self.edits else "studied"
        stops = f"inversion stops at {high}" if self.inversion else "no inversion"
        parts = [("inversion", self.inversion), ("reading features", self.reading)]
        parts += [("decoding", self.decoding), ("evaluating", self.measuring)]
        shares = ", ".join(f"{count:,} {name}" for name, count in parts if count)
        by_rule = " at the lowest, found by the run" if self.window_found else ""
        steps = (f"{what} timesteps", f"{high} down to {low}{by_rule}; {stops}")
        if self.evaluations == self.inversion:  # it only inverts
            steps = ("inverted up to timestep", f"{high}")
        rows = [("images (estimate)", f"{self.images:,}"), steps]
        if self.edits:
            of = f", chosen from {self.sampled_from:,}" if self.sampled_from > self.edits else ""
            rows.append(("edits an image, at most", f"{self.edits:,}{of}"))
            rows.append(("edits in all (estimate)", f"{self.edits * self.images:,}"))
        if self.directions:
            rows.append(("directions an image, at most", f"{self.directions:,}"))
        if self.mask_networks:
            rows.append(("mask networks, a pass each an image", ", ".join(self.mask_networks)))
        return [
            *rows,
            ("network evaluations an image", f"{self.evaluations:,} ({shares})"),
            ("network evaluations in all (estimate)", f"{self.evaluations * self.images:,}"),
            ("Jacobian products an image (estimate)", f"{self.jacobian_products:,}"),
        ]
