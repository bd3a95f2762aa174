"""How errors build up: the residual stream layer by layer, attention rows, and logits by position in the window."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS
from spikeplug.report.bench import Bench, Change
from spikeplug.report.capture import Watch
from spikeplug.report.studies import Row

# Attention rows are compared on this many tokens: all probabilities of all heads are kept at once.
_ATTENTION_TOKENS = 128
# What a probability that was rounded to 0 counts as in a divergence, which would be infinite.
SMALLEST = 2.0**-30


def arms(bench: Bench) -> dict[str, Numerics]:
    """The numerics of the run, and the published recipe to compare it with."""
    both = {"chosen": bench.numerics}
    return both if bench.numerics == PRESETS["paper"].numerics else both | {"published": PRESETS["paper"].numerics}


def steps(bench: Bench) -> int:
    """Three rows an arm."""
    return 3 * len(arms(bench))


def measure(bench: Bench, row: Row) -> None:
    """residual/ARM, attention/ARM and position/ARM."""
    for name, numerics in arms(bench).items():
        row(f"residual/{name}", partial(_residual, bench, numerics))
        row(f"attention/{name}", partial(_attention, bench, numerics))
        row(f"position/{name}", partial(_position, bench, numerics))


def _residual(bench: Bench, numerics: Numerics) -> dict[str, Any]:
    """Of the stream x before the layers (depth 0) and after each, on the first window: ‖x̂ - x‖/‖x‖ over all tokens,
    the largest of a token, and 1 - the mean cosine of x̂ and x."""
    streams = zip(bench.residual_stream(None), bench.residual_stream(Change(numerics)), strict=True)
    return {"depths": [{"depth": depth, **_apart(x, y)} for depth, (x, y) in enumerate(streams)]}


def _apart(exact: Tensor, converted: Tensor) -> dict[str, float]:
    x, y = exact.double(), converted.double()
    lengths, differences = x.norm(dim=-1), (y - x).norm(dim=-1)
    cosine = torch.nn.functional.cosine_similarity(x, y, dim=-1)
    return {
        "relative_error": float(differences.norm() / lengths.norm()),
        "largest_of_a_token": float((differences / lengths.clamp(min=1e-300)).max()),
        # Rounding may give a little less than 1 for equal vectors.
        "cosine_distance": 0.0 if torch.equal(x, y) else max(0.0, 1.0 - float(cosine.mean())),
    }


@torch.inference_mode()
def _attention(bench: Bench, numerics: Numerics) -> dict[str, Any]:
    """Mean over the rows of each head, (layers, heads): divergence of the spiking from the exact probabilities in
    nats, and their total variation Σ|p - q|/2. Empty where the model gives no probabilities."""
    ids = bench.windows[:1, :_ATTENTION_TOKENS]
    exact, spiking = _exact_weights(bench, ids), _spiking_weights(bench, ids, numerics)
    if [p.shape for p in exact] != [q.shape for q in spiking]:
        exact = spiking = []
    kl, variation = [], []
    for p, q in zip(exact, spiking, strict=True):
        p, q = p[0].double(), q[0].double()
        ratio = p.clamp(min=SMALLEST).log() - q.clamp(min=SMALLEST).log()
        kl.append((p * ratio).sum(-1).clamp(min=0.0).mean(-1).tolist())
        variation.append(((p - q).abs().sum(-1) / 2).mean(-1).tolist())
    return {"tokens": ids.shape[1], "kl": kl, "variation": variation}


def _exact_weights(bench: Bench, ids: Tensor) -> list[Tensor]:
    """The attention probabilities of every layer that has any, (1, heads, queries, keys) each."""
    model = bench.model
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")  # what transformers' other implementations do not give
        given = model(input_ids=ids, use_cache=False, output_attentions=True).get("attentions")
    except (ValueError, ImportError):  # a model without an eager attention
        given = None
    finally:
        model.set_attn_implementation(before)
    return [weights for weights in given or () if weights is not None]


def _spiking_weights(bench: Bench, ids: Tensor, numerics: Numerics) -> list[Tensor]:
    """The same of the converted model: not every model asks its attention for them, so they are made of what each
    attention was given."""
    found: list[Tensor] = []

    def heard(name: str, arguments: tuple[Any, ...], output: Tensor) -> None:
        if name == "attention":
            query, key, _, *how = arguments
            found.append(OPERATORS["attention_weights"](query, key, *how, numerics=numerics))
        elif name == "softmax" and output.dim() == 4:  # written out by the model
            found.append(output.clone())

    with bench.converted(Change(numerics)), Watch(heard):
        bench.model(input_ids=ids, use_cache=False)
    return found


def _position(bench: Bench, numerics: Numerics) -> dict[str, Any]:
    """Figures of the predictions by position, in buckets that double: position t has t tokens to look at."""
    found = bench.predictions(Change(numerics))
    length = found.kl.shape[1]
    edges = [2**k for k in range(length.bit_length())]
    buckets = []
    for start in edges:
        inside = slice(start - 1, min(2 * start - 1, length))
        kl = found.kl[:, inside]
        rise = found.converted[:, inside] - found.exact[:, inside]
        buckets.append(
            {
                "from": start,
                "to": inside.stop,
                "mean_kl": float(kl.mean()),
                "max_kl": float(kl.max()),
                "change_percent": 100.0 * float(rise.mean().expm1()),
            }
        )
    return {"buckets": buckets, **found.figures()}
