"""Runs the program on prompts of the embedded world and judges the pictures.

    python tools/judge_prompts.py OUT [--count 60] [-- further flags of scalediff generate]

Writes OUT/base and OUT/final with a prompts.json each, skipping pictures that exist,
so it can be stopped and started again; then prints what check_world.py finds.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

import world

PROGRAM = Path(__file__).parent.parent / "target" / "release" / "scalediff"


def prompts(count):
    """The first scenes of a fixed shuffle of all."""
    texts = [world.Scene(*scene, 0).prompt for scene in world.all_scenes()]
    random.Random(1).shuffle(texts)
    return texts[:count]


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out", type=Path)
    p.add_argument("--count", type=int, default=60)
    p.add_argument("flags", nargs="*")
    a = p.parse_args()
    folders = {kind: a.out / kind for kind in ("base", "final")}
    names = {kind: {} for kind in folders}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for i, prompt in enumerate(prompts(a.count)):
        file = folders["final"] / f"{i:03}.png"
        base = folders["base"] / f"{i:03}.png"
        if not (file.exists() and base.exists()):
            made = a.out / "now.png"
            subprocess.run(
                [PROGRAM, "generate", "-p", prompt, "-s", str(i), "-o", made, "--save-stages", *a.flags],
                check=True,
                capture_output=True,
            )
            (a.out / "now-stage0.png").rename(base)
            made.rename(file)
            print(f"{i + 1}/{a.count} {prompt}", flush=True)
        for kind in folders:
            names[kind][file.name] = prompt
    for kind, folder in folders.items():
        (folder / "prompts.json").write_text(json.dumps(names[kind], indent=1))
        print(f"== {kind}", flush=True)
        judge = Path(__file__).with_name("check_world.py")
        subprocess.run([sys.executable, judge, "judge", folder], check=True)


if __name__ == "__main__":
    main()
