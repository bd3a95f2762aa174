"""Write the figures of docs/architectures.md on real weights: `python benchmarks/real_weights.py FOLDER`.

A sentence encoder reads 1,000 sentences and a speech recogniser ten seconds of speech, exact and converted; their
weights come from packages (packaged_models.py). Then a model of a billion parameters is converted and timed.
FOLDER/real-weights.json gets the figures too. Exits with 1 if something is left in floating point.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: as the command line does

import pages
import torch
from packaged_models import embeddings, minilm, sentences, speech, transcript, whisper
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import spikeplug
from spikeplug.measurement.record import commit, environment

SCHEMA_VERSION = 1


def sentence_encoder() -> dict[str, Any]:
    """Return the cosine between exact and converted embeddings, over 1,000 sentences."""
    model, tokenizer = minilm()
    texts = sentences(1000)
    exact, exact_seconds = timed(lambda: embeddings(model, tokenizer, texts))
    report = spikeplug.convert(model, strict=True)
    spiking, seconds = timed(lambda: embeddings(model, tokenizer, texts))
    cosine = (exact.double() * spiking.double()).sum(-1)
    with spikeplug.audit(model) as found, torch.inference_mode():
        model(**tokenizer(texts[0], return_tensors="pt"))
    return {
        "sentences": len(texts),
        "replaced": str(report),
        "executed_after": found.counts,
        "smallest_cosine": float(cosine.min()),
        "time_ratio": seconds / exact_seconds,
    }


def speech_recogniser() -> dict[str, Any]:
    """Return the words of the exact and of the converted model."""
    model, tokenizer = whisper()
    features = speech()
    exact, exact_seconds = timed(lambda: transcript(model, tokenizer, features))
    report = spikeplug.convert(model, strict=True)
    spiking, seconds = timed(lambda: transcript(model, tokenizer, features))
    with spikeplug.audit(model) as found:
        transcript(model, tokenizer, features)
    return {
        "exact": exact,
        "spiking": spiking,
        "replaced": str(report),
        "executed_after": found.counts,
        "time_ratio": seconds / exact_seconds,
    }


def conversion_of_a_billion() -> dict[str, Any]:
    """Return the seconds that `convert` takes for 1.2 billion parameters: the first time, and the median of five."""
    config = LlamaConfig(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32)
    with torch.device("meta"):
        model: nn.Module = LlamaForCausalLM(config)
    seconds = []
    for _ in range(6):
        seconds.append(timed(lambda: spikeplug.convert(model))[1])
        spikeplug.revert(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "first_seconds": seconds[0], "median_seconds": statistics.median(seconds[1:])}


def timed(work: Any) -> tuple[Any, float]:
    """Return the result, and the seconds it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def text(found: dict[str, Any]) -> str:
    """Return the page's lines."""
    encoder, recogniser, billion = found["encoder"], found["recogniser"], found["conversion"]
    same = "the same words" if recogniser["exact"] == recogniser["spiking"] else "other words"
    return "\n".join(
        [
            f"- **all-MiniLM-L6-v2** (BERT), {encoder['sentences']:,} sentences: smallest cosine between exact and "
            f"spiking embeddings {encoder['smallest_cosine']:.7f}, nothing left in floating point.",
            f"- **Whisper tiny.en**, ten seconds of speech: {same}, “{recogniser['spiking']}”, nothing left.",
            f"- Converting {billion['parameters'] / 1e9:.1f} billion parameters takes "
            f"{billion['first_seconds']:.2f} s, and "
            f"{billion['median_seconds'] * 1e3:.0f} ms once the norms are known (`make conformance`).",
        ]
    )


def main() -> None:
    stages = {"conversion": conversion_of_a_billion, "encoder": sentence_encoder, "recogniser": speech_recogniser}
    found: dict[str, Any] = {}
    for number, (name, stage) in enumerate(stages.items(), 1):
        print(f"[{number}/{len(stages)}] {name}", file=sys.stderr, flush=True)
        found[name] = stage()
    record = {"schema_version": SCHEMA_VERSION, "commit": commit(), "environment": environment(), **found}
    (Path(sys.argv[1]) / "real-weights.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    pages.write("docs/architectures.md", "real weights", text(found))
    sys.exit(1 if found["encoder"]["executed_after"] or found["recogniser"]["executed_after"] else 0)


if __name__ == "__main__":
    main()
