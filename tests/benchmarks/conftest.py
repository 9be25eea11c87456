"""benchmarks/ is no part of the installed package: its tests find it in the repository."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
