"""Every token mixer against the same demands; a new layer adds rows to ``layer_table.LAYERS``."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import fla.layers
from fla.layers import (
    ABCAttention,
    Attention,
    BasedLinearAttention,
    Comba,
    DeltaNet,
    GatedDeltaNet,
    GatedDeltaProduct,
    GatedLinearAttention,
    GatedSlotAttention,
    HGRN2Attention,
    KimiDeltaAttention,
    LightNetAttention,
    LinearAttention,
    Mamba,
    Mamba2,
    Mixer,
    MultiheadLatentAttention,
    MultiScaleRetention,
    ReBasedLinearAttention,
    RWKV7Attention,
    SimpleGatedLinearAttention,
    StateCache,
    delta_net,
    linear_attn,
)
from fla.layers._forget_gate import bounded_forget_gate
from fla.modules import BitLinear, RMSNorm
from fla.utils import backends
from fla.utils.numerics import assert_close, check_error_budget
from layer_table import (
    CONTINUED,
    FEED_FORWARDS,
    HIDDEN,
    LAYERS,
    TIGHT,
    build,
    decode,
    every_layer,
    every_mixer,
    inputs,
    padded,
)

GOLDEN = sorted(Path(__file__).parent.glob("golden/*.safetensors"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_agrees_with_the_golden_case(path: Path) -> None:
    with safe_open(path, "pt") as case:
        about = json.loads(case.metadata()["case"])
        tensors = {key: case.get_tensor(key).float().to(torch.get_default_device()) for key in case.keys()}  # noqa: SIM118
    layer = getattr(fla.layers, about["layer"])(**about["config"])
    layer.load_state_dict({k.removeprefix("param."): v for k, v in tensors.items() if k.startswith("param.")})
    x = tensors["x"].requires_grad_()
    o, *_ = layer(x)
    assert_close("out", tensors["out"], o, 1e-4)
    if "dx" in tensors:
        (dx,) = torch.autograd.grad(o.square().sum(), x)
        assert_close("dx", tensors["dx"], dx, 1e-4)


@every_layer
def test_is_within_rounding_of_the_float64_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = inputs(2, 75)
    layer, exact = build(name).train(), build(name, torch.float64)

    def run(layer: Mixer, x: torch.Tensor) -> list[torch.Tensor]:
        leaf = x.clone().requires_grad_()
        o, *_ = layer(leaf)
        o.square().sum().backward()
        return [o, leaf.grad, *(p.grad for p in layer.parameters())]

    got = run(layer, x)
    monkeypatch.setattr(backends, "PROCESS_BACKEND", "reference")
    names = ["output", "input", *dict(layer.named_parameters())]
    for what, expected, result in zip(names, run(exact, x.double()), got):
        assert_close(what, expected, result, TIGHT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("divide", [linear_attn._norm_sum, delta_net._divide_by_sum])
def test_a_division_by_a_sum_keeps_what_is_left_of_its_gradient(
    divide: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype
) -> None:
    x, cotangent = inputs(2, 40).abs(), 1 + 0.1 * inputs(2, 41)[:, 1:]

    def run(wide: torch.dtype) -> torch.Tensor:
        leaf = x.to(dtype).to(wide).requires_grad_()
        return torch.autograd.grad(divide(leaf), leaf, cotangent.to(dtype).to(wide))[0]

    check_error_budget("input", run(torch.float64), run(torch.float32).to(dtype), run(dtype), dtype)


@every_mixer
@pytest.mark.parametrize(("side", "value"), [("left", float("nan")), ("right", float("inf"))])
def test_what_is_not_finite_stays_in_its_row_of_a_padded_batch(name: str, side: str, value: float) -> None:
    layer, mask = build(name), padded([12, 25, 17], 25, side)

    def run(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Outputs and gradients of the first and last row."""
        leaf = x.clone().requires_grad_()
        o, *_ = layer(leaf, attention_mask=mask)
        return o[[0, 2]], torch.autograd.grad(o.sum(), leaf)[0][[0, 2]]

    x = inputs(3, 25)
    expected = run(x)
    x[1, 14, 3] = value
    for what, wanted, got in zip(("output", "input"), expected, run(x)):
        assert_close(what, wanted, got, TIGHT)


