"""The public functions of the gated delta product: what they compute and accept."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fla.ops._engines.delta.ops import run_chunk_gated_delta_rule
from fla.ops._engines.delta.options import unit
from fla.ops._engines.delta_steps.ops import run_recurrent_delta_rule
from fla.ops._shared.arguments import check_heads
from fla.ops.gated_delta_product.reference import gated_delta_product_reference
from fla.utils.backends import choose_backend
from fla.utils.validation import bind_shapes, remembered, resolve_boundaries


def chunk_gated_delta_product(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    beta: torch.Tensor,
    num_householder: int,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The gated delta product over whole sequences, chunk by chunk (arXiv 2502.10297).

    .. math::
        S_{t,0} = e^{g_t} S_{t-1,n}, \qquad
        S_{t,i} = (I - \beta_{t,i} k_{t,i} k_{t,i}^\top)\, S_{t,i-1} + \beta_{t,i} k_{t,i} v_{t,i}^\top, \qquad
        o_t = scale \cdot S_{t,n}^\top q_t

    for the n sub-steps i = 1, ... of each token. The state, the decay and every sum are accumulated in float32
    (float64 for float64 inputs). Differentiable once in every floating argument.

    Args:
        q: queries ``[B, T, H, K]``; float32, bfloat16, float16, or float64 on the torch backend.
        k: keys ``[B, T * n, H, K]``, the n of a token one after the other; the state stays bounded where
            ``beta |k|^2`` is at most 2.
        v: values ``[B, T * n, HV, V]``, HV a multiple of H: value heads ``i * HV / H`` and following share query head
            i.
        g: log decay of each token ``[B, T, HV]``, natural logarithm, at most 0; any floating dtype. None for none.
        beta: write strengths ``[B, T * n, HV]``, any floating dtype.
        num_householder: n, at least 1.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: state before the first token ``[N, HV, K, V]``; N is B, or the number of packed sequences.
        output_final_state: also return the state after the last token.
        use_qk_l2norm_in_kernel: divide q and k by their norms, in float32.
        cu_seqlens: boundaries of packed sequences ``[N + 1]`` in tokens, int32 or int64, from 0 to T; B must be 1.
        cu_seqlens_cpu: the same on the CPU. Alone it is used; beside ``cu_seqlens`` it must agree, which is checked on
            the CPU. On a GPU ``cu_seqlens`` decides; there only ``FLA_DEBUG=1`` compares, which waits for the device.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, HV, V]`` in the dtype of v; the state in float32, None unless asked for.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, or a backend that cannot run here.

    Example:
        >>> q, g = torch.randn(1, 64, 2, 32), F.logsigmoid(torch.randn(1, 64, 2))
        >>> k, v = F.normalize(torch.randn(1, 128, 2, 32), dim=-1), torch.randn(1, 128, 2, 32)
        >>> beta = torch.rand(1, 128, 2)
        >>> o, _ = chunk_gated_delta_product(q, k, v, g, beta, num_householder=2)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    return _gated_delta_product(
        q,
        k,
        v,
        g,
        beta,
        num_householder,
        scale,
        initial_state,
        output_final_state,
        use_qk_l2norm_in_kernel,
        resolve_boundaries(q, cu_seqlens, cu_seqlens_cpu),
        backend,
        recurrent=False,
    )


def fused_recurrent_gated_delta_product(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    beta: torch.Tensor,
    num_householder: int,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The gated delta product one step after the other: for decoding and short sequences (arXiv 2502.10297).

    .. math::
        S_{t,0} = e^{g_t} S_{t-1,n}, \qquad
        S_{t,i} = (I - \beta_{t,i} k_{t,i} k_{t,i}^\top)\, S_{t,i-1} + \beta_{t,i} k_{t,i} v_{t,i}^\top, \qquad
        o_t = scale \cdot S_{t,n}^\top q_t

    Arguments, precision, results and errors are those of :func:`chunk_gated_delta_product`.

    Example:
        >>> q, g = torch.randn(1, 64, 2, 32), F.logsigmoid(torch.randn(1, 64, 2))
        >>> k, v = F.normalize(torch.randn(1, 128, 2, 32), dim=-1), torch.randn(1, 128, 2, 32)
        >>> beta = torch.rand(1, 128, 2)
        >>> o, _ = fused_recurrent_gated_delta_product(q, k, v, g, beta, num_householder=2)
        >>> o.shape
        torch.Size([1, 64, 2, 32])
    """
    return _gated_delta_product(
        q,
        k,
        v,
        g,
        beta,
        num_householder,
        scale,
        initial_state,
        output_final_state,
        use_qk_l2norm_in_kernel,
        cu_seqlens,
        backend,
        recurrent=True,
    )


def _gated_delta_product(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    beta: torch.Tensor,
    num_householder: int,
    scale: float | None,
    initial_state: torch.Tensor | None,
    output_final_state: bool,
    use_qk_l2norm_in_kernel: bool,
    cu_seqlens: torch.Tensor | None,
    backend: str | None,
    recurrent: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    _check_sub_steps(q, k, v, beta, num_householder)
    first = slice(None, None, num_householder)
    scale = check_heads(
        q,
        k[:, first],
        v[:, first],
        {"g": (g, "B T HV?"), "beta": (beta[:, first], "B T HV")},
        scale,
        initial_state,
        cu_seqlens,
        grouped=True,
    )
    chosen = choose_backend(q, backend)
    if use_qk_l2norm_in_kernel:
        q, k = unit(q), unit(k)
    if chosen == "reference":
        return gated_delta_product_reference(
            q,
            k,
            v,
            g=g,
            beta=beta,
            num_householder=num_householder,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            cu_seqlens=cu_seqlens,
        )
    return _run_sub_steps(
        q, k, v, g, beta, num_householder, initial_state, cu_seqlens, scale, output_final_state, chosen, recurrent
    )


@remembered
def _check_sub_steps(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, beta: torch.Tensor, num_householder: int
) -> None:
    if not isinstance(num_householder, int):
        raise TypeError(f"num_householder: expected an int, got {type(num_householder).__name__}")
    if num_householder < 1:
        raise ValueError(f"num_householder: expected at least 1, got {num_householder}")
    sizes = bind_shapes({"q": (q, "B T H K")})
    steps = "T*num_householder"
    bind_shapes(
        {"k": (k, f"B {steps} H K"), "v": (v, f"B {steps} HV V"), "beta": (beta, f"B {steps} HV")},
        known={**sizes, steps: sizes["T"] * num_householder},
    )


def _run_sub_steps(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    beta: torch.Tensor,
    n: int,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    output_final_state: bool,
    backend: str,
    recurrent: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The gated delta rule on ``T * n`` steps, which decays before a token's first and is read after its last."""
    if n > 1:
        q = F.pad(q.unsqueeze(2), (0, 0, 0, 0, n - 1, 0)).flatten(1, 2)
        g = None if g is None else F.pad(g.unsqueeze(2), (0, 0, 0, n - 1)).flatten(1, 2)
        cu_seqlens = None if cu_seqlens is None else cu_seqlens * n
    if recurrent:
        o, final_state = run_recurrent_delta_rule(
            q, k, v, beta, initial_state, cu_seqlens, scale, output_final_state, False, backend, g=g
        )
    else:
        o, final_state = run_chunk_gated_delta_rule(
            q, k, v, beta, g, None, initial_state, cu_seqlens, scale, output_final_state, False, backend
        )
    return o[:, n - 1 :: n].contiguous(), final_state
