"""Gated delta product (arXiv 2502.10297): a decay and several corrections of the state for every token."""

from fla.ops.gated_delta_product.api import chunk_gated_delta_product, fused_recurrent_gated_delta_product
from fla.ops.gated_delta_product.reference import gated_delta_product_reference, naive_recurrent_gated_delta_product

__all__ = [
    "chunk_gated_delta_product",
    "fused_recurrent_gated_delta_product",
    "gated_delta_product_reference",
    "naive_recurrent_gated_delta_product",
]
