"""Trains the embedded tiny model: the SDXL architecture on pictures of tools/world.py.

    python tools/train_tiny_sdxl.py WORK pictures     draw the data set
    python tools/train_tiny_sdxl.py WORK vae          train the autoencoder
    python tools/train_tiny_sdxl.py WORK decoder      train the decoder further, beside the U-Net
    python tools/train_tiny_sdxl.py WORK unet         train the U-Net and the text encoders
    python tools/train_tiny_sdxl.py WORK export DIR   write a diffusers folder in f16
    python tools/train_tiny_sdxl.py WORK flops        count parameters and operations

Everything lives under WORK and every step resumes where it was stopped. Two CPU
cores need about an hour. The schedules follow the clock, so a busy machine gives a
weaker model: raise --minutes there. `check_tiny.py` judges the result.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import tiny_sdxl
from training import CHUNK, SEED, Run, crops, load_pictures, pictures, to_tensor, use_mean, vae_step


# ---------------------------------------------------------------- autoencoder


def train_vae(work, minutes, decoder_only=False):
    """First the whole autoencoder; then, the latents being settled, the decoder alone.

    The second part can run while the U-Net trains.
    """
    torch.manual_seed(SEED)
    vae = tiny_sdxl.start_with_colours(tiny_sdxl.new_vae()).to(memory_format=torch.channels_last).train()
    part, path = vae, work / "vae.pt"
    if decoder_only:
        use_mean(vae, path)
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
        part, path = torch.nn.ModuleList([vae.post_quant_conv, vae.decoder]), work / "decoder.pt"
    run = Run(part, path, minutes, 1.2e-3, average=0.995)
    rng = np.random.default_rng([SEED, decoder_only, run.steps])
    data = load_pictures(work)["rgb"]
    going = True
    while going:
        going = vae_step(run, vae, crops(rng, data, run.steps), 3e-4)


# ---------------------------------------------------------------- latents and U-Net


@torch.no_grad()
def latents(work):
    """The data set seen by the encoder, scaled to unit deviation; cached."""
    path = work / "latents.npz"
    if not path.exists():
        vae = use_mean(tiny_sdxl.new_vae().to(memory_format=torch.channels_last), work / "vae.pt")
        data = load_pictures(work)
        z = [vae.encode(to_tensor(data["rgb"][i : i + 50])).latent_dist.mean for i in range(0, len(data["rgb"]), 50)]
        z = torch.cat(z).contiguous().numpy()
        # The whole pictures set the scale.
        scale = float(1 / z[data["zoom"] == 1].std())
        print(f"latents: scale {scale:.5f}, deviation {z.std((0, 2, 3)) * scale}, mean {z.mean((0, 2, 3)) * scale}")
        np.savez(path, z=z * scale, scale=scale, number=data["number"], zoom=data["zoom"])
    return dict(np.load(path))


def signal():
    """Square root of alpha-bar and of its complement at every timestep."""
    abar = tiny_sdxl.new_scheduler().alphas_cumprod
    return abar.sqrt(), (1 - abar).sqrt()


def train_unet(work, minutes):
    torch.manual_seed(SEED)
    data = latents(work)
    z, number = torch.from_numpy(data["z"]), torch.from_numpy(data["number"])
    whole, zoomed = (torch.from_numpy(np.flatnonzero(m)) for m in (data["zoom"] == 1, data["zoom"] > 1))
    tiny = tiny_sdxl.TinySdxl()
    # Branches that add nothing at first: learning starts from a plain stream.
    for m in tiny.unet.modules():
        for last in ("conv2", "proj_out"):
            if hasattr(m, last):
                torch.nn.init.zeros_(getattr(m, last).weight)
    torch.nn.init.zeros_(tiny.unet.conv_out.weight)
    tiny = tiny.to(memory_format=torch.channels_last).train()
    run = Run(tiny, work / "unet.pt", minutes, 1.2e-3, average=0.996)
    torch.manual_seed(SEED + run.steps)
    a, s = signal()
    # Signal-to-noise weight, which keeps the easy low noise levels from dominating.
    weight = torch.clamp((a / s) ** 2, max=5) / (a / s) ** 2
    going = True
    while going:
        # Whole pictures at every noise level. Windows of enlarged pictures only where
        # the upscaling stages work, which restart at t = 351; the size conditioning is
        # the same for both because it is the same at run time.
        pick = torch.cat([whole[torch.randint(len(whole), (12,))], zoomed[torch.randint(len(zoomed), (6,))]])
        t = torch.cat([torch.randint(1000, (12,)), torch.randint(420, (6,))])
        x0, caption = z[pick], number[pick].clone()
        # Guidance needs a model of pictures without a caption too.
        caption[torch.rand(len(pick)) < 0.12] = -1
        noise = torch.randn_like(x0)
        x = a[t, None, None, None] * x0 + s[t, None, None, None] * noise
        out = tiny(x.contiguous(memory_format=torch.channels_last), t, *tiny.captions(caption))
        each = (out - noise).pow(2).mean((1, 2, 3))
        going = run.step((weight[t] * each).mean(), whole=each[:12].mean().detach(), zoomed=each[12:].mean().detach())


def export(work, folder):
    """Averages so far; parts that have not been trained yet keep their random start."""
    torch.manual_seed(SEED)
    vae, tiny = tiny_sdxl.new_vae(), tiny_sdxl.TinySdxl()
    notes = {"made_by": "tools/train_tiny_sdxl.py", "seed": SEED}
    decoder = torch.nn.ModuleList([vae.post_quant_conv, vae.decoder])
    for model, name in ((vae, "vae"), (decoder, "decoder"), (tiny, "unet")):
        if (work / f"{name}.pt").exists():
            use_mean(model, work / f"{name}.pt")
            notes[f"{name}_steps"] = torch.load(work / f"{name}.pt", weights_only=True)["steps"]
    if (work / "latents.npz").exists():
        vae.register_to_config(scaling_factor=float(np.load(work / "latents.npz")["scale"]))
    tiny_sdxl.write_folder(folder, tiny, vae, notes)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{folder}: {size} bytes")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("work", type=Path)
    p.add_argument("command", choices=("pictures", "vae", "decoder", "unet", "export", "flops"))
    p.add_argument("dir", type=Path, nargs="?")
    p.add_argument("--minutes", type=float)
    p.add_argument("--chunks", type=int, default=18, help=f"data set size in units of {CHUNK} pictures")
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    if a.command == "pictures":
        pictures(a.work, a.chunks)
    elif a.command == "vae":
        train_vae(a.work, a.minutes or 9)
    elif a.command == "decoder":
        train_vae(a.work, a.minutes or 28, decoder_only=True)
    elif a.command == "unet":
        train_unet(a.work, a.minutes or 30)
    elif a.command == "export":
        export(a.work, a.dir)
    elif a.command == "flops":
        tiny_sdxl.count()


if __name__ == "__main__":
    main()
