"""Where weights are from: the version of imae, the seed, and the hashes of the prototxts that they were trained by."""

from google.protobuf import text_format

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import ImaeProvenance, NetParameter

NAME = "imae_provenance"
"""Of the field, attribute or entry of a file that holds it, as text but in binary files."""


def as_text(provenance: ImaeProvenance) -> str:
    """Return it as one line of prototxt."""
    return str(text_format.MessageToString(provenance, as_one_line=True))


def put_text(text: str, net: NetParameter, name: str) -> None:
    """Read into `net` what `as_text` wrote; raises InputError, beginning with `name`, for anything else."""
    try:
        text_format.Parse(str(text), net.imae_provenance)
    except (text_format.ParseError, TypeError, ValueError) as error:
        raise InputError(f"{name}: {NAME} is damaged: {' '.join(str(error).split())}") from error


def of_net(net: NetParameter) -> ImaeProvenance | None:
    """Return what a net that was read knows of it, or None."""
    return net.imae_provenance if net.HasField(NAME) else None


def describe(provenance: ImaeProvenance) -> str:
    """Return it as a clause, with the first digits of the hashes."""
    hashes = [f"{of} sha256 {sha[:12]}" for of in ("net", "solver") if (sha := getattr(provenance, f"{of}_sha256"))]
    return ", ".join([f"imae {provenance.version}, seed {provenance.random_seed}", *hashes])
