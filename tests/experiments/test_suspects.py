"""The labels that a net believes least: their order, their count, and their picture."""

import torch

from imae.experiments.suspects import Suspects, draw_suspects, suspects_of
from imae.layers.data.digits_data import load_digits
from imae.layers.data.image_set import ImageSetData
from imae.nets.digits_net import digits_net
from imae.nets.paper import digits_solver
from imae.solvers.solver import Solver


def test_suspects_are_the_labels_of_the_smallest_p_y() -> None:
    """As the net gives it in phase TEST to the whole images, although it is trained on crops."""
    param = digits_solver(5)
    param.net_param.CopyFrom(digits_net("cce", noise_rate=0.5, crops=True))
    param.test_initialization = False
    solver = Solver(param)
    solver.step(5)
    data = solver.net.steps[0].layer
    assert isinstance(data, ImageSetData)
    found = suspects_of(solver)
    assert torch.equal(found.label, data.labels.long()) and torch.equal(found.intact, data.intact.long())
    assert found.count == 554

    test_net = solver.test_nets[0]
    test_net.keep_blobs = True
    layer = test_net.steps[0].layer
    assert isinstance(layer, ImageSetData)
    layer.images, layer.labels = data.images, data.labels
    batches = []
    for number in range(3):
        test_net.context.passes.number = number
        test_net.forward()
        batches.append(test_net.blobs["score"].clone())
    p = torch.cat(batches).double().softmax(1)
    p_y = p.gather(1, found.label[: len(p), None])[:, 0]
    order = found.order[found.order < len(p)]
    torch.testing.assert_close(p_y[order], p_y.sort().values)
    p[torch.arange(len(p)), found.label[: len(p)]] = 0
    assert torch.equal(found.suggested[: len(p)], p.argmax(1))


def test_what_was_found_is_counted_among_as_many_as_are_wrong() -> None:
    label, intact = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([0, 0, 2, 0, 0])
    suspects = Suspects(label, intact, suggested=torch.tensor([1, 0, 0, 2, 0]), order=torch.tensor([3, 0, 1, 2, 4]))
    assert (suspects.count, suspects.found, suspects.corrected) == (3, 2, 1)


def test_the_picture_shows_label_suggestion_and_truth_of_the_most_suspicious() -> None:
    images, intact = load_digits(True)
    label = intact.clone()
    label[7] = (intact[7] + 1) % 10
    suspects = Suspects(label, intact, (intact + 2) % 10, torch.arange(len(intact)).roll(-7))
    figure = draw_suspects(suspects, images, 3.75, shown=10)
    drawn = [axes for axes in figure.axes if axes.images]
    assert len(drawn) == 10 and drawn[0].get_gridspec().ncols == 5
    assert drawn[0].get_title() == f"{label[7]}, rather {(intact[7] + 2) % 10}\nwas wrong"
    assert drawn[1].get_title() == f"{label[8]}, rather {(intact[8] + 2) % 10}\nwas right"
    assert (drawn[0].images[0].get_array() == images[7, 0].numpy()).all()
