"""`import imae`: the names that it offers, each of them found where it is defined when it is first used."""

import subprocess
import sys

import pytest

import imae
from imae.layers.loss.for_pytorch import CCELoss, GCELoss, IMAELoss, MAELoss
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, TRAIN
from imae.solvers.solver import Solver


def test_the_public_names_are_those_of_the_packages() -> None:
    assert (imae.Net, imae.Solver, imae.InputError) == (Net, Solver, InputError)
    assert (imae.CCELoss, imae.MAELoss, imae.IMAELoss, imae.GCELoss) == (CCELoss, MAELoss, IMAELoss, GCELoss)
    assert (imae.TRAIN, imae.TEST) == (TRAIN, TEST) == (0, 1)


def test_the_audit_is_there_without_an_import_of_its_own() -> None:
    code = "import sys, imae; print(imae.audit.__name__, 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "imae.audit False\n"
    assert imae.audit.find_label_issues.__module__ == "imae.audit.label_issues"


def test_every_name_is_listed_and_found() -> None:
    assert dir(imae) == sorted([*imae.__all__, "__version__"])
    assert all(getattr(imae, name) is not None for name in imae.__all__)
    found: dict[str, object] = {}
    exec("from imae import *", found)
    assert set(imae.__all__) <= set(found)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'imae' has no attribute 'Predicter'$"):
        imae.Predicter  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Predicter' from 'imae'"):
        exec("from imae import Predicter")


def test_one_name_does_not_load_the_others() -> None:
    code = "import sys, imae; imae.InputError; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
