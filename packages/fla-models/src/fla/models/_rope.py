"""Configs of models with rotary positions: how their scaling is read and written."""

from typing import Any

from huggingface_hub.dataclasses import strict

from fla.models.configuration import FLAConfig


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
        parameters = kwargs.pop("rope_parameters", None)
        if parameters is not None:
            self.rope_scaling = {key: value for key, value in parameters.items() if key != "rope_theta"}
            self.rope_theta = parameters.get("rope_theta", self.rope_theta)
        super().__post_init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As transformers'."""
        written: dict[str, Any] = super().to_dict()
        if self.rope_scaling is not None:
            del written["rope_scaling"]
            written["rope_parameters"] = {**self.rope_scaling, "rope_theta": self.rope_theta}
        return written

    @classmethod
    def _unknown(cls, keys: Any) -> list[str]:
        return [key for key in super()._unknown(keys) if key != "rope_parameters"]