def test_every_layer_of_the_menu_is_tested() -> None:
    menu = {getattr(fla.layers, name) for name in fla.layers.__all__}
    mixers = menu - {Mixer, StateCache}
    assert all(issubclass(layer, Mixer) for layer in mixers)
    assert mixers == {type(build(name)) for name in (*LAYERS, *FEED_FORWARDS)}


@every_mixer
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_equals_each_sequence_alone(name: str, side: str) -> None:
    layer, x, lengths = build(name), inputs(3, 40).requires_grad_(), [40, 9, 1]
    mask = padded(lengths, 40, side)
    o, *_ = layer(x, attention_mask=mask)
    (dx,) = torch.autograd.grad(o.square().sum(), x)
    assert torch.equal(o[mask == 0], torch.zeros_like(o[mask == 0]))
    assert torch.equal(dx[mask == 0], torch.zeros_like(dx[mask == 0]))
    for n in range(3):
        real = mask[n].bool()
        alone = x[n : n + 1, real].detach().requires_grad_()
        o_alone, *_ = layer(alone)
        (dx_alone,) = torch.autograd.grad(o_alone.square().sum(), alone)
        assert_close(f"row {n}", o_alone[0], o[n, real], TIGHT)
        assert_close(f"gradient of row {n}", dx_alone[0], dx[n, real], TIGHT)


@every_mixer
def test_packed_sequences_equal_each_alone_and_win_over_a_mask(name: str) -> None:
    layer, x, ends = build(name).train(), inputs(1, 100), [0, 1, 70, 70, 100]
    cu_seqlens = torch.tensor(ends, dtype=torch.int32)
    o, *_ = layer(x, cu_seqlens=cu_seqlens)
    o_masked, *_ = layer(x, attention_mask=padded([60], 100, "right"), cu_seqlens=cu_seqlens)
    assert torch.equal(o, o_masked)
    for start, end in zip(ends, ends[1:]):
        if start < end:
            assert_close(f"{start}..{end}", layer(x[:, start:end])[0], o[:, start:end], TIGHT)


@every_layer
@pytest.mark.parametrize("cuts", [list(range(1, 30)), [20, 23, 24], [3, 75]], ids=["steps", "few at once", "pieces"])
def test_cached_pieces_equal_the_whole(name: str, cuts: list[int]) -> None:
    layer, x = build(name), inputs(2, 90 if cuts[-1] == 75 else 30)
    with torch.inference_mode():
        assert_close("pieces", layer(x)[0], decode(layer, x, cuts), TIGHT)


@every_layer
@pytest.mark.parametrize("side", ["left", "right"])
def test_cached_pieces_of_a_padded_batch_equal_the_whole(name: str, side: str) -> None:
    layer, x, mask = build(name), inputs(3, 30), padded([30, 12, 3], 30, side)
    # Pieces that are padding for some rows, a single step, several at once, as many tokens as rows but not one each.
    with torch.inference_mode():
        pieces = decode(layer, x, [12, 15, 18, 19, 25], mask)
        assert_close("pieces", layer(x, attention_mask=mask)[0], pieces, TIGHT)


@every_layer
@torch.no_grad()
def test_a_cache_is_only_written_when_asked(name: str) -> None:
    layer, x, cache = build(name), inputs(2, 12), StateCache()
    layer(x[:, :10], past_key_values=cache, use_cache=True)
    for steps in (1, 2):
        first, *_ = layer(x[:, 10 : 10 + steps], past_key_values=cache)
        again, *_ = layer(x[:, 10 : 10 + steps], past_key_values=cache)
        assert cache.get_seq_length(0) == 10
        assert torch.equal(first, again)
        assert_close("read only", layer(x[:, : 10 + steps])[0][:, 10:], first, TIGHT)


