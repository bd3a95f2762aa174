"""`spikeplug convert`: a folder that loads, refusals in one sentence, and nothing left of what failed."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import byte_tokenizer, save_tiny_gguf, save_tiny_model, tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel, ViTConfig, ViTModel
from typer.testing import CliRunner

import spikeplug
import spikeplug.conversion.whole.calibration
import spikeplug.conversion.whole.recipe
from spikeplug import cli
from spikeplug.conversion.whole.coded import CodedPlug
from spikeplug.conversion.whole.needs import memory_needed
from spikeplug.measurement import folders, loading

IDS = torch.arange(2, 30)[None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """The folder that the command writes with the recipe whole, and its record beside it."""
    path = folder.parent / "whole"
    result = run("convert", folder, path, "--recipe", "whole", "--bits", "7", "--json", folder.parent / "record.json")
    assert result.exit_code == 0, result.output
    return path


def run(*arguments: object):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def assert_refused(result, message: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    line = result.stderr.splitlines()[-1]  # lines of progress may stand before it
    assert line.startswith("spikeplug: ")
    assert message in line


def test_a_whole_folder_loads_and_computes_what_python_converts(whole: Path) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(whole)
    weights = load_file(whole / "model.safetensors")
    assert weights["model.layers.0.mlp.up_proj.weight"].dtype == torch.int8
    assert AutoTokenizer.from_pretrained(whole)("abc")["input_ids"] == byte_tokenizer()("abc")["input_ids"]
    model = tiny_model()
    # 512 tokens in two rows: the model has 256 positions.
    ids = spikeplug.conversion.whole.calibration.text_tokens(byte_tokenizer(), 512, longest=256)
    assert ids.shape == (2, 256)
    recipe = spikeplug.conversion.whole.recipe.Whole.of_bits(7)
    spikeplug.convert(model, recipe=recipe, calibration=ids)
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)


def test_the_record_of_a_conversion(whole: Path) -> None:
    record = json.loads((whole.parent / "record.json").read_text(encoding="utf-8"))
    assert record["schema_version"] == 1
    assert record["arguments"]["recipe"] == "whole"
    assert record["arguments"]["bits"] == 7
    assert record["bytes"]["weights"] == (whole / "model.safetensors").stat().st_size
    assert record["bytes"]["weights"] < 0.4 * record["bytes"]["float32_weights"]
    assert record["conversion"]["counts"]["matmul"] == {"replaced": 17, "left": 0}
    assert record["seconds"] > 0


def test_the_recipe_operators_leaves_weights_and_their_dtype(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "half"
    tiny_model().to(torch.bfloat16).save_pretrained(source)
    byte_tokenizer().save_pretrained(source)
    result = run("convert", source, tmp_path / "new" / "spiking", "--preset", "narrow", "--exclude", r"\.0\.")
    assert result.exit_code == 0, result.output
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "new/spiking/model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and after[name].dtype == torch.bfloat16 for name in before)
    assert "Folder" in result.stdout
    assert "excluded" in result.stdout
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "new/spiking")
    assert loaded.config.quantization_config.numerics == spikeplug.PRESETS["narrow"].numerics
    assert spikeplug.revert(loaded) == ()


def test_a_gguf_file_becomes_a_folder(tmp_path: Path) -> None:
    result = run("convert", save_tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.quantization_config.numerics is not None


def test_an_empty_folder_is_filled(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run("convert", folder, tmp_path / "out").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_models_that_read_no_text(tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTModel(ViTConfig(**size, image_size=32, patch_size=16)).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text("{}")
    out = tmp_path / "out"
    assert_refused(run("convert", tmp_path / "vit", out, "--recipe", "whole"), "give --calibration none")
    assert not out.exists()
    result = run("convert", tmp_path / "vit", out, "--recipe", "whole", "--calibration", "none")
    assert result.exit_code == 0, result.output
    assert (out / "preprocessor_config.json").read_text() == "{}"
    BertModel(BertConfig(**size, vocab_size=256)).save_pretrained(tmp_path / "bert")
    byte_tokenizer().save_pretrained(tmp_path / "bert")
    result = run("convert", tmp_path / "bert", tmp_path / "spiking", "--recipe", "whole", "--calibration-tokens", 64)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "half"], "unknown recipe 'half': choose operators or whole"),
        (["--recipe", "whole", "--bits", "3"], "bits is 3: choose 4 to 9"),
        (["--recipe", "whole", "--bits", "10"], "bits is 10: choose 4 to 9"),
        (["--bits", "8"], "bits and the recipe operators exclude each other: add --recipe whole"),
        (["--calibration", "none"], "calibration and the recipe operators exclude each other"),
        (["--calibration-tokens", "9"], "calibration tokens and the recipe operators exclude each other"),
        (["--recipe", "whole", "--calibration-tokens", "0"], "the calibration tokens are 0"),
        (["--recipe", "whole", "--calibration", "none", "--calibration-tokens", "8"], "leave one of them out"),
        (["--recipe", "whole", "--calibration", "/no/such/text"], "cannot read /no/such/text"),
        (["--recipe", "whole", "--operators", "silu"], "a whole model replaces all"),
        (["--recipe", "whole", "--dtype", "float16"], "give --dtype float32"),
        (["--dtype", "int8"], "no dtype 'int8'"),
        (["--preset", "nonsense"], "unknown preset"),
        (["--exclude", "("], "not a regular expression"),
        (["--exclude", "nowhere"], "finds none"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_arguments(folder: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    assert_refused(run("convert", folder, tmp_path / "out", *arguments), message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b" \n", "is empty"), (b"short", "has 5 tokens, fewer than 512"), (b"\xff\xfe", "not UTF-8")],
)
def test_bad_calibration_texts(folder: Path, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "text").write_bytes(content)
    arguments = ("--recipe", "whole", "--calibration", tmp_path / "text")
    assert_refused(run("convert", folder, tmp_path / "out", *arguments), message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_weights(tmp_path: Path, value: float) -> None:
    model = tiny_model()
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = value
    model.save_pretrained(tmp_path / "damaged")
    byte_tokenizer().save_pretrained(tmp_path / "damaged")
    result = run("convert", tmp_path / "damaged", tmp_path / "out", "--recipe", "whole", "--calibration-tokens", 16)
    assert_refused(result, "model.layers.1.mlp.up_proj.weight holds NaN or infinity")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_folders_that_are_refused(folder: Path, whole: Path, tmp_path: Path) -> None:
    assert_refused(run("convert", folder, folder), "where the model itself lies: give another DIR")
    assert_refused(run("convert", folder, whole), "is not empty: give the path of a new folder")
    (tmp_path / "file").touch()
    assert_refused(run("convert", folder, tmp_path / "file"), "it is a file; ")
    assert_refused(run("convert", folder, tmp_path / "file" / "out"), "is a file; ")
    (tmp_path / "closed").mkdir(mode=0o555)
    assert_refused(run("convert", folder, tmp_path / "closed" / "out"), "is read-only; ")
    assert_refused(run("convert", folder, tmp_path / ("x" * 300)), "cannot write the folder")
    assert_refused(run("convert", whole, tmp_path / "out"), "is a whole spiking model already: give the float model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["closed", "file"]


def test_a_disk_without_room(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: usage)
    assert_refused(run("convert", folder, tmp_path / "out"), "its disk has 0 MB left: free some space")


def test_a_machine_without_memory(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is refused before it is loaded, with what would help; an estimate that fits lets it pass."""
    command = importlib.import_module("spikeplug.cli.convert")
    calibrated, nearest = (memory_needed(tiny_model(), how, True) for how in (True, False))
    assert nearest < calibrated
    loaded = []
    monkeypatch.setattr(loading, "_load_as", lambda *_, **__: loaded.append(1))
    for free, options, message in (
        (nearest - 1, (), "of memory, but"),
        (calibrated - 1, (), "or give --calibration none, which needs"),
        (nearest - 1, ("--calibration", "none"), "end other programs, or use a machine with more."),
    ):
        monkeypatch.setattr(command, "available_memory", lambda free=free: free)
        assert_refused(run("convert", folder, tmp_path / "out", "--recipe", "whole", *options), message)
    assert not loaded
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(command, "available_memory", lambda: nearest)
    result = run("convert", folder, tmp_path / "out", "--recipe", "whole", "--calibration", "none")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("a bug")])
