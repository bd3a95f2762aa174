"""Gather all ways of running a converted model, by heading."""

from __future__ import annotations

import changing
import copying
import differentiating
import running

WAYS = {
    "Running": running.WAYS,
    "Differentiating": differentiating.WAYS,
    "Copying, saving, loading": copying.WAYS,
    "Changing": changing.WAYS,
}
