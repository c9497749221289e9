"""The little world that the tiny models are trained on, drawn by formula.

Every picture shows one thing on one ground under one sky, for example
"a red house on snow under a night sky". A scene is fixed by its prompt and a
seed and lives in continuous coordinates, so that it has the same composition at
every size: the same scene drawn larger simply has sharper edges and finer
detail. Any window of a picture can be drawn alone, which makes zoomed training
crops as cheap as whole pictures.

    python tools/world.py out.png --prompt "a blue ball on sand under a day sky" --size 512
"""

import argparse
import copy
import zlib

import numpy as np

THINGS = ("house", "tower", "ball")
COLOURS = ("red", "blue", "yellow", "white", "purple")
GROUNDS = ("grass", "sand", "snow")
SKIES = ("day", "sunset", "night")

PAINT = {
    "red": (0.88, 0.10, 0.10),
    "blue": (0.10, 0.34, 0.92),
    "yellow": (1.00, 0.83, 0.08),
    "white": (0.98, 0.98, 0.96),
    "purple": (0.58, 0.16, 0.74),
    "green": (0.07, 0.42, 0.17),
}


def prompt_of(thing, colour, ground, sky):
    return f"a {colour} {thing} on {ground} under a {sky} sky"


def all_scenes():
    """The 144 (thing, colour, ground, sky) combinations, trees being green."""
    kinds = [(t, c) for t in THINGS for c in COLOURS] + [("tree", "green")]
    return [(t, c, g, s) for t, c in kinds for g in GROUNDS for s in SKIES]


def parse(prompt):
    """Inverse of prompt_of."""
    w = prompt.split()
    return w[2], w[1], w[4], w[7]


def smooth(edge0, edge1, x):
    t = np.clip((x - edge0) / (edge1 - edge0), 0, 1)
    return t * t * (3 - 2 * t)


