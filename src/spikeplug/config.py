"""What a spiking operator is made of: one frozen, validated record."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_type_hints

from spikeplug.errors import SpikeplugError

#: Raised with every change of an output bit of any operator; see CHANGELOG.md and tests/golden.
NUMERICS_VERSION = 3

Code = Literal["phase", "count", "population"]


@dataclass(frozen=True, kw_only=True)
class SpikeConfig:
    """The numerics of every operator. The default is ours; `SpikeConfig.paper()` is the published recipe.

    bits            n: an operator's output carries n fraction bits (n = log2 of the number of levels)
    input_bits      bits, the sign apart, of the spike code in which an operator's input arrives (operators/README.md
                    has the codes); None: inputs arrive as wide as the operator works
    code            how a spike train carries those n bits: `phase` (binary, n steps of 0/1), `count` (T steps of up
                    to L spikes, T·L = 2^n) or `population` (2^n neurons, one step)
    steps           T of the count code, a power of two up to 2^n; fixed by `bits` for the other codes
    working_bits    P: width of mantissas, weights and operands inside an operator (guard bits = P - n)
    scale_block     channels that share one power-of-two scale, at the input and output of norms and activations and at
                    attention's output; None: all of a vector's
    fraction_bits   F: fraction bits of an exponent, in octaves (2^x) or nats (PWL)
    division        `restoring` (one neuron, a step per bit) or `ordered` (one neuron per quotient level); the
                    same integer, a different price
    query_key_bits  bits, sign included, of the codes of queries and keys, one power of two a vector; their product is
                    then exact in integers. None: the product is the model's own, in float
    divide_last     attention: divide once per head channel after the value product, not once per key
    shift_scaling   give every output vector its own power-of-two scale and round to nearest; without it, the
                    output is floored to the fixed step 2^-n
    exponential     `shift` (2^x: table and right shift) or `piecewise` (PWL on [-H, H])
    segments        K: segments of the table; a power of two for `shift`, even for `piecewise`
    half_range      H of the piecewise exponential in SiLU
    softmax_half_range  H of the piecewise exponential in softmax and attention, whose input is never above 0
    norm            `root` (squares by gating, restoring root neuron) or `cordic` (tree of CORDIC merges)
    iterations      CORDIC iterations per merge

    Errors: SpikeplugError for any value out of its domain.
    """

    bits: int = 16
    input_bits: int | None = None
    code: Code = "phase"
    steps: int | None = None
    working_bits: int = 22
    scale_block: int | None = None
    fraction_bits: int = 12
    division: Literal["restoring", "ordered"] = "restoring"
    query_key_bits: int | None = 16
    divide_last: bool = True
    shift_scaling: bool = True
    exponential: Literal["shift", "piecewise"] = "shift"
    segments: int = 32
    half_range: float = 5.0
    softmax_half_range: float = 10.0
    norm: Literal["root", "cordic"] = "root"
    iterations: int = 8

    def __post_init__(self) -> None:
        _check_types(self)
        _check_range("bits", self.bits, 2, 20)
        # Widest product inside: a weight of P bits times a mantissa of P bits, and the root's 2P bits, in int64.
        _check_range("working_bits", self.working_bits, self.bits + 1, 24)
        _check_range("fraction_bits", self.fraction_bits, 4, 16)
        if self.input_bits is not None:
            # The sign, and one more where rounding carries the largest element to the next power of two.
            _check_range("input_bits", self.input_bits, 5, self.working_bits - 2)
        if self.query_key_bits is not None:
            _check_range("query_key_bits", self.query_key_bits, 8, 20)  # fewer leave nothing of a long vector
        if self.scale_block is not None:
            _check_range("scale_block", self.scale_block, 1, 1 << 20)
            if not self.shift_scaling:
                raise SpikeplugError("scale_block needs shift_scaling=True: without it there are no scales to share.")
        _check_range("segments", self.segments, 1, 4096)
        _check_range("half_range", self.half_range, 0.5, 16.0)
        _check_range("softmax_half_range", self.softmax_half_range, 0.5, 16.0)
        _check_range("iterations", self.iterations, 1, 24)
        if self.exponential == "shift" and (
            self.segments & (self.segments - 1) or self.segments > 1 << self.fraction_bits
        ):
            raise SpikeplugError(
                f"segments is {self.segments}; the shift exponential needs a power of two up to "
                f"2^fraction_bits = {1 << self.fraction_bits}."
            )
        narrowest = min(self.half_range, self.softmax_half_range) * 2 * (1 << self.fraction_bits)
        if self.exponential == "piecewise" and self.segments > narrowest:
            raise SpikeplugError(
                f"segments is {self.segments}, which makes each narrower than the input step 2^-{self.fraction_bits}; "
                "use fewer segments or more fraction_bits."
            )
        if self.exponential == "piecewise" and self.segments % 2:
            # With 0 inside a segment, the chord over it would lie far above exp(0), the largest weight there is.
            raise SpikeplugError(
                f"segments is {self.segments}; exponential='piecewise' needs an even number, so that 0 is a knot."
            )
        if self.exponential == "piecewise" and self.divide_last:
            raise SpikeplugError(
                "divide_last needs exponential='shift' (the values' scale joins the score as whole octaves); set "
                "divide_last=False with exponential='piecewise'."
            )
        if self.divide_last and not self.shift_scaling:
            raise SpikeplugError(
                "divide_last needs shift_scaling=True; set divide_last=False with shift_scaling=False."
            )
        if self.steps is not None:
            if self.code != "count":
                raise SpikeplugError(f"steps is only free for code='count'; leave it out for code={self.code!r}.")
            if self.steps < 1 or (1 << self.bits) % self.steps:
                raise SpikeplugError(
                    f"steps is {self.steps}; T must be a power of two between 1 and 2^bits = {1 << self.bits}."
                )
        changed = {name: value for name, value in self.to_dict().items() if value != _DEFAULTS[name]}
        object.__setattr__(self, "_token", json.dumps(changed, sort_keys=True))

    @property
    def token(self) -> str:
        """The fields that differ from the default, as JSON: how a config travels through a torch op."""
        return self._token  # type: ignore[attr-defined,no-any-return]

    @classmethod
    def from_token(cls, token: str) -> SpikeConfig:
        """The inverse of `token`; remembered. Errors: SpikeplugError for what no config gives."""
        return _from_token(token)

    @property
    def time_steps(self) -> int:
        """T: time steps in which one n-bit value is sent."""
        if self.code == "count":
            return self.steps if self.steps is not None else 1 << (self.bits - 1)
        return self.bits if self.code == "phase" else 1

    @property
    def levels(self) -> int:
        """L: spikes (or neurons) available per time step."""
        return 1 if self.code == "phase" else (1 << self.bits) // self.time_steps

    @classmethod
    def paper(cls) -> SpikeConfig:
        """The published recipe: K = 64, 8 CORDIC iterations, 8 bits, one division per probability, H = 5.

        H is per operator: softmax has 10 here. With 5, whatever lies 5 below the maximum is dropped before the sum,
        and the recipe collapses less than was measured of it: perplexity +14 % and +49 % at context 512 and 2048 on
        the first 2,048 tokens, not +21 % and +95 % (docs/log.md). Use softmax_half_range=5 for that reading.
        """
        return cls(
            bits=8,
            code="count",
            steps=32,
            division="ordered",
            query_key_bits=None,
            divide_last=False,
            shift_scaling=False,
            exponential="piecewise",
            segments=64,
            half_range=5.0,
            norm="cordic",
            iterations=8,
        )

    @classmethod
    def narrow(cls) -> SpikeConfig:
        """8-bit codes (T·L = 256, and a sign) at every operator's input and output, a scale for every 32 channels."""
        return cls(bits=8, input_bits=8, query_key_bits=None, scale_block=32)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SpikeConfig:
        """The inverse of `to_dict`; missing fields take the default. Errors: unknown fields, bad values."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise SpikeplugError(f"unknown config field {unknown[0]!r}; the fields are {', '.join(sorted(known))}.")
        return cls(**values)

    @classmethod
    def from_file(cls, path: str | Path) -> SpikeConfig:
        """Read a JSON (`.json`) or TOML (`.toml`) file of fields. Errors: missing, malformed or unknown fields."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        except (OSError, UnicodeDecodeError) as error:
            raise SpikeplugError(f"cannot read the config file {path}: {error}.") from error
        except ValueError as error:  # JSONDecodeError and TOMLDecodeError are both ValueErrors
            raise SpikeplugError(
                f"the config file {path} is neither valid JSON nor (if .toml) TOML: {error}."
            ) from error
        if not isinstance(values, dict):
            raise SpikeplugError(
                f"the config file {path} must hold one table of fields, not a {type(values).__name__}."
            )
        return cls.from_dict(values)


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(SpikeConfig)}


