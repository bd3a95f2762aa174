"""Measure the primitives: integers against real numbers, in LSB, on every input where there are few enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeplug.codes import natural_unit
from spikeplug.evidence.published import exp_error, polar_error
from spikeplug.numerics import Numerics
from spikeplug.operators.gates.gate import CURVE_END, curve_table
from spikeplug.operators.gates.gelu import GATES
from spikeplug.operators.softmax.weights import piecewise_exponential, shift_exponential
from spikeplug.primitives import divide, exponential, interpolation, norm, product

Pair = tuple[Tensor, Tensor]  # how far closed may be above and below exact, both >= 0, in LSB


@dataclass(frozen=True)
class Primitive:
    """Describe a primitive: its integer function, the real function, and the bound of their difference.

    All functions take the tensors in `inputs` as arguments. Their results are in units of one LSB.

    name        name of the primitive, with the inputs that are tried
    inputs      integer tensors to try
    closed      the integer function, returns int64
    exact       the real function, returns float64
    bound       the proven bound, two tensors >= 0: how far `closed` may lie above `exact`, and how far below
    step        one LSB as a real number
    exhaustive  True if `inputs` are all possible inputs
    dimension   length of the vectors; None for elementwise primitives
    published   the published bound of |closed - exact|; None if there is none
    """

    name: str
    inputs: tuple[Tensor, ...]
    closed: Callable[..., Tensor]
    exact: Callable[..., Tensor]
    bound: Callable[..., Pair]
    step: float
    exhaustive: bool
    dimension: int | None = None
    published: Callable[..., Tensor] | None = None


def primitives(numerics: Numerics, dimensions: tuple[int, ...], count: int, seed: int = 0) -> list[Primitive]:
    """Return a description of every primitive that the numerics use, with the inputs to try.

    dimensions  lengths of the vectors to try with the tree of CORDIC merges (only with numerics.norm = "cordic")
    count       number of random inputs, where there are too many to try all
    """
    generator = torch.Generator().manual_seed(seed)
    found = [_division(numerics), *_exponentials(numerics), *_curves(numerics), _product(count, generator)]
    if numerics.norm == "root":
        return [*found, _root(numerics, count, generator)]
    pairs = torch.cartesian_prod(torch.arange(256), torch.arange(256)) << (numerics.working_bits - 9)
    return [
        *found,
        _cordic(numerics, pairs, exhaustive=True),
        *(_cordic(numerics, wide_integers((max(1, count // d), d), numerics, generator)) for d in dimensions if d > 2),
    ]


def wide_integers(shape: tuple[int, ...], numerics: Numerics, generator: torch.Generator) -> Tensor:
    """Return random int64 >= 0 of small and large size.

    The number of bits to fill is drawn first, evenly from 1 to numerics.working_bits - 1, then the bits.
    """
    places = torch.randint(1, numerics.working_bits, shape, generator=generator)
    return torch.randint(0, 1 << 40, shape, generator=generator) & ((1 << places) - 1)


def _division(numerics: Numerics) -> Primitive:
    spec = divide.DivideSpec(8, 8, numerics.bits)
    step = torch.ones((), dtype=torch.float64)
    return Primitive(
        "division, all 8-bit A and B > 0",
        torch.cartesian_prod(torch.arange(256), torch.arange(1, 256)).unbind(-1),
        lambda a, b: divide.divide(a, b, spec),
        lambda a, b: a.double() / b * 2.0**numerics.bits,
        lambda a, b: (0 * step, step),
        2.0**-numerics.bits,
        exhaustive=True,
        published=lambda a, b: step.expand(a.shape),  # Δ = 1/(T·L)
    )


def _exponentials(numerics: Numerics) -> list[Primitive]:
    step, one = 2.0**-numerics.working_bits, 2.0**numerics.working_bits
    if numerics.exponential == "shift":
        spec = shift_exponential(numerics)
        octaves = torch.arange((numerics.working_bits + 2) << numerics.fraction_bits, dtype=torch.int32)
        chord = one * (math.log(2) / spec.segments) ** 2 / 8

        def scale(d: Tensor) -> Tensor:
            return torch.exp2(-(d >> numerics.fraction_bits).double())

        return [
            Primitive(
                "2^-x by table and shift",
                (octaves,),
                lambda d: exponential.power_of_half(d, spec).to(torch.int64),
                lambda d: torch.exp2(numerics.working_bits - d.double() * 2.0**-numerics.fraction_bits),
                lambda d: ((chord + 1.5) * scale(d), 1 + scale(d) / 2),
                step,
                exhaustive=True,
            )
        ]
    return [
        _piecewise(half_range, numerics) for half_range in sorted({numerics.half_range, numerics.softmax_half_range})
    ]


def _piecewise(half_range: float, numerics: Numerics) -> Primitive:
    spec, one, unit = (
        piecewise_exponential(half_range, numerics),
        2.0**numerics.working_bits,
        2.0**-numerics.fraction_bits,
    )
    knots = torch.tensor(spec.knots)
    published = exp_error(numerics, half_range)

    def bound(x: Tensor) -> Pair:
        segment = (torch.bucketize(x, knots, right=True) - 1).clamp(0, spec.segments - 1)
        left, right = knots[segment].double() * unit, knots[segment + 1].double() * unit
        intercept = one * left.exp() * 2.0**-spec.intercept_bits + 0.5
        slope = one * (right.exp() - left.exp()) * 2.0**-spec.slope_bits
        return one * (right - left) ** 2 / 8 * right.exp() + intercept + slope, intercept + slope + 1

    def exact(x: Tensor) -> Tensor:
        return one * (x.double() * unit).exp()

    return Primitive(
        f"exp by {spec.segments} chords on [-{half_range:g}, {half_range:g})",
        (torch.arange(spec.knots[0], spec.knots[-1]),),
        lambda x: exponential.piecewise(x, spec),
        exact,
        bound,
        1 / one,
        exhaustive=True,
        published=lambda x: exact(x) * published,
    )


def _curves(numerics: Numerics) -> list[Primitive]:
    """Return the table lookups of GELU, one for each form of GELU ("none", "tanh"), as primitives.

    Each looks up and interpolates an exponent g, in octaves. The bound uses |g''| <= 4.
    """
    unit, places = natural_unit(numerics), numerics.fraction_bits
    segment = 2.0 ** -((places + 1) // 2)
    above = torch.tensor(segment**2 / 8 * 4 * unit * math.log(2) * 2.0**places + 1.5, dtype=torch.float64)

    def case(form: str) -> Primitive:
        gate = GATES[form]
        table, curve = curve_table(gate, unit, places), gate.curve
        assert curve is not None
        domain = torch.arange((CURVE_END << places) + 1)
        exact = torch.tensor([unit * curve(x * 2.0**-places) * 2.0**places for x in domain.tolist()]).double()
        return Primitive(
            f"interpolation, GELU {form!r}",
            (domain,),
            lambda x: interpolation.interpolate(x, table).to(torch.int64),
            lambda x: exact[x],
            lambda x: (above, above),
            2.0**-places,
            exhaustive=True,
        )

    return [case("none"), case("tanh")]


def _root(numerics: Numerics, count: int, generator: torch.Generator) -> Primitive:
    bits = numerics.working_bits + 7
    root = wide_integers((count,), numerics, generator) << 7
    square = torch.cat([torch.arange(1 << 16), root * root, (root * root - 1).clamp(min=0), root * root + 1])
    none = torch.zeros((), dtype=torch.float64)
    return Primitive(
        "root, all 16-bit S, wide squares and neighbours",
        (square,),
        lambda s: norm.root(s, norm.RootSpec(bits)),
        lambda s: s.double().sqrt(),
        lambda s: (none + 2.0**-20, none + 1),  # float64 rounds the reference
        1.0,
        exhaustive=False,
    )


def _cordic(numerics: Numerics, vectors: Tensor, *, exhaustive: bool = False) -> Primitive:
    dimension, spec = vectors.shape[-1], norm.CordicSpec(numerics.iterations, numerics.working_bits)
    levels = max(dimension - 1, 0).bit_length()
    angle, gain = 2.0 ** (1 - 2 * spec.iterations), 2.0**-spec.gain_bits
    rounding = 3.5 * (0.5 + spec.iterations * 2.0 ** (1 - spec.guard_bits)) * 2 ** (levels / 2)

    def exact(x: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(x.double(), dim=-1, keepdim=True)
        return length

    return Primitive(
        f"CORDIC norm, {'all 8-bit pairs' if exhaustive else 'wide vectors'}",
        (vectors,),
        lambda x: norm.cordic(x, spec),
        exact,
        lambda x: (
            exact(x) * ((1 + gain) ** levels - 1) + rounding,
            exact(x) * (1 - (1 - angle - gain) ** levels) + rounding,
        ),
        1.0,
        exhaustive=exhaustive,
        dimension=dimension,
        # The published bound is relative and does not mention rounding, so one LSB is added.
        published=lambda x: exact(x) * polar_error(dimension, numerics) + 1,
    )


def _product(count: int, generator: torch.Generator) -> Primitive:
    a, b = (torch.randint(0, 1 << 26, (count,), generator=generator) for _ in range(2))
    none = torch.zeros((), dtype=torch.float64)
    return Primitive(
        "product by gating, 26 bits",
        (a, b),
        lambda a, b: product.gate(a, b),
        lambda a, b: a.double() * b.double(),  # below 2^53, so exact
        lambda a, b: (none, none),
        1.0,
        exhaustive=False,
    )