@every_layer
def test_no_output_depends_on_a_later_token(name: str) -> None:
    layer, x = build(name).train(), inputs(1, 90)
    changed = torch.cat([x[:, :70], 1 - x[:, 70:]], 1)
    assert_close("past", layer(x)[0][:, :70], layer(changed)[0][:, :70], 1e-6)


@every_layer
def test_training_and_evaluation_agree(name: str) -> None:
    layer, x = build(name), inputs(2, 20)
    assert_close("mode", layer(x)[0], layer.train()(x)[0], TIGHT)


@every_layer
def test_bfloat16_stays_near_float32(name: str) -> None:
    x = inputs(1, 50)
    rounded = build(name, torch.bfloat16)
    exact = build(name)
    exact.load_state_dict(rounded.state_dict())
    o, *_ = rounded(x.bfloat16())
    assert o.dtype == torch.bfloat16
    assert_close("bfloat16", exact(x.bfloat16().to(x.dtype))[0], o, 0.03)


@every_mixer
def test_autocast_stays_near_float32(name: str) -> None:
    layer, x = build(name).train(), inputs(2, 20).requires_grad_()
    with torch.autocast(x.device.type, torch.bfloat16):
        o, *_ = layer(x)
    # A gradient of all alike would cancel in the norms.
    weights = torch.linspace(-1, 1, o.numel()).view(o.shape)
    (dx,) = torch.autograd.grad((o * weights).sum(), x)
    expected, *_ = layer(x)
    assert_close("output", expected, o, 0.03)
    assert_close("gradient", torch.autograd.grad((expected * weights).sum(), x)[0], dx, 0.1)


@every_layer
def test_compiles_whole(name: str) -> None:
    torch._dynamo.reset()
    layer, x = build(name).train(), inputs(1, 40)
    # Under a default device PyTorch 2.11 does not trace Tensor.unflatten.
    torch.set_default_device(None)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert_close("compiled", layer(x)[0], compiled(x)[0], TIGHT)


