"""What a run is rewarded by: the task's own reward, functions, servers, and how they compose.

In a run's TOML either one line, ``reward = "my_module:my_reward"``, or a table::

    [reward]
    sum = { task = 1.0, tidy = 0.3 }
    gates = ["plausible"]

    [reward.parts.tidy]
    use = "my_module:tidiness"
    clip = [0.0, 1.0]

    [reward.parts.plausible]
    use = "my_module:is_plausible"

See docs/custom_rewards.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PositiveFloat,
    model_validator,
)

TASK = "task"
"""The part that is the task's own reward; it need not be listed."""
DEFAULT_AT_LEAST = 0.5

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_SERVER = re.compile(r"(?P<scheme>grpcs?)://(?P<address>(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):\d+)")
_SOURCES = "'task', 'module:function' or 'grpc://host:port' (grpcs:// by TLS)"
# The log has figures of these names: reward_std, and the component "total".
_TAKEN = ("std", "total")


# Arrays of a file are lists, which strict checking takes for no tuples.
_ARRAY = BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given)


class Source(StrEnum):
    """Where a part's values come from."""

    TASK = "task"
    FUNCTION = "function"
    SERVER = "server"


class Composed(BaseModel):
    """A value per rollout made of parts: put together, then shaped, then gated."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sum: dict[str, float] | None = None
    """Weight of each part that is added up."""

    product: Annotated[tuple[str, ...] | None, _ARRAY] = None
    """Parts that are multiplied."""

    clip: Annotated[tuple[float, float] | None, _ARRAY] = None
    """Lowest and highest value; what is beyond is moved to it."""

    saturate: PositiveFloat | None = None
    """The value never reached, on either side: s becomes saturate * tanh(s / saturate)."""

    gates: Annotated[tuple[str, ...], _ARRAY] = ()
    """Parts that must all reach their ``at_least``."""

    otherwise: float = 0.0
    """The value of rollouts that do not pass the gates."""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Between which every value lies, where something keeps it there."""
        limits = [self.saturate * sign for sign in (-1, 1)] if self.saturate else self.clip
        if limits is None:
            return None
        beside = [self.otherwise] if self.gates else []
        return min(*limits, *beside), max(*limits, *beside)

    @property
    def operands(self) -> tuple[str, ...]:
        """Parts that this one is put together from; its gates are not among them."""
        return (*(self.sum or ()), *(self.product or ()))

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if self.sum is not None and self.product is not None:
            raise ValueError("sum and product exclude each other: make one of them a part")
        if self.sum == {} or self.product == ():
            raise ValueError("sum or product is empty: name the parts that it is made of")
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip = {list(self.clip)} must be [lowest, highest]")
        if self.otherwise != 0 and not self.gates:
            raise ValueError("otherwise needs gates: without them every rollout passes")
        return self


class RewardPart(Composed):
    """One named part: a source of values, or other parts put together."""

    use: str | None = None
    """"task", "module:function", "grpc://host:port" or, by TLS, "grpcs://host:port"; None: sum or
    product."""

    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the function, or of the class if ``use`` names one."""

    at_least: float | None = None
    """As a gate: what a rollout must reach; None: 0.5, which lets True pass and False not."""

    @property
    def source(self) -> Source | None:
        """None: it is made of other parts."""
        if self.use is None:
            return None
        if self.use == TASK:
            return Source.TASK
        return Source.SERVER if _SERVER.fullmatch(self.use) else Source.FUNCTION

    @property
    def address(self) -> str:
        """host:port of a server."""
        found = _SERVER.fullmatch(self.use or "")
        assert found is not None, f"{self.use} is no server"
        return found["address"]

    @property
    def is_encrypted(self) -> bool:
        """Whether a server is called by TLS."""
        return (self.use or "").startswith("grpcs://")

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if (self.use is not None) + (self.sum is not None) + (self.product is not None) != 1:
            raise ValueError("a part has exactly one of use, sum and product")
        if self.use is not None and not _is_source(self.use):
            raise ValueError(f"use = '{self.use}' must be {_SOURCES}")
        if self.options and self.source is not Source.FUNCTION:
            raise ValueError("options are for a function: a server has its own")
        return self


class RewardConfig(Composed):
    """What a run is rewarded by. Part of its identity."""

    parts: dict[str, RewardPart]
    """By name. Every part is computed and logged, also one that nothing refers to."""

    @model_validator(mode="before")
    @classmethod
    def _write_out(cls, given: Any) -> Any:
        """One line is a sum of that alone; ``task`` needs no table of its own."""
        if isinstance(given, str):
            if not _is_source(given):
                raise ValueError(f"must be {_SOURCES}, or a table")
            name = _name_of(given)
            given = {"sum": {name: 1.0}, "parts": {name: {"use": given}}}
        if not isinstance(given, Mapping) or not isinstance(given.get("parts", {}), Mapping):
            return given
        parts = dict(given.get("parts", {}))
        own = parts.get(TASK, {})
        if isinstance(own, Mapping) and not {"use", "sum", "product"} & own.keys():
            parts[TASK] = {**own, "use": TASK}
        return {**given, "parts": parts}

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.sum is None and self.product is None:
            raise ValueError(
                "reward needs sum or product, such as sum = { task = 1.0 }, to say what is "
                "learned from"
            )
        if self.parts[TASK].use != TASK:
            raise ValueError(f"reward.parts.{TASK} is the task's own reward: choose another name")
        for name in self.parts:
            if not _NAME.fullmatch(name) or name in _TAKEN:
                raise ValueError(
                    f"reward.parts.{name} cannot be a part's name: use small letters, digits and "
                    f"underscores, and none of {', '.join(_TAKEN)}"
                )
        places: dict[str, Composed] = {f".parts.{name}": part for name, part in self.parts.items()}
        places[""] = self
        for where, composed in places.items():
            for name in (*composed.operands, *composed.gates):
                if name not in self.parts:
                    raise ValueError(
                        f"reward{where} speaks of a part '{name}' that is not there: the parts "
                        f"are {', '.join(self.parts)}"
                    )
        for name in self.parts:
            self._check_round(name, ())
        return self

    def _check_round(self, name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"reward.parts.{name} is made of itself: {' > '.join((*above, name))}")
        part = self.parts[name]
        for each in (*part.operands, *part.gates):
            self._check_round(each, (*above, name))

    def of_source(self, source: Source) -> Iterator[tuple[str, RewardPart]]:
        """The parts whose values come from there, with their names."""
        return ((name, part) for name, part in self.parts.items() if part.source is source)


def module_of(use: str) -> tuple[str, str]:
    """Module and name of a function's ``use``."""
    module, _, name = use.partition(":")
    return module, name


def _is_source(use: str) -> bool:
    return use == TASK or any(form.fullmatch(use) for form in (_FUNCTION, _SERVER))


def _name_of(use: str) -> str:
    """What a reward given as one line is called in the log."""
    if use == TASK:
        return TASK
    if use.startswith(("grpc:", "grpcs:")):
        return "server"
    name = module_of(use)[1].lower().strip("_")
    return name if _NAME.fullmatch(name) and name not in _TAKEN else "custom"
