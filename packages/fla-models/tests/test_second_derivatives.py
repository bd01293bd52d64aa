"""The loss of a model by its input embeddings, differentiated twice."""

from __future__ import annotations

import pytest
import torch

from fla.models import GLAConfig, GLAForCausalLM
from fla.utils import backends
from fla.utils.numerics import get_err_ratio

STEP = 1e-5


@pytest.mark.parametrize("use_short_conv", [False, True])
def test_the_loss_by_the_embeddings_is_refused_or_right(use_short_conv: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = GLAConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_heads=2,
        use_short_conv=use_short_conv,
        initializer_range=0.3,
    )
    model = GLAForCausalLM(config).double()
    ids = torch.randint(32, (1, 7))
    embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
    direction = torch.randn_like(embeddings)

    def gradient(at: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(model(inputs_embeds=at, labels=ids).loss, at, create_graph=True)[0]

    first = gradient(embeddings)
    with pytest.raises(RuntimeError, match="this backend has no second derivative; .*FLA_BACKEND=reference"):
        torch.autograd.grad((first * direction).sum(), embeddings)
    after, before = (gradient(embeddings + sign * STEP * direction).detach() for sign in (1, -1))
    monkeypatch.setattr(backends, "PROCESS_BACKEND", "reference")
    by_reference = gradient(embeddings)
    assert get_err_ratio(first.detach(), by_reference.detach()) < 1e-10
    (found,) = torch.autograd.grad((by_reference * direction).sum(), embeddings)
    assert get_err_ratio((after - before) / (2 * STEP), found) < 1e-6
