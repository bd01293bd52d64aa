"""Hypothesis strategies: shapes of ops, places to split a sequence, lengths of packed ones."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from hypothesis import strategies as st

#: Lengths at and around the edges of chunks.
_EDGES = tuple(edge + offset for edge in (16, 32, 64, 128) for offset in (-1, 0, 1))
_WIDE_DIMS = (64, 65, 96, 100, 128, 200, 256)


class OpShape(NamedTuple):
    """Sizes of a call: batch, time, heads, and the head dimensions of keys and values."""

    B: int
    T: int
    H: int
    K: int
    V: int


def times(largest: int = 200) -> st.SearchStrategy[int]:
    """Lengths from 1: small, any, and at the edges of chunks."""
    edges = [edge for edge in _EDGES if edge <= largest]
    anywhere = st.integers(1, largest)
    return st.one_of(st.integers(1, min(8, largest)), anywhere, st.sampled_from(edges) if edges else anywhere)


def head_dims(largest: int = 256) -> st.SearchStrategy[int]:
    """Head dimensions: mostly below 40, odd ones too, and now and then a large one."""
    wide = [dim for dim in _WIDE_DIMS if dim <= largest]
    small = st.integers(1, min(40, largest))
    return st.one_of(small, small, small, st.sampled_from(wide)) if wide else small


@st.composite
def op_shapes(draw: st.DrawFn, max_time: int = 200, max_dim: int = 256, max_work: int = 1 << 21) -> OpShape:
    """Shapes of an op's call. The length gives way where ``B * T * H * K * V`` would be over ``max_work``."""
    batch, heads = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    key_dim, value_dim = draw(head_dims(max_dim)), draw(head_dims(max_dim))
    time = draw(times(min(max_time, max(1, max_work // (batch * heads * key_dim * value_dim)))))
    return OpShape(batch, time, heads, key_dim, value_dim)


def splits(total: int, most: int = 4) -> st.SearchStrategy[list[int]]:
    """The lengths, none of them 0, of up to ``most`` pieces that make up ``total`` steps."""
    cuts = st.lists(st.integers(1, max(1, total - 1)), unique=True, max_size=min(most, total) - 1)
    return cuts.map(lambda inner: [end - start for start, end in pairwise([0, *sorted(inner), total])])


def packed_lengths(max_total: int = 200, most: int = 6) -> st.SearchStrategy[list[int]]:
    """The lengths of up to ``most`` packed sequences, empty ones among them, with at least one step in all."""
    lengths = st.one_of(st.just(0), times(max(1, max_total // most)))
    return st.lists(lengths, min_size=1, max_size=most).filter(lambda drawn: sum(drawn) > 0)
