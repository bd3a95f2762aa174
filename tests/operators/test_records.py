"""Every record is complete, and what it names exists: all that derives from RECORDS can trust it."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch
from operators.samples import samples

from spikeplug import functional
from spikeplug import nn as spiking
from spikeplug.evidence.distributions import gaussian
from spikeplug.evidence.subjects import Subject
from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics
from spikeplug.operators import LINEAR, RECORDS, Operator
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Closed

each = pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
#: Where a converted model finds torch's functions.
NAMESPACES = (torch, torch.Tensor, torch.nn.functional, torch.special, torch.linalg)


@each
def test_texts_are_there(record: Operator) -> None:
    assert record.formula
    assert "\n" not in record.formula
    assert record.inputs
    assert inspect.getdoc(record.spiking)
    for preset in PRESETS.values():
        words = record.input_range(preset.numerics)
        assert words
        assert "\n" not in words
        assert record.largest(preset.numerics) > 0


@each
def test_the_schema_is_one_of_torchs(record: Operator) -> None:
    schema = torch._C.parse_schema(f"test::{record.name}({record.schema}, str numerics) -> Tensor")
    assert [argument.name for argument in schema.arguments[:-1]] == [
        name for name in inspect.signature(record.spiking).parameters if name != "on"
    ]
    assert len(schema.arguments) - 1 == len(record.inputs) + len(record.settings)
    tensors = [argument.name for argument in schema.arguments if str(argument.type) == "Tensor"]
    assert len(tensors) == len(record.inputs), "inputs are the tensors that must be there"


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_spiking_and_exact_agree_in_shape_and_dtype(record: Operator, dtype: torch.dtype) -> None:
    for given in samples(record.name, dtype=dtype):
        spiking_result, exact = record.spiking(*given, on=Closed(Numerics(), record.name)), record.exact(*given)
        assert spiking_result.shape == exact.shape
        assert spiking_result.dtype == exact.dtype


@each
def test_the_bound_is_of_the_outputs_shape_finite_and_met(record: Operator) -> None:
    subject = Subject(record)
    for preset in PRESETS.values():
        inputs = subject.as_coded(subject.inputs(gaussian(2), 3, 9), preset.numerics)
        bound, exact = record.bound(*inputs, numerics=preset.numerics), subject.exact(*inputs)
        assert bound.reshape(exact.shape).isfinite().all()
        assert bool((bound > 0).any())
        error = (subject.spiking(*inputs, numerics=preset.numerics) - exact).abs()
        assert bool((error <= bound.reshape(exact.shape)).all())


@each
def test_a_public_function_has_its_name_and_its_arguments(record: Operator) -> None:
    function = getattr(functional, record.name)
    assert function.__module__ == "spikeplug.functional"
    assert inspect.getdoc(function)
    public = inspect.signature(function).parameters
    own = [name for name in inspect.signature(record.spiking).parameters if name != "on"]
    assert set(own) <= set(public)
    assert [name for name in public if name in own] == own, "in one order everywhere"
    for name, default in record.defaults.items():
        assert public[name].default == default


@each
def test_spellings_are_functions_of_torch(record: Operator) -> None:
    for spelling in record.spellings:
        assert spelling.names
        for name in spelling.names:
            found = [space for space in NAMESPACES if callable(getattr(space, name, None))]
            assert found, f"torch has no {name}"
        assert callable(spelling.call)


def test_no_function_of_torch_is_spelt_twice() -> None:
    names = [name for record in RECORDS.values() for spelling in record.spellings for name in spelling.names]
    assert len(names) == len(set(names))


@each
def test_module_classes_exist(record: Operator) -> None:
    for full, arguments in record.modules.items():
        module, _, name = full.rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        assert issubclass(cls, torch.nn.Module)
        given = arguments(cls())
        assert isinstance(given, tuple)
        assert len(given) == len(record.settings)


def test_no_module_class_is_of_two_operators() -> None:
    names = [name for record in RECORDS.values() for name in record.modules]
    assert len(names) == len(set(names))


@each
def test_aten_names_exist(record: Operator) -> None:
    for name in record.aten:
        assert hasattr(torch.ops.aten, name), name


@each
def test_a_module_of_ours_exists_where_one_is_named(record: Operator) -> None:
    if not record.module:
        return
    cls = getattr(spiking, record.module)
    assert cls.operator == record.name
    assert hasattr(torch.nn, record.module) or record.module == "ReLUSquared", "it has torch's own name"


def test_names_are_their_keys_and_every_record_is_registered() -> None:
    assert all(name == record.name for name, record in (RECORDS | LINEAR).items())
    assert list(OPERATORS) == [*RECORDS, *LINEAR]
    assert all(hasattr(torch.ops.spikeplug, name) for name in OPERATORS)
