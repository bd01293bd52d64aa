"""The base of all token mixers: the forward contract, padded and packed batches, the cache."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from fla.layers.cache import MixerCache, State, check_rows, extend_keys
from fla.layers.utils import Padding, ReadMask, read_mask
from fla.modules import ShortConvolution
from fla.utils.validation import check_cu_seqlens, count_sequences
from fla.utils.varlen import boundaries

#: "fused_chunk" is a name of the chunk form, which existing configs have: there is no third form.
MODES = ("chunk", "fused_recurrent", "fused_chunk")

#: Steps up to which a call outside training takes the recurrent form. Training keeps the chunk form at every
#: length: both are differentiable, and the matrix products of the chunks are faster backward even when short.
RECURRENT_STEPS = 64


@dataclass
class Call:
    """A call of a mixer: the layout of its tokens, and its reads from and writes to the cache."""

    layer_idx: int
    steps: int
    """Columns of the batch, padding included."""
    counted: int
    """Columns among them that the cache is told of."""
    past: int
    """Columns that the cache has seen before."""
    cache: MixerCache | None
    writes: bool
    mask: ReadMask | None
    padding: Padding | None
    cu_seqlens: torch.Tensor | None
    """Boundaries of the packed sequences, be they the caller's or those of the padded batch."""
    max_seqlen: int | None
    """Bound on the length of each packed sequence, where it is known without waiting for the device."""

    def read(self, name: str) -> Any:
        """A state of this layer, None if there is none."""
        return None if self.cache is None else self.cache[self.layer_idx].get(name)

    def write(
        self,
        recurrent_state: State | None = None,
        conv_state: State | None = None,
        ffn_state: State | None = None,
    ) -> None:
        """Store what the next call starts from; nothing happens where no cache is written."""
        if self.cache is not None and self.writes:
            self.cache.update(
                recurrent_state=recurrent_state,
                conv_state=conv_state,
                ffn_state=ffn_state,
                layer_idx=self.layer_idx,
                offset=self.counted,
            )

    def extend(
        self, keys: torch.Tensor, values: torch.Tensor, window_size: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values ``[B, T, H, D]`` and return all that the new steps may see."""
        if self.cache is None or not self.writes:
            return extend_keys(self.read("attn_state"), (keys, values))
        state = self.cache.update(
            attn_state=(keys, values),
            layer_idx=self.layer_idx,
            offset=self.steps,
            cache_kwargs={"window_size": window_size},
        )
        return state["attn_state"]  # type: ignore[no-any-return]

    def convolve(
        self, convolutions: Sequence[ShortConvolution], tensors: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor], State | None]:
        """Send each tensor ``[B, T, D]`` through its short convolution, from where the cache ends.

        Args:
            convolutions: one for each tensor; without any, the tensors come back as they are.
            tensors: the tensors to convolve.

        Returns:
            The tensors, and the ``conv_state`` to write: None where there is none, or no cache is written.
        """
        if not convolutions:
            return list(tensors), None
        past = self.read("conv_state") or (None,) * len(convolutions)
        if not self.writes:
            # A single step would update them in place.
            past = tuple(None if cache is None else cache.clone() for cache in past)
        convolved = [
            convolution(x, cache=cache, output_final_state=self.writes, cu_seqlens=self.cu_seqlens)
            for convolution, x, cache in zip(convolutions, tensors, past, strict=True)
        ]
        return [x for x, _ in convolved], tuple(state for _, state in convolved) if self.writes else None


class Mixer(nn.Module):
    """A layer that mixes tokens: the base of all in ``fla.layers``.

    A subclass implements :meth:`mix` on dense ``[B, T, D]`` or packed ``[1, total, D]`` hidden states; padding has
    been removed by then, and is put back afterwards.

    Args:
        hidden_size: channels in and out.
        layer_idx: the layer's place in the cache; needed once a cache is passed.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    """Keyword arguments of :meth:`mix` whose values are shared across the layers of a model."""
    hands_on: ClassVar[tuple[str, ...]] = ()
    """Names of what :meth:`forward` returns after the cache, for the layers that follow."""
    counts_steps: ClassVar[bool] = True
    """Whether this part of a layer tells the cache of the new steps; a part that comes after the mixer does not."""
    mode: str
    """One of ``MODES``, in layers that have a chunk and a recurrent form."""

    def __init__(self, hidden_size: int, layer_idx: int | None = None) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.layer_idx = layer_idx

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | ReadMask | None = None,
        past_key_values: MixerCache | None = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        cu_seqlens: torch.Tensor | None = None,
        max_seqlen: int | None = None,
        **shared: torch.Tensor | None,
    ) -> tuple[Any, ...]:
        """Mix the tokens of each sequence, every one with those before it.

        Args:
            hidden_states: ``[B, T, D]``.
            attention_mask: ``[B, L]``, 1 for a real token and 0 for padding; L is T and what the cache has seen. A
                mask read by :func:`fla.layers.utils.read_mask` spares waiting for the device again.
            past_key_values: states of the steps before, read where given.
            use_cache: also write the states after the last step.
            output_attentions: must be False, there are no attention weights to return.
            cu_seqlens: boundaries of packed sequences ``[N + 1]``, B must be 1; with it the mask is not looked at.
            max_seqlen: the length of the longest of them. It spares layers of softmax attention waiting for the device.
            **shared: the arguments that ``takes`` names.

        Returns:
            ``(o, None, past_key_values)`` with o ``[B, T, D]``, zero at padding, and then what ``hands_on`` names.

        Raises:
            TypeError: an argument of the wrong type, or one that this layer does not take.
            ValueError: a shape that does not fit, or a cache without ``layer_idx``.
        """
        if output_attentions:
            raise ValueError("output_attentions: this layer never makes attention weights, expected False")
        if unknown := shared.keys() - set(self.takes):
            raise TypeError(f"{type(self).__name__} takes no argument {', '.join(sorted(unknown))}")
        call = self._call(hidden_states, attention_mask, past_key_values, use_cache, cu_seqlens, max_seqlen)
        x = hidden_states if call.padding is None else call.padding.unpad(hidden_states)
        o, *handed_on = self.mix(x, call, **shared)
        if call.padding is not None:
            o = call.padding.pad(o)
        return (o, None, past_key_values, *handed_on)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """The output ``[B, T, D]`` or ``[1, total, D]``, and then what ``hands_on`` names."""
        raise NotImplementedError

    def is_recurrent(self, call: Call) -> bool:
        """Whether this call takes the recurrent form: in ``mode="fused_recurrent"``, or short and not training."""
        return self.mode == "fused_recurrent" or (call.steps <= RECURRENT_STEPS and not self.training)

    def check_layout(
        self, cache: MixerCache, mask: ReadMask | None = None, cu_seqlens: torch.Tensor | None = None
    ) -> None:
        """Raise ValueError where this layer cannot go on from a cache with such padding or packing.

        A model asks all its layers before the first of them writes, so that a call that is refused changes nothing.

        Args:
            cache: the cache of the call.
            mask: the mask of a batch of rows, if it has padding.
            cu_seqlens: boundaries of packed sequences, if the caller gave them.
        """

    def _call(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | ReadMask | None,
        cache: MixerCache | None,
        use_cache: bool,
        cu_seqlens: torch.Tensor | None,
        max_seqlen: int | None,
    ) -> Call:
        if hidden_states.ndim != 3 or hidden_states.shape[-1] != self.hidden_size:
            raise ValueError(
                f"hidden_states: expected shape [B, T, D] with D={self.hidden_size}, got {list(hidden_states.shape)}"
            )
        batch, steps, _ = hidden_states.shape
        if cache is not None and self.layer_idx is None:
            raise ValueError(f"layer_idx: {type(self).__name__} needs it to find its states in past_key_values")
        layer_idx = self.layer_idx or 0
        past = 0 if cache is None else cache.get_seq_length(layer_idx)
        if cache is not None and use_cache and not self.counts_steps:
            past -= steps
        mask = check_layout(batch, steps, past, attention_mask, cu_seqlens)
        padding = None if mask is None else mask.padding(steps)
        if cache is not None:
            check_rows(cache[layer_idx], count_sequences(cu_seqlens, batch))
            if cu_seqlens is not None or (mask is not None and mask.has_padding(mask.length)):
                self.check_layout(cache, mask, cu_seqlens)
        if padding is not None:
            cu_seqlens, max_seqlen = padding.cu_seqlens, steps
        counted = steps if self.counts_steps else 0
        return Call(layer_idx, steps, counted, past, cache, use_cache, mask, padding, cu_seqlens, max_seqlen)