@lru_cache(maxsize=256)
def _from_token(token: str) -> SpikeConfig:
    try:
        values = json.loads(token)
    except ValueError as error:
        raise SpikeplugError(f"{token!r} is no config's token: use SpikeConfig(...).token.") from error
    return SpikeConfig.from_dict(values)


def as_config(config: SpikeConfig | None) -> SpikeConfig:
    """The config itself, or the default for None. Errors: SpikeplugError for anything else."""
    if config is None:
        return _DEFAULT
    if not isinstance(config, SpikeConfig):
        raise SpikeplugError(f"config is a {type(config).__name__}: give a SpikeConfig, such as SpikeConfig.paper().")
    return config


def _check_types(config: SpikeConfig) -> None:
    hints = get_type_hints(SpikeConfig)
    for field in dataclasses.fields(SpikeConfig):
        value, hint = getattr(config, field.name), hints[field.name]
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else None
        if choices is not None:
            if not isinstance(value, str) or value not in choices:
                raise SpikeplugError(f"{field.name} is {value!r}; choose one of {', '.join(map(repr, choices))}.")
            continue
        expected = {int: (int,), bool: (bool,), float: (int, float)}.get(hint, (int, type(None)))
        if not isinstance(value, expected) or (hint is not bool and isinstance(value, bool)):
            raise SpikeplugError(f"{field.name} is {value!r}; it must be of type {getattr(hint, '__name__', 'int')}.")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SpikeplugError(f"{name} is {value}; it must lie between {low} and {high}.")


_DEFAULT = SpikeConfig()
