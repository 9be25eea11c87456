"""The losses as PyTorch's: autograd gives the layers' explicit gradients, whatever is around them."""

import copy
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import imae
from imae.layers.loss.for_pytorch import LossForPyTorch
from imae.layers.registry import create_layer
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

LOSSES = {
    "CCE": (imae.CCELoss(), 'type: "SoftmaxWithLoss"'),
    "MAE": (imae.MAELoss(), 'type: "SoftmaxWithMAELoss"'),
    "IMAE": (imae.IMAELoss(T=8), 'type: "SoftmaxWithIMAELoss" imae_param { T: 8 }'),
    "IMAE by weights": (
        imae.IMAELoss(4, normalize_by="WEIGHTS"),
        'type: "SoftmaxWithIMAELoss" imae_param { T: 4 normalize_by: WEIGHTS }',
    ),
    "GCE": (imae.GCELoss(q=0.7), 'type: "SoftmaxWithGCELoss" gce_param { q: 0.7 }'),
    "GCE, truncated": (imae.GCELoss(0.5, k=0.2), 'type: "SoftmaxWithGCELoss" gce_param { q: 0.5 k: 0.2 }'),
}
each_loss = pytest.mark.parametrize(("loss", "prototxt"), LOSSES.values(), ids=LOSSES.keys())


