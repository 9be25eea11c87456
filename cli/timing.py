"""`imae time`: how long each layer takes."""

import time as clock
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imae.cli.caffe_flags import Glog
from imae.cli.options import Iterations, Model, NetOptions, Phase, PhaseOption, describe_device, option, taking
from imae.cli.progress import Display
from imae.cli.table import print_table

if TYPE_CHECKING:
    from imae.layers.layer import Layer


@taking(NetOptions)
def time(
    context: typer.Context,
    model: Model,
    *,
    weights: Annotated[Path | None, option("FILE", "Its weights; else initial ones.")] = None,
    iterations: Iterations = 50,
    phase: PhaseOption = Phase.train,
    options: NetOptions,
) -> None:
    """Measure how long each layer takes, forward and backward.

    Layers that training runs as one are one line, named after the last. Inputs are zeros.

    [bold]imae time --model net.prototxt --iterations 20[/]
    """
    device = options.start(first_of_several=True)
    import torch

    from imae.nets.net import Net
    from imae.prototxt_like.schema import TEST, TRAIN

    chosen = TRAIN if phase is Phase.train else TEST
    net = Net(model, chosen, device=device, **options.state, **options.settings)
    net.keep_blobs = False
    if weights:
        net.copy_weights(weights)
    shapes = {name: net.shapes[net.newest[name]] for name in net.inputs}
    inputs: dict[str, Any] = {name: torch.zeros(shape, device=device) for name, shape in shapes.items()}
    wait: Callable[[], None] = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None

    def measured(run: Callable[[], Any]) -> float:
        """Milliseconds of `run`."""
        wait()
        since = clock.perf_counter()
        run()
        wait()
        return 1000 * (clock.perf_counter() - since)

    def forward() -> None:
        net.clear_diffs()
        net.forward(**inputs)

    forward()
    net.backward()
    net.check()
    glog = context.find_object(Glog) or Glog()
    with Display(shown=glog.shown_from <= 0) as display:
        passes = []
        for done in range(iterations):
            passes.append((measured(forward), measured(net.backward)))
            display.advance("whole passes", done + 1, iterations)
        net.keep_blobs = True  # so that nothing is recomputed, which would be in no layer's time
        layers = [step.layer for step in net.plan]
        spent = [[_timed(layer, way, measured) for way in ("forward", "backward")] for layer in layers]
        for done in range(iterations):
            forward()
            net.backward()
            display.advance("layer by layer", done + 1, iterations)
    total = [sum(times) / iterations for times in zip(*passes, strict=True)]
    rows = [
        [layer.name, type(layer).__name__, *(f"{sum(times) / iterations:.3f}" for times in both)]
        for layer, both in zip(layers, spent, strict=True)
    ]
    print_table(["layer", "type", "forward ms", "backward ms"], rows, right=(2, 3))
    typer.echo(f"Average Forward pass: {total[0]:.3f} ms")
    typer.echo(f"Average Backward pass: {total[1]:.3f} ms")
    typer.echo(f"Average Forward-Backward: {sum(total):.3f} ms, on {describe_device(device)}")


def _timed(layer: "Layer", way: str, measured: Callable[[Callable[[], Any]], float]) -> list[float]:
    """Have a method of `layer` measured on each call; return the list that gets the milliseconds."""
    method, times = getattr(layer, way), []

    def measuring(*arguments: Any) -> Any:
        result = []
        times.append(measured(lambda: result.append(method(*arguments))))
        return result[0]

    setattr(layer, way, measuring)
    return times
