"""A small residual net for images that no backbone is at hand for, trained on their labels by a robust loss."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imae.audit.image_arrays import ImageArrays, fingerprint
from imae.audit.samples import Samples
from imae.nets.deploy import deploy
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.nets.residual import classify, convolution, residual_block
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes, write_atomically
from imae.prototxt_like.net_spec import L, NetSpec
from imae.prototxt_like.schema import TEST, NetParameter, SolverParameter
from imae.prototxt_like.text import write_text
from imae.solvers.solver import Solver

LARGEST_SIDE = 64
"""Pixels: larger images are shrunk."""
BATCH = 128
EPOCHS = 60
"""At most."""
ITERATIONS = 200
"""At least, of small sets of images."""
PAD = 8
"""A window is moved by up to a side's so-manieth part, at random."""
SNAPSHOT_SECONDS = 60
CHUNK = 16
"""Batches that are prepared at a time."""
Progress = Callable[[int, int], None]


class PixelNet:
    """A net of a convolution and a residual block a width: 16, 32 and, of images of more than 12 pixels, 64.

    It takes pixels, 0 to 255: the first layer brings them to -2 .. 2. In `folder` it leaves `net.prototxt`,
    `net.caffemodel` and `net.onnx`, which give `prob`, and while it is trained, snapshots.
    """

    def __init__(
        self,
        folder: Path,
        samples: Samples,
        images: ImageArrays,
        *,
        loss: str,
        parameter: float | None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self._folder, self._device = folder, device
        side = min(LARGEST_SIDE, max(8, images.usual_size()))
        self.pixels, self.unreadable = _read_all(images, len(samples), side)
        self._labels = torch.from_numpy(samples.label)
        self._readable = torch.tensor([i for i in range(len(samples)) if i not in self.unreadable])
        self._batch = max(8, min(BATCH, len(self._readable) // 8))
        self._order = self._readable[:0]
        self._draws = torch.Generator().manual_seed(seed)
        settings = {"IMAE": {"imae_param": {"T": parameter or 8.0}}, "GCE": {"gce_param": {"q": parameter or 0.7}}}
        self.param = _net(self.pixels.shape[1:], len(samples.classes), self._batch, loss, settings.get(loss, {}))
        self._seed = seed
        of = [fingerprint(samples), samples.label.tolist(), samples.classes, side, loss, parameter, seed]
        self._fingerprint = hashlib.blake2b(repr(of).encode(errors="surrogateescape")).hexdigest()
        self._note = folder / "pixels.txt"

    def train(self, minutes: float, *, resume: bool, on_progress: Progress, show: Callable[[str], None]) -> bool:
        """Train for EPOCHS, or as much less as `minutes` allow; return whether it ended of itself, not by an interrupt.

        The learning rate falls at 1/2 and 3/4 of the iterations there is time for, as far as can be seen.
        """
        wanted = max(ITERATIONS, EPOCHS * (len(self._readable) // self._batch))
        solver = self._solver(wanted)
        if resume and (states := list(self._folder.glob("pixels_iter_*.solverstate"))) and self._is_of_these(show):
            solver.restore(max(states, key=lambda path: path.stat().st_mtime))
        else:
            for path in self._folder.glob("pixels_iter_*"):
                path.unlink()
            write_atomically(self._note, self._fingerprint.encode())
        begun, since, kept, total = solver.iteration, time.perf_counter(), 0.0, wanted
        solver.on_progress = lambda what, done, _: on_progress(done, total) if what == "train" else None
        try:
            while solver.iteration < total:
                solver.step(min(self._feed(solver), total - solver.iteration))
                spent = time.perf_counter() - since
                total = min(wanted, begun + int((solver.iteration - begun) * minutes * 60 / spent))
                solver.param.stepvalue[:] = [max(1, total // 2), max(2, total * 3 // 4)]
                if spent > kept + SNAPSHOT_SECONDS:
                    self._snapshot(solver)
                    kept = spent
            ended = True
        except KeyboardInterrupt:
            ended = False
            self._snapshot(solver)
            show(f"stopped after {solver.iteration} of {total} iterations")
        self._trained = solver.net
        return ended

    def features(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return which samples could be read, and the values below the last layer of these (N x D)."""
        net, parts = self._deployed("pool"), []
        for chosen in torch.split(self._readable, 256):
            parts.append(net.forward(data=self.pixels[chosen].float())["pool"].reshape(len(chosen), -1).cpu().clone())
        return self._readable.numpy(), torch.cat(parts).numpy()

    def write(self) -> None:
        """Write the net, with `prob` as its output."""
        net = self._deployed("prob")
        write_text(net.param, self._folder / "net.prototxt")
        net.write_weights(self._folder / "net.caffemodel")
        export_onnx(net, None, self._folder / "net.onnx")

    def _is_of_these(self, show: Callable[[str], None]) -> bool:
        """Whether the snapshots there are were trained on the same images and labels, by the same settings."""
        if self._note.exists() and read_bytes(self._note).decode(errors="replace") == self._fingerprint:
            return True
        show(f"{self._folder}: has snapshots of other images, labels or settings: the net is trained anew")
        return False

    def _snapshot(self, solver: Solver) -> None:
        """Write a snapshot, and remove those before it."""
        newest = solver.snapshot()
        for path in self._folder.glob("pixels_iter_*"):
            if path.stem != newest.stem:
                path.unlink()

    def _deployed(self, output: str) -> Net:
        """The trained net up to an output."""
        param = deploy(self.param, shape=self.pixels.shape[1:], outputs=(output,))
        net = Net(param, TEST, backward=False, device=self._device)
        net.share_weights(self._trained)
        return net

    def _solver(self, iterations: int) -> Solver:
        param = SolverParameter(
            net_param=self.param,
            base_lr=0.1,
            lr_policy="multistep",
            gamma=0.1,
            stepvalue=[max(1, iterations // 2), max(2, iterations * 3 // 4)],
            max_iter=iterations,
            momentum=0.9,
            weight_decay=1e-3,
            random_seed=self._seed,
            snapshot_prefix=str(self._folder / "pixels"),
            snapshot_after_train=False,
        )
        return Solver(param, device=self._device)

    def _feed(self, solver: Solver) -> int:
        """Give the net the next batches of an epoch, in a new order each; return how many."""
        if len(self._order) < self._batch:
            self._order = self._readable[torch.randperm(len(self._readable), generator=self._draws)]
        count = min(CHUNK, len(self._order) // self._batch)
        chosen, self._order = self._order[: count * self._batch], self._order[count * self._batch :]
        data = solver.net.steps[0].layer
        data.set_input_arrays(_moved(self.pixels[chosen].to(self._device), self._draws), self._labels[chosen])  # type: ignore[attr-defined]
        return count


def _net(shape: torch.Size, classes: int, batch: int, loss: str, settings: dict[str, dict[str, float]]) -> NetParameter:
    channels, height, width = shape
    n = NetSpec()
    n.data, n.label = data, label = L.MemoryData(
        ntop=2, batch_size=batch, channels=channels, height=height, width=width
    )
    n.scaled = scaled = L.Power(data, scale=1 / 64, shift=-2)
    top = convolution(n, "conv1", scaled, 16)
    for i, outputs in enumerate((16, 32, 64) if min(height, width) > 12 else (16, 32)):
        top = residual_block(n, f"block{i + 1}", top, outputs, stride=1 + (i > 0))
    classify(n, top, label, classes, loss.lower(), **settings)  # type: ignore[arg-type]
    return n.to_proto("pixels")


def _read_all(images: ImageArrays, count: int, side: int) -> tuple[Tensor, dict[int, str]]:
    parts, failed = [], {}
    for start in range(0, count, 256):
        chosen = list(range(start, min(start + 256, count)))
        pixels, why = images.read(chosen, (side, side))
        parts.append(torch.from_numpy(np.ascontiguousarray(pixels)))
        failed.update({start + i: reason for i, reason in why.items()})
    if count - len(failed) < 20:
        first = next(iter(failed.values()), "")
        raise InputError(f"{count - len(failed)} of {count} images can be read, expected at least 20; {first}")
    return torch.cat(parts), failed


def _moved(pixels: Tensor, draws: torch.Generator) -> Tensor:
    """Each image moved a little and half of them mirrored, at random: N x C x H x W, float."""
    count, _, height, width = pixels.shape
    pad = max(1, min(height, width) // PAD)
    padded = torch.nn.functional.pad(
        pixels.float(), (pad,) * 4, mode="reflect" if pad < min(height, width) else "constant"
    )
    top, left = (torch.randint(0, 2 * pad + 1, (count, 1), generator=draws) for _ in range(2))
    rows = (top + torch.arange(height))[:, None, :, None]
    columns = left + torch.arange(width)
    mirrored = torch.rand(count, 1, generator=draws) < 0.5 if height > 12 else torch.zeros(count, 1, dtype=torch.bool)
    columns = columns.where(~mirrored, columns.flip(1))[:, None, None, :]
    every, channel = torch.arange(count)[:, None, None, None], torch.arange(pixels.shape[1])[:, None, None]
    return padded[tuple(index.to(pixels.device) for index in (every, channel, rows, columns))]
