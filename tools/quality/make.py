"""Makes the pictures: the program for each variant, by formula for the truth."""

import hashlib
import json
import re
import subprocess
import time
from pathlib import Path

import numpy as np
from PIL import Image

import judge_prompts
import world
from quality import measures

PROGRAM = judge_prompts.PROGRAM
DEFAULT = "npa"
MODELS = ("tiny-sdxl", "tiny-flux")
# Flags of the program for each variant; every one starts from the same base picture.
VARIANTS = {
    DEFAULT: [],
    "full attention": ["--attention", "full"],
    "MultiDiffusion": ["--attention", "multidiffusion"],
    "no LFM": ["--no-lfm"],
    "no SG": ["--no-sg"],
    "fft-ideal": ["--filter", "fft-ideal"],
    "fft-gaussian": ["--filter", "fft-gaussian"],
    "fft-butterworth": ["--filter", "fft-butterworth"],
    "jitter": ["--jitter"],
    "isolated patches": ["--attention", "isolated-npa"],
    "isolated windows": ["--attention", "isolated-windows"],
}
# Of the transformer: fewer, and its patches are shifted unless it is told not to.
FLUX_VARIANTS = {
    DEFAULT: [],
    "no jitter": ["--no-jitter"],
    "full attention": ["--attention", "full"],
    "no LFM": ["--no-lfm"],
    "no SG": ["--no-sg"],
}
BICUBIC = "bicubic"
DRAWN, ENCODED = "drawn", "drawn, through the autoencoder"
# Not rivals but controls of the seam test: patches whose keys end with their block of queries, and windows as
# small as such a block, each predicted apart.
CONTROLS = ("isolated patches", "isolated windows")


def prompts(count):
    return judge_prompts.prompts(count)


def variants(model):
    return FLUX_VARIANTS if model == "tiny-flux" else VARIANTS


def supported(model):
    """The variants whose flags this build of the program has."""
    text = subprocess.run([PROGRAM, "generate", "--help"], capture_output=True, text=True, check=True).stdout
    return {n: f for n, f in variants(model).items() if all(flag in text for flag in f if flag.startswith("--"))}


def model_hash(model):
    """Names the embedded model, so that pictures of two models never meet in one table."""
    digest = hashlib.sha256()
    for file in sorted(measures.folder_of(model).rglob("*")):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def folder(out, variant):
    return out / variant.replace(" ", "-")


def claim(out, model):
    """Refuses a folder that another model's pictures are in."""
    out.mkdir(parents=True, exist_ok=True)
    file, mine = out / "model.txt", model_hash(model)
    if file.exists() and file.read_text() != mine:
        raise SystemExit(f"{out} holds pictures of another model; give another folder or delete it")
    file.write_text(mine)


def generate(prompt, seed, file, flags):
    """Runs the program; returns its time in seconds and its GFLOP. Writes FILE-stage0.png too."""
    command = [PROGRAM, "generate", "-p", prompt, "-s", str(seed), "-o", file, "--save-stages", *flags]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr}")
    gflop = re.search(r"(\d+) GFLOP", done.stderr)
    return seconds, int(gflop[1]) if gflop else None


def picture(out, variant, index, prompt, flags):
    """Makes one picture unless it exists. The base picture must be the same for all variants."""
    place = folder(out, variant)
    file, note = place / f"{index:03}.png", place / f"{index:03}.json"
    if file.exists() and note.exists():
        return False
    place.mkdir(exist_ok=True)
    (out / "base").mkdir(exist_ok=True)
    made = place / "now.png"
    seconds, gflop = generate(prompt, index, made, flags)
    base, known = place / "now-stage0.png", out / "base" / f"{index:03}.png"
    if not known.exists():
        base.rename(known)
    elif not np.array_equal(load(base), load(known)):
        raise SystemExit(f"{variant} {index}: another base picture than that of the other variants")
    for rest in place.glob("now-stage*.png"):
        rest.unlink()
    made.rename(file)
    note.write_text(json.dumps({"prompt": prompt, "seed": index, "flags": flags, "seconds": seconds, "gflop": gflop}))
    return True


def everything(out, count, each, model):
    claim(out, model)
    texts = prompts(count)
    known = supported(model)
    for variant, flags in variants(model).items():
        if variant not in known:
            print(f"{variant}: skipped, the program does not know {flags[0]}", flush=True)
            continue
        for i, prompt in enumerate(texts if variant == DEFAULT else texts[:each]):
            if picture(out, variant, i, prompt, ["-m", model, *flags]):
                print(f"{variant} {i + 1}: {prompt}", flush=True)


def load(file):
    return np.asarray(Image.open(file).convert("RGB"))


def bicubic(base):
    n = 4 * len(base)
    return np.asarray(Image.fromarray(base).resize((n, n), Image.Resampling.BICUBIC))


def through_autoencoder(pictures, model):
    """What the model's autoencoder leaves of some pictures: no sampler can be sharper."""
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(measures.folder_of(model) / "vae")
    out = []
    with torch.no_grad():
        for rgb in pictures:
            x = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            y = vae.decode(vae.encode(x).latent_dist.mean).sample[0]
            out.append(((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    return out


def truth(prompt, seed):
    """A drawn 512 x 512 picture of a prompt."""
    return world.Scene(*world.parse(prompt), 10_000 + seed).draw(512)
