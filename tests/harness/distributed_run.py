"""Run by test_harness_distributed.py in several processes: a comparison, without lm-eval's own 14 thousand tasks."""

from __future__ import annotations

import sys
from functools import partial

import lm_eval.tasks

from spikeplug.cli import main

if __name__ == "__main__":
    lm_eval.tasks.TaskManager = partial(lm_eval.tasks.TaskManager, include_defaults=False)
    sys.argv[1:] = ["lm-eval", *sys.argv[1:]]
    main()
