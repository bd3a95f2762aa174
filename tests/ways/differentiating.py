"""List the ways to differentiate a converted model, forwards, backwards, twice, per sample, and to recompute."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, func, nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import checkpoint as recomputing
from way import ROUNDING, Block, Way, attending, block, llama, quietly

from spikeplug.conversion import convert

# torch loads these at the first dual, with a warning of its own.
quietly(forward_ad._maybe_load_decompositions)


def direction(x: Tensor) -> Tensor:
    """Return a tangent of x."""
    return torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view(x.shape)


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    """Return the gradient of the sum of squares of the output, by the input."""
    x = x.detach().clone().requires_grad_()
    model(x).square().sum().backward()
    assert x.grad is not None
    return x.grad


def gradients(model: nn.Module, x: Tensor, run: Callable[..., Any] | None = None) -> list[Tensor]:
    """Return the gradients by all parameters; for a transformer, of the mean of the logits' squares."""
    model.zero_grad()
    output = (model if run is None else run)(x)
    getattr(output, "logits", output).square().mean().backward()
    found = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    assert found
    return found


def jacobian(model: nn.Module, x: Tensor) -> Tensor:
    """Return the Jacobian of one sample, row by row, by plain backward passes."""
    x = x[0].detach().requires_grad_()
    output = model(x)
    rows = [torch.autograd.grad(y, x, retain_graph=True)[0] for y in output.flatten()]
    return torch.stack(rows).view(*output.shape, *x.shape)


def product(model: nn.Module, x: Tensor) -> Tensor:
    """Return the product of the Jacobian of one sample with a direction."""
    return (jacobian(model, x) * direction(x[0])).sum((-2, -1))


def hessian(model: nn.Module, x: Tensor) -> Tensor:
    """Return the Hessian of the sum of the outputs of one sample, row by row, by plain backward passes."""
    x = x[0].detach().requires_grad_()
    (slope,) = torch.autograd.grad(_sum(model)(x), x, create_graph=True)
    rows = [torch.autograd.grad(y, x, retain_graph=True)[0] for y in slope.flatten()]
    return torch.stack(rows).view(*x.shape, *x.shape)


