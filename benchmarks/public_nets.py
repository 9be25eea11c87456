"""How many prototxts of a folder, such as a clone of a model zoo, build here, and why the others do not.

    python -m benchmarks.public_nets FOLDER [--all]

Each .prototxt with layers is built without values in every phase that it has data for: its shapes are followed, its
weights are not made. Layers whose files are not at hand (Data, ImageData, HDF5Data, WindowData, Python layers without
bottoms) become Inputs, of the batch and size that they say: else colour or gray images of 224 pixels, digits or pairs
of them, with labels that are a number or an image each, whichever the net takes; and of Fast and Faster R-CNN's layers
in Python, one image with two regions or annotated boxes. Nets that choose layers by stages get those of a solver beside
them. Files alike to the letter count once. With --all each file that does not build is listed.
"""

import argparse
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from imae.cli.progress import Display
from imae.cli.table import print_table
from imae.nets.net import Net
from imae.nets.state import filter_layers, named_stages
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, TRAIN, LayerParameter, NetParameter, SolverParameter
from imae.prototxt_like.text import read_as_written, read_net

BATCH = 2
"""Where a net says none."""
IMAGES = ((3, 224), (3, 299), (1, 224), (1, 28), (2, 28))
"""Channels and size of the images that a net may take, tried in this order: it may say the size itself."""
ABSENT = {"Data", "ImageData", "HDF5Data", "WindowData"}
"""Types that read files, which are taken for absent."""
LAYER = re.compile(rb"\blayers?\s*:?\s*\{")
"""What a net has, and a solver or a list of labels has not."""
NO_DATA = "no layer before it produces its bottom"
FOREIGN = (
    (r'"(\w+)" is no field of', "a field of a fork: {}"),
    (r'"(\w+)" is none of its values', "a value of a fork: {}"),
    (r'layer type "(\w+)" is of', "a layer of a fork: {}"),
    (r'unknown layer type "(\w+)"', "a layer of a fork: {}"),
    (r'Python code, of the module "([\w.]+)"', "Python code that is elsewhere: {}"),
)
"""Errors that name what is not Caffe's own, and how they are counted."""


def outcome(path: Path, solvers: Sequence[SolverParameter]) -> str | None:
    """Return why the net of a file does not build, empty if it does, None if it is no net."""
    if not LAYER.search(path.read_bytes()):
        return None
    try:
        net = read_net(path)
        return why_not(net, path.parent, stages(net, solvers))
    except InputError as error:
        return None if "is one of SolverParameter" in str(error) else str(error)


def stages(net: NetParameter, solvers: Sequence[SolverParameter]) -> list[list[str]]:
    """Return the lists of stages to try: none, then those of `solvers` that the net knows."""
    known = set(named_stages([net]))
    states = [state for solver in solvers for state in (solver.train_state, *solver.test_state)]
    given = {tuple(stage for stage in state.stage if stage in known) for state in states}
    return [[], *(list(names) for names in sorted(given) if names)]


def why_not(net: NetParameter, folder: Path, choices: Sequence[list[str]]) -> str:
    """Return why a net builds in no phase, or not in one that it has data for; empty if it builds."""
    errors = []
    for phase in (TRAIN, TEST):
        error = ""
        for chosen in choices:
            for stood_in in variants(net, phase, chosen):
                try:
                    Net(stood_in, phase, stages=chosen, device="meta", folder=folder)
                    error = ""
                    break
                except InputError as found:
                    error = error or str(found)
                    if reason(error) != error:
                        break  # no other shape of the data helps
            if not error:
                break
        errors.append(error)
    without_data = [NO_DATA in error for error in errors]
    if all(without_data):
        return errors[-1]
    return next((error for error, without in zip(errors, without_data, strict=True) if error and not without), "")


def variants(net: NetParameter, phase: int, chosen: Sequence[str]) -> Iterator[NetParameter]:
    """Yield the layers of `net` in a phase with Inputs for the data that is absent, of one shape after the other."""
    given = NetParameter()
    given.CopyFrom(net)
    given.state.phase = phase
    given.state.stage.extend(chosen)
    given = filter_layers(given)
    absent = [i for i, layer in enumerate(given.layer) if layer.type in ABSENT or is_python_source(layer)]
    for channels, size in IMAGES if absent else IMAGES[:1]:
        for label in ("number", "image"):
            stood_in = NetParameter()
            stood_in.CopyFrom(given)
            stood_in.ClearField("layer")
            for i, layer in enumerate(given.layer):
                if layer.type == "HDF5Output":  # which would write
                    layer = LayerParameter(name=layer.name, type="Silence", bottom=layer.bottom)
                stood_in.layer.append(an_input(layer, channels, size, label) if i in absent else layer)
            yield stood_in
            if not absent:
                return


