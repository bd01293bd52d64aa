"""The difference of every token to the one before it, which RWKV mixes its inputs with."""

from fla.modules.token_shift.api import token_shift
from fla.modules.token_shift.reference import token_shift_ref

__all__ = ["token_shift", "token_shift_ref"]
