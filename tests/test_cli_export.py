"""`spikeplug export`: a file, or one line that says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spikeplug import cli
from spikeplug.hardware.nir import equal, read, to_nir
from spikeplug.hardware.verbs import circuit_of_verb
from spikeplug.hardware.verilog import verilog


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["export", *map(str, arguments)])


def test_a_verb(tmp_path: Path) -> None:
    path = tmp_path / "new" / "divide.nir"
    result = run("divide", path, "--bits", 4, "--set", "denominator=5")
    assert result.exit_code == 0, result.output
    assert "as a NIR graph of 7 nodes" in " ".join(result.stdout.split())
    assert equal(read(path), to_nir(circuit_of_verb("divide", 4), {"denominator": 5}))
    result = run("divide", path, "--bits", 4, "--neurons", "ordered")
    assert result.exit_code == 0, result.output
    assert equal(read(path), to_nir(circuit_of_verb("divide", 4, "ordered")))


def test_a_verb_as_logic(tmp_path: Path) -> None:
    result = run("divide", tmp_path / "divide.v", "--bits", 4)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "divide.v").read_text(encoding="utf-8") == verilog(circuit_of_verb("divide", 4)).text


def test_a_stage_of_an_operator(tmp_path: Path) -> None:
    path = tmp_path / "segment.nir"
    result = run("softmax", path, "--numerics", "narrow", "--population", "softmax/exp/segment")
    assert result.exit_code == 0, result.output
    assert read(path).metadata["spikeplug"]["stage"] == "softmax/exp/segment"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("divide", "FILE", "--bits", 4), "give it as a parameter, such as denominator=15"),
        (("divide", "FILE", "--bits", 4, "--set", "denominator"), "--set got 'denominator'"),
        (("divide", "FILE", "--bits", 4, "--set", "denominator=x"), "--set got 'denominator=x'"),
        (("divide", "FILE", "--bits", 4, "--format", "onnx"), "unknown format 'onnx': choose one of verilog, nir"),
        (("divide", "NAMELESS", "--bits", 4), "does not end with .v or .nir: say which format"),
        (("divide", "FILE", "--bits", 4, "--format", "verilog", "--reset", "neuron"), "verilog takes no reset"),
        (("nonsense", "FILE"), "unknown operator 'nonsense'"),
        (("attention", "FILE"), "no circuit form"),
        (("softmax", "FILE"), "softmax has no NIR form: it has"),
        (("root", "FILE", "--bits", 4), "its threshold is the membrane of root/root"),
        (("root", "FILE", "--bits", 99), "between 1 and 24"),
        (("divide", "FOLDER", "--bits", 4, "--neurons", "ordered"), "it is a folder"),
    ],
)
def test_refusals_leave_nothing(arguments: tuple[object, ...], message: str, tmp_path: Path) -> None:
    places = {"FILE": tmp_path / "out.nir", "FOLDER": tmp_path, "NAMELESS": tmp_path / "out"}
    result = run(*(places.get(argument, argument) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
