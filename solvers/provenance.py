"""Where the weights of a training are from: the prototxts that it read, and the seed."""

from hashlib import sha256
from pathlib import Path

from imae import __version__
from imae.prototxt_like.files import read_bytes
from imae.prototxt_like.schema import ImaeProvenance, NetParameter, SolverParameter
from imae.prototxt_like.text import format_text
from imae.solvers.solver_nets import find_file, train_net_source


def provenance_of(param: SolverParameter, folder: Path, file: Path | None, seed: int) -> ImaeProvenance:
    """Return the provenance of what a solver trains: the hashes are of its `file` and of the train net's.

    Where there is none, as for a net inside the solver, it is of the message as prototxt.
    """
    source = train_net_source(param)
    net = source if isinstance(source, NetParameter) else find_file(source, folder)
    return ImaeProvenance(
        version=__version__, random_seed=seed, net_sha256=_hash(net), solver_sha256=_hash(file or param)
    )


def _hash(source: Path | NetParameter | SolverParameter) -> str:
    return sha256(read_bytes(source) if isinstance(source, Path) else format_text(source).encode()).hexdigest()
