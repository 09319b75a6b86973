import pytest
import torch
from scipy.optimize import linear_sum_assignment

from lib.discovery.assignment import best_assignment


@pytest.mark.parametrize("size", [1, 2, 3, 7, 25])
@pytest.mark.parametrize("seed", range(5))
def test_the_matching_is_that_of_scipy(size: int, seed: int) -> None:
    gain_KK = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    _, columns = linear_sum_assignment(gain_KK.double().numpy(), maximize=True)
    assert best_assignment(gain_KK) == columns.tolist()


def test_the_best_total_is_preferred_to_the_best_single_pair() -> None:
    # Greedy takes 0.9 and is left with 0.0; the other diagonal gives 1.6.
    assert best_assignment(torch.tensor([[0.9, 0.8], [0.8, 0.0]])) == [1, 0]


def test_equal_gains_still_give_a_permutation() -> None:
    assert sorted(best_assignment(torch.ones(6, 6))) == list(range(6))
    assert best_assignment(torch.empty(0, 0)) == []


def test_a_matrix_that_is_not_square_or_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match=r"square matrix.*\(2, 3\)"):
        best_assignment(torch.ones(2, 3))
    with pytest.raises(ValueError, match="finite"):
        best_assignment(torch.tensor([[float("nan")]]))
