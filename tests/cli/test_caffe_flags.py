"""Command lines as written for Caffe are understood: gflags' syntax, all of Caffe's flags, and glog's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Imae = Callable[..., Any]
TRAIN = ("train", "-solver", "solver.prototxt", "-cpu", "-iterations", "1")


@pytest.mark.parametrize(
    "flags",
    [
        ("-alsologtostderr",),
        ("--logtostderr=1",),
        ("-logtostderr=true", "--colorlogtostderr"),
        ("--nolog_prefix", "-noalsologtostderr"),
        ("-minloglevel", "0", "-v", "1"),
        ("--stderrthreshold=2", "-vmodule", "solver=2,net=1", "--max_log_size=10"),
        ("-v=3", "--logbufsecs", "0", "-log_link", "x", "--log-backtrace-at=a.cpp:1"),
    ],
)
def test_glogs_flags_are_taken_by_every_command_of_caffes(imae: Imae, digits: Path, flags: tuple[str, ...]) -> None:
    assert imae(*TRAIN, *flags).status == 0
    model = ("-model", "net.prototxt", "-iterations", "1", "-cpu")
    weights = "out/digits_iter_1.caffemodel"
    assert imae("test", *flags, *model, "-weights", weights).status == 0
    assert imae("time", *model, *flags).status == 0
    assert imae("device_query", *flags).status == 0
    assert imae("check-gradients", "net.prototxt", *flags).status == 2, "Caffe has no such command"


def test_flags_may_stand_before_the_command_and_after_a_double_dash_are_none(imae: Imae, digits: Path) -> None:
    assert imae("-logtostderr=1", "--v", "2", "--solver", "solver.prototxt", *TRAIN[:1], *TRAIN[3:]).status == 0
    assert imae(*TRAIN, "--", "-logtostderr").status == 2


def test_minloglevel_says_what_is_shown(imae: Imae, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Iteration 0" in imae(*TRAIN).err
    (digits / "other.prototxt").write_text((digits / "net.prototxt").read_text().replace('"ip', '"other'))
    tuning = (*TRAIN, "--prefix", "tuned/net", "--weights", "out/digits_iter_1.caffemodel")
    tuning += ("--set", 'net="other.prototxt"')
    assert "warning" in imae(*tuning, "--prefix", "a/net").err
    warned = imae(*tuning, "-minloglevel", "1", "--prefix", "b/net")
    assert (warned.status, warned.err.count("\n")) == (0, 1)
    assert "warning" in warned.err
    assert imae(*tuning, "-minloglevel=2", "--prefix", "c/net").err == ""
    assert imae(*tuning, "-alsologtostderr=0", "--prefix", "d/net").err == "", "stderrthreshold is 2"
    assert "Iteration 0" in imae(*tuning, "-noalsologtostderr", "-stderrthreshold=0", "--prefix", "e/net").err
    assert "Iteration 0" in Path("c/net.log").read_text(), "the file has all"
    monkeypatch.setenv("GLOG_minloglevel", "3")
    quiet = imae("train", "-solver", "missing.prototxt")
    assert quiet.err == "imae: error: missing.prototxt: cannot be read: No such file or directory\n"
    assert imae(*tuning, "--prefix", "f/net").err == ""


def test_log_dir_is_where_the_log_goes(imae: Imae, digits: Path) -> None:
    assert imae(*TRAIN, "--log_dir=logs/today").status == 0
    assert "Iteration 0" in Path("logs/today/digits.log").read_text()
    assert {path.name for path in Path("out").iterdir()} == {
        "digits.metrics.jsonl",
        "digits_iter_1.caffemodel",
        "digits_iter_1.solverstate",
    }
    weights = ("-weights", "out/digits_iter_1.caffemodel")
    assert imae("test", "-model", "net.prototxt", *weights, "-iterations", "1", "-log_dir", "logs").status == 0
    assert "Batch 0, accuracy" in Path("logs/net.log").read_text()
    refused = imae(*TRAIN, "--log_dir", "net.prototxt/x")
    assert (refused.status, refused.err.count("\n")) == (1, 1)


def test_caffes_other_flags_are_taken_by_each_of_its_commands(imae: Imae, digits: Path) -> None:
    outcome = imae(*TRAIN, "-model", "net.prototxt", "-phase", "TEST")
    assert outcome.status == 0
    assert "imae: warning: train makes no use of -model, nor does Caffe's\n" in outcome.err
    weights = "out/digits_iter_1.caffemodel"
    timed = ("time", "-model", "net.prototxt", "-iterations", "1", "-level", "0", "-stage", "", "-gpu", "", "-cpu")
    for phase in ("TEST", "TRAIN", "Test", "train"):
        assert imae(*timed, "-weights", weights, "-phase", phase).status == 0
    assert imae(*timed, "-weights", "missing.caffemodel").status == 1
    assert imae(*timed, "-sigint_effect=stop", "-solver", "solver.prototxt").status == 0
    assert imae("device_query", "-model", "net.prototxt").status == 0


def test_the_level_of_a_command_is_its_flags_or_0_as_caffes(imae: Imae, digits: Path) -> None:
    net = Path("net.prototxt")
    inside = 'layer { name: "in" type: "Silence" bottom: "data" include { min_level: 1 } }'
    net.write_text(f"state {{ level: 1 }} {net.read_text()} {inside}")
    for flags, there in (((), False), (("-level", "1"), True)):
        timed = imae("time", "-model", net, "-iterations", "1", *flags)
        assert timed.status == 0 and ("Silence" in timed.out) == there


@pytest.mark.parametrize(
    "more",
    [("-sigint_effect", "SNAPSHOT"), ("--sighup_effect=None",), ("--plan", "Plain"), ("--precision", "FP64")],
)
def test_choices_may_be_given_in_any_case(imae: Imae, digits: Path, more: tuple[str, ...]) -> None:
    assert imae(*TRAIN, *more).status == 0


@pytest.mark.parametrize("flags", [("-logtostderr=maybe",), ("-minloglevel", "low"), ("-v",), ("-vmodul=1",)])
def test_flags_that_are_wrong_are_wrong_usage(imae: Imae, digits: Path, flags: tuple[str, ...]) -> None:
    outcome = imae(*TRAIN, *flags)
    assert outcome.status == 2
    assert "Traceback" not in outcome.err


def test_testing_and_timing_use_the_first_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    from imae.cli.options import choose_device

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert str(choose_device("2,3", cpu=False, first_of_several=True)) == "cuda:2"
    assert str(choose_device("all", cpu=False, first_of_several=True)) == "cuda:0"
