"""The model that all our models are: blocks of a mixer and an MLP, and the language model on top.

A model of its own is a config and two short classes that name the mixer. Three things may differ from here: the
mixer and its arguments (``mixer_class``, ``mixer_keys``), the block (``block_class``), and values that are shared
across layers (``shared_values``, with ``takes`` and ``hands_on`` of the mixers).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from itertools import chain
from operator import attrgetter
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel, initialization
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from fla.layers import Mixer
from fla.layers._attention import KeyMixer
from fla.layers.base import check_layout
from fla.layers.cache import StateCache, check_rows
from fla.layers.utils import ReadMask
from fla.models.base.cache import CACHE_NAME, Cache, takes_cache
from fla.models.base.checkpointing import run_checkpointed
from fla.models.base.configuration import FLAConfig
from fla.models.base.hybrid import FROM_MODEL, has_recurrent_mixer, mixer_of
from fla.models.base.losses import causal_loss, check_labels
from fla.modules import GatedMLP, RMSNorm
from fla.modules._bare import is_bare_linear
from fla.utils.validation import count_sequences

Shared = dict[str, Any]


class Block(GradientCheckpointingLayer):
    """``x + mixer(norm(x))``, then ``x + mlp(norm(x))``."""

    mixer_name: ClassVar[str] = "attn"
    """Name of the mixer, as in checkpoints."""

    def __init__(self, config: FLAConfig, mixer: Mixer) -> None:
        super().__init__()
        self.attn_norm = self.make_norm(config)
        self.attn = mixer
        self.mlp_norm = self.make_norm(config)
        self.mlp = self.make_mlp(config)

    @staticmethod
    def make_norm(config: FLAConfig) -> nn.Module:
        """The norm of the hidden states, before a block's parts and after the last block."""
        return (RMSNorm if config.fuse_norm else nn.RMSNorm)(config.hidden_size, eps=config.norm_eps)

    @staticmethod
    def make_mlp(config: FLAConfig) -> nn.Module:
        """The MLP that follows the mixer."""
        return GatedMLP(
            config.hidden_size, config.hidden_ratio, config.intermediate_size, config.hidden_act, config.fuse_swiglu
        )

    def __call__(self, *arguments: torch.Tensor | None, **call: Any) -> Any:
        """:meth:`forward`, checkpointed in training where that was asked for, with a cache as without."""
        cache: StateCache | None = call.get("past_key_values")
        if cache is None or not (self.gradient_checkpointing and self.training):
            return super().__call__(*arguments, **call)  # type: ignore[no-untyped-call]
        del call["past_key_values"]
        mixer: Mixer = getattr(self, self.mixer_name)
        checkpoint: Any = self._gradient_checkpointing_func
        return run_checkpointed(checkpoint, self._run_once, cache[mixer.layer_idx or 0], arguments, call)

    def _run_once(self, *arguments: torch.Tensor | None, **call: Any) -> Any:
        """:meth:`forward` as any module's. GradientCheckpointingLayer would checkpoint it again and drop the cache."""
        self.gradient_checkpointing = False
        try:
            return super(GradientCheckpointingLayer, self).__call__(*arguments, **call)
        finally:
            self.gradient_checkpointing = True

    def forward(
        self, hidden_states: torch.Tensor, *shared: torch.Tensor | None, **call: Any
    ) -> tuple[torch.Tensor, ...]:
        """Run the block.

        Args:
            hidden_states: ``[B, T, D]``.
            *shared: values that the mixer ``takes``, in that order; None for a missing one. One by one, because
                reentrant checkpointing would lose the gradients of tensors in a dict.
            **call: mask, cache and packing, as :meth:`fla.layers.Mixer.forward` has them.

        Returns:
            The hidden states, and then what the mixer ``hands_on``.
        """
        taken = dict(zip(self.attn.takes, shared))
        mixed, _, _, *handed_on = self.attn(self.attn_norm(hidden_states), **call, **taken)
        normed, residual = self._add_and_norm(mixed, hidden_states)
        return (residual + self.mlp(normed), *handed_on)

    def _add_and_norm(self, x: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if isinstance(self.mlp_norm, RMSNorm):
            return self.mlp_norm(x, residual, prenorm=True)  # type: ignore[no-any-return]
        residual = residual + x
        return self.mlp_norm(residual), residual


class FLAPreTrainedModel(PreTrainedModel):
    """The base of all our models, with the properties that transformers asks for."""

    config: FLAConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _input_embed_layer = "embeddings"
    # Attention layers go through scaled_dot_product_attention, whatever is asked for.
    _supports_sdpa = True
    _supports_attention_backend = False
    # A recurrent state cannot be rolled back, so decoding that guesses ahead is out.
    _is_stateful = True

    def __init__(self, config: FLAConfig) -> None:
        super().__init__(config)
        config.check()
        self._is_stateful = self._is_stateful or has_recurrent_mixer(config.attn)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        initial_values = getattr(module, "initial_values", None)
        if initial_values is not None:
            for name, value in initial_values(self.config.num_hidden_layers).items():
                parameter = attrgetter(name)(module)
                initialization.copy_(parameter, _laid_out_as(parameter, value))

    def _initialize_weights(self, module: nn.Module, *_: Any) -> None:
        # transformers passes by a module of custom code whose own parameters are all loaded, or that has none; ours
        # may say what those of its children start from. Making these values takes time, so only where one is missing.
        tensors = chain(module.parameters(), module.buffers())
        if all(getattr(tensor, "_is_hf_initialized", False) for tensor in tensors):
            return
        super()._initialize_weights(module)


def _laid_out_as(parameter: Any, value: torch.Tensor) -> torch.Tensor:
    """A value over the devices that a sharded parameter lies on; any other as it is."""
    if not hasattr(parameter, "placements") or hasattr(value, "placements"):
        return value
    # Some builds of PyTorch have no such module.
    from torch.distributed.tensor import distribute_tensor

    mesh = parameter.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, parameter.placements)


