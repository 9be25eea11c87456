"""A data layer over a labelled image set that fits in memory: splits, order, label noise and augmentation."""

from typing import ClassVar

import torch
from torch import Tensor

from imae.layers.data.data_layer import DataLayer
from imae.layers.data.label_noise import corrupt_by, describe_noise
from imae.layers.data.transform import Transform
from imae.layers.layer import Saved, Shapes, Tensors
from imae.layers.random_streams import permutation


class ImageSetData(DataLayer):
    """Tops: images (B x C x H x W, of the net's dtype), labels (B, int64) and, by `intact_labels`, the intact labels.

    - `split`, else the phase, says which images; `subset: n` keeps the first n of them.
    - Order: in phase TRAIN, unless `shuffle: false`, each epoch is a new permutation of the images, and the batches run
      on over its end, so that each epoch holds each image once. Else the given order, over and over.
    - Crop (at random), and mirror, are augmentation, and happen in phase TRAIN only; TEST crops the centre.
    - Without mean_file and mean_value the per-pixel mean of the whole training split is removed; `mean_value: 0` keeps
      it.
    - Label noise is drawn once, for the whole training split (before `subset`), whatever the phase; the labels of the
      test split stay intact.

    The set lives on the net's device as uint8. A batch is `prepare(number)`, which keeps the epochs' permutations in
    one buffer, and `gather(number)`, which is tensor operations alone and can be captured in a CUDA graph.
    """

    tops = (1, 3)
    capturable = True
    field: ClassVar[str]  # the name of the layer's own parameter message
    _classes: int | None = None

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return the images (N x C x H x W, uint8) and the intact labels (N, int64) of one split, not to be changed."""
        raise NotImplementedError

    @property
    def num_images(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """How many classes the labels can name: as many as those of the training split do, unless a subclass knows."""
        if self._classes is None:
            self._classes = int(self.load(True)[1].max()) + 1
        return self._classes

    def setup(self, bottoms: Shapes) -> None:
        """Load the split, and corrupt its labels."""
        self._own = self.settings(self.field)
        self._batch_size = self._own.batch_size
        if self._own.intact_labels != (len(self.param.top) == 3):
            expected = "3 tops" if self._own.intact_labels else "1 or 2 tops (a third needs intact_labels: true)"
            raise self.error(f"takes {expected}, the prototxt gives {len(self.param.top)}")
        train = self._own.split == self._own.TRAIN if self._own.HasField("split") else self.training
        with self.naming():
            images, intact = self.load(train)
            labels = intact
            if train:
                noisy = corrupt_by(self._own, intact.numpy(), self.num_classes, self.context.find)
                labels = torch.from_numpy(noisy)
            param = self.param.transform_param
            own_mean = not param.mean_value and not param.HasField("mean_file")
            mean = mean_image(images if train else self.load(True)[0]) if own_mean else None
        count = self._own.subset or len(images)
        if count > len(images):
            raise self.error(f"subset {count} exceeds the {len(images)} images of the split")
        self.images, self.labels, self.intact = (x[:count].to(self.context.device) for x in (images, labels, intact))
        if train:
            self.label_noise = describe_noise(self._own, labels[:count].numpy(), intact[:count].numpy())
        training = self.training
        self._transform = Transform(
            self,
            random_crop=training,
            mirror=training and param.mirror,
            pad=getattr(self._own, "pad", 0),
            default_mean=mean,
        )
        self.reshape(bottoms)  # refuses a batch that is too large, before there are buffers for it
        rows = (self._batch_size - 1) // count + 2 if training and self._own.shuffle else 0
        self._order = torch.empty((rows, count), dtype=torch.int64, device=self.context.device)
        self._epochs: list[tuple[int, int] | None] = [None] * rows

    def reshape(self, bottoms: Shapes) -> Shapes:
        shape = self._transform.shape(tuple(self.images.shape[1:]))
        return [(self._batch_size, *shape), (self._batch_size,), (self._batch_size,)][: len(self.param.top)]

    def keep_last(self, count: int) -> None:
        """Forget all but the last `count` images; for a layer that does not shuffle, before its first batch."""
        self.images, self.labels, self.intact = (x[-count:] for x in (self.images, self.labels, self.intact))

    def batch(self, number: int) -> list[Tensor]:
        self.prepare(number)
        return self.gather(torch.full((), number, device=self.context.device))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Return the batch of this pass: on a CPU prepared in the background, on a GPU gathered now."""
        if self.context.passes.on_device is not None:
            return self.gather(self.context.passes.on_device)
        if self.context.device.type != "cpu":
            return self.batch(self.context.passes.number)
        return super().forward(bottoms, saved)

    def prepare(self, number: int) -> None:
        """Put the permutations of the epochs that batch `number` is from into the buffer that `gather` reads."""
        if not self._epochs:
            return
        first = number * self._batch_size
        for epoch in range(first // self.num_images, (first + self._batch_size - 1) // self.num_images + 1):
            row = epoch % len(self._epochs)
            seed = self.context.passes.seed
            if self._epochs[row] != (seed, epoch):
                stream = f"{self.name} shuffle"
                self._order[row] = permutation(self.num_images, seed, stream, epoch, self.context.device)
                self._epochs[row] = (seed, epoch)

    def gather(self, number: Tensor) -> list[Tensor]:
        """Return the tops of forward pass `number` (an int64 scalar on the device), for which `prepare` was called."""
        position = number * self._batch_size + torch.arange(self._batch_size, device=self.context.device)
        index = position % self.num_images
        if self._epochs:
            index = self._order[position // self.num_images % len(self._epochs), index]
        tops = [self._transform(self.images.index_select(0, index), position)]
        return [*tops, *(labels[index] for labels in (self.labels, self.intact)[: len(self.param.top) - 1])]


def mean_image(images: Tensor) -> Tensor:
    """Return the mean (C x H x W, float32) of `images` (N x C x H x W, uint8), exact to float32's rounding."""
    total = torch.zeros(images.shape[1:], dtype=torch.float64)
    for part in torch.split(images, 1024):  # sums below 2^24 are exact in float32, which is the fastest type to sum in
        total += part.to(torch.float32).sum(0)
    return (total / len(images)).to(torch.float32)
