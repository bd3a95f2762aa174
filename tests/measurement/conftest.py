"""The tiny model, its tokenizer and its folder."""

from tiny_fixtures import folder, model, tokenizer  # noqa: F401
