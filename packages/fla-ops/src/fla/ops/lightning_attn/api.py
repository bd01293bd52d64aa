"""The public functions of lightning attention: what they compute and accept."""

from __future__ import annotations

import torch

from fla.ops._engines.decay_steps.ops import run_recurrent_gla
from fla.ops._engines.scalar_decay.ops import run_chunk_simple_gla
from fla.ops._engines.scalar_decay.per_head import decay_per_head
from fla.ops._shared.arguments import check_heads
from fla.ops.lightning_attn.reference import lightning_attn_reference
from fla.utils.backends import choose_backend


def chunk_lightning_attn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layer_idx: int,
    num_layers: int,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Lightning attention over whole sequences, chunk by chunk (arXiv 2405.17381).

    .. math:: S_t = e^{-s_h}\, S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t, \qquad
        s_h = \frac{8 h}{HV} \left(1 - \frac{layer\_idx}{num\_layers}\right)

    for the heads h = 0, 1, ... of v. The state, the decay and every sum are accumulated in float32 (float64 for
    float64 inputs). Differentiable once in every floating argument.

    Args:
        q: queries ``[B, T, H, K]``; float32, bfloat16, float16, or float64 on the torch backend.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, HV, V]``, HV a multiple of H: value heads ``i * HV / H`` and following share query head i.
        layer_idx: the layer, 0 for the first: the later, the longer it remembers.
        num_layers: layers of the model.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: state before the first step ``[N, HV, K, V]``; N is B, or the number of packed sequences.
        output_final_state: also return the state after the last step.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, HV, V]`` in the dtype of v; the state in float32, None unless asked for.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, a layer that is none of ``num_layers``, or a
            backend that cannot run here.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> o, state = chunk_lightning_attn(q, k, v, layer_idx=0, num_layers=4, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([1, 64, 2, 32]), torch.Size([1, 2, 32, 32]))
    """
    scale = check_heads(q, k, v, {}, scale, initial_state, cu_seqlens, grouped=True)
    _check_layer(layer_idx, num_layers)
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return lightning_attn_reference(
            q,
            k,
            v,
            layer_idx=layer_idx,
            num_layers=num_layers,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            cu_seqlens=cu_seqlens,
        )
    g_gamma = decay_per_head(v, _log_decay, layer_idx, num_layers)
    return run_chunk_simple_gla(
        q, k, v, None, g_gamma, initial_state, cu_seqlens, scale, output_final_state, False, chosen
    )


def fused_recurrent_lightning_attn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layer_idx: int,
    num_layers: int,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Lightning attention one step after the other: for decoding and short sequences (arXiv 2405.17381).

    .. math:: S_t = e^{-s_h}\, S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top q_t, \qquad
        s_h = \frac{8 h}{HV} \left(1 - \frac{layer\_idx}{num\_layers}\right)

    Arguments, precision, results and errors are those of :func:`chunk_lightning_attn`, and in addition:

    Args:
        q: queries ``[B, T, H, K]``.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, HV, V]``.
        layer_idx: the layer, 0 for the first.
        num_layers: layers of the model.
        scale: factor on the scores, ``K ** -0.5`` unless given.
        initial_state: ``[N, HV, K, V]``.
        output_final_state: also return the last state.
        reverse: run each sequence from its end to its start.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(o, final_state)``: o ``[B, T, HV, V]`` in the dtype of v; the state in float32, None unless asked for.

    Example:
        >>> q, k, v = torch.randn(3, 1, 64, 2, 32)
        >>> o, state = fused_recurrent_lightning_attn(q, k, v, layer_idx=0, num_layers=4, output_final_state=True)
        >>> o.shape, state.shape
        (torch.Size([1, 64, 2, 32]), torch.Size([1, 2, 32, 32]))
    """
    scale = check_heads(q, k, v, {}, scale, initial_state, cu_seqlens, grouped=True)
    _check_layer(layer_idx, num_layers)
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return lightning_attn_reference(
            q,
            k,
            v,
            layer_idx=layer_idx,
            num_layers=num_layers,
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            reverse=reverse,
            cu_seqlens=cu_seqlens,
        )
    g = decay_per_head(v, _log_decay, layer_idx, num_layers).expand(v.shape[:3])
    return run_recurrent_gla(q, k, v, initial_state, cu_seqlens, scale, output_final_state, reverse, False, chosen, g=g)


def _check_layer(layer_idx: int, num_layers: int) -> None:
    if not 0 <= layer_idx < num_layers:
        raise ValueError(f"layer_idx: expected from 0 to num_layers - 1 = {num_layers - 1}, got {layer_idx}")


def _log_decay(head: torch.Tensor, layer_idx: int, num_layers: int) -> torch.Tensor:
    return head * (-8 / head.shape[0] * (1 - layer_idx / num_layers))
