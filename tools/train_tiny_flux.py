"""Trains the embedded tiny FLUX model on pictures of tools/world.py, by flow matching.

    python tools/train_tiny_flux.py WORK pictures     draw the data set (train_tiny_sdxl.py's)
    python tools/train_tiny_flux.py WORK vae          train the autoencoder
    python tools/train_tiny_flux.py WORK flow         train the transformer and the text encoders
    python tools/train_tiny_flux.py WORK guidance     teach the transformer its guidance input
    python tools/train_tiny_flux.py WORK export DIR   write a diffusers folder in f16
    python tools/train_tiny_flux.py WORK count        count parameters

Everything lives under WORK and every step resumes where it was stopped. Two CPU cores
need about 90 minutes. The schedules follow the clock, so a busy machine gives a weaker
model: raise --minutes there.
"""

import argparse
import copy
from pathlib import Path

import numpy as np
import torch

import tiny_flux
from training import CHUNK, SEED, Run, crops, load_pictures, pictures, to_tensor, use_mean, vae_step

# The shift of the schedule at run time: exp(1.15), whatever the size.
SHIFT = torch.tensor(1.15).exp()
# Noise level up to which windows of enlarged pictures are trained: the stages restart at 0.826.
RESTART = 0.86


# ---------------------------------------------------------------- autoencoder


def train_vae(work, minutes, sdxl):
    torch.manual_seed(SEED)
    vae = tiny_flux.start_from_sdxl(tiny_flux.new_vae(), sdxl).to(memory_format=torch.channels_last).train()
    run = Run(vae, work / "flux_vae.pt", minutes, 1.2e-3, average=0.995)
    rng = np.random.default_rng([SEED, run.steps])
    data = load_pictures(work)["rgb"]
    going = True
    while going:
        going = vae_step(run, vae, crops(rng, data, run.steps), 1e-3)


@torch.no_grad()
def latents(work):
    """The data set and its mirror image seen by the encoder, as tokens of unit deviation; cached."""
    path = work / "flux_latents.npz"
    if not path.exists():
        vae = use_mean(tiny_flux.new_vae().to(memory_format=torch.channels_last), work / "flux_vae.pt")
        data = load_pictures(work)
        z = []
        for rgb in (data["rgb"], data["rgb"][:, :, ::-1]):
            for i in range(0, len(rgb), 50):
                z.append(vae.encode(to_tensor(np.ascontiguousarray(rgb[i : i + 50]))).latent_dist.mean)
        z = torch.cat(z).contiguous()
        number, zoom = (np.concatenate([data[k]] * 2) for k in ("number", "zoom"))
        whole = z[torch.from_numpy(zoom == 1)]
        deviation = whole.std((0, 2, 3))
        shift = float((whole.mean((0, 2, 3)) / deviation).mean())
        print(f"latents: deviation {deviation}, mean {whole.mean((0, 2, 3))}")
        z = z / deviation[None, :, None, None] - shift
        np.savez(path, z=tiny_flux.pack(z).half().numpy(), deviation=deviation.numpy(), shift=shift, number=number, zoom=zoom)
    return dict(np.load(path))


# ---------------------------------------------------------------- transformer


class Batches:
    """Noisy tokens with their velocity: whole pictures at every noise level, windows of enlarged ones below RESTART."""

    def __init__(self, work, whole, zoomed):
        data = latents(work)
        self.z, self.number = torch.from_numpy(data["z"]), torch.from_numpy(data["number"])
        self.whole, self.zoomed = (torch.from_numpy(np.flatnonzero(m)) for m in (data["zoom"] == 1, data["zoom"] > 1))
        self.sizes = whole, zoomed

    def draw(self):
        picks = [of[torch.randint(len(of), (n,))] for of, n in zip((self.whole, self.zoomed), self.sizes)]
        u = torch.cat([torch.rand(self.sizes[0]), torch.rand(self.sizes[1]) * RESTART / (SHIFT - (SHIFT - 1) * RESTART)])
        sigma = SHIFT * u / (1 + (SHIFT - 1) * u)
        pick = torch.cat(picks)
        x0 = self.z[pick].float()
        noise = torch.randn_like(x0)
        s = sigma[:, None, None]
        return (1 - s) * x0 + s * noise, noise - x0, sigma, self.number[pick].clone()


def matrices(transformer):
    """The matrices inside the blocks, without those that make modulations."""
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    return [p for b in blocks for n, p in b.named_parameters() if p.ndim == 2 and not n.startswith("norm")]


