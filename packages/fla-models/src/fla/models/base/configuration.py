"""The base of all configs of ours: common keys and their checks."""

from functools import cache
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import GenerationConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # type: ignore[attr-defined]
from transformers.utils import logging

from fla.models.base.hybrid import normalise_attn
from fla.models.base.ranges import check_range

logger = logging.get_logger(__name__)

#: Keys that transformers itself understands although they are no fields.
_TRANSFORMERS_KEYS = frozenset(
    (
        "attn_implementation",
        "auto_map",
        "experts_implementation",
        "model_type",
        "name_or_path",
        "num_labels",
        "output_attentions",
        "quantization_config",
        "tokenizer_class",
        "torch_dtype",
    )
)


@cache
def _generation_keys() -> frozenset[str]:
    return frozenset(GenerationConfig().to_dict())


@strict
class FLAConfig(PreTrainedConfig):
    r"""The base of all configs.

    A key that other programs' checkpoints misspell goes into ``attribute_map``: it is understood wherever it is read
    or given, and written as it should be.

    Args:
        vocab_size: tokens.
        hidden_size: channels of the residual stream.
        num_hidden_layers: blocks.
        hidden_ratio: see :class:`fla.modules.GatedMLP`.
        intermediate_size: hidden channels of the MLP; from ``hidden_ratio`` unless given.
        hidden_act: activation of the MLP.
        max_position_embeddings: longest sequence that the model is meant for.
        elementwise_affine: whether the norms inside mixers learn a weight.
        norm_eps: added to the mean square in norms.
        attn: softmax attention or another mixer in some layers; see :func:`fla.models.base.hybrid.normalise_attn`.
        use_cache: keep states for the next call, outside training.
        pad_token_id: padding.
        bos_token_id: start of a text.
        eos_token_id: end of a text.
        tie_word_embeddings: one matrix for the embeddings and the output.
        initializer_range: standard deviation of new weights.
        fuse_norm: residual and norm in one step.
        fuse_swiglu: see :class:`fla.modules.GatedMLP`.
        fuse_cross_entropy: the loss without a copy of the logits in float32.
        fuse_linear_cross_entropy: in training, the loss without the logits; the output has none then.
        use_l2warp: pull the largest logit of every token towards 0.
        attnres_block_size: must be None.

    Raises:
        TypeError: an unknown key.
        ValueError: a value that does not fit.
    """

    only: ClassVar[dict[str, Any]] = {"attnres_block_size": None}
    """Keys that existing checkpoints have, and the one value that is supported."""
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "cache"]
    base_model_tp_plan: ClassVar[dict[str, Any] | None] = {
        "layers.*.mlp.gate_proj": "colwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }
    base_model_fsdp_plan: ClassVar[dict[Any, str]] = {
        "embeddings": "free_full_weight",
        "layers.*": "free_full_weight",
        "norm": "keep_full_weight",
    }

    vocab_size: int = 32000
    hidden_size: int = 2048
    num_hidden_layers: int = 24
    hidden_ratio: int | float | None = 4
    intermediate_size: int | None = None
    hidden_act: str = "swish"
    max_position_embeddings: int | None = 2048
    elementwise_affine: bool | None = True
    norm_eps: int | float = 1e-6
    attn: dict | list | None = None  # type: ignore[type-arg]  # strict checks what it can name
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = False
    initializer_range: int | float = 0.02
    fuse_norm: bool = True
    fuse_swiglu: bool = True
    fuse_cross_entropy: bool = True
    fuse_linear_cross_entropy: bool = False
    use_l2warp: bool = False
    attnres_block_size: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if unknown := self._unknown(kwargs):
            raise TypeError(f"{type(self).__name__}: unknown key {', '.join(unknown)}")
        for key in self.attribute_map.keys() & kwargs.keys():
            # transformers would set it unchecked by its other name.
            setattr(self, self.attribute_map[key], kwargs.pop(key))
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        if self.tie_word_embeddings:
            # The head is split, so what shares its matrix is too; transformers adds a name that we do not have.
            plan = type(self).base_model_tp_plan or {}
            self.base_model_tp_plan = {**plan, "embeddings": "embedding_rowwise"}  # type: ignore[misc]
        self.check()

    def __setattr__(self, key: str, value: Any) -> None:
        key = self.attribute_map.get(key, key)
        if key in self.only and value != self.only[key]:
            raise ValueError(f"{key}: only {self.only[key]} is supported, got {value}")
        check_range(key, value)
        if key == "attn":
            # The layers are known by now: fields are set in the order in which they stand.
            value = normalise_attn(value, self.num_hidden_layers)
        elif key == "num_hidden_layers":
            normalise_attn(self.__dict__.get("attn"), value)
        super().__setattr__(key, value)  # type: ignore[no-untyped-call]

    def check(self) -> None:
        """Check values that must fit together; a model checks again, as keys may have been set since.

        Raises:
            ValueError: values that do not fit together.
        """
        normalise_attn(self.attn, self.num_hidden_layers)

    @classmethod
    def saved_type(cls) -> str:
        """``model_type`` as files have it: one of ours where by its name transformers would load a model of its own."""
        return f"fla_{cls.model_type}" if cls.model_type in CONFIG_MAPPING_NAMES else cls.model_type

    def to_dict(self) -> dict[str, Any]:
        """The config as transformers writes it, with the type that files have."""
        return {**super().to_dict(), "model_type": self.saved_type()}

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The dictionary as transformers reads it, with the type that the class has."""
        config_dict, kwargs = super().get_config_dict(*args, **kwargs)
        return cls._by_own_type(config_dict), kwargs

    @classmethod
    def _by_own_type(cls, config_dict: dict[str, Any]) -> dict[str, Any]:
        is_saved = config_dict.get("model_type") == cls.saved_type()
        return {**config_dict, "model_type": cls.model_type} if is_saved else config_dict

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The config as transformers makes it; keys of a file that mean nothing here are dropped with a warning."""
        if unknown := cls._unknown(config_dict):
            logger.warning(f"{cls.__name__}: ignoring unknown keys {', '.join(unknown)} of the checkpoint's config")
            config_dict = {key: value for key, value in config_dict.items() if key not in unknown}
        # transformers would set them one by one afterwards, when each must fit what the others were.
        own = cls.__dataclass_fields__.keys() - PreTrainedConfig.__dataclass_fields__.keys()
        given = {key: kwargs.pop(key) for key in (own | cls.attribute_map.keys()) & kwargs.keys()}
        config_dict = {**_by_field(cls, config_dict), **_by_field(cls, given)}
        return super().from_dict(cls._by_own_type(config_dict), **kwargs)

    @classmethod
    def _unknown(cls, keys: Any) -> list[str]:
        known = cls.__dataclass_fields__.keys() | cls.attribute_map.keys() | _TRANSFORMERS_KEYS | _generation_keys()
        return [key for key in keys if key not in known and not key.startswith("_")]


def _by_field(config: type[FLAConfig], values: dict[str, Any]) -> dict[str, Any]:
    """Values by the names of the fields that they are for."""
    return {config.attribute_map.get(key, key): value for key, value in values.items()}
