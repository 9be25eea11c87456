"""Witness: what each rule puts in place of a chain computes what the chain does, on the cases of the layers in it."""

from collections.abc import Iterator, Sequence
from itertools import product

import pytest
import torch
from layer_cases import Case, all_cases
from torch import Tensor

from imae.layers.layer import TEST, TRAIN
from imae.nets.net import Net
from imae.nets.rules import RULES, Part, Rule
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter, NetParameter

Inputs = dict[str, Tensor]


def parts_present(rule: Rule) -> Iterator[list[Part]]:
    """The rule's parts without some of the optional ones, two at least."""
    for present in product(*((True, False) if part.optional else (True,) for part in rule.chain)):
        parts = [part for part, here in zip(rule.chain, present, strict=True) if here]
        if len(parts) > 1:
            yield parts


CHAINS = [
    pytest.param(rule, parts, id=" ".join(part.kind.type for part in parts) + ("" if rule.in_backward else " (folded)"))
    for rule in RULES
    for parts in parts_present(rule)
]


def choices(parts: Sequence[Part]) -> Iterator[list[Case]]:
    """A case for each part: each of its type's cases once, with the first of the others'."""
    cases = [[case for case in all_cases() if case.type == part.kind.type and not case.forwards] for part in parts]
    for varied in range(len(parts)):
        yield from product(*(own if i == varied else own[:1] for i, own in enumerate(cases)))


def chain(cases: Sequence[Case], data: Tensor) -> tuple[NetParameter, Inputs]:
    """A net of layers that each take the one before as their first bottom, and their other bottoms; and its inputs."""
    inputs = {"data": data}
    net, layers, bottom = NetParameter(force_backward=True), [], "data"
    for i, case in enumerate(cases):
        layer = LayerParameter()
        layer.CopyFrom(case.param)
        layer.name, others = f"layer{i}", case.draw()[1:]
        names = [f"input{i}_{j}" for j in range(len(others))]
        inputs.update(zip(names, others, strict=True))
        del layer.bottom[:], layer.top[:]
        layer.bottom.extend([bottom, *names])
        bottom = f"value{i}"
        layer.top.append(bottom)
        layers.append(layer)
    for name, value in inputs.items():
        shape = {"shape": [{"dim": value.shape}]}
        net.layer.append(LayerParameter(name=name, type="Input", top=[name], input_param=shape))
    net.layer.extend(layers)
    return net, inputs


def built(param: NetParameter, phase: int, plan: str) -> Net:
    """With blobs that have seen something; the sums of a BatchNorm are of one sign."""
    net = Net(param, phase, plan=plan, backward=phase == TRAIN, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for _, blobs in sorted(net.params.items()):
        for blob in blobs:
            blob.data.uniform_(0.5, 2, generator=generator)
    return net


def run(net: Net, inputs: Inputs, top: str) -> dict[str, Tensor]:
    """Two passes, forward and backward; return all that comes of them."""
    for _ in range(2):
        net.clear_diffs()
        outputs = net.forward(**inputs)
        if net.context.phase == TRAIN:
            weight = torch.linspace(0.5, 1.5, outputs[top].numel(), dtype=torch.float64).view(outputs[top].shape)
            net.backward({top: weight})
    diffs = {f"gradient of {name}": net.diffs[name] for name in inputs if net.keep_blobs and name in net.diffs}
    return {"top": outputs[top], "blobs": net.storage.data.clone(), "gradients": net.storage.diff.clone(), **diffs}


@pytest.mark.parametrize(("rule", "parts"), CHAINS)
def test_a_rules_layers_compute_what_the_chain_does(
    rule: Rule, parts: Sequence[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imae.nets.rules.RULES", [rule])
    phase, top, tried, whole = TRAIN if rule.in_backward else TEST, f"value{len(parts) - 1}", set(), 0
    for cases in choices(parts):
        for case in cases:
            data = case.draw()[0]
            if (*cases, data.shape) in tried:
                continue
            tried.add((*cases, data.shape))
            param, inputs = chain(cases, data)
            try:
                plain, fused, frugal = (built(param, phase, plan) for plan in ("plain", "fused", "fused"))
                expected = run(plain, inputs, top)
            except InputError:  # these cases do not fit each other, in shapes or labels
                continue
            kinds = {type(step.layer) for step in fused.plan}
            if kinds == {type(step.layer) for step in plain.plan}:  # the rule is for other settings
                continue
            actual = run(fused, inputs, top)
            torch.testing.assert_close(actual, expected, msg=lambda text, param=param: f"{text}\n{param}")
            frugal.keep_blobs = False
            actual = run(frugal, inputs, top)
            torch.testing.assert_close(actual, {name: expected[name] for name in actual})
            whole += kinds.isdisjoint(part.kind for part in parts)
    assert whole >= 3
