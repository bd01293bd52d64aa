"""The rotary embedding: rotation of complex numbers, positions, tables that grow, packed sequences, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

from fla.modules import RotaryEmbedding, rotary_embedding


def turned(x: torch.Tensor, positions: torch.Tensor, base: float, interleaved: bool) -> torch.Tensor:
    """x ``[B, T, H, D]`` as complex numbers times ``exp(i * angle)``, in float64."""
    dim = x.shape[-1]
    pairs = x.unflatten(-1, (dim // 2, 2)) if interleaved else x.unflatten(-1, (2, dim // 2)).transpose(-1, -2)
    frequency = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = positions[..., None].double() * frequency
    z = torch.view_as_complex(pairs.double().contiguous()) * torch.polar(torch.ones_like(angle), angle)[..., None, :]
    pairs = torch.view_as_real(z)
    return pairs.flatten(-2) if interleaved else pairs.transpose(-1, -2).flatten(-2)


def qk(batch: int = 2, time: int = 7, heads: int = 2, dim: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(batch, time, heads, dim), torch.randn(batch, time, 1, dim)


@pytest.mark.parametrize("interleaved", [False, True])
def test_turns_pairs_by_their_position(interleaved: bool) -> None:
    q, k = qk()
    rotary = RotaryEmbedding(8, base=100.0, interleaved=interleaved)
    for x, y in zip((q, k), rotary(q, k)):
        expected = turned(x, torch.arange(7), 100.0, interleaved)
        torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


def test_only_the_first_channels_turn() -> None:
    q, k = qk()
    y, _ = RotaryEmbedding(4)(q, k)
    torch.testing.assert_close(y[..., 4:], q[..., 4:])
    torch.testing.assert_close(y[..., :4], RotaryEmbedding(4)(q[..., :4], k[..., :4])[0])


@pytest.mark.parametrize("scale_base", [None, 64.0])
def test_scores_depend_on_distance_alone(scale_base: float | None) -> None:
    q, k = (x[:, :1].expand(2, 300, x.shape[2], 8) for x in qk())
    q_, k_ = RotaryEmbedding(8, scale_base=scale_base)(q, k)
    scores = torch.einsum("bqhd,bkhd->bhqk", q_[:, :, :1], k_)
    for distance in (0, 3):
        diagonal = scores.diagonal(-distance, 2, 3)
        torch.testing.assert_close(diagonal, diagonal[..., :1].expand_as(diagonal), rtol=1e-3, atol=1e-4)


def test_offset_continues_the_sequence() -> None:
    rotary, (q, k) = RotaryEmbedding(8), qk()
    whole = rotary(q, k)
    for step in range(7):
        for part, expected in zip(rotary(q[:, step : step + 1], k[:, step : step + 1], step), whole):
            torch.testing.assert_close(part, expected[:, step : step + 1])


@pytest.mark.parametrize("max_seqlen", [None, 12])
def test_offset_for_each_sequence(max_seqlen: int | None) -> None:
    rotary, (q, k) = RotaryEmbedding(8), qk()
    result = rotary(q, k, torch.tensor([5, 0]), max_seqlen=max_seqlen)
    for n, offset in enumerate((5, 0)):
        for part, expected in zip(result, rotary(q[n : n + 1], k[n : n + 1], offset)):
            torch.testing.assert_close(part[n : n + 1], expected)


@pytest.mark.parametrize("offset", [0, 3, [2, 0, 0, 9]], ids=str)
def test_packed_is_one_by_one(offset: int | list[int]) -> None:
    rotary, (q, k) = RotaryEmbedding(8), qk(1, 20)
    cu_seqlens = torch.tensor([0, 4, 5, 5, 20], dtype=torch.int32)
    given = offset if isinstance(offset, int) else torch.tensor(offset)
    result = rotary(q, k, given, cu_seqlens, max_seqlen=40)
    ends = cu_seqlens.tolist()
    for n, (start, end) in enumerate(zip(ends, ends[1:])):
        if start == end:
            continue
        first = offset if isinstance(offset, int) else offset[n]
        for part, expected in zip(result, rotary(q[:, start:end], k[:, start:end], first)):
            torch.testing.assert_close(part[:, start:end], expected)


def test_gradient_is_the_turn_back() -> None:
    q, _ = qk()
    q = q.double().requires_grad_()
    cos, sin = torch.randn(9, 4).cos(), torch.randn(9, 4).sin()
    for interleaved in (False, True):
        assert gradcheck(lambda x, i=interleaved: rotary_embedding(x, cos, sin, i, seqlen_offsets=2), (q,))


def test_tables_take_no_gradient() -> None:
    q, _ = qk()
    table = torch.randn(9, 4, requires_grad=True)
    y = rotary_embedding(q.requires_grad_(), table, table)
    assert torch.autograd.grad(y.sum(), table, allow_unused=True) == (None,)


def test_inplace_writes_into_x() -> None:
    q, _ = qk()
    table = torch.randn(9, 4)
    expected = rotary_embedding(q, table, table)
    assert rotary_embedding(q, table, table, inplace=True) is q
    torch.testing.assert_close(q, expected)


def test_tables_grow_and_belong_to_no_checkpoint() -> None:
    rotary = RotaryEmbedding(8)
    q, k = qk(1, 3)
    before = rotary(q, k)
    rotary(*qk(1, 600))
    torch.testing.assert_close(rotary(q, k), before)
    assert rotary.state_dict() == {}
    assert repr(rotary) == "RotaryEmbedding(8, base=10000.0, interleaved=False, scale_base=None)"


def test_angles_do_not_follow_the_modules_dtype() -> None:
    q, k = (x.bfloat16() for x in qk(1, 300))
    y, _ = RotaryEmbedding(8).to(torch.bfloat16)(q, k)
    expected = turned(q, torch.arange(300), 10000.0, False)
    torch.testing.assert_close(y.double(), expected, rtol=0.01, atol=0.02)
    rounded, _ = RotaryEmbedding(8, pos_idx_in_fp32=False)(q, k)
    assert (rounded.double() - expected).abs().max() > 0.1


def test_tables_made_in_inference_mode_serve_training() -> None:
    rotary, (q, k) = RotaryEmbedding(8), qk()
    with torch.inference_mode():
        rotary(q, k)
    y, _ = rotary(q.requires_grad_(), k)
    y.sum().backward()


def test_compiles_whole_for_every_length() -> None:
    rotary = RotaryEmbedding(8)
    compiled = torch.compile(rotary, fullgraph=True, dynamic=True, backend="aot_eager")
    for time in (5, 9, 300):
        q, k = qk(1, time)
        torch.testing.assert_close(compiled(q, k), rotary(q, k))


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


def test_scaling_slows_the_turns_and_multiplies_their_length() -> None:
    q, k = qk()
    for scaling, positions, factor in (
        ({"type": "linear", "factor": 4}, torch.arange(7) / 4, 1.0),
        ({"rope_type": "default", "rope_theta": 100.0}, torch.arange(7), 1.0),
        ({**YARN, "factor": 1.0, "attention_factor": 0.5}, torch.arange(7), 0.5),
    ):
        rotary = RotaryEmbedding(8, base=100.0, scaling=scaling)
        for x, y in zip((q, k), rotary(q, k)):
            torch.testing.assert_close(y.double(), factor * turned(x, positions, 100.0, False), rtol=1e-5, atol=1e-5)
    assert repr(rotary).endswith("scale_base=None, scaling=yarn)")


def test_scaling_keeps_the_quick_turns() -> None:
    q, k = qk(dim=64)
    y, _ = RotaryEmbedding(64, scaling={**YARN, "attention_factor": 1.0})(q, k)
    plain, _ = RotaryEmbedding(64)(q, k)
    slow, _ = RotaryEmbedding(64, scaling={"rope_type": "linear", "factor": 4.0})(q, k)
    same = [(y[..., c] - plain[..., c]).abs().max() < 1e-5 for c in range(32)]
    assert same[0]
    assert not all(same)
    torch.testing.assert_close(y[..., [31, 63]], slow[..., [31, 63]])


LLAMA3 = {"factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("scaling", "error", "message"),
    [
        ("yarn", TypeError, "scaling: expected a dict or None, got str"),
        ({"factor": 2.0}, ValueError, "scaling: expected one rope_type of default, linear, llama3, yarn"),
        ({"rope_type": "yarn", "type": "linear"}, ValueError, "scaling: expected one rope_type of default"),
        ({"rope_type": "ntk", "factor": 2}, ValueError, "a rope_type of default, linear, llama3, yarn, got 'ntk'"),
        ({"type": "dynamic", "factor": 2}, ValueError, "'dynamic' makes the frequencies follow the length"),
        ({"rope_type": "longrope"}, ValueError, "'longrope' makes the frequencies follow the length"),
        ({"rope_type": "linear"}, ValueError, "'linear' needs factor, got no factor"),
        ({"rope_type": "linear", "factor": None}, ValueError, "got no factor"),
        ({"rope_type": "linear", "factor": 0}, ValueError, "a number above 0 for factor, got 0"),
        ({"rope_type": "linear", "factor": "2"}, ValueError, "a number above 0 for factor, got '2'"),
        ({"rope_type": "linear", "factor": 2, "beta_fast": 1}, ValueError, "'linear' takes factor, got beta_fast"),
        ({"rope_type": "default", "factor": 2}, ValueError, "'default' takes no other keys, got factor"),
        ({"rope_type": "yarn", "factor": 2}, ValueError, "got no original_max_position_embeddings"),
        ({**YARN, "rope_theta": 1e6}, ValueError, "expected rope_theta to be the base 10000.0, got 1000000.0"),
        ({"type": "llama3", **LLAMA3, "high_freq_factor": 1}, ValueError, "high_freq_factor above low_freq_factor=1"),
    ],
)
def test_unknown_scaling_is_refused_by_name(scaling: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RotaryEmbedding(8, scaling=scaling)


BAD_INPUT: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": torch.randn(2, 7, 8)}, ValueError, r"x: expected shape \[B, T, H, D\]"),
    ({"x": torch.ones(2, 7, 2, 8, dtype=torch.int32)}, TypeError, "x: expected a floating dtype"),
    ({"sin": torch.randn(9, 3)}, ValueError, r"sin: expected shape \[P, R/2\] with P=9, R/2=4, got \[9, 3\]"),
    ({"cos": torch.randn(9, 5), "sin": torch.randn(9, 5)}, ValueError, r"cos: expected at most D/2=4 columns"),
    ({"seqlen_offsets": 3}, ValueError, r"cos: expected a row for each of 10 positions \(offset 3 \+ T=7\)"),
    ({"seqlen_offsets": -1}, ValueError, "seqlen_offsets: expected 0 or more, got -1"),
    ({"seqlen_offsets": torch.zeros(2)}, TypeError, "seqlen_offsets: expected int, int32 or int64"),
    ({"seqlen_offsets": torch.zeros(3).int()}, ValueError, r"seqlen_offsets: expected shape \[N\] with N=2, got \[3\]"),
    ({"cu_seqlens": torch.tensor([0, 7])}, ValueError, "cu_seqlens: packed sequences need a batch of 1"),
]


@pytest.mark.own_device
@pytest.mark.parametrize(("change", "error", "message"), BAD_INPUT, ids=[m for _, _, m in BAD_INPUT])
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"x": qk()[0], "cos": torch.randn(9, 4), "sin": torch.randn(9, 4), **change}
    with pytest.raises(error, match=message):
        rotary_embedding(**arguments)


@pytest.mark.own_device
def test_bad_boundaries_and_dims_are_named() -> None:
    q, k = qk(1, 7)
    with pytest.raises(ValueError, match="cu_seqlens: expected to start at 0 and end at T=7, got 0..6"):
        RotaryEmbedding(8)(q, k, cu_seqlens=torch.tensor([0, 6]))
    with pytest.raises(ValueError, match=r"k: expected shape \[B, T, HK, D\] with .*T=7.*, got \[1, 5, 1, 8\]"):
        RotaryEmbedding(8)(q, k[:, :5])
    with pytest.raises(ValueError, match="dim: expected an even number above 0, got 7"):
        RotaryEmbedding(7)
