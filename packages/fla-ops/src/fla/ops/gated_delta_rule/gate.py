"""The gate of the gated delta rule: how a projection becomes a log decay."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fla.utils.validation import bind_shapes, check_floating


def fused_gdn_gate(
    g: torch.Tensor,
    A_log: torch.Tensor,
    dt_bias: torch.Tensor | None = None,
    output_dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    r"""The log decay of Gated DeltaNet (arXiv 2412.06464), as Mamba-2 has it.

    .. math:: -e^{A} \cdot \mathrm{softplus}(g + dt)

    Args:
        g: the projection ``[..., HV]``, any floating dtype; computed in float32 (float64 for float64).
        A_log: logarithm of the rate of each head ``[HV]``.
        dt_bias: bias of each head ``[HV]``; none unless given.
        output_dtype: dtype of the result.

    Returns:
        The log decay ``[..., HV]``, natural logarithm, at most 0.

    Raises:
        TypeError: an argument that is no floating tensor.
        ValueError: an argument of the wrong shape.
    """
    check_floating({"g": g, "A_log": A_log, "dt_bias": dt_bias})
    bind_shapes({"A_log": (A_log, "HV"), "dt_bias": (dt_bias, "HV?")}, known={"HV": g.shape[-1]})
    return naive_gdn_gate(g, A_log, dt_bias, output_dtype)


def naive_gdn_gate(
    g: torch.Tensor,
    A_log: torch.Tensor,
    dt_bias: torch.Tensor | None = None,
    output_dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """:func:`fused_gdn_gate` in words of PyTorch."""
    wide = torch.float64 if g.dtype == torch.float64 else torch.float32
    g = g.to(wide) if dt_bias is None else g.to(wide) + dt_bias.to(wide)
    return (-A_log.to(wide).exp() * F.softplus(g)).to(output_dtype)
