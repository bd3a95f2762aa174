"""Named suites of lm-eval tasks."""

from __future__ import annotations

from collections.abc import Iterable

#: `paper`: the five tasks of the published results on LLMs. `glue-like`: GLUE as lm-eval has it. (The published
#: results on BERT are for MR, SST-2, SST-5 and Subj, of which lm-eval has SST-2.)
SUITES = {
    "paper": ("winogrande", "hellaswag", "arc_challenge", "arc_easy", "piqa"),
    "glue-like": ("sst2", "cola", "mrpc", "qnli", "qqp", "rte", "mnli", "wnli"),
}


def expand(names: str | Iterable[object]) -> list[object]:
    """Task names with suites replaced by what they hold, each name once, in the order of their first mention.

    `names` is a text with commas between, or such texts, or what else lm-eval takes as a task (passed through).
    """
    found: list[object] = []
    for entry in [names] if isinstance(names, str) else names:
        parts = [part.strip() for part in entry.split(",")] if isinstance(entry, str) else [entry]
        for part in parts:
            held = SUITES.get(part, (part,)) if isinstance(part, str) else (part,)
            found.extend(name for name in held if name not in found and name != "")
    return found
