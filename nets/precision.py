"""How exactly, and how repeatably, this process's GPU computes."""

import torch


def set_gpu_arithmetic(*, tf32: bool) -> None:
    """Allow or forbid TF32 (10 bits of mantissa) in matrix products and convolutions of float32, for the whole process.

    PyTorch allows it in cuDNN's convolutions unless told otherwise. cuDNN is held to deterministic algorithms, so that
    a run can be repeated, resumed and captured without a change of bits.
    """
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
