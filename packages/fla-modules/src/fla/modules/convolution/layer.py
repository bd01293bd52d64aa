"""The short convolution as a module."""

from __future__ import annotations

import torch
from torch import nn

from fla.modules.convolution.api import ACTIVATIONS, causal_conv1d, causal_conv1d_update


class ShortConvolution(nn.Conv1d):
    """A causal convolution over time with one short filter per channel; see :func:`causal_conv1d`.

    Args:
        hidden_size: channels D.
        kernel_size: filter width W.
        bias: whether the filters have one.
        activation: ``"silu"``, ``"swish"`` or None.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.
        device: of the parameters.
        dtype: of the parameters.
    """

    def __init__(
        self,
        hidden_size: int,
        kernel_size: int,
        bias: bool = False,
        activation: str | None = "silu",
        backend: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            hidden_size, hidden_size, kernel_size, groups=hidden_size, bias=bias, padding=kernel_size - 1,
            device=device, dtype=dtype,
        )  # fmt: skip
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected 'silu', 'swish' or None, got {activation!r}")
        self.hidden_size = hidden_size
        self.activation = activation
        self.backend = backend

    def forward(  # type: ignore[override]
        self,
        x: torch.Tensor,
        residual: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        cache: torch.Tensor | None = None,
        output_final_state: bool = False,
        cu_seqlens: torch.Tensor | None = None,
        *,
        use_precomputed: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Convolve, from the start or from where the cache ends.

        Args:
            x: ``[B, T, D]``.
            residual: ``[B, T, D]``, added after the activation.
            mask: ``[B, T]`` of zeros and ones; inputs at zeros count as zero.
            cache: the last W inputs of each sequence ``[N, D, W]``. With gradients off, and a step for each sequence
                (T = 1, or T = N packed), it is updated in place and returned; else a new one is returned.
            output_final_state: return the cache after this call even where none was given.
            cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
            use_precomputed: nothing depends on it. With it OLMo-hybrid of transformers 5.6 says that there is a
                cache; a cache that is given is always continued.

        Returns:
            ``(y, cache)``: y ``[B, T, D]``; the cache, None if neither given nor asked for.

        Raises:
            ValueError: a shape that does not fit.
        """
        if mask is not None:
            if mask.shape != x.shape[:2]:
                raise ValueError(f"mask: expected shape [B, T] = {list(x.shape[:2])}, got {list(mask.shape)}")
            x = x * mask.unsqueeze(-1).to(x.dtype)
        weight = self.weight.squeeze(1)
        steps = 1 if cu_seqlens is None else cu_seqlens.shape[0] - 1
        decoding = cache is not None and x.shape[1] == steps and not torch.is_grad_enabled()
        if cache is not None and decoding and cu_seqlens is None:
            return causal_conv1d_update(x, cache, residual, weight, self.bias, self.activation, self.backend)
        y, state = causal_conv1d(
            x,
            weight,
            self.bias,
            residual,
            initial_state=cache,
            output_final_state=output_final_state or cache is not None,
            activation=self.activation,
            cu_seqlens=cu_seqlens,
            backend=self.backend,
        )
        if cache is not None and state is not None and decoding:
            # Packed: as many steps as sequences, one for each as a rule, but nothing here depends on it.
            state = cache.copy_(state)
        return y, state

    def extra_repr(self) -> str:
        """Sizes and options, for ``print``."""
        options = f"kernel_size={self.kernel_size[0]}, bias={self.bias is not None}, activation={self.activation}"
        return f"{self.hidden_size}, {options}"
