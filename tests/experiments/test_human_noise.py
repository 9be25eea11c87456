"""CIFAR-10N's label sets: their noise, their order, and the page of what was trained on them."""

from pathlib import Path

import numpy as np
import pytest

from imae.experiments.cell import About, Cell, Result
from imae.experiments.human_noise import (
    LABEL_SETS,
    human_cells,
    noise_percent,
    read_label_sets,
    write_human_noise,
)
from imae.experiments.paper import SCHEDULES
from imae.experiments.sweep import Sweep
from imae.experiments.sweep_page import Outcome
from imae.layers.data.cifar10_data import load_cifar10
from imae.prototxt_like.errors import InputError

VERSIONS = {"python": "3", "imae": "1", "torch": "2", "numpy": "2"}
PUBLISHED = Path(__file__).resolve().parents[2] / "../shared/data/cifar10n.npz"


@pytest.fixture
def files(tmp_path: Path, random_cifar10: Path) -> tuple[Path, Path]:
    """Label sets, the n-th with n wrong labels, the last first, and the data."""
    clean = load_cifar10(random_cifar10, True)[1].numpy()
    sets = {"clean_label": clean}
    for number, name in enumerate(LABEL_SETS):
        sets[name] = (clean + (np.arange(len(clean)) >= len(clean) - number)) % 10
    np.savez(tmp_path / "human.npz", **sets)
    return tmp_path / "human.npz", random_cifar10


def test_the_noise_is_measured_against_the_clean_labels(files: tuple[Path, Path]) -> None:
    sets = read_label_sets(*files)
    assert [noise_percent(sets, name) for name in LABEL_SETS] == [0, 5, 10, 15, 20]  # of 20 images
    assert noise_percent(sets, "worse_label", subset=16) == 0


@pytest.mark.slow
def test_the_published_labels_are_as_wrong_as_the_description_of_the_data_says(cifar10_root: Path) -> None:
    """../shared/data/README.md: 9.0 % of aggre_label, 17 to 18 % of the random_labels, 40.2 % of worse_label."""
    if not PUBLISHED.exists():
        pytest.skip("CIFAR-10N is not at ../shared/data")
    sets = read_label_sets(PUBLISHED, cifar10_root)
    aggregated, *annotators, worse = (noise_percent(sets, name) for name in LABEL_SETS)
    assert (round(aggregated, 1), {round(percent) for percent in annotators}, round(worse, 1)) == (9.0, {17, 18}, 40.2)


def test_labels_of_other_images_are_refused(files: tuple[Path, Path]) -> None:
    path, data = files
    with np.load(path) as arrays:
        sets = dict(arrays)
    np.savez(path, **{**sets, "clean_label": (sets["clean_label"] + 1) % 10})
    with pytest.raises(InputError, match=r"human\.npz: clean_label differs from the labels of .* for 20 of 20 images"):
        read_label_sets(path, data)
    np.savez(path, clean_label=sets["clean_label"])
    with pytest.raises(
        InputError, match=r"human\.npz: has no array .*human\.npz:KEY with one of its arrays, clean_label"
    ):
        read_label_sets(path, data)


def test_the_cells_are_five_label_sets_by_loss() -> None:
    cells = human_cells(1)
    assert {cell.labels for cell in cells} == {*LABEL_SETS} and len(cells) == 5 * 4
    assert {cell.T for cell in cells if cell.loss == "IMAE"} == {8}  # not the 0.5 of intact labels
    assert human_cells(1, sets=["worse_label"], losses=["cce"]) == [Cell(20, 0, "CCE", 1, labels="worse_label")]
    with pytest.raises(InputError, match="--set worst: cifar10n has no such cell, expected one of aggre_label"):
        human_cells(1, sets=["worst"])


def test_the_page_has_the_noise_beside_each_label_set(tmp_path: Path, files: tuple[Path, Path]) -> None:
    about = About(60.0, "device", 1, VERSIONS)
    results = [
        Result(cell, [0, 10, 20], [0.1, 0.7, 0.6], 0.5, 0.4, about)
        for cell in human_cells(1, sets=["random_label1", "worse_label"], losses=["CCE", "IMAE"])
    ]
    sweep = Sweep(tmp_path, tmp_path, SCHEDULES["paper"])
    page, markdown = write_human_noise(read_label_sets(*files), Outcome(sweep, "paper", results, 4))
    text = markdown.read_text()
    assert "| ResNet-20 | worse_label | 20.0 | IMAE | 70.0 | 60.0 | 50.0 | 40.0 |" in text
    assert "aggre_label 0.0, random_label1 5.0" in text and "data:image/svg+xml;" in page.read_text()
