"""What a net or a solver needs is all that it loads."""

import subprocess
import sys

HEAVY = ("onnx", "onnxruntime", "matplotlib", "sklearn", "torchvision", "pandas", "scipy")


def test_importing_nets_and_solvers_loads_no_library_that_they_may_never_need() -> None:
    code = f"import sys, imae.nets.net, imae.solvers.solver; print([name for name in {HEAVY} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"
