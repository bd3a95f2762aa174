"""Define `Numerics`: everything that can change an output bit of an operator, as one frozen, validated record."""

from __future__ import annotations

import dataclasses
import json
import typing
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Self, get_type_hints

from spikeplug.errors import SpikeplugError, shown

#: Raised with every change of an output bit of any operator; see CHANGELOG.md and tests/golden.
NUMERICS_VERSION = 5


class Fields:
    """Make a dataclass refuse unknown fields, and values without a field name, with a SpikeplugError."""

    def __new__(cls, *positional: Any, **values: Any) -> Self:
        if positional:
            first = dataclasses.fields(cls)[0].name  # type: ignore[arg-type]
            raise SpikeplugError(f"{cls.__name__} takes its fields by name, such as {cls.__name__}({first}=...).")
        check_fields(cls, values)
        return super().__new__(cls)


@dataclass(frozen=True, kw_only=True)
class Numerics(Fields):
    """Fix the integer arithmetic of every operator, hence its output bits. The preset "paper" is the published recipe.

    bits            n: an operator's output has n fraction bits (n = log2 of the number of levels)
    input_bits      bits, without the sign, of the spike code at an operator's input (operators/README.md lists the
                    codes); None: inputs are as wide as the operator works
    working_bits    P: width of mantissas, weights and operands inside an operator (guard bits = P - n)
    scale_block     channels that share one power-of-two scale, at the input and output of norms and activations and at
                    attention's output; None: all channels of a vector
    fraction_bits   F: fraction bits of an exponent, which is one of 2 for `shift` and one of e for `piecewise`
    query_key_bits  bits, with the sign, of the codes of queries and keys, one power of two per vector; their product
                    is then exact in integers. None: the product is the model's own float product
    divide_last     attention: divide once per head channel after the value product, not once per key
    shift_scaling   give every output vector its own power-of-two scale and round to nearest; without it, the
                    output is floored to the fixed step 2^-n
    exponential     `shift` (2^x: table and right shift) or `piecewise` (straight lines on [-H, H])
    segments        K: segments of the table; a power of two for `shift`, even for `piecewise`
    half_range      H of the piecewise exponential in SiLU
    softmax_half_range  H of the piecewise exponential in softmax and attention, whose input is never above 0
    norm            `root` (squares and restoring root) or `cordic` (tree of CORDIC merges)
    iterations      CORDIC iterations per merge

    Which neurons compute the result, at the same bits, is a `Realisation`.
    Errors: SpikeplugError for any value out of its domain.
    """

    bits: int = 16
    input_bits: int | None = None
    working_bits: int = 22
    scale_block: int | None = None
    fraction_bits: int = 12
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
        check_types(self)
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
        changed = {name: value for name, value in dataclasses.asdict(self).items() if value != _DEFAULTS[name]}
        object.__setattr__(self, "_token", json.dumps(changed, sort_keys=True))

    @property
    def token(self) -> str:
        """Return the fields that differ from the default, as a JSON string: torch ops take numerics in this form."""
        return self._token  # type: ignore[attr-defined,no-any-return]

    @classmethod
    def from_token(cls, token: str) -> Numerics:
        """Return the numerics whose `token`, a JSON string, is given; results are cached.

        Errors: SpikeplugError for any other string.
        """
        if not isinstance(token, str):
            raise _no_token(token)
        return _from_token(token)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with the numerics version as `version`."""
        return {"version": NUMERICS_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Numerics:
        """Return the numerics that `to_dict` wrote; missing fields take the default.

        Warns if they were written by an earlier numerics version, whose output bits differ.
        Errors: SpikeplugError for unknown fields, bad values and unknown versions.
        """
        if isinstance(values, dict):
            values = dict(values)
            _check_version(values.pop("version", NUMERICS_VERSION))
        check_fields(cls, values)
        return cls(**values)


def check_fields(cls: type, values: dict[str, Any]) -> None:
    """Raise SpikeplugError if `values` is not a dict, or a key of it is not a field of the dataclass `cls`."""
    if not isinstance(values, dict):
        raise SpikeplugError(f"{shown(values)} is not a dict: give the fields of {cls.__name__} by name.")
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(map(str, values)) - known)
    if unknown:
        raise SpikeplugError(
            f"{shown(unknown[0])} is not a field of {cls.__name__}; the fields are {', '.join(sorted(known))}."
        )


def check_types(record: Any) -> None:
    """Raise SpikeplugError if a field of a dataclass of ints, floats, bools and Literals has another type."""
    hints = get_type_hints(type(record))
    for field in dataclasses.fields(record):
        value, hint = getattr(record, field.name), hints[field.name]
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else None
        if choices is not None:
            if not isinstance(value, str) or value not in choices:
                raise SpikeplugError(f"{field.name} is {shown(value)}; choose one of {', '.join(map(repr, choices))}.")
            continue
        expected = {int: (int,), bool: (bool,), float: (int, float)}.get(hint, (int, type(None)))
        if not isinstance(value, expected) or (hint is not bool and isinstance(value, bool)):
            raise SpikeplugError(
                f"{field.name} is {shown(value)}; it must be of type {getattr(hint, '__name__', 'int')}."
            )


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Numerics)}


@lru_cache(maxsize=256)
def _from_token(token: str) -> Numerics:
    try:
        values = json.loads(token)
        if not isinstance(values, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise _no_token(token) from error
    return Numerics.from_dict(values)


def _no_token(token: object) -> SpikeplugError:
    return SpikeplugError(f"{shown(token)} is not a token of numerics: use Numerics(...).token.")


def _check_version(version: object) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= NUMERICS_VERSION:
        raise SpikeplugError(
            f"numerics version {version!r} is unknown to this spikeplug, which computes version {NUMERICS_VERSION}: "
            "install the version of spikeplug that saved it, or convert the model anew."
        )
    if version != NUMERICS_VERSION:
        warnings.warn(
            f"saved with numerics version {version}, run with version {NUMERICS_VERSION}: output bits may differ from "
            "those of then (CHANGELOG.md says where); convert and save the model anew to silence this.",
            UserWarning,
            stacklevel=3,
        )


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SpikeplugError(f"{name} is {value}; it must lie between {low} and {high}.")
