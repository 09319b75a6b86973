import random

import pytest
import torch

from lib.discovery import extremes as kept
from lib.discovery.extremes import Extremes, Side, contrasts, extremes, merged


def data(count: int = 50, ties: bool = False, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    h_ND = torch.randn(count, 6, generator=generator)
    score_N = torch.randn(count, generator=generator, dtype=torch.float64)
    return h_ND, (3 * score_N).round() if ties else score_N


def names(rows: list[int]) -> list[str]:
    return [f"s{row % 4}/{row}" for row in rows]


def split(rows: list[list[int]], n: int, ties: bool, balance: bool) -> list[Extremes]:
    h_ND, score_N = data(ties=ties)
    second_N = data(seed=1)[1]
    return [
        extremes(
            h_ND[part],
            score_N[part],
            names(part),
            n,
            balance_N=second_N[part] if balance else None,
        )
        for part in rows
    ]


def same(a: Side, b: Side) -> bool:
    return a.ids == b.ids and torch.equal(a.score_K, b.score_K) and torch.equal(a.h_KD, b.h_KD)


def test_the_highest_and_lowest_are_kept_in_rising_order() -> None:
    h_ND, score_N = data()
    (stratum,) = extremes(h_ND, score_N, names(list(range(50))), 7).strata
    order = score_N.argsort()
    assert torch.equal(stratum.low.h_KD, h_ND[order[:7]])
    assert torch.equal(stratum.high.h_KD, h_ND[order[-7:]])
    assert torch.equal(stratum.high.score_K, score_N[order[-7:]])
    assert stratum.high.ids == tuple(names(order[-7:].tolist()))
    assert stratum.count == 50


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("n", [3, 12, 40])
def test_any_split_in_any_order_merges_to_the_same_bits(ties: bool, balance: bool, n: int) -> None:
    everything = list(range(50))
    (whole,) = split([everything], n, ties, balance)
    for seed in range(5):
        chance = random.Random(seed)
        mixed = chance.sample(everything, 50)
        parts = split([mixed[:1], mixed[1:1], mixed[1:30], mixed[30:]], n, ties, balance)
        chance.shuffle(parts)
        stepwise = merged([merged(parts[:2], n), merged(parts[2:], n)], n)
        for union in (merged(parts, n), stepwise):
            for a, b in zip(union.strata, whole.strata, strict=True):
                assert (a.name, a.count) == (b.name, b.count)
                assert same(a.low, b.low)
                assert same(a.high, b.high)


def test_samples_without_a_label_are_left_out_and_counted() -> None:
    h_ND, score_N = data(10)
    score_N[3] = float("nan")
    balance_N = torch.tensor([1.0, 0] * 5)
    balance_N[4] = float("nan")
    ids = names(list(range(10)))
    plain = extremes(h_ND, score_N, ids, 5)
    assert (plain.missing, plain.strata[0].count) == (1, 9)
    balanced = extremes(h_ND, score_N, ids, 5, balance_N=balance_N)
    assert balanced.missing == 2
    assert [(s.name, s.count) for s in balanced.strata] == [("below", 4), ("above", 4)]
    assert merged([balanced, balanced_again()], 5).missing == 2 + 1


def balanced_again() -> Extremes:
    h_ND, _ = data(3)
    score_N = torch.tensor([float("nan"), 0.0, 1.0])
    return extremes(h_ND, score_N, ["a", "b", "c"], 5, balance_N=torch.ones(3))


def test_a_few_samples_are_halved_so_that_no_sample_is_on_both_sides() -> None:
    h_ND, score_N = data(9)
    ((low, high),) = contrasts(extremes(h_ND, score_N, names(list(range(9))), 100))
    order = score_N.argsort()
    assert torch.equal(low.h_KD, h_ND[order[:4]])
    assert torch.equal(high.h_KD, h_ND[order[-4:]])


@pytest.mark.parametrize(("positives", "sizes"), [(3, (10, 3)), (17, (3, 10)), (10, (10, 10))])
def test_a_rare_class_is_not_filled_up_with_the_other(
    positives: int, sizes: tuple[int, int]
) -> None:
    score_N = torch.tensor([1.0] * positives + [0.0] * (20 - positives))
    ((low, high),) = contrasts(extremes(torch.randn(20, 2), score_N, names(list(range(20))), 10))
    assert (len(low.ids), len(high.ids)) == sizes
    assert low.score_K.tolist() == [0.0] * sizes[0]
    assert high.score_K.tolist() == [1.0] * sizes[1]


def test_one_class_or_too_few_are_refused_by_name() -> None:
    ids = names(list(range(8)))
    with pytest.raises(ValueError, match="all 8 labelled samples have the score 1: one class only"):
        contrasts(extremes(torch.randn(8, 2), torch.ones(8), ids, 3))
    lone_N = torch.tensor([1.0] + [0.0] * 7)
    with pytest.raises(ValueError, match="only 1 of 8 labelled samples is on the high side"):
        contrasts(extremes(torch.randn(8, 2), lone_N, ids, 3))
    with pytest.raises(ValueError, match="2 a side; there are 0"):
        contrasts(extremes(torch.randn(8, 2), torch.full((8,), float("nan")), ids, 3))
    score_N = torch.tensor([0.0, 1, 0, 1, 1, 1, 1, 1])
    balance_N = torch.tensor([0.0, 0, 0, 0, 1, 1, 1, 1])
    with pytest.raises(ValueError, match="with the balance label above threshold have the score 1"):
        contrasts(extremes(torch.randn(8, 2), score_N, ids, 3, balance_N=balance_N))


def test_wrong_input_is_refused() -> None:
    h_ND, score_N = data(6)
    ids = names(list(range(6)))
    with pytest.raises(ValueError, match="6 rows of h, 5 scores"):
        extremes(h_ND, score_N[:5], ids, 2)
    with pytest.raises(ValueError, match="n = 1"):
        extremes(h_ND, score_N, ids, 1)
    with pytest.raises(ValueError, match="same id"):
        extremes(h_ND, score_N, ["a"] * 6, 2)
    h_ND[2] = float("nan")
    with pytest.raises(ValueError, match="h of sample s2/2 is NaN"):
        extremes(h_ND, score_N, ids, 3)
    part = extremes(*data(6), ids, 2)
    with pytest.raises(ValueError, match="twice"):
        merged([part, part], 2)
    with pytest.raises(ValueError, match="kept 2 samples a side, 3 are wanted"):
        merged([part], 3)


@pytest.mark.parametrize("balance", [False, True])
def test_storage_gives_the_same_bits_back(balance: bool) -> None:
    (e,) = split([list(range(50))], 4, True, balance)
    arrays = kept.to_arrays(e)
    assert {a.dtype.kind for a in arrays.values()} <= set("iuf")
    back = kept.from_arrays(arrays)
    assert (back.n, back.missing) == (e.n, e.missing)
    for a, b in zip(back.strata, e.strata, strict=True):
        assert (a.name, a.count) == (b.name, b.count)
        assert same(a.low, b.low)
        assert same(a.high, b.high)
