"""`imae devices`, Caffe's `device_query`: what nets can run on."""

import typer

from imae.cli.options import Gpu, choose_device, describe_device, load_torch


def devices(gpu: Gpu = "all") -> None:
    """List the GPUs, or say that there is only the CPU. Also called device_query.

    [bold]imae devices[/]
    """
    load_torch()
    import torch

    if gpu in (None, "", "all") and not torch.cuda.is_available():
        typer.echo(f"{describe_device(torch.device('cpu'))}; no GPU that PyTorch {torch.__version__} can use")
        return
    if gpu in (None, "", "all"):
        numbers = list(range(torch.cuda.device_count()))
    else:
        numbers = [choose_device(number, cpu=False).index for number in gpu.split(",")]
    for number in numbers:
        device = torch.cuda.get_device_properties(number)
        typer.echo(
            f"GPU {number}: {device.name}, {device.total_memory / 2**30:.1f} GiB, {device.multi_processor_count} "
            f"multiprocessors, compute capability {device.major}.{device.minor}, CUDA {torch.version.cuda}"
        )
