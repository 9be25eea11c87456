"""What the paper prints in its Tables 1 and 2 and compares in its figures, and the schedules of training."""

from dataclasses import dataclass

from imae.nets import paper
from imae.nets.resnet_cifar import TEST_BATCH, TRAIN_BATCH

LOSSES = tuple(loss.upper() for loss in paper.LOSSES)  # by the names that tables and options have

TABLE_1: dict[tuple[int, str], float] = {
    (20, "CCE"): 91.0,
    (20, "MAE"): 89.9,
    (20, "IMAE"): 91.4,
    (32, "CCE"): 92.5,
    (32, "MAE"): 82.4,
    (32, "IMAE"): 92.1,
    (56, "CCE"): 92.5,
    (56, "MAE"): 89.0,
    (56, "IMAE"): 92.7,
}
"""Test accuracy, %, by depth and loss, trained on intact labels. The paper does not say whether best or final."""

TABLE_2: dict[tuple[int, int, str], tuple[float, float, float, float]] = {
    (20, 20, "CCE"): (87.1, 83.2, 85.1, 90.6),
    (20, 20, "MAE"): (87.8, 87.8, 78.2, 93.0),
    (20, 20, "IMAE"): (88.0, 84.6, 76.6, 90.2),
    (20, 50, "CCE"): (79.7, 69.5, 62.4, 74.0),
    (20, 50, "MAE"): (75.6, 75.3, 48.8, 79.0),
    (20, 50, "IMAE"): (83.0, 80.9, 56.8, 85.6),
    (20, 80, "CCE"): (56.1, 38.5, 42.0, 40.9),
    (20, 80, "MAE"): (45.3, 45.1, 20.3, 46.1),
    (20, 80, "IMAE"): (71.5, 62.8, 34.9, 65.3),
    (32, 20, "CCE"): (87.6, 81.2, 85.5, 88.3),
    (32, 20, "MAE"): (80.6, 80.4, 71.7, 85.0),
    (32, 20, "IMAE"): (87.8, 85.3, 77.7, 91.2),
    (32, 50, "CCE"): (79.9, 62.8, 71.2, 66.7),
    (32, 50, "MAE"): (61.6, 61.6, 40.3, 64.0),
    (32, 50, "IMAE"): (84.1, 80.4, 57.9, 84.7),
    (32, 80, "CCE"): (57.6, 32.7, 50.9, 35.1),
    (32, 80, "MAE"): (43.8, 43.7, 19.1, 44.3),
    (32, 80, "IMAE"): (71.0, 68.7, 31.9, 71.2),
}
"""By depth, noise and loss, %: test best, test final, training on the corrupted labels, training on the intact ones."""

T_GRID = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # the T that the supplement compares, Figures 5 to 7
FIGURE_6_NOISE = (0, 50)  # the percentages of noise in Figures 6 and 7; Figure 8 has the second only
FIGURE_8_T = (4.0, 8.0, 16.0)


@dataclass(frozen=True)
class Schedule:
    """How long a net is trained, and on what; the learning rate is divided by 10 at 1/2 and at 3/4 of it."""

    iterations: int
    subset: int  # how many images, the first of the training set; 0 for all
    test_interval: int  # iterations between two tests
    train_batch: int = TRAIN_BATCH
    test_batch: int = TEST_BATCH

    @property
    def steps(self) -> tuple[int, int]:
        """The iterations at which the learning rate falls."""
        return self.iterations // 2, self.iterations * 3 // 4


_SOLVER = paper.cifar10_solver()
SCHEDULES = {
    "paper": Schedule(_SOLVER.max_iter, subset=0, test_interval=_SOLVER.test_interval),
    "short": Schedule(iterations=6400, subset=5000, test_interval=100),
}
"""In both an image is seen 164 times."""
