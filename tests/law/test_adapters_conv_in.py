"""More input channels: equal outputs whatever they hold, and a way back."""

from __future__ import annotations

import pytest
import torch

from learnt import digests, noise, output, tiny_model
from scumble.adapters.conv_in import widened, widened_copy
from scumble.core.errors import ModelError
from scumble.models.model import Model


def with_extra(model: Model, extra: torch.Tensor) -> torch.Tensor:
    x = noise(1, 4, 8, 8, seed=7)
    return model.predict(torch.cat([x, extra], dim=1), torch.tensor(300.0), model.prompt(["a red cat"]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_outputs_are_equal_for_any_extra_input(family: str, dtype: str) -> None:
    model = tiny_model(family, dtype)
    before, conv = digests(model), model.denoiser.conv_in
    with torch.no_grad():
        plain = with_extra(model, torch.zeros(1, 0, 8, 8))
        with widened(model):
            assert model.condition_channels == 4
            assert model.denoiser.config.in_channels == 8
            assert torch.equal(model.denoiser.conv_in.bias, conv.bias)
            wide = [with_extra(model, noise(1, 4, 8, 8, seed=s, scale=10**s)) for s in range(3)]
        assert torch.equal(wide[0], wide[1])
        assert torch.equal(wide[0], wide[2])
        tolerance = 1e-5 if dtype == "float32" else 5e-2
        torch.testing.assert_close(wide[0], plain, rtol=tolerance, atol=tolerance)
        assert torch.equal(with_extra(model, torch.zeros(1, 0, 8, 8)), plain)
    assert model.denoiser.conv_in is conv
    assert (model.condition_channels, model.denoiser.config.in_channels) == (0, 4)
    assert digests(model) == before


def test_the_new_weights_learn() -> None:
    model = tiny_model()
    with widened(model, 2):
        model.denoiser.conv_in.requires_grad_()
        with_extra(model, noise(1, 2, 8, 8)).square().sum().backward()
        gradient = model.denoiser.conv_in.weight.grad
        assert (gradient[:, 4:].abs().amax(dim=(1, 2, 3)) > 0).any()


def test_a_copy_is_its_own() -> None:
    model = tiny_model()
    before, plain = digests(model), output(model)
    copy = widened_copy(model)
    torch.testing.assert_close(output(copy), plain, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        for parameter in copy.denoiser.parameters():
            parameter.add_(1)
    assert digests(model) == before
    assert model.condition_channels == 0
    assert copy.text_encoders is model.text_encoders
    image = noise(1, 4, 8, 8)
    assert (
        len(
            copy.branches([copy.prompt(["a"])], image)(
                image, copy.schedule.levels(torch.tensor(300.0, dtype=torch.float64)), (0,)
            )
        )
        == 1
    )


def test_an_editing_model_is_not_widened_again() -> None:
    model = tiny_model("ip2p")
    with pytest.raises(ModelError, match="an editing model already, with 4"), widened(model):
        pytest.fail("must be refused")
    with pytest.raises(ModelError, match="an editing model already"):
        widened_copy(model)


def test_the_global_generator_is_left_alone() -> None:
    model = tiny_model()
    state = torch.get_rng_state()
    with widened(model):
        assert torch.equal(torch.get_rng_state(), state)