def per_sample(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the gradients by all parameters, sample by sample."""
    found = [gradients(model, sample[None], lambda x: model(x)) for sample in x]
    return [torch.stack(each) for each in zip(*found, strict=True)]


def _sum(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: model(x).sum()


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in model.named_parameters()}


def _grad(model: nn.Module, x: Tensor) -> Tensor:
    return func.grad(lambda x: model(x).square().sum())(x)


def _vjp(model: nn.Module, x: Tensor) -> Tensor:
    output, pull_back = func.vjp(model, x)
    return pull_back(2 * output.detach())[0]


def _dual(model: nn.Module, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        output = model(forward_ad.make_dual(x[0], direction(x[0])))
        tangent = forward_ad.unpack_dual(output).tangent
        assert tangent is not None
        return tangent.detach()


def _frozen_dual(model: nn.Module, x: Tensor, made: Callable[[nn.Module, Tensor], Any]) -> Tensor:
    """Return the tangent of what was made of the model with weights that need no gradient."""
    model.requires_grad_(False)
    torch._dynamo.reset()
    tangent = _dual(made(model, x), x)
    model.requires_grad_(True)
    return tangent


def _compiled_anew(model: nn.Module, x: Tensor) -> Any:
    return torch.compile(model, backend="aot_eager")


def _traced(model: nn.Module, x: Tensor) -> Any:
    return quietly(lambda: torch.jit.trace(model, x[0]))


def _dual_of_weights(model: nn.Module, x: Tensor) -> Tensor:
    weights = _weights(model)
    call = functools.partial(func.functional_call, model, args=(x,))
    return func.jvp(lambda w: call(w), (weights,), ({name: direction(w) for name, w in weights.items()},))[1]


def _by_weights(model: nn.Module, x: Tensor) -> Tensor:
    """Return the product of the Jacobian by the weights with a direction, by plain backward passes."""
    weights = dict(model.named_parameters())
    output = model(x)
    rows = [torch.autograd.grad(y, list(weights.values()), retain_graph=True) for y in output.flatten()]
    sums = [sum((g * direction(w)).sum() for g, w in zip(row, weights.values(), strict=True)) for row in rows]
    return torch.stack(sums).view(output.shape).detach()  # type: ignore[arg-type]


def _per_sample(model: nn.Module, x: Tensor, **how: Any) -> list[Tensor]:
    def loss(weights: dict[str, Tensor], sample: Tensor) -> Tensor:
        output = func.functional_call(model, weights, (sample[None],))
        return getattr(output, "logits", output).square().mean()  # type: ignore[no-any-return]

    return list(func.vmap(func.grad(loss), in_dims=(None, 0), **how)(_weights(model), x).values())


def _ensemble(model: nn.Module, x: Tensor) -> Tensor:
    stacked = {name: torch.stack([weight, weight]) for name, weight in _weights(model).items()}
    found = func.vmap(lambda weights: func.functional_call(model, weights, (x,)))(stacked)
    assert torch.equal(found[0], found[1])
    return found[1]


def _hvp(model: nn.Module, x: Tensor) -> Tensor:
    return torch.autograd.functional.hvp(_sum(model), x[0], direction(x[0]))[1]


def _hessian_product(model: nn.Module, x: Tensor) -> Tensor:
    return (hessian(model, x) * direction(x[0])).sum((-2, -1))


def _jvp(model: nn.Module, x: Tensor) -> Tensor:
    return func.jvp(model, (x[0],), (direction(x[0]),))[1].detach()


def _linearized(model: nn.Module, x: Tensor) -> Tensor:
    return func.linearize(model, x[0])[1](direction(x[0])).detach()


def _functional_call(model: nn.Module, x: Tensor) -> Tensor:
    return func.functional_call(model, _weights(model), (x,))


def _wrapped_in_autograd_function(model: nn.Module, x: Tensor) -> Tensor:
    class Whole(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return model(x)  # type: ignore[no-any-return]

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> Tensor:
            with torch.enable_grad():
                given = ctx.saved_tensors[0].detach().requires_grad_()
                return torch.autograd.grad(model(given), given, upstream)[0]

    given = x.detach().clone().requires_grad_()
    Whole.apply(given).square().sum().backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    return given.grad


class _Gate(torch.autograd.Function):
    """Compute x · sigmoid(x), with a gradient written by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gate = torch.sigmoid(x)
        return upstream * gate * (1 + x * (1 - gate))


class ByHand(Block):
    """Have a nonlinearity in an autograd function, or the same without."""

    by_hand = True

    def core(self, x: Tensor) -> Tensor:
        return _Gate.apply(x) if self.by_hand else x * torch.sigmoid(x)  # type: ignore[no-any-return]


def _by_hand(model: Any, x: Tensor) -> list[Tensor]:
    return [model(x).detach(), *gradients(model, x)]


def _not_by_hand(model: Any, x: Tensor) -> list[Tensor]:
    model.by_hand = False
    return _by_hand(model, x)


def _compiled_gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    torch._dynamo.reset()
    return gradients(model, x, torch.compile(model, backend="aot_eager", fullgraph=True))


def _recomputing(**how: Any) -> Callable[[nn.Module, Tensor], list[Tensor]]:
    def run(model: nn.Module, x: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        return gradients(model, x, lambda x: recomputing.checkpoint(model, x, **how))

    return run


class Recomputing(Block):
    """Recompute a part of its own forward in the backward pass."""

    how: Any
    part: str

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.second(self.norm(self.activation(self.first(x))))
        part = self.core if self.part == "method" else lambda x: self.core(x)
        return torch.tanh(x + (recomputing.checkpoint(part, x, **self.how) if torch.is_grad_enabled() else part(x)))


def _recomputing_part(part: str, **how: Any) -> Callable[[], tuple[nn.Module, Tensor]]:
    def build() -> tuple[nn.Module, Tensor]:
        model = Recomputing().eval()
        model.how, model.part = how, part
        return model, block()[1]

    return build


def _not_recomputed(model: nn.Module, x: Tensor) -> list[Tensor]:
    plain = Block().eval()
    convert(plain)
    return gradients(plain, x)


def _selective() -> Any:
    return recomputing.create_selective_checkpoint_contexts([torch.ops.aten.mm.default])


def _sequence() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(Block(), nn.Softmax(-1), Block()).eval(), block()[1]


def _in_parts(reentrant: bool) -> Callable[[nn.Module, Tensor], list[Tensor]]:
    def run(model: nn.Module, x: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        call = functools.partial(recomputing.checkpoint_sequential, model, 2, use_reentrant=reentrant)
        return gradients(model, x, lambda x: call(x))

    return run


def _enabled(reentrant: bool) -> Callable[[nn.Module, Tensor], list[Tensor]]:
    def run(model: Any, x: Tensor) -> list[Tensor]:
        quietly(lambda: model.train().gradient_checkpointing_enable({"use_reentrant": reentrant}))
        found = gradients(model, x)
        quietly(model.gradient_checkpointing_disable)
        model.eval()
        return found

    return run


def _saved_on_cpu(model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.autograd.graph.save_on_cpu():
        output = model(x)
    return gradients(model, x, lambda x: output)


def _accumulated(model: nn.Module, x: Tensor) -> Tensor:
    """Return the gradient with hooks on modules and tensors, forwards and backwards, that change nothing."""
    seen: list[str] = []
    handles = [
        model.register_full_backward_hook(lambda *_: seen.append("module")),
        model.register_forward_hook(lambda *_: seen.append("forward")),
    ]
    given = x.detach().clone().requires_grad_()
    output = model(given)
    output.register_hook(lambda _: seen.append("tensor"))
    output.square().sum().backward()
    for handle in handles:
        handle.remove()
    assert sorted(seen) == ["forward", "module", "tensor"]
    assert given.grad is not None
    return given.grad


def _jvp_compiled(model: nn.Module, x: Tensor) -> Tensor:
    torch._dynamo.reset()
    return torch.compile(lambda x: func.jvp(model, (x,), (direction(x),))[1], backend="aot_eager")(x[0]).detach()


def _jacfwd_compiled(model: nn.Module, x: Tensor) -> Tensor:
    torch._dynamo.reset()
    return torch.compile(lambda x: func.jacfwd(model)(x), backend="aot_eager")(x[0]).detach()


def _per_sample_compiled(model: nn.Module, x: Tensor) -> list[Tensor]:
    torch._dynamo.reset()
    return torch.compile(lambda x: _per_sample(model, x), backend="aot_eager")(x)  # type: ignore[no-any-return]


def _jvp_of_trace(model: nn.Module, x: Tensor) -> Tensor:
    return _jvp(_traced(model, x), x)


def _exported(model: nn.Module, x: Tensor) -> Any:
    return torch.export.export(model, (x[0],)).module()


def _recorded(model: nn.Module, x: Tensor) -> Tensor:
    return make_fx(lambda x: func.jvp(model, (x,), (direction(x),))[1])(x[0])(x[0]).detach()


WAYS = (
    Way("`backward`", gradients, reference=lambda model, x: gradients(model, x)),
    Way("`backward`, compiled", _compiled_gradients, reference=gradients),
    Way("hooks of modules and tensors", _accumulated, reference=gradient),
    Way("`save_on_cpu`", _saved_on_cpu, reference=gradients),
    Way("inside a `torch.autograd.Function`", _wrapped_in_autograd_function, reference=gradient),
    Way(
        "a `torch.autograd.Function` in it",
        _by_hand,
        lambda: (ByHand().eval(), block()[1]),
        _not_by_hand,
        within=1e-5,
        note="its forward is spiking, its backward stays as it was written",
    ),
    *(
        Way(f"`torch.utils.checkpoint` of the model, {name}", _recomputing(**how), build, gradients)
        for name, how, build in (
            ("reentrant", {"use_reentrant": True}, block),
            ("not reentrant", {"use_reentrant": False}, block),
            ("selective", {"use_reentrant": False, "context_fn": _selective}, block),
            ("fused attention", {"use_reentrant": False}, attending),
        )
    ),
    *(
        Way(
            f"`torch.utils.checkpoint` of a {part} in it, {'' if reentrant else 'not '}reentrant",
            gradients,
            _recomputing_part(part, use_reentrant=reentrant),
            _not_recomputed,
            within=ROUNDING,
        )
        for part in ("method", "lambda")
        for reentrant in (True, False)
    ),
    Way("`checkpoint_sequential`, reentrant", _in_parts(True), _sequence, gradients),
    Way("`checkpoint_sequential`, not reentrant", _in_parts(False), _sequence, gradients),
    Way("`gradient_checkpointing_enable`, reentrant", _enabled(True), llama, gradients),
    Way("`gradient_checkpointing_enable`, not reentrant", _enabled(False), llama, gradients),
    Way("`torch.func.functional_call`", _functional_call),
    Way("`torch.func.functionalize`", lambda model, x: func.functionalize(model)(x).detach()),
    Way("`torch.vmap`", lambda model, x: torch.vmap(model)(x).detach()),
    Way("`torch.vmap` in chunks", lambda model, x: torch.vmap(model, chunk_size=2)(x).detach()),
    Way("`torch.vmap` over the last dimension", lambda model, x: torch.vmap(model, -1)(x.movedim(0, -1)).detach()),
    Way("`torch.vmap` of fused attention", lambda model, x: torch.vmap(model)(x).detach(), attending),
    Way("`torch.vmap` over stacked weights", _ensemble),
    Way("`torch.func.grad`", _grad, reference=gradient, within=ROUNDING),
    Way("`torch.func.vjp`", _vjp, reference=gradient, within=ROUNDING),
    Way("`torch.func.jvp`", _jvp, reference=product, within=ROUNDING),
    Way("`torch.func.jvp` by the weights", _dual_of_weights, reference=_by_weights, within=ROUNDING),
    Way("`torch.func.linearize`", _linearized, refused=True),
    Way("`torch.func.jacrev`", lambda m, x: func.jacrev(m)(x[0]).detach(), reference=jacobian, within=ROUNDING),
    Way("`torch.func.jacfwd`", lambda m, x: func.jacfwd(m)(x[0]).detach(), reference=jacobian, within=ROUNDING),
    Way("`torch.func.hessian`", lambda m, x: func.hessian(_sum(m))(x[0]).detach(), reference=hessian, within=ROUNDING),
    Way("per-sample gradients, `vmap(grad)`", _per_sample, reference=per_sample, within=ROUNDING),
    Way(
        "per-sample gradients of a transformer",
        _per_sample,
        llama,
        per_sample,
        within=1e-4,
        note="float32, sums in another order",
    ),
    Way("`torch.func.jvp`, compiled", _jvp_compiled, reference=product, within=ROUNDING, exact=False),
    Way("`torch.func.jacfwd`, compiled", _jacfwd_compiled, reference=jacobian, within=ROUNDING, exact=False),
    Way("per-sample gradients, compiled", _per_sample_compiled, reference=per_sample, within=ROUNDING),
    Way("`torch.func.jvp` of a trace", _jvp_of_trace, reference=product, within=ROUNDING),
    Way(
        "`torch.func.jvp` of an exported model",
        lambda m, x: _jvp(_exported(m, x), x),
        reference=product,
        within=ROUNDING,
    ),
    Way("`torch.vmap` of an exported model", lambda m, x: torch.vmap(_exported(m, x))(x).detach()),
    Way("`torch.func.jvp` under `make_fx`", _recorded, reference=product, within=ROUNDING),
    Way("duals of `forward_ad`", _dual, reference=product, within=ROUNDING),
    *(
        Way(
            f"duals of `forward_ad`, {name}",
            functools.partial(_frozen_dual, made=made),
            reference=product,
            within=ROUNDING,
        )
        for name, made in (("exported", _exported), ("compiled", _compiled_anew), ("traced", _traced))
    ),
    Way(
        "`torch.autograd.functional.jacobian`, forward mode",
        lambda m, x: torch.autograd.functional.jacobian(m, x[0], vectorize=True, strategy="forward-mode"),
        reference=jacobian,
        within=ROUNDING,
    ),
    Way("`torch.autograd.functional.hvp`", _hvp, reference=_hessian_product, within=ROUNDING),
    Way(
        "`torch.autograd.functional.jvp`",
        lambda m, x: torch.autograd.functional.jvp(m, x[0], direction(x[0]))[1],
        reference=product,
        within=ROUNDING,
    ),
)
