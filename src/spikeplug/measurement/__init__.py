"""What every measuring command shares: models, recipes, texts, questions, processes, records, files, tables, pages.

Nothing here imports evaluation, harness, evidence, report or bench. Files without torch at their top stay without it,
so that a command line can check its arguments before torch is imported.
"""

from spikeplug.lazy import names_of

_FILES = [
    "caching",
    "comparing",
    "files",
    "folders",
    "items",
    "layers",
    "loading",
    "memory",
    "page",
    "processes",
    "recipes",
    "record",
    "section",
    "table",
    "text",
]

__getattr__ = names_of(__name__, dict.fromkeys(_FILES, ()))
