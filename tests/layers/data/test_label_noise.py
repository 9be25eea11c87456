"""The paper's label corruption, the kinds beside it, and labels from files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imae.experiments.mars_info import write_miniature
from imae.layers.data.data_layer import data_lines
from imae.layers.data.label_noise import corrupt, load_labels, load_matrix, save_labels
from imae.layers.layer import TEST
from imae.prototxt_like.errors import InputError

LABELS = np.arange(50_000) % 10
SHARED = Path(__file__).resolve().parents[3] / "../shared/data/cifar10n.npz"
DRAWN = ("SYMMETRIC", "SYMMETRIC_EXCLUSIVE", "PAIR_FLIP")


def within(fraction: float, expected: float) -> bool:
    """Within 4.5 standard deviations, for 50,000 labels."""
    return abs(fraction - expected) <= 4.5 * (expected * (1 - expected) / len(LABELS)) ** 0.5


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_symmetric_noise_may_draw_the_label_itself(rate: float) -> None:
    """The paper: with probability r a uniform random class, so that 9 of 10 replaced labels are wrong."""
    noisy = corrupt(LABELS, 10, "SYMMETRIC", rate, seed=1)
    assert within((noisy != LABELS).mean(), 0.9 * rate)
    for shift in range(1, 10):
        assert within((noisy == (LABELS + shift) % 10).mean(), rate / 10)


def test_exclusive_noise_always_changes_the_class_to_a_uniform_other() -> None:
    assert (corrupt(LABELS, 10, "SYMMETRIC_EXCLUSIVE", 1, seed=1) != LABELS).all()
    noisy = corrupt(LABELS, 10, "SYMMETRIC_EXCLUSIVE", 0.4, seed=1)
    for shift in range(1, 10):
        assert within((noisy == (LABELS + shift) % 10).mean(), 0.4 / 9)


def test_pair_flip_leads_to_the_next_class_and_from_the_last_to_the_first() -> None:
    noisy = corrupt(LABELS, 10, "PAIR_FLIP", 0.45, seed=1)
    flipped = noisy != LABELS
    assert within(flipped.mean(), 0.45)
    assert (noisy[flipped] == (LABELS[flipped] + 1) % 10).all()


def test_matrix_noise_follows_the_rows() -> None:
    matrix = np.random.default_rng(0).dirichlet(np.ones(10), 10)
    matrix[3] = np.eye(10)[7]
    noisy = corrupt(LABELS, 10, "MATRIX", 0.0, seed=1, matrix=matrix)
    assert (noisy[LABELS == 3] == 7).all()
    counts = np.zeros((10, 10))
    np.add.at(counts, (LABELS, noisy), 1 / 5000)
    np.testing.assert_allclose(counts, matrix, atol=4.5 * 0.5 / 5000**0.5)


def test_the_labels_can_be_drawn_elsewhere() -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    chosen = rng.random(len(LABELS)) < 0.5
    expected = np.where(chosen, rng.integers(0, 10, len(LABELS)), LABELS)
    np.testing.assert_array_equal(corrupt(LABELS, 10, "SYMMETRIC", 0.5, seed=3), expected)


def test_known_labels_never_change() -> None:
    assert {kind: corrupt(LABELS[:12], 10, kind, 0.5, seed=0).tolist() for kind in DRAWN} == {
        "SYMMETRIC": [0, 8, 5, 0, 4, 5, 6, 7, 8, 9, 0, 5],
        "SYMMETRIC_EXCLUSIVE": [0, 9, 7, 4, 4, 5, 6, 7, 8, 9, 0, 6],
        "PAIR_FLIP": [0, 2, 3, 4, 4, 5, 6, 7, 8, 9, 0, 2],
    }


@given(kind=st.sampled_from(DRAWN), rate=st.floats(0, 1), seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 20))
def test_noise_stays_in_range_repeats_and_leaves_its_input(kind: str, rate: float, seed: int, classes: int) -> None:
    labels = np.arange(100) % classes
    noisy = corrupt(labels, classes, kind, rate, seed)
    assert noisy.dtype == np.int64
    assert noisy.min() >= 0
    assert noisy.max() < classes
    np.testing.assert_array_equal(noisy, corrupt(labels, classes, kind, rate, seed))
    np.testing.assert_array_equal(labels, np.arange(100) % classes)


def test_rate_0_keeps_all_labels_and_another_seed_draws_others() -> None:
    for kind in DRAWN:
        np.testing.assert_array_equal(corrupt(LABELS, 10, kind, 0, seed=0), LABELS)
        assert (corrupt(LABELS, 10, kind, 0.5, 0) != corrupt(LABELS, 10, kind, 0.5, 1)).any()


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_rate_outside_0_to_1_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match="noise_rate must lie between 0 and 1, not"):
        corrupt(LABELS, 10, "SYMMETRIC", rate, 0)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (None, "expected 10 x 10"),
        (np.eye(9), r"shape \(9, 9\), expected 10 x 10"),
        (np.eye(10) * 0.9, "row 0 of the noise matrix is no distribution, its sum is 0.9"),
        (np.eye(10) + np.eye(10, k=1) - np.eye(10, k=-1), "row 0"),
        (np.full((10, 10), np.nan), "row 0"),
    ],
)
def test_a_matrix_that_is_no_distribution_is_refused(matrix: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        corrupt(LABELS, 10, "MATRIX", 0, 0, matrix=matrix)  # type: ignore[arg-type]


def test_a_label_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"label 10 \(sample 2\) is out of range: there are 10 classes"):
        corrupt(np.array([0, 9, 10]), 10, "SYMMETRIC", 0.5, 0)


@pytest.mark.parametrize("name", ["labels.npy", "labels.txt"])
def test_labels_survive_a_file(tmp_path: Path, name: str) -> None:
    save_labels(tmp_path / name, LABELS)
    loaded = load_labels(tmp_path / name, len(LABELS), 10)
    assert loaded.dtype == np.int64
    np.testing.assert_array_equal(loaded, LABELS)


def test_labels_come_from_an_array_of_an_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "labels.npz", a=LABELS, b=(LABELS + 1) % 10)
    np.testing.assert_array_equal(load_labels(f"{tmp_path}/labels.npz:b", len(LABELS), 10), (LABELS + 1) % 10)
    for name in ("labels.npz", "labels.npz:c"):
        with pytest.raises(InputError, match=r"labels.npz:KEY with one of its arrays, a, b"):
            load_labels(tmp_path / name, len(LABELS), 10)


@pytest.mark.skipif(not SHARED.exists(), reason="CIFAR-10N is not at ../shared/data")
def test_cifar10n_is_read() -> None:
    clean, worse = (load_labels(f"{SHARED}:{key}", 50_000, 10) for key in ("clean_label", "worse_label"))
    assert round((clean != worse).mean(), 3) == 0.402


def test_a_matrix_comes_from_any_kind_of_file(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).dirichlet(np.ones(4), 4)
    np.save(tmp_path / "m.npy", matrix)
    np.savez(tmp_path / "m.npz", m=matrix)
    np.savetxt(tmp_path / "m.txt", matrix)
    np.savetxt(tmp_path / "m.csv", matrix, delimiter=",")
    for name in ("m.npy", "m.npz:m", "m.txt", "m.csv"):
        np.testing.assert_allclose(load_matrix(tmp_path / name), matrix)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1\n2\n", r"shape \(2,\), expected 3 labels"),
        (b"", r"shape \(0,\), expected 3 labels"),
        (b"1\n2\n10\n", r"label 10 \(sample 2\) is out of range: there are 10 classes"),
        (b"1\n2\n-1\n", r"label -1 \(sample 2\)"),
        (b"1\n2\n0.5\n", "the labels are not integers"),
        (b"1\n2\nnan\n", "the labels are not integers"),
        (b"1\n2\ncat\n", "holds no array of numbers"),
        (b"\xff\xfe\x00", "holds no array of numbers"),
    ],
)
def test_a_file_without_the_labels_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_labels(path, 3, 10)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_a_damaged_and_a_pickled_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.npy: cannot be read: No such file"):
        load_labels(tmp_path / "none.npy", 3, 10)
    np.save(tmp_path / "objects.npy", np.array([{}, 1, 2], object))
    np.savez_compressed(tmp_path / "cut.npz", x=LABELS)
    content = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[:60] + bytes(20) + content[80:])
    for name in ("objects.npy", "cut.npz:x"):
        with pytest.raises(InputError, match="holds no array of numbers"):
            load_labels(tmp_path / name, 3, 10)


@pytest.mark.parametrize(
    ("settings", "noise"),
    [
        ("noise_rate: 0.5", "symmetric noise at rate 0.5"),
        ("noise_rate: 0.5 subset: 100", "symmetric noise at rate 0.5"),
        ("noise_rate: 0.2 noise_kind: SYMMETRIC_EXCLUSIVE", "symmetric exclusive noise at rate 0.2"),
        ("noise_rate: 0.2 noise_kind: PAIR_FLIP", "pair flip noise at rate 0.2"),
        ('noise_kind: FILE noise_file: "own.txt"', "labels of own.txt"),
        ('noise_kind: MATRIX noise_file: "matrix.txt"', "noise by the matrix of matrix.txt"),
    ],
)
def test_a_layer_says_its_noise_and_how_many_labels_are_wrong(
    make: Callable[..., Any], tmp_path: Path, settings: str, noise: str
) -> None:
    save_labels(tmp_path / "own.txt", np.arange(1297) % 10)
    np.savetxt(tmp_path / "matrix.txt", np.full((10, 10), 0.1))
    prototxt = f'type: "DigitsData" top: "data" top: "label" digits_data_param {{ batch_size: 1 {settings} }}'
    layer, _ = make(prototxt)
    wrong, total = int((layer.labels != layer.intact).sum()), layer.num_images
    share = f"{wrong} of {total} labels ({100 * wrong / total:.1f} %) differ from the intact ones"
    assert data_lines([layer], [layer]) == [f'Layer "data": {noise}, {share}']
    assert settings != "noise_rate: 0.5" or (wrong, total) == (554, 1297)  # 42.7 %, where 45 are expected
    test_layer, _ = make(prototxt.replace("subset: 100", ""), TEST)
    assert data_lines([test_layer]) == [], "the labels of the test split stay intact"


def test_a_layer_without_noise_says_nothing(make: Callable[..., Any]) -> None:
    layer, _ = make('type: "DigitsData" top: "data" top: "label" digits_data_param { batch_size: 1 }')
    assert data_lines([layer]) == []


@pytest.mark.parametrize("kind", ["Cifar10Data", "DigitsData", "MarsData"])
def test_a_label_file_in_another_order_than_the_images_is_refused_by_each_layer(
    make: Callable[..., Any], tmp_path: Path, mini_cifar10: Path, kind: str
) -> None:
    """Where its own clean_label tells."""
    write_miniature(tmp_path / "MARS", persons=3, tracks_per_person=2, frames_per_track=4, size=(16, 8))
    source = {"Cifar10Data": 'source: "root"', "DigitsData": "", "MarsData": 'source: "MARS"'}[kind]
    field = {"Cifar10Data": "cifar10_data_param", "DigitsData": "digits_data_param", "MarsData": "mars_data_param"}[
        kind
    ]
    prototxt = f'type: "{kind}" top: "data" top: "label" {field} {{ batch_size: 1 {source} NOISE }}'
    clean = make(prototxt.replace("NOISE", ""))[0].labels.numpy()
    noise = 'noise_kind: FILE noise_file: "sets.npz:worse_label"'
    worse = np.roll(clean, 1)
    np.savez(tmp_path / "sets.npz", clean_label=clean, worse_label=worse)
    np.testing.assert_array_equal(make(prototxt.replace("NOISE", noise))[0].labels, worse)
    order = np.random.default_rng(0).permutation(len(clean))
    np.savez(tmp_path / "sets.npz", clean_label=clean[order], worse_label=worse[order])
    with pytest.raises(
        InputError, match=rf'layer "data" \({kind}\): .*sets\.npz: clean_label differs .* another order'
    ):
        make(prototxt.replace("NOISE", noise))
    np.savez(tmp_path / "sets.npz", worse_label=worse[order])  # nothing tells
    np.testing.assert_array_equal(make(prototxt.replace("NOISE", noise))[0].labels, worse[order])


def test_a_wrong_matrix_is_told_with_its_file(make: Callable[..., Any], tmp_path: Path) -> None:
    np.savetxt(tmp_path / "matrix.txt", np.eye(9))
    noise = 'noise_kind: MATRIX noise_file: "matrix.txt"'
    with pytest.raises(InputError, match=r"matrix\.txt: the noise matrix has the shape \(9, 9\), expected 10 x 10"):
        make(f'type: "DigitsData" top: "data" digits_data_param {{ batch_size: 1 {noise} }}')
