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
import math
import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import tiny_sdxl
import world

SEED = 7
CHUNK = 500


# ---------------------------------------------------------------- pictures


def draw_one(index):
    """Picture `index` of the data set: RGB, scene number, zoom.

    Half of the pictures are whole. The others are windows of pictures two and
    four times as large, which teach the autoencoder to be sharp at every size and
    the U-Net what the upscaling stages look at.
    """
    rng = np.random.default_rng([SEED, index])
    scenes = world.all_scenes()
    number = int(rng.integers(len(scenes)))
    scene = world.Scene(*scenes[number], int(rng.integers(1 << 30)))
    zoom = (1, 2, 1, 4)[index % 4]
    side = 1 / zoom
    if rng.random() < 0.6:
        # near the thing, where the edges are
        x = scene.x + scene.size * rng.uniform(-0.4, 0.4)
        y = scene.y - scene.size * rng.uniform(-0.1, 1.0)
    else:
        x, y = rng.random(2)
    # Windows lie on the grid of the large picture's pixels.
    grid = 128 * zoom
    x, y = (round(float(np.clip(p - side / 2, 0, 1 - side)) * grid) / grid for p in (x, y))
    return scene.draw(128, window=(x, y, side)), number, zoom


def draw_chunk(job):
    path, first = job
    rgb, number, zoom = zip(*(draw_one(i) for i in range(first, first + CHUNK)))
    part = path.with_suffix(".part.npz")
    np.savez(part, rgb=np.stack(rgb), number=np.array(number), zoom=np.array(zoom))
    part.rename(path)
    print(path, flush=True)


def pictures(work, chunks):
    jobs = [(work / f"pictures-{c:03}.npz", c * CHUNK) for c in range(chunks)]
    with Pool(2) as pool:
        pool.map(draw_chunk, [j for j in jobs if not j[0].exists()], chunksize=1)


def load_pictures(work):
    files = [np.load(f) for f in sorted(work.glob("pictures-???.npz"))]
    return {k: np.concatenate([f[k] for f in files]) for k in ("rgb", "number", "zoom")}


def to_tensor(rgb):
    """uint8 NHWC to f32 NCHW in [-1, 1]."""
    return torch.from_numpy(rgb).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)


# ---------------------------------------------------------------- training


class Run:
    """Optimiser, cosine schedule by wall time, moving average and checkpoints.

    The schedule follows the clock, since the machine's speed is not known: after
    `minutes` of training the learning rate has come down to nothing.
    """

    def __init__(self, model, path, minutes, lr, average=0.998, decay=0.01):
        self.model, self.path, self.seconds, self.lr, self.keep = model, path, minutes * 60, lr, average
        self.params = list(model.parameters())
        self.opt = torch.optim.AdamW(self.params, lr=lr, weight_decay=decay, betas=(0.9, 0.99))
        self.mean = [p.detach().clone() for p in self.params]
        self.steps, self.used = 0, 0.0
        if path.exists():
            s = torch.load(path, weights_only=True)
            model.load_state_dict(s["model"])
            self.opt.load_state_dict(s["opt"])
            self.mean = [m.detach() for m in s["mean"]]
            self.steps, self.used = s["steps"], s["used"]
        self.clock = self.saved = self.told = time.time()
        self.sums, self.count = {}, 0

    def save(self):
        state = {"model": self.model.state_dict(), "opt": self.opt.state_dict(), "mean": self.mean, "steps": self.steps, "used": self.used}
        torch.save(state, self.path.with_suffix(".part"))
        self.path.with_suffix(".part").rename(self.path)

    def step(self, loss, **parts):
        """One update. False when the time is up."""
        now = time.time()
        # A pause of the machine is not training time.
        self.used, self.clock = self.used + min(now - self.clock, 2), now
        done = min(self.used / self.seconds, 1)
        rate = self.lr * min(1, (self.steps + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in self.opt.param_groups:
            group["lr"] = rate
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.opt.step()
        self.steps += 1
        keep = min(self.keep, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(self.mean, self.params, 1 - keep)
        for k, v in {"loss": loss.detach(), **parts}.items():
            self.sums[k] = self.sums.get(k, 0) + v.item()
        self.count += 1
        if now - self.told > 30:
            text = " ".join(f"{k} {v / self.count:.5f}" for k, v in self.sums.items())
            print(f"{self.used / 60:5.1f} min step {self.steps} {(now - self.told) / self.count:.3f} s/step lr {rate:.1e} {text}", flush=True)
            self.sums, self.count, self.told = {}, 0, now
        if now - self.saved > 120 or done >= 1:
            self.save()
            self.saved = time.time()
        return done < 1


def use_mean(model, path):
    """Loads the moving average of a run into the model."""
    s = torch.load(path, weights_only=True)
    model.load_state_dict(s["model"])
    with torch.no_grad():
        for p, m in zip(model.parameters(), s["mean"]):
            p.copy_(m)
    print(f"{path}: {s['steps']} steps, {s['used'] / 60:.1f} min")
    return model.eval()


# ---------------------------------------------------------------- autoencoder


def slopes(x):
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def vae_loss(out, x):
    """Squared difference, plus difference, of slopes (edges) and of local contrast.

    The square teaches colours, the others sharpness. The contrast compares the mean
    slope of small patches: it asks for texture of the right strength even where its
    exact place is lost in the latents.
    """
    flat = (out - x).abs().mean()
    edge = contrast = 0
    for a, b in zip(slopes(out), slopes(x)):
        edge = edge + (a - b).abs().mean()
        contrast = contrast + (F.avg_pool2d(a.abs(), 6, 3) - F.avg_pool2d(b.abs(), 6, 3)).abs().mean()
    return 2 * (out - x).pow(2).mean() + 0.5 * (flat + edge + contrast), flat, contrast


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
        # Now and then a larger crop: the middle attention has to bear more tokens.
        size, batch = (64, 4) if run.steps % 8 else (128, 1)
        crops = []
        for i in rng.integers(len(data), size=batch):
            y, x = rng.integers(0, 129 - size, size=2)
            crop = data[i, y : y + size, x : x + size]
            crops.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
        x = to_tensor(np.stack(crops))
        posterior = vae.encode(x).latent_dist
        loss, flat, contrast = vae_loss(vae.decode(posterior.sample()).sample, x)
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        going = run.step(loss + 3e-4 * kl, flat=flat.detach(), contrast=contrast.detach(), kl=kl.detach())


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
