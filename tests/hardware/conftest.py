from tiny_fixtures import folder, model, tokenizer  # noqa: F401
