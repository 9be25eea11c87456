"""Training, extraction, evaluation: the paper's retrieval experiment by three commands, on a miniature of MARS."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imae.experiments.mars_info import write_miniature
from imae.prototxt_like.mars_info import frame_path, read_names

Imae = Callable[..., Any]

TRANSFORM = "crop_size: 32 mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.02"
NET = f"""
name: "small"
layer {{ name: "data" type: "MarsData" top: "data" top: "label" include {{ phase: TRAIN }}
  mars_data_param {{ source: "MARS" batch_size: 24 new_height: 36 new_width: 36 }}
  transform_param {{ {TRANSFORM} mirror: true }} }}
layer {{ name: "data" type: "MarsData" top: "data" include {{ phase: TEST }}
  mars_data_param {{ source: "MARS" batch_size: 20 new_height: 36 new_width: 36 }}
  transform_param {{ {TRANSFORM} }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param {{ num_output: 16 kernel_size: 5 stride: 2 pad: 2 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1"
  batch_norm_param {{ moving_average_fraction: 0.9 }} }}
layer {{ name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param {{ bias_term: true }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }}
layer {{ name: "wide" type: "Convolution" bottom: "conv1" top: "wide"
  convolution_param {{ num_output: 16 kernel_size: 3 stride: 2 pad: 1 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "narrow" type: "Convolution" bottom: "conv1" top: "narrow"
  convolution_param {{ num_output: 16 kernel_size: 1 stride: 2 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "both" type: "Concat" bottom: "wide" bottom: "narrow" top: "both" }}
layer {{ name: "bn2" type: "BatchNorm" bottom: "both" top: "both"
  batch_norm_param {{ moving_average_fraction: 0.9 }} }}
layer {{ name: "scale2" type: "Scale" bottom: "both" top: "both" scale_param {{ bias_term: true }} }}
layer {{ name: "relu2" type: "ReLU" bottom: "both" top: "both" }}
layer {{ name: "pool" type: "Pooling" bottom: "both" top: "pool"
  pooling_param {{ pool: AVE kernel_h: 4 kernel_w: 8 stride: 4 }} }}
layer {{ name: "score" type: "InnerProduct" bottom: "pool" top: "score"
  inner_product_param {{ num_output: 4 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithIMAELoss" bottom: "score" bottom: "label" top: "loss"
  include {{ phase: TRAIN }} imae_param {{ T: 8 }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "score" bottom: "label" top: "accuracy" include {{ phase: TRAIN }} }}
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.01 lr_policy: "step" gamma: 0.5 stepsize: 30 max_iter: 60 momentum: 0.9
weight_decay: 0.0005 display: 20 snapshot_prefix: "small" random_seed: 3
"""
EXTRACT = ("features", "--model", "net.prototxt", "--blob", "pool", "--output", "features.npy", "--cpu", "--weights")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_memorised_set_is_retrieved_without_a_mistake(imae: Imae, folder: Path) -> None:
    write_miniature(folder / "MARS", unseen=False)
    trained = imae("train", "--solver", "solver.prototxt", "--cpu")
    assert trained.status == 0, trained.err
    extracted = imae(*EXTRACT, "small_iter_60.caffemodel")
    assert extracted.status == 0, extracted.err
    assert "Wrote features.npy: 72 rows of 64 features" in extracted.out
    scored = imae("retrieval", "--features", "features.npy", "--info", "MARS/info")
    assert scored.status == 0, scored.err
    figures = dict(line.rsplit(None, 1) for line in scored.out.splitlines()[1:5])
    assert figures == {"mAP": "100.00", "mAP, not interpolated": "100.00", "CMC-1": "100.00", "CMC-5": "100.00"}
    assert "16 queries, 24 tracks" in scored.out


def test_an_extraction_that_stops_at_a_damaged_frame_goes_on_when_it_is_mended(imae: Imae, folder: Path) -> None:
    write_miniature(folder / "MARS", unseen=False)
    assert imae("train", "--solver", "solver.prototxt", "--cpu", "--iterations", 1).status == 0
    path = frame_path("MARS", "test", read_names("MARS/info/test_name.txt")[50])
    frame = path.read_bytes()
    path.write_bytes(frame[:200])
    outcome = imae(*EXTRACT, "small_iter_1.caffemodel")
    assert outcome.status == 1
    assert str(path) in outcome.err and outcome.err.count("\n") == 1
    assert not Path("features.npy").exists()
    path.write_bytes(frame)
    outcome = imae(*EXTRACT, "small_iter_1.caffemodel")
    assert outcome.status == 0, outcome.err
    assert "the first 40 by an earlier run" in outcome.out
    assert np.load("features.npy").shape == (72, 64)


@pytest.mark.parametrize("missing", ["bbox_train/0001/0001C1T0001F001.jpg", "info/tracks_train_info.mat"])
def test_training_does_not_begin_without_its_frames(imae: Imae, folder: Path, missing: str) -> None:
    write_miniature(folder / "MARS", persons=1, frames_per_track=1, size=(8, 8))
    (folder / "MARS" / missing).unlink()
    outcome = imae("train", "--solver", "solver.prototxt", "--cpu")
    assert outcome.status == 1
    assert outcome.err.startswith('imae: error: layer "data" (MarsData): ')
    assert f"MARS/{missing}: " in outcome.err and outcome.err.count("\n") == 1


def test_features_that_are_no_table_or_cannot_be_written_are_one_line_each(imae: Imae, folder: Path) -> None:
    write_miniature(folder / "MARS", unseen=False)
    np.save("one.npy", np.float32(1))
    outcome = imae("retrieval", "--features", "one.npy", "--info", "MARS/info")
    assert outcome.status == 1
    assert outcome.err == (
        "imae: error: one.npy: holds an array of shape (), expected a row of features for each frame\n"
    )
    assert imae("train", "--solver", "solver.prototxt", "--cpu", "--iterations", 1).status == 0
    Path("features.npy").mkdir()
    outcome = imae(*EXTRACT, "small_iter_1.caffemodel")
    assert (outcome.status, "partial" in outcome.err) == (1, False)
    assert "features.npy: cannot be written: it is a folder" in outcome.err
