"""Tells transformers' Trainer about our models, as it looks at types and names that we do not have."""

from __future__ import annotations

import sys
from functools import wraps
from typing import Any

from torch import nn
from transformers import trainer_pt_utils

from fla.modules.weight_decay import undecayed_parameters


def teach_weight_decay() -> None:
    """Keep the Trainer from decaying the parameters that our modules exempt.

    It finds norms by the type ``nn.LayerNorm`` and by names that end in ``norm``, and asks no model, so that what finds
    them must be wrapped (transformers 5.17). For models of others nothing changes: their modules say nothing.
    """
    rule = trainer_pt_utils.get_parameter_names
    if hasattr(rule, "__wrapped__"):
        return

    @wraps(rule)
    def get_parameter_names(model: nn.Module, *args: Any, **kwargs: Any) -> list[str]:
        undecayed = undecayed_parameters(model)
        names: list[str] = rule(model, *args, **kwargs)  # type: ignore[no-untyped-call]
        return [name for name in names if name not in undecayed]

    trainer_pt_utils.get_parameter_names = get_parameter_names
    if trainer := sys.modules.get("transformers.trainer"):
        trainer.get_parameter_names = get_parameter_names  # type: ignore[attr-defined]
