"""What is measured of one 512 x 512 picture, and of sets of them. Pictures are RGB uint8 arrays."""

import json
from pathlib import Path

import numpy as np

def folder_of(model):
    """The embedded model of this name."""
    return Path(__file__).parents[2] / "src" / "embedded" / model


def luma(rgb):
    return rgb.astype(np.float64) @ (0.299, 0.587, 0.114)


# ---- seams ---------------------------------------------------------------------------------------


def block_side(model):
    """Pixels between the borders of query blocks, at every level with attention: the finest such grid."""
    model = folder_of(model)
    if (model / "transformer").exists():
        # Windows of the base picture, in blocks of half of that.
        return {json.loads((model / "vae" / "config.json").read_text())["sample_size"] // 2}
    unet = json.loads((model / "unet" / "config.json").read_text())
    vae = json.loads((model / "vae" / "config.json").read_text())
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    sides = set()
    for level, kind in enumerate(unet["down_block_types"]):
        if "CrossAttn" in kind:
            grid = unet["sample_size"]
            for _ in range(level):
                grid = -(-grid // 2)
            sides.add(max(grid // 2, 1) * 2**level * factor)
    return sides


def second_difference(grey, at):
    """Mean |second difference| down the columns at the two rows that meet at `at`."""
    rows = grey[at - 2 : at + 2]
    return np.abs(np.diff(rows, 2, axis=0)).mean()


def unit_of(model):
    """Pixels to the side of what the denoiser sees as one: a latent (8) or a token of 2 x 2 latents (16)."""
    return 16 if (folder_of(model) / "transformer").exists() else 8


def seam(rgb, sides, unit):
    """How much rougher a picture is across the borders of query blocks than one and two units beside.

    Those neighbours have the same phase in the grid of latents or tokens. About 1 without seams.
    """
    grey = luma(rgb)
    here, beside = [], []
    for axis in (grey, grey.T):
        for side in sides:
            for border in range(side, len(axis), side):
                here.append(second_difference(axis, border))
                beside += [second_difference(axis, border + d) for d in (-2 * unit, -unit, unit, 2 * unit)]
    return float(np.mean(here) / max(np.mean(beside), 1e-9))


# ---- detail and colour -----------------------------------------------------------------------------


def high_band(rgb, cutoff=0.125):
    """Power of the luma above `cutoff` cycles per pixel: what a base picture of 128 pixels cannot hold."""
    grey = luma(rgb)
    h, w = grey.shape
    taper = np.hanning(h)[:, None] * np.hanning(w)
    power = np.abs(np.fft.fft2((grey - grey.mean()) * taper)) ** 2
    radius = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w))
    return float(power[radius > cutoff].sum() / (taper**2).sum() / (h * w))


def lab(rgb):
    """CIELAB (D65) of sRGB pixels."""
    v = rgb.astype(np.float64) / 255
    v = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    xyz = v @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    t = xyz / (0.9505, 1.0, 1.089)
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def drift(base, rgb):
    """Distance of the two pictures' mean colours in CIELAB."""
    return float(np.linalg.norm(lab(base).mean((0, 1)) - lab(rgb).mean((0, 1))))


# ---- Fréchet distance ------------------------------------------------------------------------------


def features(rgb, levels=5):
    """15 numbers by hand: log mean amplitude of the five finest octaves of a Laplacian pyramid of three
    opponent channels. They tell sharpness, texture, grain and colourfulness; where things are they do not."""
    v = rgb.astype(np.float64)
    planes = np.stack([luma(rgb), v[..., 0] - v[..., 1], v[..., 2] - (v[..., 0] + v[..., 1]) / 2], -1)
    out = []
    for _ in range(levels):
        h, w, c = planes.shape
        small = planes.reshape(h // 2, 2, w // 2, 2, c).mean((1, 3))
        band = np.abs(planes - small.repeat(2, 0).repeat(2, 1))
        out += list(np.log(band.mean((0, 1)) + 0.05))
        planes = small
    return np.array(out)


def frechet(a, b):
    """Fréchet distance of two sets of feature rows, as Gaussians, in units of b's deviations."""
    mean, deviation = b.mean(0), b.std(0) + 1e-6
    a, b = (a - mean) / deviation, (b - mean) / deviation
    ca, cb = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(cb)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ ca @ root), 0, None)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * cross)


# ---- intervals -------------------------------------------------------------------------------------


def bootstrap(statistic, count, times=1000, centre=False, seed=5):
    """95 % interval of `statistic(indices)` over `count` pictures, resampled.

    `centre` shifts it so that the resamples' mean lies on the value: repeated pictures bias a Fréchet
    distance upwards.
    """
    rng = np.random.default_rng(seed)
    values = np.array([statistic(rng.integers(count, size=count)) for _ in range(times)])
    shift = statistic(np.arange(count)) - values.mean() if centre else 0
    low, high = np.percentile(values, (2.5, 97.5)) + shift
    return float(low), float(high)
