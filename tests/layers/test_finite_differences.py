"""Witness: every layer's gradient agrees with finite differences in float64."""

from layer_cases import Case, every_case, has_derivative

from imae.layers.gradient_check import check_layer


@every_case(lambda case: has_derivative(case) or bool(case.build().blobs), "has no derivative", Silence="has no tops")
def test_gradient_agrees_with_finite_differences(case: Case) -> None:
    bottoms = case.draw()
    report = check_layer(case.param, bottoms, phase=case.phase, blobs=case.drawn_blobs() or (), forwards=case.forwards)
    assert report.passed, report
    assert report.compared >= min(64, bottoms[0].numel() if bottoms else 1) / 2, report