def is_python_source(layer: LayerParameter) -> bool:
    """Whether a layer is a data layer in Python."""
    return layer.type == "Python" and not layer.bottom


def an_input(layer: LayerParameter, channels: int, size: int, label: str) -> LayerParameter:
    """Return an Input with the tops of a data layer: images, and labels that are a "number" or an "image" each."""
    if layer.python_param.module.startswith("roi_data_layer"):
        return an_input_of_regions(layer, size)
    own = (layer.data_param, layer.image_data_param, layer.hdf5_data_param, layer.window_data_param)
    batch = max(settings.batch_size for settings in own) or BATCH
    height = layer.transform_param.crop_size or layer.image_data_param.new_height or size
    width = layer.transform_param.crop_size or layer.image_data_param.new_width or size
    labels = {"number": [batch], "image": [batch, 1, height, width]}[label]
    shapes = [[batch, channels, height, width], *[labels] * (len(layer.top) - 1)]
    return inputs(layer, shapes)


def an_input_of_regions(layer: LayerParameter, size: int) -> LayerParameter:
    """Return an Input with the tops of py-faster-rcnn's data layer, by their names: one image, two boxes or regions."""
    classes = re.search(r"num_classes\W+(\d+)", layer.python_param.param_str)
    shapes = {"data": [1, 3, size, size], "im_info": [1, 3], "gt_boxes": [2, 5], "rois": [2, 5], "labels": [2]}
    return inputs(layer, [shapes.get(top, [2, 4 * int(classes[1] if classes else 1)]) for top in layer.top])


def inputs(layer: LayerParameter, shapes: Sequence[Sequence[int]]) -> LayerParameter:
    """Return an Input with the layer's tops, of these shapes."""
    dims = [{"dim": shape} for shape in shapes]
    return LayerParameter(name=layer.name, type="Input", top=layer.top, input_param={"shape": dims})


def reason(error: str) -> str:
    """Return what an error is counted as: what is foreign in it, else itself."""
    for pattern, said in FOREIGN:
        if found := re.search(pattern, error):
            return said.format(found[1])
    return error


def solvers_in(folder: Path) -> list[SolverParameter]:
    """Return the solvers of a folder."""
    found = []
    for path in sorted(folder.glob("*.prototxt")):
        with suppress(InputError):
            found.append(read_as_written(path, SolverParameter))
    return found


@contextmanager
def unlogged() -> Iterator[None]:
    """Leave out what is logged inside: what an upgrade has changed."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def main() -> None:
    """Build them all, and print how many did, of each folder in FOLDER, then the reasons."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.public_nets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--all", action="store_true", help="List each file that does not build.")
    options = parser.parse_args()
    found_first = sorted(options.folder.rglob("*.prototxt"), reverse=True)
    paths = sorted({path.read_bytes(): path for path in found_first}.values())
    if not paths:
        parser.error(f"{options.folder} has no .prototxt")
    solvers: dict[Path, list[SolverParameter]] = {}
    outcomes: dict[Path, str] = {}
    with Display() as display, unlogged(), suppress(KeyboardInterrupt):
        for done, path in enumerate(paths):
            display.advance("prototxts", done, len(paths))
            if path.parent not in solvers:
                solvers[path.parent] = solvers_in(path.parent)
            found = outcome(path, solvers[path.parent])
            if found is not None:
                outcomes[path] = found
            if found and options.all:
                display.show(f"{path}: {found}")
        display.advance("prototxts", len(paths), len(paths))
    report(options.folder, outcomes)


def report(root: Path, outcomes: dict[Path, str]) -> None:
    """Print a row for each folder in `root`, and the reasons with how many files have each."""
    folders: dict[str, list[str]] = defaultdict(list)
    for path, error in outcomes.items():
        folders[path.relative_to(root).parts[0]].append(error)
    folders["all"] = list(outcomes.values())
    rows = [
        (name, str(len(errors)), str(errors.count("")), str(sum(bool(e) and reason(e) != e for e in errors)))
        for name, errors in folders.items()
    ]
    print_table(("folder", "nets", "build", "are a fork's"), rows, right=(1, 2, 3))
    reasons = Counter(reason(error) for error in outcomes.values() if error)
    print()
    print_table(("files", "reason"), [(str(count), said) for said, count in reasons.most_common()], right=(0,))


if __name__ == "__main__":
    main()