def test_nothing_is_left_of_a_folder_that_could_not_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    save = type(byte_tokenizer()).save_pretrained

    def failing(self, path, **options):
        save(self, path, **options)
        assert list(Path(path).glob("*.safetensors"))
        raise error

    monkeypatch.setattr(type(byte_tokenizer()), "save_pretrained", failing)
    result = run("convert", folder, tmp_path / "new" / "out")
    if isinstance(error, OSError):
        assert_refused(result, "No space left on device; free some space there, or give another DIR")
    else:
        assert result.exit_code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_command_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ("--recipe", "whole", "--calibration-tokens", 16)
    run("convert", folder, tmp_path / "expected", *wanted)
    install, done = CodedPlug.install, []

    def interrupted(self, *integers):
        done.append(self.path)
        if len(done) == 8:
            raise KeyboardInterrupt
        install(self, *integers)

    with monkeypatch.context() as context:
        context.setattr(CodedPlug, "install", interrupted)
        result = run("convert", folder, tmp_path / "out", *wanted)
    assert result.exit_code == 130
    # Lines break at the width of a terminal, wherever a long path puts them.
    assert "out.unfinishedkeepsthelayersthatarerounded" in "".join(result.stderr.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out.unfinished"]
    assert run("convert", folder, tmp_path / "out", *wanted).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out"]
    files = [tmp_path / name / "model.safetensors" for name in ("out", "expected")]
    assert files[0].read_bytes() == files[1].read_bytes()
