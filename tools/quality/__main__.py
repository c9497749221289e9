"""The quality lab: what the method gains and loses, measured where the truth can be drawn.

    python tools/quality run OUT [--count 60] [--each 16]   make pictures, measure, write the table
    python tools/quality report OUT                         only measure and write what is there
    python tools/quality time OUT                           time each variant alone, for the table
    python tools/quality validate                           test the measures on drawn and broken pictures
    python tools/quality train                              train the network that counts things

The program must be built (cargo build --release). `run` skips pictures that exist, so it can be
stopped and started again. OUT gets a folder of pictures per variant, measures.json (raw numbers),
table.md and sheet.jpg. Seeds are fixed: picture k of every variant has prompt k and seed k, and
so the same base picture, which is checked.
"""

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from quality import finder, make, report, validate  # noqa: E402


def main():
    p = argparse.ArgumentParser(prog="tools/quality", description=__doc__.splitlines()[0])
    p.add_argument("command", choices=("run", "report", "time", "validate", "train"))
    p.add_argument("out", type=Path, nargs="?", help="the folder of pictures")
    p.add_argument("--model", choices=make.MODELS, default=make.MODELS[0])
    p.add_argument("--count", type=int, default=60, help="prompts of the default")
    p.add_argument("--each", type=int, default=16, help="prompts of every other variant")
    a = p.parse_args()
    if a.command == "train":
        return finder.train()
    if a.command == "validate":
        return 0 if validate.run() else 1
    if a.out is None:
        p.error(f"{a.command} needs a folder")
    if a.command == "time":
        return report.time_variants(a.out, a.model)
    if a.command == "run":
        make.everything(a.out, a.count, min(a.each, a.count), a.model)
    report.write(a.out, a.model)


if __name__ == "__main__":
    sys.exit(main())