def batch(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Logits that require a gradient, and labels of which one is ignored."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).to(dtype).requires_grad_()
    labels = torch.randint(shape[1], shape[:1] + shape[2:], generator=generator)
    labels.view(-1)[1:2] = -100
    return logits, labels


def gradient(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    return torch.autograd.grad(loss(logits, labels), logits)[0]


@each_loss
@pytest.mark.parametrize("shape", [(6, 4), (3, 5, 2, 3)], ids=["N x C", "N x C x H x W"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_value_and_gradient_are_the_layers(
    loss: LossForPyTorch, prototxt: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    logits, labels = batch(*shape, dtype=dtype)
    text = f'layer {{ name: "l" bottom: "z" bottom: "y" top: "l" {prototxt} loss_param {{ ignore_label: -100 }} }}'
    layer = create_layer(parse_net(text).layer[0])
    layer.setup([shape, tuple(labels.shape)])
    layer.reshape([shape, tuple(labels.shape)])
    saved: dict[str, object] = {}
    with torch.no_grad():
        tops = layer.forward([logits, labels], saved)
        expected = layer.backward([logits, labels], tops, [torch.ones_like(tops[0])], saved, [True, False])[0]
    value = loss(logits, labels)
    value.backward()
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(value, tops[0])
    assert logits.grad is not None
    assert expected is not None
    assert logits.grad.dtype == dtype
    rtol = {torch.float32: 1e-6, torch.float64: 1e-12}.get(dtype, 0.01)  # what both divide by comes in earlier or later
    torch.testing.assert_close(logits.grad, expected, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("T", [0.0, 0.5, 8.0, 16.0])
def test_imaes_gradient_has_the_papers_weight_and_is_not_the_values_derivative(T: float) -> None:
    """Its L1 norm is exp(T p_y (1 - p_y)) (equation 21), at odds down to e^-60, and 0 for a sample that is fitted."""
    logits = torch.tensor([[odds, 0.0] for odds in (-60, -3, 0, 1, 6)], dtype=torch.float64, requires_grad=True)
    p_y = torch.softmax(logits.detach(), 1)[:, 0]
    norm = gradient(imae.IMAELoss(T, reduction="sum"), logits, torch.zeros(5, dtype=torch.long)).abs().sum(1)
    torch.testing.assert_close(norm, torch.exp(T * p_y * (1 - p_y)), rtol=5e-4, atol=0)
    fitted = torch.tensor([[200.0, 0.0]], requires_grad=True)
    assert gradient(imae.IMAELoss(T), fitted, torch.tensor([0])).abs().sum() == 0


@pytest.mark.parametrize(
    "loss", [imae.CCELoss(), imae.MAELoss(), imae.GCELoss(), imae.GCELoss(0.5, k=0.2), imae.MAELoss(reduction="sum")]
)
def test_the_others_gradient_is_the_derivative_of_their_value(loss: LossForPyTorch) -> None:
    logits, labels = batch(5, 4, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), logits)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignore_index", [-100, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(4,), (6, 4), (6, 4, 3), (2, 4, 3, 5)], ids=str)
def test_cross_entropy_is_pytorchs(reduction: str, ignore_index: int, weighted: bool, shape: tuple[int, ...]) -> None:
    logits, labels = batch(*((1, *shape) if len(shape) == 1 else shape))
    labels = labels.where(labels != -100, ignore_index)
    if len(shape) == 1:
        logits, labels = logits.detach()[0].requires_grad_(), labels[0] * 0 + 1
    options = {"weight": torch.tensor([0.5, 2.0, 1.0, 0.0]) if weighted else None, "reduction": reduction}
    pytorchs = nn.CrossEntropyLoss(ignore_index=ignore_index, **options)
    ours = imae.CCELoss(ignore_index=ignore_index, **options)
    torch.testing.assert_close(ours(logits, labels), pytorchs(logits, labels))
    theirs = gradient(lambda z, y: pytorchs(z, y).square().sum(), logits, labels)
    torch.testing.assert_close(gradient(lambda z, y: ours(z, y).square().sum(), logits, labels), theirs)


@each_loss
def test_a_function_is_the_module(loss: LossForPyTorch, prototxt: str) -> None:
    logits, labels = batch(6, 4)
    function = getattr(imae, f"{type(loss).__name__[:-4].lower()}_loss")
    settings = {key: value for key, value in vars(loss).items() if key in ("T", "q", "k", "epsilon", "normalize_by")}
    one = function(logits, labels, **settings, weight=torch.arange(1.0, 5.0))
    other = type(loss)(**settings, weight=torch.arange(1.0, 5.0))(logits, labels)
    assert torch.equal(one, other)


@each_loss
def test_a_compiled_loss_is_one_graph_with_the_same_gradient(loss: LossForPyTorch, prototxt: str) -> None:
    logits, labels = batch(6, 4)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(logits, labels), loss(logits, labels))
    assert torch.equal(gradient(compiled, logits, labels), gradient(loss, logits, labels))


def test_pytorch_finds_no_fault_in_the_operator() -> None:
    logits, labels = batch(6, 4)
    operator = torch.ops.imae.sample_loss.default
    for settings in (("SoftmaxWithIMAELoss", [8.0, 1e-6, 0.0]), ("SoftmaxWithGCELoss", [0.7])):
        torch.library.opcheck(operator, (logits, labels, "loss", *settings, -100, True))


@each_loss
def test_what_is_done_with_the_loss_reaches_the_gradient(loss: LossForPyTorch, prototxt: str) -> None:
    logits, labels = batch(6, 4)
    once = gradient(loss, logits, labels)
    torch.testing.assert_close(gradient(lambda z, y: 3 * loss(z, y), logits, labels), 3 * once)
    value = loss(logits, labels)
    value.backward(retain_graph=True)
    value.backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, 2 * once)


def test_ignored_samples_get_no_gradient_and_a_batch_of_them_is_0() -> None:
    logits, labels = batch(4, 3)
    assert gradient(imae.IMAELoss(), logits, labels)[1].abs().sum() == 0
    labels[:] = -100
    assert imae.IMAELoss()(logits, labels) == 0
    assert gradient(imae.IMAELoss(), logits, labels).abs().sum() == 0


@each_loss
def test_under_autocast_the_loss_is_computed_in_float32(loss: LossForPyTorch, prototxt: str) -> None:
    model, (images, labels) = nn.Linear(8, 4), (torch.randn(6, 8), torch.tensor([0, 1, 2, 3, 0, -100]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
        value = loss(logits, labels)
    assert (logits.dtype, value.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(value, loss(logits.detach().float(), labels))
    value.backward()
    assert model.weight.grad is not None
    assert model.weight.grad.abs().sum() > 0


@each_loss
def test_a_second_derivative_is_refused(loss: LossForPyTorch, prototxt: str) -> None:
    logits, labels = batch(4, 3)
    with pytest.raises(InputError, match=rf"^{type(loss).__name__} has no second derivative: .* without create_graph$"):
        torch.autograd.grad(loss(logits, labels), logits, create_graph=True)


def test_logits_may_be_written_after_the_loss() -> None:
    logits, labels = batch(4, 3)
    hidden = logits * 1
    value = imae.IMAELoss()(hidden, labels)
    hidden.mul_(2)
    assert torch.equal(torch.autograd.grad(value, logits)[0], gradient(imae.IMAELoss(), logits, labels))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: imae.IMAELoss(T=-1), r"imae_param\.T must .*not -1$"),
        (lambda: imae.IMAELoss(T=math.nan), r"^IMAELoss: imae_param\.T .*nan"),
        (lambda: imae.IMAELoss(T=math.inf), r"^IMAELoss: imae_param\.T .*inf"),
        (lambda: imae.GCELoss(q=1e39), r"^GCELoss: gce_param\.q .*inf"),
        (lambda: imae.IMAELoss(epsilon=-1), r"imae_param\.epsilon must .*not -1$"),
        (lambda: imae.IMAELoss(normalize_by="T"), '^IMAELoss: normalize_by must be "SAMPLES" or "WEIGHTS", not \'T\'$'),
        (lambda: imae.GCELoss(q=0), r"^layer \"GCELoss\" .*gce_param\.q must lie in \(0, 1\], not 0$"),
        (lambda: imae.GCELoss(k=1), r"gce_param\.k must lie in \[0, 1\), not 1$"),
        (lambda: imae.MAELoss(reduction="max"), '^MAELoss: reduction must be "mean", "sum" or "none", not \'max\'$'),
        (
            lambda: imae.IMAELoss(normalize_by="WEIGHTS", reduction="sum"),
            '^IMAELoss: .* the reduction "mean", not \'sum',
        ),
        (lambda: imae.CCELoss(weight=torch.ones(2, 2)), "^CCELoss: weight takes one .* a class, found 2x2$"),
        (
            lambda: imae.mae_loss(torch.zeros(1, 3), torch.tensor([0]), weight=torch.ones(2)),
            "2 weights .* 3",
        ),
        (
            lambda: imae.gce_loss(torch.zeros(1, 3), torch.tensor([0]), q=0),
            r"gce_param\.q must lie in \(0, 1\], not 0$",
        ),
    ],
)
def test_a_setting_out_of_range_is_told_where_the_loss_is_made(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ((4, 3), torch.tensor([0, 1, 2, 3]), "label 3 is out of range: there are 3 classes, 0 to 2$"),
        ((4, 3), torch.zeros(3, dtype=torch.long), "^MAELoss takes labels of 4, not logits of 4x3 with labels of 3$"),
        ((4, 3), torch.zeros(2, 2, dtype=torch.long), "takes labels of 4, not logits of 4x3 with labels of 2x2$"),
        ((4, 3), torch.zeros(4, 3), r"^MAELoss takes labels as integers, one a sample, not torch\.float32$"),
        ((4,), torch.tensor([1]), "^MAELoss takes labels of 1, not logits of 1x4 with labels of 1x1$"),
        ((), torch.tensor(1), "^MAELoss takes logits of N x C x ..., not logits of scalar with labels of scalar$"),
    ],
)
def test_a_batch_that_does_not_fit_is_told(logits: tuple[int, ...], labels: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        imae.MAELoss()(torch.randn(logits), labels)


def test_logits_are_floating_point() -> None:
    with pytest.raises(InputError, match=r"^MAELoss takes floating-point logits, not torch\.int64$"):
        imae.MAELoss()(torch.zeros(4, 3, dtype=torch.long), torch.zeros(4, dtype=torch.long))


def test_a_loss_is_copied_saved_and_shown_with_its_settings() -> None:
    loss = pickle.loads(pickle.dumps(copy.deepcopy(imae.IMAELoss(T=4))))
    logits, labels = batch(4, 3)
    assert torch.equal(gradient(loss, logits, labels), gradient(imae.IMAELoss(T=4), logits, labels))
    assert repr(imae.GCELoss(q=0.5)) == "GCELoss(q=0.5, k=None, ignore_index=-100, reduction='mean')"
    assert loss.state_dict() == {}


def test_a_training_loop_with_imae_withstands_wrong_labels() -> None:
    """Of two clouds that a line parts, 40 % of the labels are wrong; the fitted line is right on nearly all points."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(400) % 2
    points = torch.randn(400, 2, generator=generator) + 3.5 * torch.stack([truth, 1 - truth], 1)
    labels = truth.where(torch.rand(400, generator=generator) > 0.4, 1 - truth)
    model = nn.Linear(2, 2)
    nn.init.zeros_(model.weight)
    optimizer, loss = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), imae.IMAELoss(T=8)
    for _ in range(60):
        optimizer.zero_grad()
        loss(model(points), labels).backward()
        optimizer.step()
    assert (model(points).argmax(1) == truth).float().mean() > 0.95


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@each_loss
def test_on_a_gpu_it_is_the_same(loss: LossForPyTorch, prototxt: str) -> None:
    logits, labels = batch(6, 4, 3)
    there = logits.detach().cuda().requires_grad_()
    torch.testing.assert_close(loss(there, labels.cuda()).cpu(), loss(logits, labels))
    torch.testing.assert_close(gradient(loss, there, labels.cuda()).cpu(), gradient(loss, logits, labels))
