"""Which parameters an optimizer should not pull towards zero.

As the published code of these models has it:

========================  ================================================  ==================================
model                     not decayed                                       where it says so
========================  ================================================  ==================================
all                       norms, biases                                     every recipe below
Mamba, Mamba-2            ``A_log``, ``D``, ``dt_bias``                     ``_no_weight_decay`` in mamba-ssm
Gated DeltaNet and kin    ``A_log``, ``dt_bias``; of Comba the factors      ``_no_weight_decay`` in its layer
                          ``D`` and ``decay``
RWKV-6, RWKV-7            everything but the weights of projections and     the groups of RWKV-LM's optimizer
                          embeddings: shares of the token before, bonus,
                          and the low-rank matrices too
ReBased, PolySketch       gain and shift of the norm in the feature map     a norm like the others
HGRN, HGRN2               ``lower_bounds``: zero is no bound, but the even  nowhere; a rate of decay like
                          spread of bounds                                  ``A_log``
========================  ================================================  ==================================

Weights of projections, convolutions and embeddings decay in all of them.
"""

from __future__ import annotations

from torch import nn

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)


def undecayed_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters below ``model`` that should not decay.

    A module of ours names them in ``undecayed``, dotted for its children's; besides there are the parameters of norms
    and all biases. Transformers' Trainer asks here by itself once ``fla.models`` is imported. Elsewhere::

        undecayed = undecayed_parameters(model)
        groups = [
            {"params": [p for name, p in model.named_parameters() if name not in undecayed], "weight_decay": 0.1},
            {"params": [p for name, p in model.named_parameters() if name in undecayed], "weight_decay": 0.0},
        ]
    """
    names = set()
    for path, module in model.named_modules():
        own = [name for name in module._parameters if name == "bias" or isinstance(module, _NORMS)]
        names |= {f"{path}.{name}" if path else name for name in (*own, *getattr(module, "undecayed", ()))}
    return names
