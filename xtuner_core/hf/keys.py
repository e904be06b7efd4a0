"""Between the keys of a Hugging Face `config.json` and the fields of a model's configuration; imports no torch.

Every key of a file is accounted for: it gives a field, has one of the values that the model computes, is known to
change nothing, or is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NEUTRAL = frozenset(
    {
        "architectures",
        "dtype",
        "id2label",
        "label2id",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "return_dict",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Keys that say nothing about what a model computes, and so are passed over in every family; so are the private ones,
which begin with `_`, and the ids of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigKeys:
    """The keys of one family."""

    model_type: str
    required: Mapping[str, str]
    """Key to field; integers, and a file without one of these is refused."""
    optional: Mapping[str, tuple[str, Any]]
    """Key to field, and the value that `transformers` takes where the key is missing or null."""
    only: Mapping[str, tuple[Any, ...]]
    """Keys that change what the model computes, and the values that it computes; missing and null are fine."""
    own: frozenset[str] = field(default_factory=frozenset)
    """Keys that the family reads by itself."""
    passed_over: frozenset[str] = field(default_factory=frozenset)
    """Keys of the family that change nothing, beside `NEUTRAL`."""

    def read(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of the configuration, less those of the keys that are the family's `own`.

        :raises ValueError: a key is missing, unknown, or asks for something that the model does not do.
        """
        self._refuse_others(config)
        values: dict[str, Any] = {name: self.integer(config, key) for key, name in self.required.items()}
        for key, (name, default) in self.optional.items():
            given = config.get(key)
            if given is not None and not _same_kind(given, default):
                raise ValueError(f"config.json has {key} = {given!r}, where a value like {default!r} belongs")
            values[name] = default if given is None else given
        return values

    def integer(self, config: Mapping[str, Any], key: str, default: int | None = None) -> int:
        """An integer of the file, or where there is none the default.

        :raises ValueError: the file has another kind of value, or none and there is no default.
        """
        value = default if config.get(key) is None else config[key]
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        wrong = "lacks it" if value is None else f"has {value!r}"
        raise ValueError(f"config.json of a {self.model_type} model must give {key} as an integer; this one {wrong}")

    def write(self, config: Any) -> dict[str, Any]:
        """`model_type`, the `required` and the `optional` keys."""
        written: dict[str, Any] = {"model_type": self.model_type}
        written |= {key: getattr(config, name) for key, name in self.required.items()}
        return written | {key: getattr(config, name) for key, (name, _) in self.optional.items()}

    def _refuse_others(self, config: Mapping[str, Any]) -> None:
        if config.get("model_type", self.model_type) != self.model_type:
            raise ValueError(f"config.json has model_type = {config['model_type']!r}, not {self.model_type!r}")
        known = NEUTRAL | self.passed_over | self.own | self.required.keys() | self.optional.keys()
        for key, value in config.items():
            if value is None or key in known or key.startswith("_") or key.endswith("_token_id"):
                continue
            if key not in self.only:
                raise ValueError(
                    f"config.json has {key} = {value!r}, which {self.model_type} does not know; "
                    "remove the key if it changes nothing in what the model computes"
                )
            if value not in self.only[key]:
                supported = " or ".join(map(repr, self.only[key])) or "none"
                raise ValueError(f"config.json has {key} = {value!r}; {self.model_type} computes {supported} only")


def _same_kind(value: Any, default: Any) -> bool:
    if default is None:
        return True
    if isinstance(default, bool) or not isinstance(default, int | float):
        return isinstance(value, type(default))
    return isinstance(value, int | float) and not isinstance(value, bool)


ROPE_KEYS = frozenset({"rope_theta", "rope_parameters", "rope_scaling"})
"""Where the versions of `transformers` keep what `read_rope` reads."""


def read_rope(config: Mapping[str, Any], *, default_theta: float = 10000.0) -> tuple[float, str, dict[str, Any]]:
    """The base of the rotary wavelengths, the `rope_type`, and the numbers of that type by their names.

    :raises ValueError: two places of the file contradict each other.
    """
    bases = [] if config.get("rope_theta") is None else [float(config["rope_theta"])]
    scalings: list[dict[str, Any]] = []
    for key in ("rope_parameters", "rope_scaling"):
        given = {name: value for name, value in (config.get(key) or {}).items() if value is not None}
        if "rope_theta" in given:
            bases.append(float(given.pop("rope_theta")))
        kind = given.pop("type", "default")
        scaling = {"rope_type": given.pop("rope_type", kind), **given}
        if scaling.pop("partial_rotary_factor", 1) != 1:
            raise ValueError(f"config.json has partial_rotary_factor in {key}; every channel of a head rotates here")
        if scaling != {"rope_type": "default"}:
            scalings.append(scaling)
    if len(set(bases)) > 1:
        raise ValueError(f"config.json gives rope_theta twice, as {bases[0]} and as {bases[1]}")
    if len(scalings) > 1 and scalings[0] != scalings[1]:
        raise ValueError("config.json gives rope_parameters and rope_scaling, and they differ; keep one")
    found = scalings[0] if scalings else {"rope_type": "default"}
    return bases[0] if bases else default_theta, found.pop("rope_type"), found