def check_layout(
    batch: int,
    steps: int,
    past: int,
    attention_mask: torch.Tensor | ReadMask | None,
    cu_seqlens: torch.Tensor | None,
) -> ReadMask | None:
    """Check how a batch of so many rows and new steps is laid out, and read its mask.

    Args:
        batch: rows.
        steps: columns of the new tokens.
        past: columns before them.
        attention_mask: ``[batch, past + steps]``, not looked at where ``cu_seqlens`` is given.
        cu_seqlens: boundaries of packed sequences.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a shape that does not fit, a mask of other values than 0 and 1, or on a CPU boundaries that do not
            end where the steps do.
    """
    check_cu_seqlens(cu_seqlens, batch)
    if cu_seqlens is not None and cu_seqlens.is_cpu and not torch.compiler.is_compiling():
        boundaries(cu_seqlens, steps)
    if cu_seqlens is not None or attention_mask is None:
        return None
    tensor = attention_mask.tensor if isinstance(attention_mask, ReadMask) else attention_mask
    check_mask(tensor, batch, past + steps)
    return read_mask(attention_mask, steps)


def check_mask(attention_mask: torch.Tensor, batch: int, length: int) -> None:
    """Check the form of a padding mask; its values are checked where they are read.

    Raises:
        TypeError: not a tensor.
        ValueError: not ``[batch, length]``.
    """
    if not isinstance(attention_mask, torch.Tensor):
        raise TypeError(f"attention_mask: expected a tensor [B, L] of 0 and 1, got {type(attention_mask).__name__}")
    if attention_mask.shape != (batch, length):
        raise ValueError(
            f"attention_mask: expected shape [B, L] of 0 and 1 with B={batch}, L={length} (the steps that the cache "
            f"has seen, and the new ones), got {list(attention_mask.shape)}"
        )


