"""Samples the tiny SDXL model in Python, the ScaleDiff cascade included, and judges it.

    python tools/check_tiny.py MODEL OUT --count 60 --stages 2

An independent, plain implementation on top of diffusers' networks, good for tuning
the model's defaults and for a second opinion on the engine. OUT receives the pictures
of every stage, a prompts.json beside them and a contact sheet. Weights are the
f16 ones of the model folder, arithmetic is in f32.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionXLPipeline
from PIL import Image

import check_world
import tiny_sdxl
import world


class WindowedAttention:
    """Neighbourhood-patch self-attention: queries of half a window, keys of a window.

    At the base size, where the grid is one window, it is ordinary attention.
    """

    def __init__(self, window):
        self.window = window

    def __call__(self, attn, x, encoder_hidden_states=None, **_):
        b, n, c = x.shape
        side, w = int(n**0.5), min(self.window, int(n**0.5))
        step = side if side == w else w // 2
        q, k, v = (f(x).view(b, side, side, attn.heads, -1) for f in (attn.to_q, attn.to_k, attn.to_v))
        out = torch.empty_like(q)

        def flat(t):
            return t.flatten(1, 2).transpose(1, 2)

        for y in range(0, side, step):
            for z in range(0, side, step):
                ky, kz = (min(max(o - w // 4, 0), side - w) for o in (y, z))
                keys = (slice(None), slice(ky, ky + w), slice(kz, kz + w))
                part = F.scaled_dot_product_attention(flat(q[:, y : y + step, z : z + step]), flat(k[keys]), flat(v[keys]))
                out[:, y : y + step, z : z + step] = part.transpose(1, 2).reshape(b, step, step, attn.heads, -1)
        return attn.to_out[0](out.flatten(3).flatten(1, 2))


def set_windows(unet, base):
    """The window of a level is the side of its grid at the base size."""
    for name, module in unet.named_modules():
        if name.endswith("attn1"):
            level = 1 if name.startswith(("down_blocks.1", "up_blocks.1")) else 2
            module.set_processor(WindowedAttention(base >> level))


def low_pass(x, factor):
    small = [int(n * factor) for n in x.shape[-2:]]
    low = F.interpolate(x, size=small, mode="bilinear", antialias=True)
    return F.interpolate(low, size=x.shape[-2:], mode="bilinear")


def double(x):
    return F.interpolate(x, scale_factor=2, mode="bicubic")


class Sampler:
    def __init__(self, folder, **changes):
        self.pipe = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)
        self.set = {**json.loads((Path(folder) / "scalediff.json").read_text()), **{k: v for k, v in changes.items() if v is not None}}
        self.base = self.pipe.unet.config.sample_size
        self.scale = self.pipe.vae.config.scaling_factor
        set_windows(self.pipe.unet, self.base)

    def decode(self, z):
        return torch.cat([self.pipe.vae.decode(one / self.scale).sample for one in z.split(4)])

    def encode(self, image, random):
        found = [self.pipe.vae.encode(one).latent_dist for one in image.split(4)]
        return torch.cat([d.sample(random) for d in found]) * self.scale

    def denoise(self, z, embeds, first, reference=None):
        """Steps `first`.. of the schedule; z is in the sigma convention."""
        s, sched = self.set, self.pipe.scheduler
        context, empty, pooled, empty_pooled = embeds
        ids = torch.tensor([tiny_sdxl.TIME_IDS], dtype=torch.float32).expand(2 * len(z), 6)
        added = {"text_embeds": torch.cat([empty_pooled, pooled]), "time_ids": ids}
        abar = sched.alphas_cumprod
        times = sched.timesteps.long()
        for i in range(first, s["steps"]):
            sigma, after, t = sched.sigmas[i], sched.sigmas[i + 1], times[i]
            x = z / (sigma**2 + 1).sqrt()
            eps = self.pipe.unet(x.repeat(2, 1, 1, 1), t, torch.cat([empty, context]), added_cond_kwargs=added).sample
            un, co = eps.chunk(2)
            x0 = z - sigma * (un + s["cfg_scale"] * (co - un))
            if reference is not None:
                g = (1 - abar[t]) / (1 - abar[times[first]])
                x0 = x0 + g * (low_pass(reference, s["scale_factor"]) - low_pass(x0, s["scale_factor"]))
            z = x0 + after / sigma * (z - x0)
        return z

    @torch.no_grad()
    def __call__(self, prompts, seed):
        """Pictures in about [-1, 1] of every stage."""
        s, random = self.set, torch.Generator().manual_seed(seed)
        embeds = self.pipe.encode_prompt(prompts, device="cpu", do_classifier_free_guidance=True)
        self.pipe.scheduler.set_timesteps(s["steps"])
        sched = self.pipe.scheduler
        z = torch.randn(len(prompts), 4, self.base, self.base, generator=random) * sched.init_noise_sigma
        z = self.denoise(z, embeds, 0)
        image = self.decode(z)
        yield image
        first = int(s["steps"] * (1 - s["restart_ratio"]))
        for _ in range(s["stages"]):
            up, again = double(z), self.encode(double(image), random)
            reference = again + low_pass(up, s["scale_factor"]) - low_pass(again, s["scale_factor"])
            z = reference + sched.sigmas[first] * torch.randn(reference.shape, generator=random)
            z = self.denoise(z, embeds, first, reference)
            image = self.decode(z)
            yield image


def to_rgb(image):
    return ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("model", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--count", type=int, default=60)
    p.add_argument("--stages", type=int)
    p.add_argument("--steps", type=int)
    p.add_argument("--cfg-scale", type=float)
    p.add_argument("--restart-ratio", type=float)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    sampler = Sampler(a.model, stages=a.stages, steps=a.steps, cfg_scale=a.cfg_scale, restart_ratio=a.restart_ratio)
    scenes = world.all_scenes()
    order = np.random.default_rng(a.seed).permutation(len(scenes))
    prompts = [world.prompt_of(*scenes[order[i % len(order)]]) for i in range(a.count)]
    start, found = time.time(), {}
    for first in range(0, a.count, 12):
        for stage, image in enumerate(sampler(prompts[first : first + 12], a.seed + first)):
            found.setdefault(stage, []).extend(to_rgb(image))
    print(f"{a.count} prompts in {time.time() - start:.0f} s, {sampler.set}")
    judge = check_world.load() if check_world.FILE.exists() else None
    for stage, pictures in found.items():
        folder = a.out / f"stage-{stage}"
        folder.mkdir(parents=True, exist_ok=True)
        names = {f"{i:03}.png": prompt for i, prompt in enumerate(prompts)}
        for name, rgb in zip(names, pictures):
            Image.fromarray(rgb).save(folder / name)
        (folder / "prompts.json").write_text(json.dumps(names, indent=1))
        if judge:
            answers = judge.answer(pictures)
            check_world.report(f"stage {stage}, own prompt", answers, prompts)
            check_world.report(f"stage {stage}, other prompt", answers, check_world.other_prompts(prompts))
        across = min(len(pictures), max(2, 1280 // pictures[0].shape[1]))
        rows = [np.concatenate(pictures[i : i + across], 1) for i in range(0, len(pictures) - across + 1, across)][:8]
        Image.fromarray(np.concatenate(rows)).save(a.out / f"sheet-{stage}.png")


if __name__ == "__main__":
    main()
