"""What the training scripts share: the data set, the training loop, the picture loss."""

import math
import time
from multiprocessing import Pool

import numpy as np
import torch
import torch.nn.functional as F

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

    def __init__(self, model, path, minutes, lr, average=0.998, decay=0.01, hidden=()):
        """`hidden`: the matrices that Muon moves instead of Adam, at an equal rate."""
        self.model, self.path, self.seconds, self.lr, self.keep = model, path, minutes * 60, lr, average
        self.params = list(model.parameters())
        chosen = {id(p) for p in hidden}
        others = [p for p in self.params if id(p) not in chosen]
        self.opts = [torch.optim.AdamW(others, lr=lr, weight_decay=decay, betas=(0.9, 0.99))]
        if chosen:
            self.opts.append(torch.optim.Muon(hidden, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
        self.mean = [p.detach().clone() for p in self.params]
        self.steps, self.used = 0, 0.0
        if path.exists():
            s = torch.load(path, weights_only=True)
            model.load_state_dict(s["model"])
            for o, kept in zip(self.opts, s["opts"]):
                o.load_state_dict(kept)
            self.mean = [m.detach() for m in s["mean"]]
            self.steps, self.used = s["steps"], s["used"]
        self.clock = self.saved = self.told = time.time()
        self.sums, self.count = {}, 0

    def save(self):
        state = {"model": self.model.state_dict(), "opts": [o.state_dict() for o in self.opts], "mean": self.mean, "steps": self.steps, "used": self.used}
        torch.save(state, self.path.with_suffix(".part"))
        self.path.with_suffix(".part").rename(self.path)

    def step(self, loss, **parts):
        """One update. False when the time is up."""
        now = time.time()
        # A pause of the machine is not training time.
        self.used, self.clock = self.used + min(now - self.clock, 2), now
        done = min(self.used / self.seconds, 1)
        rate = self.lr * min(1, (self.steps + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        for o in self.opts:
            for group in o.param_groups:
                group["lr"] = rate
            o.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        for o in self.opts:
            o.step()
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


def vae_step(run, vae, x, weight):
    """One update of an autoencoder on pictures `x`; `weight` of the latents' distance from unit normals."""
    posterior = vae.encode(x).latent_dist
    loss, flat, contrast = vae_loss(vae.decode(posterior.sample()).sample, x)
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    return run.step(loss + weight * kl, flat=flat.detach(), contrast=contrast.detach(), kl=kl.detach())


def crops(rng, data, step):
    """A batch of mirrored or plain parts of pictures. Now and then a larger one: the middle attention has to bear
    more tokens."""
    size, batch = (64, 4) if step % 8 else (128, 1)
    made = []
    for i in rng.integers(len(data), size=batch):
        y, x = rng.integers(0, 129 - size, size=2)
        crop = data[i, y : y + size, x : x + size]
        made.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return to_tensor(np.stack(made))
