"""Every pattern, one after another: `python examples/patterns`."""

import runpy
from pathlib import Path

for example in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    if example.stem != "scene":
        print(f"{example.stem.replace('_', ' ')}: ", end="", flush=True)
        runpy.run_path(str(example))