class FLAModel(FLAPreTrainedModel):
    """The stack of blocks between the embeddings and the last norm."""

    mixer_class: ClassVar[type[Mixer]]
    """The mixer of every layer that ``config.attn`` does not claim."""
    mixer_keys: ClassVar[Mapping[str, str]] = {}
    """Mixer argument -> config key, where the names differ; the others go by name."""
    mixer_values: ClassVar[Mapping[str, Any]] = {}
    """Mixer argument -> its value whatever the config says. flash-linear-attention does not pass these keys to its
    layers, and its checkpoints must give the same results here."""
    block_class: ClassVar[type[Block]] = Block
    norm_name: ClassVar[str] = "norm"
    """Name of the last norm, as in checkpoints."""

    def __init__(self, config: FLAConfig) -> None:
        super().__init__(config)
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList(
            self.block_class(config, self.make_mixer(layer_idx)) for layer_idx in range(config.num_hidden_layers)
        )
        self.add_module(self.norm_name, self.block_class.make_norm(config))
        self.gradient_checkpointing = False
        self._no_split_modules = [self.block_class.__name__]
        self.post_init()  # type: ignore[no-untyped-call]

    def make_mixer(self, layer_idx: int) -> Mixer:
        """The mixer of a layer: the one that ``config.attn`` gives it, else the model's own."""
        config = self.config
        other = mixer_of(config.attn, layer_idx)
        if other is not None:
            mixer_class, options = other
            parameters = inspect.signature(mixer_class).parameters
            given = {name: getattr(config, name) for name in FROM_MODEL if name in parameters}
            return mixer_class(**given, **options, layer_idx=layer_idx)
        keys = {name: self.mixer_keys.get(name, name) for name in inspect.signature(self.mixer_class).parameters}
        arguments = {name: getattr(config, key) for name, key in keys.items() if hasattr(config, key)}
        return self.mixer_class(**{**arguments, **self.mixer_values}, layer_idx=layer_idx)

    def shared_values(self) -> Shared:
        """Values that mixers take by name (``takes``), made once for all layers."""
        return {}

    @takes_cache
    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        cu_seqlens: torch.Tensor | None = None,
    ) -> BaseModelOutputWithPast:
        """Hidden states of every token.

        Args:
            input_ids: ``[B, T]``; or give ``inputs_embeds``.
            attention_mask: ``[B, L]``, 1 for a real token and 0 for padding on any side; L is T and what the cache
                has seen. Positions count real tokens.
            inputs_embeds: ``[B, T, D]``.
            past_key_values: states of the steps before; ``cache`` is another name for it.
            use_cache: write the states after the last step. By the config unless given, and then neither in training
                nor for packed sequences, whose keys no cache can hold.
            output_attentions: must be False.
            output_hidden_states: also return what went into each block, and the result.
            cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64; B must be 1, and the mask is not
                looked at.

        Raises:
            TypeError: an argument of the wrong type, or one there is none of.
            ValueError: not just one of input_ids and inputs_embeds, or a shape that does not fit.
        """
        given = _check_inputs(input_ids, inputs_embeds, self.config.hidden_size)
        if past_key_values is not None and not isinstance(past_key_values, StateCache):
            raise TypeError(f"past_key_values: expected fla.models.Cache, got {type(past_key_values).__name__}")
        mask = self._check_layout(given, attention_mask, past_key_values, cu_seqlens)
        hidden_states: torch.Tensor = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache is None:
            is_new_pack = cu_seqlens is not None and past_key_values is None
            use_cache = self.config.use_cache and not self.training and not is_new_pack
        if use_cache and past_key_values is None:
            past_key_values = Cache()
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        call = {
            "attention_mask": mask,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "output_attentions": bool(output_attentions),
            "cu_seqlens": cu_seqlens,
            "max_seqlen": self._max_seqlen(cu_seqlens),
        }
        shared, seen = dict(self.shared_values()), []
        for block in self.layers:
            if output_hidden_states:
                seen.append(hidden_states)
            mixer = self._mixer(block)
            hidden_states, *handed_on = block(hidden_states, *map(shared.get, mixer.takes), **call)
            shared.update(zip(mixer.hands_on, handed_on))
        hidden_states = getattr(self, self.norm_name)(hidden_states)
        written: dict[str, Any] = {CACHE_NAME: past_key_values if use_cache else None}
        return BaseModelOutputWithPast(
            last_hidden_state=hidden_states,  # type: ignore[arg-type]  # transformers writes FloatTensor for Tensor
            **written,
            hidden_states=(*seen, hidden_states) if output_hidden_states else None,  # type: ignore[arg-type]
        )

    def _mixer(self, block: nn.Module) -> Mixer:
        return getattr(block, self.block_class.mixer_name)  # type: ignore[no-any-return]

    def _max_seqlen(self, cu_seqlens: torch.Tensor | None) -> int | None:
        """The length of the longest packed sequence, read once for all layers that would wait for the device."""
        if cu_seqlens is None or not cu_seqlens.is_cuda or torch.compiler.is_compiling():
            return None
        attends = any(isinstance(self._mixer(block), KeyMixer) for block in self.layers)
        return int(cu_seqlens.diff().max()) if attends and not torch.cuda.is_current_stream_capturing() else None

    def _check_layout(
        self,
        given: torch.Tensor,
        attention_mask: torch.Tensor | None,
        cache: StateCache | None,
        cu_seqlens: torch.Tensor | None,
    ) -> ReadMask | None:
        """Read the mask for all layers, and check that each can go on from the cache before one writes to it."""
        batch, steps = given.shape[:2]
        past = 0 if cache is None else cache.get_seq_length()
        mask = check_layout(batch, steps, past, attention_mask, cu_seqlens)
        if mask is not None:
            mask.padding(steps)
        if cache is not None:
            rows = count_sequences(cu_seqlens, batch)
            for layer in cache:
                check_rows(layer, rows)
            if cu_seqlens is not None or (mask is not None and mask.has_padding(mask.length)):
                for block in self.layers:
                    self._mixer(block).check_layout(cache, mask, cu_seqlens)
        return mask


