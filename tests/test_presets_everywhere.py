"""A preset is named in five places, and each refuses an unknown one in the same sentence."""

from __future__ import annotations

import pytest
from tiny_model import tiny_model
from typer.testing import CliRunner

import spikeplug
from spikeplug import cli
from spikeplug.errors import SpikeplugError
from spikeplug.evaluation import Settings, inspect_model
from spikeplug.presets import PRESETS, preset
from spikeplug.report import Settings as ReportSettings

COMMANDS = ("eval", "audit", "ops", "report")


def sentence(work):
    with pytest.raises(SpikeplugError) as caught:
        work()
    return str(caught.value)


def refusal(*arguments):
    result = CliRunner().invoke(cli.app, list(arguments))
    assert result.exit_code == 2
    return result.stderr.removeprefix("spikeplug: ").removesuffix("\n")


PLACES = {
    "convert": lambda: sentence(lambda: spikeplug.convert(tiny_model(), "nope")),
    "SpikingConfig": lambda: sentence(lambda: spikeplug.SpikingConfig("nope")),
    "evaluation.Settings": lambda: sentence(lambda: Settings(numerics="nope")),
    "report.Settings": lambda: sentence(lambda: ReportSettings(numerics="nope")),
    "inspect_model": lambda: sentence(lambda: inspect_model(tiny_model(), "nope")),
    "lm-eval": lambda: refusal("lm-eval", "--tasks", "x", "--model_args", "preset=nope"),
    **{command: lambda command=command: refusal(command, "--preset", "nope") for command in COMMANDS},
}


@pytest.mark.parametrize("place", PLACES)
def test_an_unknown_preset_is_refused_in_one_and_the_same_sentence(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert PLACES[place]() == sentence(lambda: preset("nope"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_preset(command, monkeypatch):
    text = " ".join(CliRunner().invoke(cli.app, [command, "--help"]).stdout.split())
    assert "--preset NAME|FILE" in text
    assert f"{', '.join(PRESETS)}, or a JSON or TOML file" in text
