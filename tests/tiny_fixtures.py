"""Fixtures of the tiny model, its tokenizer and its folder, for the conftest.py of a folder of tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import byte_tokenizer, save_tiny_model, tiny_model
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@pytest.fixture
def model() -> LlamaForCausalLM:
    return tiny_model()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))
