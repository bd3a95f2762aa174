"""List the ways to run a converted model: compiled, exported, traced, under torch's contexts, by parts."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode
from way import Block, Way, attending, block, eager, is_converted, llama, quietly

from spikeplug.conversion import audit, convert, count, explain, simulate


def _under(*contexts: Callable[[], Any]) -> Callable[[nn.Module, Tensor], Any]:
    def run(model: nn.Module, x: Tensor) -> Tensor:
        with contexts[0]():
            return eager(model, x)

    return run


def _compiled(**how: Any) -> Callable[[nn.Module, Tensor], Any]:
    def run(model: nn.Module, x: Tensor) -> Tensor:
        torch._dynamo.reset()
        return eager(torch.compile(model, fullgraph=True, **how), x)  # type: ignore[arg-type]

    return run


def _compiled_in_place(model: nn.Module, x: Tensor) -> Tensor:
    torch._dynamo.reset()
    model.compile(backend="aot_eager", fullgraph=True)
    output = eager(model, x)
    model._compiled_call_impl = None
    return output


def _exported(model: nn.Module, x: Tensor, **how: Any) -> Any:
    return torch.export.export(model, (x,), **how)


def _saved(program: Any) -> Any:
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


def _dynamic(model: nn.Module, x: Tensor) -> Tensor:
    program = _exported(model, x, dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=9)},))
    return torch.cat([program.module()(x[:2]), program.module()(x[2:])]).detach()


def _decomposed(model: nn.Module, x: Tensor) -> Tensor:
    return eager(quietly(lambda: _exported(model, x).run_decompositions()).module(), x)


def _traced(model: nn.Module, x: Tensor) -> Any:
    return quietly(lambda: torch.jit.trace(model, x))


def _frozen(model: nn.Module, x: Tensor) -> Tensor:
    return quietly(lambda: eager(torch.jit.freeze(_traced(model, x)), x))


def _saved_trace(model: nn.Module, x: Tensor) -> Tensor:
    file = io.BytesIO()
    quietly(lambda: torch.jit.save(_traced(model, x), file))
    file.seek(0)
    return eager(quietly(lambda: torch.jit.load(file)), x)


def _scripted_around(model: nn.Module, x: Tensor) -> Tensor:
    return eager(quietly(lambda: torch.jit.script(nn.Sequential(model))), x)


class _Outer(nn.Module):
    """Run a converted model as a part, after a linear layer that changes nothing."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]


