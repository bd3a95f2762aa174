"""Gather all ways of running a converted model, by heading."""

from __future__ import annotations

import changing
import copying
import differentiating
import generating
import running
import sharing

WAYS = {
    "Running": running.WAYS,
    "Differentiating": differentiating.WAYS,
    "Copying, saving, loading": copying.WAYS,
    "Changing after convert": changing.WAYS,
    "Sharing among threads and processes": sharing.WAYS,
    "Generating": generating.WAYS,
}