def start_plain(transformer):
    """Gates of zero: every block starts as the identity, and the output as nothing."""
    for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
        for name, part in block.named_modules():
            if name.startswith("norm") and isinstance(part, torch.nn.Linear):
                torch.nn.init.zeros_(part.weight)
                torch.nn.init.zeros_(part.bias)
    for part in (transformer.norm_out.linear, transformer.proj_out):
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.zeros_(part.bias)


def mixed():
    """bf16 products on processors that have them: about twice the steps."""
    return torch.autocast("cpu", torch.bfloat16)


def train_flow(work, minutes):
    torch.manual_seed(SEED)
    tiny = tiny_flux.TinyFlux()
    start_plain(tiny.transformer)
    run = Run(tiny.train(), work / "flux_flow.pt", minutes, 2e-3, average=0.998, hidden=matrices(tiny.transformer))
    batches = Batches(work, 40, 16)
    torch.manual_seed(SEED + run.steps)
    going = True
    while going:
        x, velocity, sigma, number = batches.draw()
        # Guidance needs a model of pictures without a caption too.
        number[torch.rand(len(number)) < 0.1] = -1
        with mixed():
            out = tiny(x, sigma, *tiny.captions(number), torch.ones(len(x))).float()
        each = (out - velocity).pow(2).mean((1, 2))
        going = run.step(each.mean(), whole=each[:40].mean().detach(), zoomed=each[40:].mean().detach())


def train_guidance(work, minutes):
    """The network learns to answer in one pass what two passes of itself give with guidance 1 to 5."""
    torch.manual_seed(SEED)
    tiny = use_mean(tiny_flux.TinyFlux(), work / "flux_flow.pt")
    teacher = copy.deepcopy(tiny).requires_grad_(False)
    tiny.text.requires_grad_(False)
    tiny.text_2.requires_grad_(False)
    run = Run(tiny.transformer.train(), work / "flux_guidance.pt", minutes, 8e-4, average=0.998, hidden=matrices(tiny.transformer))
    batches = Batches(work, 40, 16)
    torch.manual_seed(SEED + run.steps)
    going = True
    while going:
        x, _, sigma, number = batches.draw()
        guidance = 1 + 4 * torch.rand(len(x))
        with mixed():
            with torch.no_grad():
                context, pooled = teacher.captions(number)
                one = torch.ones(len(x))
                with_caption = teacher(x, sigma, context, pooled, one).float()
                without = teacher(x, sigma, *teacher.captions(torch.full_like(number, -1)), one).float()
                target = without + guidance[:, None, None] * (with_caption - without)
            out = tiny(x, sigma, context, pooled, guidance).float()
        each = (out - target).pow(2).mean((1, 2))
        going = run.step(each.mean(), teacher=(target - with_caption).pow(2).mean())


def export(work, folder):
    """Averages so far; parts that have not been trained yet keep their random start."""
    torch.manual_seed(SEED)
    vae, tiny = tiny_flux.new_vae(), tiny_flux.TinyFlux()
    notes = {"made_by": "tools/train_tiny_flux.py", "seed": SEED}
    for model, name in ((vae, "flux_vae"), (tiny, "flux_flow"), (tiny.transformer, "flux_guidance")):
        if (work / f"{name}.pt").exists():
            use_mean(model, work / f"{name}.pt")
            notes[f"{name}_steps"] = torch.load(work / f"{name}.pt", weights_only=True)["steps"]
    if (work / "flux_latents.npz").exists():
        data = np.load(work / "flux_latents.npz")
        tiny_flux.even_channels(vae, torch.from_numpy(data["deviation"]))
        vae.register_to_config(shift_factor=float(data["shift"]))
    tiny_flux.write_folder(folder, tiny, vae, notes)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{folder}: {size} bytes")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("work", type=Path)
    p.add_argument("command", choices=("pictures", "vae", "flow", "guidance", "export", "count"))
    p.add_argument("dir", type=Path, nargs="?")
    p.add_argument("--minutes", type=float)
    p.add_argument("--chunks", type=int, default=18, help=f"data set size in units of {CHUNK} pictures")
    p.add_argument("--sdxl", type=Path, default="src/embedded/tiny-sdxl/vae", help="autoencoder to start from")
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    if a.command == "pictures":
        pictures(a.work, a.chunks)
    elif a.command == "vae":
        train_vae(a.work, a.minutes or 15, a.sdxl)
    elif a.command == "flow":
        train_flow(a.work, a.minutes or 50)
    elif a.command == "guidance":
        train_guidance(a.work, a.minutes or 12)
    elif a.command == "export":
        export(a.work, a.dir)
    elif a.command == "count":
        tiny_flux.count()


if __name__ == "__main__":
    main()