class Gate(nn.Module):
    """Call a nonlinearity in its own code, and have no part."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x, -1)

    def encode(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


def _of(module: type[nn.Module], *arguments: Any) -> Callable[[], tuple[nn.Module, Tensor]]:
    return lambda: (module(*arguments).double(), block()[1])


def _function_traced(method: str) -> Callable[[nn.Module, Tensor], Tensor]:
    """Trace a function that calls a method of the model, which torch.fx does not see as a module."""
    return lambda model, x: torch.fx.symbolic_trace(lambda x: getattr(model, method)(x))(x)


def _prepared_fx(model: nn.Module, x: Tensor) -> Tensor:
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

    return eager(quietly(lambda: quantize_fx.prepare_fx(model, get_default_qconfig_mapping(), (x,))), x)


class Threaded(Block):
    """Compute a part in a thread, or in a pool that lives on."""

    pool: ThreadPoolExecutor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            return super().forward(self.pool.submit(self.core, x).result())
        found: list[Tensor] = []
        thread = threading.Thread(target=lambda: found.append(self.core(x)))
        thread.start()
        thread.join()
        return super().forward(found[0])


class _Twice(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.core(x))


def _not_threaded(model: nn.Module, x: Tensor) -> Tensor:
    plain = _Twice().eval()
    convert(plain)
    return eager(plain, x)


def _pooled(model: Any, x: Tensor) -> Tensor:
    with ThreadPoolExecutor(1) as model.pool:
        output = eager(model, x)
        # The worker that the model started serves others without its scope.
        assert torch.equal(model.pool.submit(torch.tanh, x).result(), torch.tanh(x))
    model.pool = None
    return output


def _in_threads(model: nn.Module, x: Tensor) -> Tensor:
    outputs: list[Tensor] = [x] * 4
    start = threading.Barrier(4)

    def work(index: int) -> None:
        start.wait()
        for _ in range(3):
            outputs[index] = eager(model, x)

    _run_threads(work)
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    return outputs[0]


def _run_threads(work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _audited(model: nn.Module, x: Tensor) -> Tensor:
    with audit(model) as found:
        output = eager(model, x)
    assert bool(found.entries) != is_converted(model)
    return output


def _simulated(model: nn.Module, x: Tensor, *, compiled: bool = False) -> Tensor:
    torch._dynamo.reset()
    runs = torch.compile(model, backend="eager") if compiled else model
    if not is_converted(model):
        return eager(runs, x)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using .torch.compile")  # of the hooks by which they know what runs
        with simulate(runs) as simulation:
            output = eager(runs, x)
        with count(runs) as counted:
            assert torch.equal(eager(runs, x), output)
    assert simulation.operators
    assert counted.total == simulation.total
    return output


def _explained(model: nn.Module, x: Tensor) -> Tensor:
    if is_converted(model):
        explain(model, x)
    return eager(model, x)


def _profiled() -> Any:
    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])


WAYS = (
    Way("a plain call", eager),
    Way("a plain call, fused attention", eager, attending),
    Way("a plain call, transformers", eager, llama),
    Way("`torch.inference_mode`", _under(torch.inference_mode)),
    Way("`torch.device` as a context", _under(lambda: torch.device("cpu"))),
    Way("`torch.profiler`", _under(_profiled)),
    Way("a dispatch mode (`FlopCounterMode`)", _under(lambda: FlopCounterMode(display=False))),
    Way("`torch.autograd.detect_anomaly`", _under(lambda: torch.autograd.set_detect_anomaly(True))),
    Way("`torch.compile`", _compiled(backend="aot_eager")),
    Way("`torch.compile(dynamic=True)`", _compiled(backend="aot_eager", dynamic=True)),
    Way("`torch.compile`, transformers", _compiled(backend="aot_eager"), llama),
    Way("`Module.compile`", _compiled_in_place),
    Way("`torch.export`", lambda model, x: eager(_exported(model, x).module(), x)),
    Way("`torch.export`, any batch size", _dynamic),
    Way("`torch.export`, saved and loaded", lambda model, x: eager(_saved(_exported(model, x)).module(), x)),
    Way("`torch.export`, decomposed", _decomposed),
    Way("`torch.export`, as a part of a model", lambda model, x: eager(_exported(_Outer(model), x).module(), x)),
    Way("`torch.jit.trace`", lambda model, x: eager(_traced(model, x), x)),
    Way("`torch.jit.trace`, saved and loaded", _saved_trace),
    Way("`torch.jit.freeze` of a trace", _frozen),
    Way("`torch.jit.script`", lambda model, x: eager(quietly(lambda: torch.jit.script(model)), x), refused=True),
    Way("`torch.jit.script` of a model around it", _scripted_around, refused=True),
    Way("`torch.fx.symbolic_trace`", lambda model, x: eager(torch.fx.symbolic_trace(model), x), refused=True),
    Way(
        "`torch.fx.symbolic_trace` of a model around it",
        lambda model, x: eager(torch.fx.symbolic_trace(_Outer(model)), x),
        refused=True,
    ),
    *(
        Way("`torch.fx.symbolic_trace` of " + name, _function_traced(method), _of(module, *given), refused=True)
        for name, method, module, given in (
            ("a function that calls `forward`", "forward", Gate, ()),
            ("a function that calls another method", "encode", Gate, ()),
            ("an activation's `forward`", "forward", nn.GELU, ()),
            ("a norm's `forward`", "forward", nn.LayerNorm, (8,)),
        )
    ),
    Way("`prepare_fx`", _prepared_fx, refused=True),
    Way("`make_fx`", lambda model, x: make_fx(model)(x)(x).detach()),
    Way("a thread that `forward` starts", eager, _of(Threaded), _not_threaded),
    Way("a thread pool that `forward` uses", _pooled, _of(Threaded), _not_threaded),
    Way("in several threads", _in_threads),
    Way("in several threads, transformers", _in_threads, llama),
    Way("under `spikeplug.simulate` and `count`", _simulated),
    Way("under `spikeplug.audit`", _audited),
    Way("after `spikeplug.explain`", _explained),
    Way("compiled, under `spikeplug.simulate` and `count`", lambda model, x: _simulated(model, x, compiled=True)),
)