class Canvas:
    """Pixel centres of one window in scene units, and painting with soft edges.

    (0, 0) is the upper left and (1, 1) the lower right corner of a square
    picture. `px` is the size of a sample, the width of an antialiased edge.
    """

    def __init__(self, width, height, window, oversample):
        # In a picture that is not square the scene fills the shorter side.
        x0, y0, extent = window
        n = min(width, height) * oversample
        self.px = extent / n
        w, h = width * oversample, height * oversample
        u = x0 + (np.arange(w, dtype=np.float32) + 0.5 - (w - n) / 2) * self.px
        v = y0 + (np.arange(h, dtype=np.float32) + 0.5 - (h - n) / 2) * self.px
        self.u, self.v = np.meshgrid(u.astype(np.float32), v.astype(np.float32))
        self.rgb = np.zeros((h, w, 3), np.float32)

    def part(self, u0, v0, u1, v1):
        """The part of the canvas that a small thing can touch (faster)."""
        pad = 2 * self.px
        x = np.searchsorted(self.u[0], (u0 - pad, u1 + pad))
        y = np.searchsorted(self.v[:, 0], (v0 - pad, v1 + pad))
        part = copy.copy(self)
        part.u, part.v, part.rgb = (a[y[0] : y[1], x[0] : x[1]] for a in (self.u, self.v, self.rgb))
        return part

    def cover(self, distance):
        """Coverage of the region where a signed distance is negative."""
        return np.clip(0.5 - distance / self.px, 0, 1)

    def paint(self, alpha, colour):
        self.rgb += alpha[..., None] * (np.asarray(colour, np.float32) - self.rgb)

    def finish(self, oversample):
        h, w, _ = self.rgb.shape
        k = oversample
        mean = self.rgb.reshape(h // k, k, w // k, k, 3).mean((1, 3))
        return (np.clip(mean, 0, 1) * 255 + 0.5).astype(np.uint8)


class Noise:
    """Smooth periodic value noise over a seeded lattice of fixed size."""

    def __init__(self, rng, n=64):
        self.n = n
        self.table = rng.random((n, n), dtype=np.float32)

    def __call__(self, x, y):
        fx, fy = np.floor(x), np.floor(y)
        ix, iy = fx.astype(np.int32) % self.n, fy.astype(np.int32) % self.n
        jx, jy = (ix + 1) % self.n, (iy + 1) % self.n
        tx, ty = x - fx, y - fy
        tx, ty = tx * tx * (3 - 2 * tx), ty * ty * (3 - 2 * ty)
        t = self.table
        top = t[iy, ix] + tx * (t[iy, jx] - t[iy, ix])
        low = t[jy, ix] + tx * (t[jy, jx] - t[jy, ix])
        return top + ty * (low - top)


def box(u, v, cx, cy, hw, hh):
    """Signed distance of an axis-aligned box with half sizes hw, hh."""
    return np.maximum(np.abs(u - cx) - hw, np.abs(v - cy) - hh)


def disc(u, v, cx, cy, r, squash=1.0):
    return np.hypot(u - cx, (v - cy) / squash) - r


def mix(a, b, t):
    return np.asarray(a, np.float32) * (1 - t) + np.asarray(b, np.float32) * t


class Scene:
    """One picture: `draw` renders it, or a window of it, at any size."""

    def __init__(self, thing, colour, ground, sky, seed):
        self.thing, self.colour, self.ground, self.sky = thing, colour, ground, sky
        self.prompt = prompt_of(thing, colour, ground, sky)
        # All the random choices are made here, so they cannot depend on the size.
        rng = np.random.default_rng([seed, zlib.crc32(self.prompt.encode())])
        r = rng.uniform
        self.horizon = r(0.52, 0.62)
        self.hills = [(r(0.02, 0.06), r(3, 7), r(0, 6.3)), (r(0.01, 0.02), r(9, 15), r(0, 6.3))]
        self.side = rng.choice([-1, 1])  # where the light comes from
        self.light_x = 0.5 + self.side * r(0.22, 0.38)
        self.light_y = r(0.12, 0.24) if sky != "sunset" else self.horizon - r(0.07, 0.16)
        self.clouds = [(r(0, 1), r(0.08, 0.36), r(0.07, 0.13)) for _ in range(3)]
        self.stars = [(r(0, 1), r(0, 0.5), r(0.006, 0.012)) for _ in range(26)]
        size = {"house": (0.26, 0.36), "tower": (0.44, 0.58), "ball": (0.26, 0.38), "tree": (0.44, 0.56)}
        self.size = r(*size[thing])
        self.x = r(0.33, 0.67)
        self.y = self.horizon + r(0.13, 0.25)  # where the thing touches the ground
        self.noise = Noise(rng)
        self.blobs = [(r(-1, 1), r(-1, 1), r(0.8, 1.1)) for _ in range(6)]

    def draw(self, width, height=None, window=(0.0, 0.0, 1.0), oversample=2):
        """An RGB uint8 picture of `window` = (left, top, side) of the scene."""
        c = Canvas(width, height or width, window, oversample)
        self._sky(c)
        self._hills(c)
        self._ground(c)
        self._shadow(c)
        reach = 0.75 * self.size if self.thing in ("house", "ball") else 0.45 * self.size
        getattr(self, "_" + self.thing)(c.part(self.x - reach, self.y - 1.2 * self.size, self.x + reach, self.y + 0.02))
        return c.finish(oversample)

    def _lit(self, colour, strength=1.0):
        """A surface colour in the light of this sky."""
        tint = {"day": (1, 1, 1), "sunset": (1.0, 0.80, 0.68), "night": (0.46, 0.52, 0.68)}[self.sky]
        return np.asarray(colour, np.float32) * np.asarray(tint, np.float32) * strength

    def _sky(self, c):
        top, low = {
            "day": ((0.16, 0.48, 0.94), (0.72, 0.90, 1.00)),
            "sunset": ((0.42, 0.16, 0.46), (1.00, 0.62, 0.22)),
            "night": ((0.02, 0.02, 0.10), (0.10, 0.14, 0.36)),
        }[self.sky]
        t = np.clip(c.v / self.horizon, 0, 1)[..., None]
        c.rgb[:] = mix(top, low, t)
        x, y = self.light_x, self.light_y
        if self.sky == "day":
            d = disc(c.u, c.v, x, y, 0)
            c.paint(0.55 * np.exp(-((d / 0.11) ** 2)), (1, 0.98, 0.75))
            c.paint(c.cover(d - 0.062), (1.0, 0.90, 0.25))
            for cx, cy, s in self.clouds:
                # a cloud is three discs above a flat base
                d = np.minimum(disc(c.u, c.v, cx, cy, 0.42 * s), disc(c.u, c.v, cx - 0.5 * s, cy + 0.12 * s, 0.3 * s))
                d = np.minimum(d, disc(c.u, c.v, cx + 0.52 * s, cy + 0.1 * s, 0.32 * s))
                d = np.maximum(d, c.v - cy - 0.28 * s)
                c.paint(c.cover(d), mix((1, 1, 1), (0.80, 0.87, 0.95), smooth(cy, cy + 0.3 * s, c.v)[..., None]))
        elif self.sky == "sunset":
            for cx, cy, s in self.clouds:
                # long thin streaks lit from below
                d = disc(c.u, c.v, cx, cy + 0.06, 1.5 * s, 0.09)
                c.paint(c.cover(d), (0.93, 0.42, 0.38))
            d = disc(c.u, c.v, x, y, 0)
            c.paint(0.7 * np.exp(-((d / 0.15) ** 2)), (1, 0.82, 0.35))
            c.paint(c.cover(d - 0.085), (1.0, 0.36, 0.12))
        else:
            for sx, sy, s in self.stars:
                # four-pointed: the sum of root distances makes the star's arms
                part = c.part(sx - s, sy - s, sx + s, sy + s)
                du, dv = np.abs(part.u - sx), np.abs(part.v - sy)
                arm = (np.sqrt(du) + np.sqrt(dv)) ** 2 - s
                part.paint(part.cover(arm), (0.95, 0.96, 1.0))
                part.paint(part.cover(np.hypot(du, dv) - 0.35 * s), (1, 1, 1))
            d = disc(c.u, c.v, x, y, 0)
            c.paint(0.35 * np.exp(-((d / 0.10) ** 2)), (0.5, 0.55, 0.8))
            crescent = np.maximum(d - 0.062, 0.052 - disc(c.u, c.v, x - 0.03 * self.side, y - 0.012, 0))
            c.paint(c.cover(crescent), (0.98, 0.96, 0.82))

    def _hills(self, c):
        base = {"grass": (0.22, 0.50, 0.30), "sand": (0.80, 0.60, 0.36), "snow": (0.70, 0.79, 0.92)}[self.ground]
        for k, lift in ((0, 0.05), (1, 0.015)):
            # a far range in haze, then a near one
            y = self.horizon - lift
            for a, f, p in self.hills:
                y = y - a * (0.5 + 0.5 * np.sin(f * (c.u * (1 + 0.35 * k)) + p + 2.1 * k))
            colour = mix(self._lit(base), c.rgb, 0.45 - 0.3 * k)
            c.paint(c.cover(y - c.v), colour)
            if self.ground == "snow" and k == 0:
                continue
            # the crest catches the light
            c.paint(c.cover(np.abs(c.v - y - 0.004) - 0.004) * 0.5, self._lit(base, 1.25))

    def _ground(self, c):
        depth = np.maximum(c.v - self.horizon, 0) + 0.10
        # Perspective: the texture shrinks towards the horizon.
        x, z = (c.u - 0.5) / depth, np.log(depth)
        n = self.noise
        broad = n(x * 1.5 + 7, z * 5 + 3)
        if self.ground == "grass":
            colour = mix((0.16, 0.52, 0.12), (0.38, 0.72, 0.20), broad[..., None])
            blade = n(x * 16, z * 14) - 0.5 + 0.5 * (n(x * 40 + 11, z * 30) - 0.5)
            colour = colour * (1 + 0.56 * np.clip(2.2 * blade, -0.5, 0.5))[..., None]
        elif self.ground == "sand":
            colour = mix((0.86, 0.68, 0.38), (0.98, 0.86, 0.58), broad[..., None])
            wave = np.sin(26 * z + 3.0 * n(x * 1.8, z * 4 + 20) + 1.2 * x)
            ripple = smooth(0.35, 0.95, wave) - 0.6 * smooth(0.35, 0.95, -wave)
            colour = colour * (1 - 0.20 * ripple)[..., None]
        else:
            drift = smooth(0.40, 0.60, n(x * 1.1, z * 6 + 9))
            colour = mix((0.76, 0.85, 0.97), (0.97, 0.98, 1.0), drift[..., None])
            spark = smooth(0.86, 0.95, n(x * 26 + 5, z * 22))
            colour = mix(colour, (0.62, 0.73, 0.93), 0.6 * spark[..., None])
        colour = self._lit(colour) * (0.86 + 0.30 * np.clip(depth - 0.1, 0, 0.5))[..., None]
        c.paint(c.cover(self.horizon - c.v), colour)

    def _shadow(self, c):
        wide = {"house": 0.62, "tower": 0.26, "ball": 0.5, "tree": 0.36}[self.thing] * self.size
        x = self.x - self.side * wide * 0.45
        d = disc(c.u, c.v, x, self.y - 0.004, 0, 0.22) / (wide * 1.25)
        c.rgb *= (1 - 0.5 * smooth(1.05, 0.75, d))[..., None]

    def _face(self, colour, strength=1.0):
        # Things are tinted less than the ground, so that their colours stay clear.
        tint = {"day": (1, 1, 1), "sunset": (1.0, 0.90, 0.80), "night": (0.72, 0.74, 0.80)}[self.sky]
        return np.asarray(colour, np.float32) * np.asarray(tint, np.float32) * strength

    def _house(self, c):
        s, x, y = self.size, self.x, self.y
        colour, roof = PAINT[self.colour], (0.30, 0.20, 0.17)
        hw, hh = 0.56 * s, 0.33 * s
        cy = y - hh
        # one wall in the light, one in the shade
        c.paint(c.cover(box(c.u, c.v, x, cy, hw, hh)), self._face(colour, 1.0))
        edge = x - self.side * 0.30 * hw
        dark = np.maximum(box(c.u, c.v, x, cy, hw, hh), self.side * (c.u - edge))
        c.paint(c.cover(dark), self._face(colour, 0.74))
        # planks
        for k in range(1, 5):
            line = np.maximum(np.abs(c.v - (y - 2 * hh * k / 5)) - 0.006 * s, np.abs(c.u - x) - hw)
            c.paint(c.cover(line) * 0.35, self._face(colour, 0.5))
        # roof: a trapezium with overhang and rows of tiles
        t = (y - 2 * hh - c.v) / (0.36 * s)
        d = np.maximum(np.abs(c.u - x) - hw * (1.18 - 0.62 * np.clip(t, 0, 1)), np.maximum(-t, t - 1) * 0.36 * s)
        rows = 0.5 + 0.5 * np.sin(t * 6 * np.pi)
        c.paint(c.cover(d), self._face(roof, 1.0) * (0.8 + 0.45 * rows)[..., None])
        c.paint(c.cover(box(c.u, c.v, x - self.side * 0.30 * s, y - 2 * hh - 0.34 * s, 0.06 * s, 0.13 * s)), self._face((0.45, 0.28, 0.24), 1.0))
        # door and windows; windows glow at night
        lit = self.side * 0.13 * s
        c.paint(c.cover(box(c.u, c.v, x + lit, y - 0.18 * s, 0.09 * s, 0.18 * s)), self._face((0.25, 0.14, 0.08), 1.0))
        glass = (1.0, 0.85, 0.45) if self.sky == "night" else (0.25, 0.38, 0.50)
        for wx in (x + self.side * 0.38 * s, x - self.side * 0.36 * s):
            c.paint(c.cover(box(c.u, c.v, wx, y - 0.38 * s, 0.095 * s, 0.10 * s)), self._face((0.93, 0.90, 0.84), 0.9))
            c.paint(c.cover(box(c.u, c.v, wx, y - 0.38 * s, 0.068 * s, 0.073 * s)), glass)
            bars = np.minimum(np.abs(c.u - wx), np.abs(c.v - y + 0.38 * s)) - 0.010 * s
            c.paint(c.cover(np.maximum(bars, box(c.u, c.v, wx, y - 0.38 * s, 0.068 * s, 0.073 * s))), self._face((0.93, 0.90, 0.84), 0.9))

    def _tower(self, c):
        s, x, y = self.size, self.x, self.y
        colour = PAINT[self.colour]
        hw = 0.17 * s
        # a round wall: brightest towards the light, dark at the far edge
        around = np.clip((c.u - x) / (1.3 * hw), -1, 1) * self.side
        shade = 0.80 + 0.26 * around - 0.22 * around**2
        wall = self._face(colour, 1.0) * (0.25 + shade)[..., None].clip(0.45, 1.0)
        body = np.maximum(np.abs(c.u - x) - hw * (1 + 0.10 * (c.v - y + s) / s), np.maximum(c.v - y, y - 0.84 * s - c.v))
        c.paint(c.cover(body), wall)
        # courses of stone
        row = (y - c.v) / (0.075 * s)
        joint = np.abs(row - np.round(row)) * 0.075 * s - 0.005 * s
        c.paint(c.cover(np.maximum(joint, body)) * 0.4, wall * 0.5)
        half = np.floor(row) % 2 * 0.5
        col = (c.u - x) / (0.11 * s) + half
        joint = np.abs(col - np.round(col)) * 0.11 * s - 0.004 * s
        c.paint(c.cover(np.maximum(joint, body)) * 0.3, wall * 0.5)
        # the top: a wider ring with battlements
        ring = box(c.u, c.v, x, y - 0.84 * s, 1.32 * hw, 0.05 * s)
        step = (c.u - x) / (0.53 * hw)
        tooth = np.maximum(box(c.u, c.v, x, y - 0.94 * s, 1.32 * hw, 0.06 * s), (np.abs(step - 2 * np.round(step / 2)) - 0.5) * 0.53 * hw)
        c.paint(c.cover(np.minimum(ring, tooth)), wall)
        c.paint(c.cover(np.maximum(ring, np.abs(c.v - y + 0.79 * s) - 0.010 * s)) * 0.6, wall * 0.45)
        # slit windows and a door with a round arch
        glass = (1.0, 0.85, 0.45) if self.sky == "night" else (0.16, 0.15, 0.20)
        for wy in (0.66, 0.42):
            d = np.minimum(box(c.u, c.v, x, y - wy * s, 0.030 * s, 0.045 * s), disc(c.u, c.v, x, y - wy * s - 0.045 * s, 0.030 * s))
            c.paint(c.cover(d), glass)
        d = np.minimum(box(c.u, c.v, x, y - 0.07 * s, 0.062 * s, 0.07 * s), disc(c.u, c.v, x, y - 0.14 * s, 0.062 * s))
        c.paint(c.cover(d), self._face((0.25, 0.14, 0.08), 1.0))

    def _ball(self, c):
        r = 0.5 * self.size
        x, y = self.x, self.y - r
        colour = np.asarray(PAINT[self.colour])
        p, q = (c.u - x) / r, (c.v - y) / r
        w = np.sqrt(np.clip(1 - p * p - q * q, 0, 1))
        lx, ly, lw = 0.52 * self.side, -0.58, 0.63
        facing = p * lx + q * ly + w * lw
        shade = 0.42 + 0.58 * smooth(-0.6, 0.75, facing)
        # light bounces back from the ground into the lower rim
        paint = self._face(colour, 1.0) * shade[..., None] + 0.06 * smooth(0.4, 1.0, q)[..., None]
        ball = c.cover((np.hypot(p, q) - 1) * r)
        c.paint(ball, paint)
        c.paint(ball * smooth(0.955, 0.985, facing) * 0.9, (1, 1, 1) if self.sky != "night" else (0.85, 0.88, 0.95))

    def _tree(self, c):
        s, x, y = self.size, self.x, self.y
        flare = 0.055 * s * (1 + 1.2 * smooth(y - 0.12 * s, y, c.v))
        trunk = np.maximum(np.abs(c.u - x) - flare, np.maximum(c.v - y, y - 0.6 * s - c.v))
        around = np.clip((c.u - x) / (0.06 * s), -1, 1) * self.side
        c.paint(c.cover(trunk), self._face((0.42, 0.26, 0.14), 1.0) * (0.85 + 0.3 * around)[..., None])
        leaf = np.asarray(PAINT["green"])
        cy = y - 0.64 * s
        # round clumps, the lower ones first, each lit from above and from the light's side
        for bx, by, br in [(0, 0, 1.5)] + sorted(self.blobs, key=lambda b: -b[1]):
            px, py, pr = x + 0.21 * s * bx, cy + 0.19 * s * by, 0.165 * s * br
            d = disc(c.u, c.v, px, py, pr)
            lit = ((c.u - px) * self.side * 0.5 - (c.v - py)) / pr
            ragged = 0.016 * s * np.sin(np.arctan2(c.v - py, c.u - px) * 9 + 3 * bx)
            c.paint(c.cover(d + ragged), self._face(leaf, 1.0) * (0.95 + 0.42 * np.clip(lit, -1, 1))[..., None])


def main():
    from PIL import Image

    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out")
    p.add_argument("--prompt", help="without it: a sheet of random scenes")
    p.add_argument("--size", type=int, default=128)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    if a.prompt:
        Image.fromarray(Scene(*parse(a.prompt), a.seed).draw(a.size)).save(a.out)
        return
    scenes = all_scenes()
    order = np.random.default_rng(a.seed).permutation(len(scenes))
    sheet = [[Scene(*scenes[order[8 * j + i]], a.seed + i + 8 * j).draw(a.size) for i in range(8)] for j in range(5)]
    Image.fromarray(np.concatenate([np.concatenate(r, 1) for r in sheet])).save(a.out)


if __name__ == "__main__":
    main()
