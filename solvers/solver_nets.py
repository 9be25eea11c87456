"""The nets that a solver prototxt names: one to train, and those to test, each with its state."""

from collections.abc import Sequence
from pathlib import Path

from imae.nets.state import check_stages, named_stages
from imae.prototxt_like.errors import InputError, counted
from imae.prototxt_like.schema import TEST, TRAIN, NetParameter, NetState, SolverParameter
from imae.prototxt_like.text import read_net


def net_params(
    param: SolverParameter, folder: Path, level: int | None = None, stages: Sequence[str] = ()
) -> list[tuple[NetParameter, Path]]:
    """Return the train net and the test nets of a solver, each with the folder that its paths are relative to.

    Paths of nets are looked up in the working directory, then in `folder`. A net has those of `stages` that its rules
    name, its own, and the solver's for it; and of levels the solver's, else its own, else `level`, which of the train
    net goes before both. Raises InputError for nets that are missing or too many, and for a stage that no net's rules
    name.
    """
    nets = [_read(train_net_source(param), folder), *_test_nets(param, folder)]
    check_stages(stages, named_stages([net for net, _ in nets]), "solver")
    states = [param.train_state, *(param.test_state or [NetState() for _ in nets[1:]])]
    for i, (net, _) in enumerate(nets):
        own = [stage for stage in stages if stage in named_stages([net])]
        state = NetState(phase=TEST if i else TRAIN, level=level, stage=own)
        for more in (net.state, states[i]):
            state.MergeFrom(more)
        if level is not None and not i:
            state.level = level
        net.state.CopyFrom(state)
    return nets


def train_net_source(param: SolverParameter) -> NetParameter | str:
    """Return the train net of a solver, as it is in it or the name of its file; raises InputError unless it is one."""
    fields = ["net", "net_param", "train_net", "train_net_param"]
    given = [field for field in fields if param.HasField(field)]
    if len(given) != 1:
        raise InputError(f"solver: give one of {', '.join(fields)}, not {' and '.join(given) or 'none'}")
    return getattr(param, given[0])


def find_file(name: str, folder: Path) -> Path:
    """Return the path of a file that a solver names: in the working directory if there, else in `folder` if there."""
    return next((path for path in (Path(name), folder / name) if path.exists()), Path(name))


def _test_nets(param: SolverParameter, folder: Path) -> list[tuple[NetParameter, Path]]:
    """The test nets: test_net_param, test_net, then the train net's file for each test_iter that is left."""
    nets = [_read(net, folder) for net in [*param.test_net_param, *param.test_net]]
    general = param.net_param if param.HasField("net_param") else param.net
    missing = len(param.test_iter) - len(nets)
    if missing < 0 or (missing > 0 and not (param.HasField("net_param") or param.HasField("net"))):
        given, there = counted(len(param.test_iter), "time"), counted(len(nets), "test net")
        raise InputError(f"solver: test_iter is given {given} for {there}")
    nets += [_read(general, folder) for _ in range(missing)]
    if nets and param.test_interval <= 0:
        raise InputError("solver: there are test nets, but no test_interval above 0")
    if len(param.test_state) not in (0, len(nets)):
        given, there = counted(len(param.test_state), "time"), counted(len(nets), "test net")
        raise InputError(f"solver: test_state is given {given} for {there}")
    return nets


def _read(source: NetParameter | str, folder: Path) -> tuple[NetParameter, Path]:
    if isinstance(source, str):
        path = find_file(source, folder)
        return read_net(path), path.parent
    param = NetParameter()
    param.CopyFrom(source)
    return param, folder
