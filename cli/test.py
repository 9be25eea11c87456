"""`imae test`: score a net on its test data."""

import typer

from imae.cli.caffe_flags import Glog
from imae.cli.messages import warn
from imae.cli.options import Iterations, Model, NetOptions, Weights, taking
from imae.cli.progress import Display
from imae.prototxt_like.errors import InputError


@taking(NetOptions)
def test(
    context: typer.Context, model: Model, weights: Weights, *, iterations: Iterations = 50, options: NetOptions
) -> None:
    """Score a net, in phase TEST, on the batches that its data layers give.

    Each batch's outputs go to stderr, their means over all batches to stdout; beside the mean of a class's accuracy,
    which counts batches without the class as 0, as Caffe does, stands the one over all images.

    [bold]imae test --model net.prototxt --weights net_iter_64000.caffemodel --iterations 100[/]
    """
    device = options.start(first_of_several=True)
    from imae.layers.data.data_layer import data_lines
    from imae.nets.debug_info import DebugInfo
    from imae.nets.loss_settings import loss_settings
    from imae.nets.net import Net
    from imae.prototxt_like.schema import TEST
    from imae.prototxt_like.text import read_net
    from imae.solvers.class_accuracy import clear_counts, output_lines
    from imae.solvers.log import Log

    param = read_net(model)
    settings = options.settings | ({"plan": "plain"} if param.debug_info else {})
    net = Net(param, TEST, folder=model.parent, device=device, backward=False, **options.state, **settings)
    net.keep_blobs = False
    report = net.copy_weights(weights)
    if report.kept and not report.copied:
        raise InputError(f"{weights}: none of its layers has the name of one of {model}'s")
    if report.kept:
        warn(f"{weights} lacks weights of these layers: {', '.join(report.kept)}")
    sums: dict[str, list[float]] = {}
    losses = 0.0
    glog = context.find_object(Glog) or Glog()
    with Display(shown=glog.shown_from <= 0) as display:
        log = Log(model.stem if glog.log_dir else None, display.show, folder=glog.log_dir)
        for line in loss_settings(net):
            log.line(line, "net.cpp:122")
        for line in data_lines(step.layer for step in net.steps):
            log.line(line, "data_layer.cpp:41")
        log.line(f"Running for {iterations} iterations.", "caffe.cpp:281")
        clear_counts(net)
        if param.debug_info:
            net.observer = DebugInfo(net, log.line)
        for batch in range(iterations):
            outputs = net.forward()
            net.check()
            losses += float(net.loss)
            for name, output in outputs.items():
                values = output.flatten().tolist()
                for value in values:
                    log.line(f"Batch {batch}, {name} = {value:g}", "caffe.cpp:304")
                sums[name] = [a + b for a, b in zip(sums.get(name, [0.0] * len(values)), values, strict=True)]
            display.advance("test", batch + 1, iterations)
    typer.echo(f"Loss: {losses / iterations:g}")
    means = {name: [total / iterations for total in totals] for name, totals in sums.items()}
    for line in output_lines(net, means, over_all=True):
        typer.echo(line)
