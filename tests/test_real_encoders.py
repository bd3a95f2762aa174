"""Other architectures with real weights: a sentence encoder (BERT) and a speech recogniser (Whisper), nothing left."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from packaged_models import embeddings, minilm, sentences, speech, transcript, whisper

import spikeplug

pytestmark = pytest.mark.real_weights


def test_minilm_embeddings_of_1000_sentences() -> None:
    model, tokenizer = minilm()
    texts = sentences(1000)
    assert len(texts) == 1000
    exact = embeddings(model, tokenizer, texts)
    report = spikeplug.convert(model, strict=True)
    assert report.leftovers == ()
    with spikeplug.audit(model) as found:
        embeddings(model, tokenizer, texts[:2])
    # Pooling is the caller's: a quotient by the number of tokens, and the unit length.
    assert {entry.path for entry in found.entries} <= {""}
    spiking = embeddings(model, tokenizer, texts)
    cosine = (exact.double() * spiking.double()).sum(-1)
    assert float(cosine.min()) >= 0.9995
    spikeplug.revert(model)
    assert torch.equal(embeddings(model, tokenizer, texts[:50]), exact[:50])


def test_whisper_writes_down_the_same_words() -> None:
    model, tokenizer = whisper()
    features = speech()
    exact = transcript(model, tokenizer, features)
    assert exact == "Ever tried, ever failed. No matter, try again. Fail again. Fail better."
    report = spikeplug.convert(model, strict=True)
    assert report.leftovers == ()
    with spikeplug.audit(model) as found:
        assert transcript(model, tokenizer, features) == exact
    assert found.entries == ()
