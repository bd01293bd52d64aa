"""Configs of models with rotary positions: how their scaling is read and written."""

from typing import Any

from huggingface_hub.dataclasses import strict

from fla.models.base.configuration import FLAConfig


@strict
class RopeConfig(FLAConfig):
    """A config with ``rope_theta`` and ``rope_scaling``.

    The scaling is written as transformers 5 has it, as ``rope_parameters``, which hold ``rope_theta`` too. Either form
    is read. Parts of transformers that read the file without its class, as the Trainer does when it resumes, would
    fail at the older one.
    """

    rope_theta: int | float | None = 10000.0
    rope_scaling: dict | None = None  # type: ignore[type-arg]  # strict checks what it can name

    def __post_init__(self, **kwargs: Any) -> None:
        for key, value in _unfolded(kwargs.pop("rope_parameters", None)).items():
            setattr(self, key, value)
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The config as the base makes it; keywords go before ``rope_theta`` and ``rope_scaling`` of the dictionary."""
        fields: tuple[str, ...] = ("rope_theta", "rope_scaling")
        given = {key: kwargs.pop(key) for key in fields if key in kwargs}
        return super().from_dict(
            {**config_dict, **_unfolded(config_dict.get("rope_parameters")), **given, "rope_parameters": None}, **kwargs
        )

    def to_dict(self) -> dict[str, Any]:
        """The config as transformers writes it, with ``rope_parameters``."""
        written: dict[str, Any] = super().to_dict()
        if self.rope_scaling is not None:
            del written["rope_scaling"]
            written["rope_parameters"] = {**self.rope_scaling, "rope_theta": self.rope_theta}
        return written

    @classmethod
    def _unknown(cls, keys: Any) -> list[str]:
        return [key for key in super()._unknown(keys) if key != "rope_parameters"]


def _unfolded(rope_parameters: dict[str, Any] | None) -> dict[str, Any]:
    """The fields that ``rope_parameters`` stand for."""
    if rope_parameters is None:
        return {}
    scaling = {key: value for key, value in rope_parameters.items() if key != "rope_theta"}
    theta = {key: value for key, value in rope_parameters.items() if key == "rope_theta"}
    return {"rope_scaling": scaling, **theta}
