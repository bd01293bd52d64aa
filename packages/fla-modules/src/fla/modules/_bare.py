"""Whether the weight of a module may be read in place of a call."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules import module as _calls

#: Subclasses hold something else than numbers in one place: shards of a mesh, quantised values.
_PLAIN = (nn.Parameter, torch.Tensor)


def is_bare(module: nn.Module, kind: type[nn.Module], *shape: int) -> bool:
    """Whether calling ``module`` is ``kind.forward`` on a weight of its own and nothing else.

    Then its weight may be read in place of the call. It may not where anything waits for the call: hooks of any kind,
    on the module or on all modules, a ``forward`` of its own, an adapter, a quantised layer, a parametrisation; nor
    where the weight is not there between calls, because it is sharded or was moved elsewhere.

    Args:
        module: the module that would be called.
        kind: its class; subclasses are not bare.
        *shape: of its weight where all of it is here.
    """
    if type(module) is not kind or "forward" in vars(module) or _has_hooks(module):
        return False
    weight = module.weight
    return type(weight) in _PLAIN and not weight.is_meta and weight.shape == shape


def is_bare_linear(module: nn.Module) -> bool:
    """:func:`is_bare` for ``nn.Linear``: whether calling ``module`` is ``F.linear`` and nothing else."""
    return isinstance(module, nn.Linear) and is_bare(module, nn.Linear, module.out_features, module.in_features)


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or _calls._global_forward_hooks
        or _calls._global_forward_pre_hooks
        or _calls._global_backward_hooks
        or _calls._global_backward_pre_hooks
    )
