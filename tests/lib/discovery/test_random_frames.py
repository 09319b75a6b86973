import numpy as np
import pytest

from lib.discovery.random_frames import corner_of_frame, stacked_frames_norm


@pytest.mark.parametrize(("dimension", "rows", "columns"), [(40, 5, 3), (8, 8, 3), (6, 4, 6)])
def test_a_corner_is_distributed_like_that_of_a_frame_made_in_full(
    dimension: int, rows: int, columns: int
) -> None:
    rng = np.random.default_rng(0)
    drawn = [np.linalg.norm(corner_of_frame(dimension, rows, columns, rng), 2) for _ in range(2000)]
    made = [
        np.linalg.norm(np.linalg.qr(rng.standard_normal((dimension, columns)))[0][:rows], 2)
        for _ in range(2000)
    ]
    for quantile in (0.1, 0.5, 0.9):
        assert np.quantile(drawn, quantile) == pytest.approx(np.quantile(made, quantile), rel=0.03)


@pytest.mark.parametrize("dimension", [60, 7])
def test_the_norm_of_stacked_frames_is_that_of_frames_made_in_full(dimension: int) -> None:
    rng = np.random.default_rng(0)
    drawn = stacked_frames_norm(dimension, [2, 3, 4], 2000, rng)
    made = [
        np.linalg.norm(
            np.concatenate(
                [np.linalg.qr(rng.standard_normal((dimension, r)))[0] for r in (2, 3, 4)], axis=1
            ),
            2,
        )
        for _ in range(2000)
    ]
    for quantile in (0.1, 0.5, 0.9):
        assert np.quantile(drawn, quantile) == pytest.approx(np.quantile(made, quantile), rel=0.02)


def test_a_corner_larger_than_its_space_is_refused() -> None:
    with pytest.raises(ValueError, match="5 x 3 does not fit into 4 dimensions"):
        corner_of_frame(4, 5, 3, np.random.default_rng(0))