def check_choice(name: str, value: object, allowed: Collection[object]) -> None:
    """Raise ValueError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(map(str, allowed))}, got {value!r}")


def check_divisible(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Raise ValueError unless ``divisor`` divides ``value``, both above 0."""
    if value <= 0 or divisor <= 0 or value % divisor:
        raise ValueError(f"{name}: expected a multiple of {divisor_name}={divisor}, got {value}")


def repeat_heads(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Each key or value head of x ``[B, T, H, D]`` for all the query heads of its group."""
    return x if groups == 1 else x.repeat_interleave(groups, dim=2)


def expanded_heads(hidden_size: int, num_heads: int | None, expand_ratio: int | None) -> tuple[int, int]:
    """Heads and the key channels of each, where either may follow from the other.

    Raises:
        ValueError: neither is given, or sizes that they do not divide.
    """
    if num_heads is None and expand_ratio is None:
        raise ValueError("num_heads, expand_ratio: expected at least one of the two, got None for both")
    if num_heads is None:
        assert expand_ratio is not None
        check_divisible("hidden_size", hidden_size, "expand_ratio", expand_ratio)
        num_heads = hidden_size // expand_ratio
    check_divisible("hidden_size", hidden_size, "num_heads", num_heads)
    return num_heads, hidden_size // num_heads if expand_ratio is None else expand_ratio
