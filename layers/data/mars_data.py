"""MarsData: the frames of MARS, a person re-identification data set, from the folders its authors publish."""

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from imae.layers.data.data_layer import DataLayer
from imae.layers.data.image_list import read_image
from imae.layers.data.label_noise import Labels, corrupt_by, describe_noise
from imae.layers.data.order import in_epochs
from imae.layers.data.transform import Transform
from imae.layers.layer import Shapes, describe
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.mars_info import Part, Tracks, frame_path, read_names, read_tracks

READERS = 8  # threads that read and decode frames


class MarsData(DataLayer):
    """Tops: frames (B x 3 x H x W: blue, green, red, 0 to 255) and, of the training part, labels (B, int64).

    `source` is the folder that holds `bbox_train`, `bbox_test` and `info`; `split`, else the phase, says which part.

    - Training part: the frames of all tracks of persons; the labels 0, 1, ... are the persons in the order of their
      numbers. A track is a set of images: in phase TRAIN, unless `shuffle: false`, each epoch is a new permutation of
      all frames, and the batches run on over its end. Else the given order, over and over.
    - Test part: all frames, in the order of `test_name.txt`, over and over. Its persons are no class of the training
      part, so that there are no labels.
    - A frame is resized to `new_height` x `new_width`, bilinearly as OpenCV does, before mean, crop and mirror. Crop at
      random, and mirror, happen in phase TRAIN only; TEST crops the centre.
    - By the net's `skip_broken` all frames of the training part are decoded once before the first batch, and those that
      cannot be are left out. Frames of the test part, to which the tables refer by number, are never.
    - Label noise is drawn once, whatever the phase: by frame or, with `noise_unit: TRACK`, for whole tracks, which all
      count the same then.

    Source: Zheng et al., "MARS: A Video Benchmark for Large-Scale Person Re-identification", ECCV 2016.
    """

    type = "MarsData"

    def setup(self, bottoms: Shapes) -> None:
        """Read the tables, look for each frame, and corrupt the labels."""
        self._own = self.settings("mars_data_param", "the folder with bbox_train, bbox_test and info")
        self._batch_size = self._own.batch_size
        self._by_track = self._own.noise_unit == self._own.TRACK
        self._size = self._own.new_height, self._own.new_width
        if 0 in self._size and any(self._size):
            raise self.error("mars_data_param takes both new_height and new_width, or none")
        training = self.training
        train = self._own.split == self._own.TRAIN if self._own.HasField("split") else training
        if not train and len(self.param.top) > 1:
            raise self.error("the persons of the test part are no classes: it takes 1 top, the prototxt gives 2")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix=f"read {self.name}")
        self._shuffled = training and self._own.shuffle
        mirror = training and self.param.transform_param.mirror
        self._transform = Transform(self, random_crop=training, mirror=mirror)
        with self.naming():
            self._load("train" if train else "test")
            first = self._read(0)
        self._original = tuple(first.shape)
        self._shape = self._transform.shape(
            tuple(self._resized(first[None]).shape[1:]), f"the frame {self._names[0]}", self._path(self._names[0])
        )

    def reshape(self, bottoms: Shapes) -> Shapes:
        shape = self._shape
        return [(self._batch_size, *shape), (self._batch_size,)][: len(self.param.top)]

    @property
    def num_images(self) -> int:
        return len(self._names)

    @property
    def num_classes(self) -> int:
        """How many persons the training part has; 0 in the test part."""
        return len(self.persons)

    def batch(self, number: int) -> list[Tensor]:
        position = torch.arange(number * self._batch_size, (number + 1) * self._batch_size)
        stream = f"{self.name} shuffle" if self._shuffled else None
        frames = in_epochs(position, self.num_images, self.context.passes.seed, stream)
        with self.naming():
            images = list(self._readers.map(self._read, frames.tolist()))
            data = self._transform(self._together(images, frames), position.to(self.context.device))
        return [data, *([self.labels[frames].to(self.context.device)] if len(self.param.top) == 2 else [])]

    def _load(self, part: Part) -> None:
        """Read what the part's tables say: the frames' names, and the persons and labels of the training part."""
        root = self.context.find(self._own.source)
        table, list_ = root / "info" / f"tracks_{part}_info.mat", root / "info" / f"{part}_name.txt"
        tracks, names = read_tracks(table), read_names(list_)
        if tracks.last.max() != len(names):
            raise InputError(f"{list_}: has {len(names)} frames, but {table.name} counts {tracks.last.max()}")
        self.persons: NDArray[np.int64] = np.zeros(0, np.int64)
        self._names, self._path = names, functools.partial(frame_path, root, part)
        if part == "train":
            frames, labels, intact = self._labelled(tracks, table)
            self._names = [names[frame] for frame in frames]
            if self.context.skip_broken:
                sound = self.sound(
                    self._readers, len(frames), self._read, lambda frame: str(self._path(self._names[frame]))
                )
                self._names, labels, intact = [self._names[i] for i in sound], labels[sound], intact[sound]
            noise = describe_noise(self._own, labels, intact)
            self.label_noise = f"{noise}, drawn by track" if noise and self._by_track else noise
            self.labels = torch.from_numpy(labels)
        self._check_presence(list_)

    def _check_presence(self, list_: Path) -> None:
        folders = self._path(self._names[0]).parents[1].glob("*/")
        present = {file.name for folder in folders for file in folder.iterdir()}
        missing = [name for name in self._names if name not in present]
        if missing:
            raise InputError(
                f"{self._path(missing[0])}: missing, as are {len(missing) - 1} other frames that {list_} names"
            )

    def _labelled(self, tracks: Tracks, table: Path) -> tuple[NDArray[np.int64], Labels, Labels]:
        """Return the numbers (N) of the frames that show persons, from 0, their labels, and these before the noise."""
        tracks = Tracks(*(column[tracks.person > 0] for column in tracks))
        if not len(tracks.person):
            raise InputError(f"{table}: the training part has no track of a person")
        self.persons, of_track = np.unique(tracks.person, return_inverse=True)
        lengths = tracks.last - tracks.first + 1
        intact = of_track if self._by_track else of_track.repeat(lengths)
        labels = corrupt_by(self._own, intact, len(self.persons), self.context.find)
        if self._by_track:
            labels, intact = labels.repeat(lengths), intact.repeat(lengths)
        frames = np.concatenate([np.arange(a - 1, b) for a, b in zip(tracks.first, tracks.last, strict=True)])
        return frames, labels, intact

    def _read(self, frame: int) -> Tensor:
        """Return a frame as its file has it, 3 x H x W, uint8."""
        return torch.from_numpy(np.ascontiguousarray(read_image(self._path(self._names[frame]), color=True)))

    def _together(self, images: list[Tensor], frames: Tensor) -> Tensor:
        """Return the images, resized, as one tensor (B x 3 x H x W) on the net's device."""
        different = [i for i, image in enumerate(images) if image.shape != self._original]
        if not different:
            return self._resized(torch.stack(images))
        if not any(self._size):
            at = different[0]
            raise InputError(
                f"{self._path(self._names[int(frames[at])])}: a frame of {describe(images[at].shape)}, the first is "
                f"{describe(self._original)}: frames of different sizes need new_height and new_width"
            )
        return torch.cat([self._resized(image[None]) for image in images])

    def _resized(self, images: Tensor) -> Tensor:
        images = images.to(self.context.device)
        if not any(self._size) or images.shape[2:] == self._size:
            return images
        return F.interpolate(images.float(), self._size, mode="bilinear", align_corners=False)
