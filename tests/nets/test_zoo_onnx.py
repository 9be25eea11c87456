"""Every net of `imae net --list` and of examples/ gives in ONNX Runtime and in OpenCV's reader what it gives here."""

import pytest

from imae.nets.zoo import NETS

pytest.importorskip("cv2", reason="opencv-python-headless is not installed")

from benchmarks.onnx_zoo import BATCHES, EXAMPLES, compare


@pytest.mark.slow
@pytest.mark.parametrize("name", [*EXAMPLES, *NETS])
def test_a_net_agrees_to_1e_4_of_an_outputs_standard_deviation(name: str) -> None:
    row = compare(name)
    assert row["onnxruntime"] < 1e-4
    assert not row["undecided"] or name == "lrcn"
    assert row["exact"] < 1e-4
    for batch in BATCHES:
        assert row[f"opencv_{batch}"] < 1e-4
