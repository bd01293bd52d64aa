"""Tile sizes of the kernels that take one step at a time."""

from __future__ import annotations

from fla.utils.tiles import Block, TileKey, TileTable, power_of_two


def _recurrent_block(key: TileKey) -> Block:
    k = power_of_two(key.key_dim)
    return Block(k, min(power_of_two(key.value_dim), 32 if k <= 128 else 16), 2 if k >= 128 else 1, 2)


#: The whole of K is one block, because each read and each output sums over it.
RECURRENT_TILES: TileTable[Block] = TileTable(_recurrent_block)