def _check_inputs(input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None, hidden_size: int) -> torch.Tensor:
    """The one of the two that is given, checked."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("input_ids, inputs_embeds: expected one of the two")
    if input_ids is None:
        assert inputs_embeds is not None
        if inputs_embeds.ndim != 3 or inputs_embeds.shape[-1] != hidden_size:
            raise ValueError(
                f"inputs_embeds: expected shape [B, T, D] with D={hidden_size}, got {list(inputs_embeds.shape)}"
            )
        return inputs_embeds
    if input_ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"input_ids: expected int64 or int32, got {input_ids.dtype}")
    if input_ids.ndim != 2:
        raise ValueError(f"input_ids: expected shape [B, T], got {list(input_ids.shape)}")
    return input_ids


class FLAForCausalLM(FLAPreTrainedModel, GenerationMixin):
    """A model with a language-modelling head."""

    _tied_weights_keys = {"lm_head.weight": "model.embeddings.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    model_class: ClassVar[type[FLAModel]]
    #: ``num_items_in_batch`` is honoured, so the Trainer need not rescale accumulated gradients.
    accepts_loss_kwargs = True

    def __init__(self, config: FLAConfig) -> None:
        super().__init__(config)
        self.add_module(self.base_model_prefix, self.model_class(config))
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    @takes_cache
    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        cu_seqlens: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> CausalLMOutputWithPast:
        """Logits of the next token, and the loss.

        Arguments and errors are those of :meth:`FLAModel.forward`, and in addition:

        Args:
            input_ids: ``[B, T]``; or give ``inputs_embeds``.
            attention_mask: ``[B, L]``.
            inputs_embeds: ``[B, T, D]``.
            past_key_values: states of the steps before.
            labels: ``[B, T]``, usually the input ids, -100 where nothing is to be predicted; they are shifted here.
                Padding and the last token of a packed sequence predict nothing.
            use_cache: write the states after the last step.
            output_attentions: must be False.
            output_hidden_states: also return the hidden states.
            logits_to_keep: logits of the last so many tokens only, or of those at these indices; 0 for all.
            cu_seqlens: boundaries of packed sequences ``[N + 1]``.
            num_items_in_batch: divide the loss by this instead of the number of labels.

        Returns:
            The output; without logits where the loss was taken without them (``config.fuse_linear_cross_entropy``).
        """
        if labels is not None:
            check_labels(labels, input_ids if inputs_embeds is None else inputs_embeds)
        outputs = self.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            cu_seqlens=cu_seqlens,
            return_dict=True,
        )
        hidden_states = outputs.last_hidden_state
        logits = loss = None
        if labels is None or not self._skips_logits():
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(hidden_states if labels is not None else hidden_states[:, kept])
        if labels is not None:
            loss = causal_loss(
                self.config, hidden_states, logits, self.lm_head, labels, attention_mask, cu_seqlens, num_items_in_batch
            )
        written: dict[str, Any] = {CACHE_NAME: getattr(outputs, CACHE_NAME)}
        return CausalLMOutputWithPast(
            loss=loss,  # type: ignore[arg-type]
            logits=logits,
            **written,
            hidden_states=outputs.hidden_states,
        )

    def _skips_logits(self) -> bool:
        # An adapter or a hook on the head works when it is called; its weight alone would leave them out.
        return self.training and self.config.fuse_linear_cross_entropy and is_bare_linear(self.lm_head)

    def _prepare_generation_config(self, generation_config: Any, *args: Any, **kwargs: Any) -> Any:
        # transformers would pass over "hybrid" in silence, so this check comes first.
        configs = [config for config in (generation_config, self.generation_config) if config is not None]
        asked = [kwargs.get("cache_implementation"), *(config.cache_implementation for config in configs)]
        implementation = next((name for name in asked if name is not None), None)
        if implementation not in (None, "dynamic", "dynamic_full"):
            raise ValueError(f"cache_implementation: expected None or 'dynamic', got {implementation!r}")
        return super()._prepare_generation_config(generation_config, *args, **kwargs)  # type: ignore[misc]

    def _prepare_cache_for_generation(  # type: ignore[override]  # what follows differs between releases
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        # transformers would look at the class name and the layer types to choose a cache, and find none that fits.
        if getattr(generation_config, "is_assistant", False) and self._is_stateful:
            raise ValueError(f"{type(self).__name__} cannot assist: its recurrent state cannot be rolled back")
        if model_kwargs.get(CACHE_NAME) is None and generation_config.use_cache is not False:
            model_kwargs[CACHE_NAME] = Cache()
