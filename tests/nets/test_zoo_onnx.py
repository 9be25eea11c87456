"""SSD and DeepLab in ONNX Runtime give what they give here, at several batch sizes."""

from pathlib import Path

import onnxruntime
import pytest
import torch

from imae.nets.deploy import deploy
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.nets.zoo import build

SMALLER = {"loc": 0.003, "conf": 0.02}
"""By how much the ends' weights are smaller than MSRA's, so that boxes lie in the image and scores are not certain."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deeplab", "ssd300"])
def test_onnx_runtime_gives_the_same(name: str, tmp_path: Path) -> None:
    net = Net(deploy(build(name, batch=1)), backward=False)
    generator = torch.Generator().manual_seed(1)
    for step in net.steps:
        smaller = next((factor for what, factor in SMALLER.items() if f"mbox_{what}" in step.layer.name), 1.0)
        for blob in step.layer.blobs:
            if blob.data.dim() >= 2:
                blob.data.normal_(0, smaller * (2 / blob.data[0].numel()) ** 0.5, generator=generator)
    export_onnx(net, None, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 7):
        x = 255 * torch.rand(batch, *net.shape("data")[1:], generator=generator) - 110
        (ours,), (theirs,) = net.forward(data=x).values(), session.run(None, {"data": x.numpy()})
        assert ours.shape == theirs.shape and ours.std() > 0.1
        rows = [x.reshape(-1, x.shape[-1]) for x in (ours, torch.from_numpy(theirs))]
        if name == "ssd300":  # whose rows stand in the order of scores, which are alike to the last digit at times
            rows[1] = rows[1][torch.cdist(*rows).argmin(1)]
            assert len(rows[1].unique(dim=0)) == len(ours[0, 0].unique(dim=0))
        assert float((rows[0] - rows[1]).abs().max() / ours.std()) < 1e-4
