from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib.demo.faces import FACTORS, counterfactual, render, sample_factors
from lib.demo.regressor import Regressor, determination, load, read, save


@pytest.fixture(scope="module")
def model() -> Regressor:
    return load()


def test_determination_is_one_for_the_truth_and_zero_for_the_mean() -> None:
    true_BF = sample_factors(50, seed=3)
    mean_BF = true_BF.mean(0).expand_as(true_BF)
    torch.testing.assert_close(determination(true_BF, true_BF), torch.ones(len(FACTORS)))
    torch.testing.assert_close(determination(mean_BF, true_BF), torch.zeros(len(FACTORS)))


def test_every_factor_of_unseen_faces_is_read(model: Regressor) -> None:
    true_BF = sample_factors(192, seed=77)
    r2_F = determination(read(model, render(true_BF).image_BCHW), true_BF)
    assert dict(zip(FACTORS, r2_F.tolist(), strict=True)) == {
        name: pytest.approx(1, abs=0.03) for name in FACTORS
    }


@pytest.mark.parametrize("factor", ["smile", "eye_open", "mouth_open"])
def test_a_true_change_of_one_is_read_and_the_others_stay(model: Regressor, factor: str) -> None:
    column = FACTORS.index(factor)
    before_BF = sample_factors(48, seed=78)
    before_BF[:, column] = (before_BF[:, column] - 1) / 2
    after_BF = counterfactual(before_BF, factor, 1.0)
    change_BF = _read(model, after_BF) - _read(model, before_BF)
    others = [i for i in range(len(FACTORS)) if i != column]
    assert 0.8 <= change_BF[:, column].mean() <= 1.2
    assert change_BF[:, others].abs().mean() <= 0.03


def test_slight_noise_does_not_change_the_reading(model: Regressor) -> None:
    image_BCHW = render(sample_factors(48, seed=79)).image_BCHW
    noise_BCHW = 0.03 * torch.randn(image_BCHW.shape, generator=torch.Generator().manual_seed(0))
    change_BF = read(model, image_BCHW + noise_BCHW) - read(model, image_BCHW)
    assert change_BF.abs().mean() < 0.04


def test_saving_and_loading_keeps_the_readings(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Regressor(channels=(8, 8, 8, 8), hidden=16).eval()
    save(model, tmp_path)
    image_BCHW = render(sample_factors(4, seed=1)).image_BCHW
    torch.testing.assert_close(
        read(load(tmp_path), image_BCHW), model(image_BCHW).detach(), rtol=0, atol=2e-3
    )
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_another_image_size_is_refused() -> None:
    with pytest.raises(ValueError, match="resize"):
        Regressor()(torch.zeros(1, 3, 32, 32))


def _read(model: Regressor, factors_BF: Tensor) -> Tensor:
    return read(model, render(factors_BF).image_BCHW)