class _Called(torch.nn.Module):
    """Stands for what adapters and quantised layers put in place of another: it is called and has no weight."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = [inner]

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.inner[0](*arguments, **options)


@every_mixer
def test_what_stands_in_for_a_linear_layer_or_a_norm_is_called(name: str) -> None:
    layer, x = build(name), inputs(2, 12)
    expected, pieces = layer.train()(x)[0], decode(layer.eval(), x, [9, 10]) if name in LAYERS else None
    for parent in list(layer.modules()):
        for child_name, child in list(parent.named_children()):
            if isinstance(child, (torch.nn.Linear, RMSNorm)):
                setattr(parent, child_name, _Called(child))
    # What is inside of a ternary layer that stands somewhere else now.
    for child in layer.modules():
        if isinstance(child, _Called) and isinstance(child.inner[0], BitLinear):
            child.inner[0].norm = _Called(child.inner[0].norm)
    assert_close("training", expected, layer.train()(x)[0], TIGHT)
    if pieces is not None:
        assert_close("decoding", pieces, decode(layer.eval(), x, [9, 10]), TIGHT)


@every_layer
def test_bad_input_is_refused_by_name(name: str) -> None:
    layer, x = build(name), inputs(2, 10)
    with pytest.raises(ValueError, match=r"hidden_states.*D=32.*\[2, 10, 8\]"):
        layer(x[..., :8])
    with pytest.raises(ValueError, match=r"attention_mask.*B=2, L=10.*\[2, 1, 10, 10\]"):
        layer(x, attention_mask=torch.ones(2, 1, 10, 10))
    with pytest.raises(ValueError, match=r"attention_mask: expected 0 and 1.*-10000"):
        layer(x, attention_mask=torch.tensor([0.0, -10000.0]).repeat(2, 5))
    with pytest.raises(ValueError, match="attention_mask: no real token"):
        layer(x, attention_mask=torch.zeros(2, 10))
    with pytest.raises(TypeError, match="attention_mask: expected a tensor.*list"):
        layer(x, attention_mask=[[1] * 10] * 2)
    with pytest.raises(ValueError, match="cu_seqlens.*B=2"):
        layer(x, cu_seqlens=torch.tensor([0, 20]))
    with pytest.raises(ValueError, match="output_attentions"):
        layer(x, output_attentions=True)
    with pytest.raises(TypeError, match="takes no argument v_last"):
        layer(x, v_last=x)
    layer.layer_idx = None
    with pytest.raises(ValueError, match="layer_idx"):
        layer(x, past_key_values=StateCache())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GatedLinearAttention(mode="chunks"), "mode: expected one of chunk.*'chunks'"),
        (lambda: GatedLinearAttention(gate_fn="swsh"), "gate_fn.*'swsh'"),
        (lambda: GatedLinearAttention(feature_map="elu2"), "feature_map.*'elu2'"),
        (lambda: GatedLinearAttention(hidden_size=1000, num_heads=3), "hidden_size.*num_heads=3, got 500"),
        (lambda: GatedLinearAttention(num_heads=4, num_kv_heads=3), "num_heads.*num_kv_heads=3, got 4"),
        (lambda: MultiScaleRetention(mode="recurrent"), "mode: expected one of chunk.*parallel, got 'recurrent'"),
        (lambda: MultiScaleRetention(hidden_size=24), "dim: expected an even number above 0, got 3"),
        (lambda: SimpleGatedLinearAttention(num_heads=3), "hidden_size.*num_heads=3, got 1024"),
        (lambda: HGRN2Attention(mode="parallel"), "mode: expected one of chunk.*'parallel'"),
        (lambda: HGRN2Attention(expand_ratio=100), "hidden_size.*expand_ratio=100, got 1024"),
        (lambda: LightNetAttention(expand_ratio=None), "num_heads, expand_ratio: expected at least one"),
        (lambda: LightNetAttention(num_heads=3), "hidden_size.*num_heads=3, got 1024"),
        (lambda: GatedSlotAttention(num_heads=4, num_kv_heads=3), "num_heads.*num_kv_heads=3, got 4"),
        (lambda: GatedSlotAttention(num_slots=0), "num_slots: expected at least 1, got 0"),
        (lambda: ABCAttention(24), "dim: expected an even number above 0, got 3"),
        (lambda: DeltaNet(mode="parallel"), "mode: expected one of chunk.*'parallel'"),
        (lambda: DeltaNet(num_heads=3), "hidden_size.*num_heads=3, got 1024"),
        (lambda: DeltaNet(qk_activation="gelu"), "qk_activation: expected one of silu.*'gelu'"),
        (lambda: DeltaNet(qk_norm="l1"), "qk_norm: expected one of l2, sum, got 'l1'"),
        (lambda: GatedDeltaNet(num_heads=4, num_v_heads=6), "num_v_heads.*num_heads=4, got 6"),
        (lambda: GatedDeltaNet(head_dim=5, expand_v=1.5), r"expand_v: expected head_dim \* expand_v.*5 \* 1.5"),
        (lambda: GatedDeltaNet(16, 1, 8, 2, output_gate_activation="relu"), "activation.*'relu'"),
        (lambda: GatedDeltaProduct(num_householder=0), "num_householder: expected at least 1, got 0"),
        (lambda: KimiDeltaAttention(mode="parallel"), "mode: expected one of chunk.*'parallel'"),
        (lambda: KimiDeltaAttention(safe_gate=True), "lower_bound: expected.*safe_gate.*got None"),
        (lambda: KimiDeltaAttention(lower_bound=0.5), "lower_bound: expected a log decay below 0, got 0.5"),
        (lambda: Comba(num_heads=4, num_v_heads=6), "num_v_heads.*num_heads=4, got 6"),
        (lambda: RWKV7Attention(mode="parallel"), "mode: expected one of chunk.*'parallel'"),
        (lambda: RWKV7Attention(head_dim=None), "head_dim, num_heads: expected at least one"),
        (lambda: RWKV7Attention(head_dim=100), "hidden_size.*head_dim=100, got 1024"),
        (lambda: RWKV7Attention(num_heads=4), "num_heads: expected 16.*got 4"),
        (lambda: RWKV7Attention(value_dim=1000), "value_dim.*num_heads=16, got 1000"),
        (lambda: Mamba(dt_rank=0), "dt_rank: expected 'auto' or at least 1, got 0"),
        (lambda: Mamba(dt_init="zero"), "dt_init: expected one of random, constant, got 'zero'"),
        (lambda: Mamba2(4, 64, 96), r"num_heads: expected hidden_size \* expand / head_dim = 3, got 4"),
        (lambda: Mamba2(hidden_size=100), r"hidden_size \* expand: expected a multiple of head_dim=64, got 200"),
        (lambda: Mamba2(hidden_size=96, n_groups=2), "num_heads: expected a multiple of n_groups=2, got 3"),
        (lambda: Mamba2(hidden_act="relu"), "hidden_act: expected one of silu, swish, got 'relu'"),
        (lambda: Mamba2(backend="cudnn"), "backend: expected one of None, cuda.*'cudnn'"),
        (lambda: LinearAttention(mode="parallel"), "mode: expected one of chunk.*'parallel'"),
        (lambda: LinearAttention(feature_map="taylor"), "feature_map: expected one of dpfp.*'taylor'"),
        (lambda: LinearAttention(output_norm="layernorm"), "output_norm: expected one of rmsnorm.*'layernorm'"),
        (lambda: BasedLinearAttention(64, num_heads=4), "num_heads.*num_key_value_heads=12, got 4"),
        (lambda: BasedLinearAttention(48, feature_name="elu"), "feature_name: expected one of taylor_exp, got 'elu'"),
        (lambda: BasedLinearAttention(48, mode="fused_recurrent"), "mode: expected one of parallel"),
        (lambda: ReBasedLinearAttention(48, causal=False), "causal: expected True"),
        (lambda: ReBasedLinearAttention(40), "hidden_size.*num_heads=16, got 40"),
        (lambda: Attention(100, num_heads=3), "hidden_size.*num_heads=3, got 100"),
        (lambda: Attention(64, num_heads=4, num_kv_heads=0), "num_kv_heads=0"),
        (lambda: Attention(64, num_heads=4, window_size=0), "window_size.*got 0"),
        (lambda: Attention(64, num_heads=4, rope_theta=None, rope_scaling={}), "rope_scaling: there are no positions"),
        (lambda: Attention(64, num_heads=4, rope_scaling={"type": "linear"}), "scaling: .* needs factor"),
        (lambda: MultiheadLatentAttention(kv_lora_rank=0), "kv_lora_rank: expected at least 1, got 0"),
        (lambda: MultiheadLatentAttention(qk_head_dim=128), "qk_head_dim: expected.*= 192, got 128"),
        (lambda: MultiheadLatentAttention(window_size=0), "window_size: expected at least 1, got 0"),
    ],
)
def test_bad_options_are_refused_by_name(make: Callable[[], Mixer], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@torch.inference_mode()
def test_attention_keeps_no_more_keys_than_its_window() -> None:
    layer, cache = build("attn, window"), StateCache()
    for steps in (200, 1, 1, 30, 5, 1):
        layer(inputs(3, steps), past_key_values=cache, use_cache=True)
        for kept in cache[0]["attn_state"]:
            assert kept.shape[1] == 6
            assert kept.untyped_storage().nbytes() == 3 * 6 * HIDDEN * kept.element_size()
    assert cache.get_seq_length(0) == 238


@pytest.mark.parametrize("name", ["attn", "attn, window", "attn, window of two", "attn, wide heads, scaled positions"])
@torch.inference_mode()
def test_attention_is_filled_in_pieces_behind_left_padding(name: str) -> None:
    # Pieces shorter and longer than the window, that end in padding, begin in it or have none.
    layer, x, mask = build(name), inputs(3, 90), padded([90, 61, 30], 90, "left")
    whole, *_ = layer(x, attention_mask=mask)
    for cuts in ([40, 80], [10, 29, 60, 65], list(range(7, 90, 7))):
        assert_close(str(cuts), whole, decode(layer, x, cuts, mask), TIGHT)


def test_attention_with_a_window_refuses_padding_between_tokens() -> None:
    layer, x, mask = build("attn, window"), inputs(2, 20), torch.ones(2, 20)
    mask[1, 7:10] = 0
    with pytest.raises(ValueError, match="padding between the tokens of a row"):
        decode(layer, x, [12], mask)
    # Without a cut the window reaches over the gap, as it does where all columns are kept.
    mask[1, :7] = 0
    assert_close("left", layer(x, attention_mask=mask)[0], decode(layer, x, [12], mask), TIGHT)
    layer = build("attn")
    mask[1, :7] = 1
    assert_close("no window", layer(x, attention_mask=mask)[0], decode(layer, x, [12], mask), TIGHT)


@every_layer
def test_packed_sequences_continue_from_a_cache_or_are_refused(name: str) -> None:
    layer, x, cache, probe = build(name), inputs(1, 70), StateCache(), StateCache()
    # The second sequence has no steps in the first call, the third none in the second.
    first, rest = torch.cat([x[:, :10], x[:, 40:50]], 1), torch.cat([x[:, 10:30], x[:, 30:40], x[:, 50:]], 1)
    ends = torch.tensor([0, 10, 10, 20, 20])
    layer(x[:, :2], past_key_values=probe, use_cache=True)
    if "attn_state" in probe[0]:
        with pytest.raises(ValueError, match="cu_seqlens: a cache of keys needs rows"):
            layer(first, past_key_values=cache, use_cache=True, cu_seqlens=ends)
        assert name not in CONTINUED
        return
    layer(first, past_key_values=cache, use_cache=True, cu_seqlens=ends)
    o, *_ = layer(rest, past_key_values=cache, cu_seqlens=torch.tensor([0, 20, 30, 30, 50]))
    whole, *_ = layer(x, cu_seqlens=torch.tensor([0, 30, 40, 50, 70]))
    assert_close("continued", torch.cat([whole[:, 10:40], whole[:, 50:]], 1), o, TIGHT)


@pytest.mark.parametrize("name", CONTINUED)
def test_packed_sequences_continue_as_rows(name: str) -> None:
    layer, x, cache, lengths = build(name), inputs(3, 30), StateCache(), [20, 1, 12]
    packed = torch.cat([row[:length] for row, length in zip(x, lengths)])[None]
    layer(packed, past_key_values=cache, use_cache=True, cu_seqlens=torch.tensor([0, 20, 21, 33]))
    rows = torch.stack([row[length : length + 4] for row, length in zip(x, lengths)])
    continued = [layer(step, past_key_values=cache, use_cache=True)[0] for step in rows.split([1, 3], 1)]
    whole = [layer(x[n : n + 1, : length + 4])[0][:, length:] for n, length in enumerate(lengths)]
    assert_close("continued", torch.cat(whole), torch.cat(continued, 1), TIGHT)


def test_a_feature_map_for_both_is_loaded_from_either_name() -> None:
    layer, apart = (LinearAttention(hidden_size=HIDDEN, feature_map="t2r", tie_feature_map_qk=t) for t in (True, False))
    both = layer.state_dict() | {"feature_map_k.layer.weight": layer.feature_map_q.layer.weight}
    apart.load_state_dict(both)
    tied = LinearAttention(hidden_size=HIDDEN, feature_map="t2r", tie_feature_map_qk=True)
    tied.load_state_dict(both)
    x = inputs(1, 20)
    assert torch.equal(layer(x)[0], tied(x)[0])
    assert torch.equal(layer(x)[0], apart(x)[0])


def test_the_modes_of_based_are_one() -> None:
    torch.manual_seed(0)
    layer, x = BasedLinearAttention(HIDDEN, 4, 2, 2), inputs(1, 20)
    for mode in ("chunk", "fused_chunk"):
        other = BasedLinearAttention(HIDDEN, 4, 2, 2, mode=mode)
        other.load_state_dict(layer.state_dict())
        assert torch.equal(layer(x)[0], other(x)[0])


MODAL = [getattr(fla.layers, name) for name in fla.layers.__all__]
MODAL = [layer for layer in MODAL if isinstance(layer, type) and "mode" in inspect.signature(layer).parameters]


@pytest.mark.parametrize("layer", MODAL, ids=lambda layer: layer.__name__)
def test_fused_chunk_is_said_to_be_a_name_and_is_one(layer: type[Mixer]) -> None:
    said = " ".join((layer.__doc__ or "").split())
    assert re.search(r'mode: .*``"fused_chunk"``.*name', said)
    options = {key: 2 for key in ("num_heads", "num_key_value_heads") if key in inspect.signature(layer).parameters}
    options |= {key: 16 for key in ("head_dim",) if key in inspect.signature(layer).parameters}
    outputs = []
    for mode in ("chunk", "fused_chunk"):
        torch.manual_seed(0)
        outputs.append(layer(mode=mode, hidden_size=HIDDEN, **options).train()(torch.randn(1, 70, HIDDEN))[0])
    assert torch.equal(*outputs)


def test_hgrn2_forgets_no_more_than_its_lower_bound_lets_it() -> None:
    layer, x = build("hgrn2").train(), inputs(1, 40)
    bounds = torch.rand(3, HIDDEN, requires_grad=True)
    o, *_ = layer(x, lower_bounds=bounds)
    assert_close("a row of its own", layer(x, lower_bounds=bounds[0])[0], o, 1e-6)
    (gradient,) = torch.autograd.grad(o.square().sum(), bounds)
    assert gradient[0].abs().min() > 0
    assert not gradient[1:].any()
    # At 0 the bound changes nothing, at 1 nothing is forgotten and so nothing is written.
    assert_close("no bound", layer(x)[0], layer(x, lower_bounds=torch.zeros(HIDDEN))[0], 1e-6)
    assert layer(x, lower_bounds=torch.ones(HIDDEN))[0].abs().max() < 0.05
    layer.layer_idx = None
    with pytest.raises(ValueError, match="layer_idx: expected the layer's row"):
        layer(x, lower_bounds=bounds)


@pytest.mark.parametrize("bound", [0.0, 1e-3, 0.9, 1.0])
def test_a_bounded_forget_gate_is_accurate_at_its_ends(bound: float) -> None:
    f = torch.tensor([-200.0, -80.0, -20.0, -1.0, 0.0, 1.0, 20.0, 200.0], requires_grad=True)
    b = torch.full_like(f, bound, requires_grad=True)
    g, rest = bounded_forget_gate(f, b)
    gate = bound + (1 - bound) * torch.sigmoid(f.double())
    assert_close("gate", gate, g.exp(), 1e-6, err_atol=0)
    assert ((1 - gate - rest).abs() <= 1e-6 * (1 - gate) + 2e-7 * bound).all()
    assert all(x.isfinite().all() for x in (g, *torch.autograd.grad(g.sum() + rest.sum(), (f, b))))


def test_a_decay_starts_within_its_range_in_a_layer_and_afresh() -> None:
    torch.manual_seed(0)
    layer = GatedDeltaNet(HIDDEN, head_dim=1, num_heads=500)
    for values in (dict(layer.named_parameters()), layer.initial_values(1)):
        rate, step = values["A_log"].exp(), torch.nn.functional.softplus(values["dt_bias"])
        assert 0 < rate.min() < 0.5
        assert 15.5 < rate.max() < 16.001
        assert 0.00099 < step.min() < 0.0012
        assert 0.08 < step.max() < 0.1001
    assert not torch.equal(layer.A_log, values["A_log"])


def test_sums_of_nothing_divide_nothing() -> None:
    layer = DeltaNet(hidden_size=HIDDEN, num_heads=2, qk_activation="relu", qk_norm="sum")
    x = torch.zeros(1, 5, HIDDEN, requires_grad=True)
    o, *_ = layer(x)
    (dx,) = torch.autograd.grad(o.sum(), x)
    assert o.isfinite().all()
    assert dx.isfinite().all()


def test_rwkv7_draws_values_towards_those_of_the_first_layer() -> None:
    x, mask = inputs(2, 20), padded([20, 9], 20, "left")
    later = RWKV7Attention(hidden_size=HIDDEN, head_dim=8, layer_idx=2, num_hidden_layers=4)
    torch.nn.init.normal_(later.o_proj.weight)
    *_, v_first = build("rwkv7")(x, attention_mask=mask)
    assert v_first.shape == x.shape
    o, *_, handed_on = later(x, attention_mask=mask, v_first=v_first)
    assert handed_on is v_first
    alone, *_ = later(x[1:, 11:], v_first=v_first[1:, 11:])
    assert_close("alone", alone, o[1:, 11:], TIGHT)
    # All the way, and not at all.
    bias = later.v_lora.lora[2].bias.data
    bias.fill_(40)
    o, *_ = later(x, v_first=v_first)
    bias.fill_(-100)
    apart, *_ = later(x, v_first=v_first)
    assert_close("own values", later(x)[0], apart, TIGHT)
    bias.fill_(40)
    later.v_proj.weight.data.zero_()
    assert_close("first values", later(x, v_first=v_first)[0], o, TIGHT)
    assert not torch.allclose(o, apart)


def test_rwkv7_starts_from_heights_between_its_first_and_last_layer() -> None:
    bottom, top = (
        RWKV7Attention(hidden_size=64, head_dim=16, layer_idx=layer_idx, num_hidden_layers=4) for layer_idx in (0, 3)
    )
    for layer, share, weight in ((bottom, 0.2, 0.25**0.7), (top, 0.05, 1.0)):
        channel = torch.arange(64) / 64
        assert_close("shares", 1 - channel**share, layer.x_r.flatten(), 1e-6)
        assert_close("norm", torch.full((64,), weight), layer.g_norm.weight, 1e-6)
        decay = layer.w_lora.lora[2].bias
        assert (decay.min().item(), decay.max().item()) == pytest.approx((-8, 3), abs=1e-5)
        gram = layer.k_proj.weight @ layer.k_proj.weight.T
        assert_close("orthogonal", 0.01 * torch.eye(64), gram, 1e-5)
        assert not layer.o_proj.weight.any()
    assert_close("gate", torch.tensor([0.93, 0.53]), top.v_lora.lora[2].bias[[0, -1]], 1e-6)
    assert not hasattr(bottom, "v_lora")


def test_mamba2_starts_as_its_options_say() -> None:
    torch.manual_seed(0)
    layer = Mamba2(
        None, 1, 64, A_init_range=(2, 4), dt_min=0.01, dt_max=0.2, dt_init_floor=0.02, conv_init=0.1, D_has_hdim=True
    )
    for values in (dict(layer.named_parameters()), layer.initial_values(1)):
        rate, step = values["A_log"].exp(), torch.nn.functional.softplus(values["dt_bias"])
        assert 2 <= rate.min() < 2.2 < 3.8 < rate.max() <= 4.001
        assert 0.0199 <= step.min() < 0.021 < 0.15 < step.max() <= 0.201
        assert 0.08 < values["conv1d.weight"].abs().max() <= 0.1
        assert torch.equal(values["D"], torch.ones(128))
    assert not torch.equal(layer.A_log, values["A_log"])


@pytest.mark.parametrize("norm_before_gate", [False, True])
def test_mamba2_normalises_each_group_by_itself(norm_before_gate: bool) -> None:
    torch.manual_seed(0)
    layer = Mamba2(8, 8, 32, 12, n_groups=4, norm_before_gate=norm_before_gate, norm_eps=1e-12)
    x, seen = torch.randn(2, 20, 32), []
    layer.out_proj.register_forward_pre_hook(lambda _, arguments: seen.append(*arguments))
    layer(x)
    gate = torch.nn.functional.silu(layer.in_proj(x)[..., :64]) if norm_before_gate else 1
    mean_squares = (seen[0] / gate).unflatten(-1, (4, 16)).square().mean(-1)
    assert_close("mean squares", torch.ones(2, 20, 4), mean_squares, 1e-5)
