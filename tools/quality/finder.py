"""Finds the things in a picture of the little world, and counts them.

A small network marks the pixels of things (house, tower, ball, tree) on a 48 x 48
grid; what hangs together there is one thing. It learns from drawn scenes with none
to four things of any size and place, whose outlines are known, and knows nothing of
the models that it judges. Its weights are in finder.safetensors.
"""

from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import check_world
import small_nets
import world

FILE = Path(__file__).with_suffix(".safetensors")
SIDE, GRID = 96, 48
SEED = 12
# Grid cells: less than this is no thing. The smallest drawn one, a ball of a third of its size, has about 13.
SMALLEST = 10


class Crowd(world.Scene):
    """A scene with any number of things of its kind."""

    def __init__(self, thing, colour, ground, sky, seed, places):
        super().__init__(thing, colour, ground, sky, seed)
        self.places = places  # (x, y, size as a share of the scene's own)

    def draw_marked(self, side):
        """The picture and the coverage of its things, both `side` x `side`."""
        c = world.Canvas(side, side, (0.0, 0.0, 1.0), 2)
        self._sky(c)
        self._hills(c)
        self._ground(c)
        marked = np.zeros(c.rgb.shape[:2], bool)
        own = self.size
        for self.x, self.y, share in self.places:
            self.size = own * share
            self._shadow(c)
            reach = 0.8 * self.size
            part = c.part(self.x - reach, self.y - 1.2 * self.size, self.x + reach, self.y + 0.02)
            before = c.rgb.copy()
            getattr(self, "_" + self.thing)(part)
            marked |= (c.rgb != before).any(-1)
        self.size = own
        mask = marked.reshape(side, 2, side, 2).mean((1, 3))
        return c.finish(2), mask.astype(np.float32)


def crowd(rng, count, least=0.33):
    """A random scene with `count` things that do not touch, of `least` to 1.1 of their usual size."""
    scenes = world.all_scenes()
    scene = scenes[rng.integers(len(scenes))]
    one = world.Scene(*scene, 0)
    half_w = {"house": 0.68, "tower": 0.24, "ball": 0.5, "tree": 0.5}[one.thing]
    tall = {"house": 1.1, "tower": 1.02, "ball": 1.0, "tree": 1.05}[one.thing]
    seed = int(rng.integers(1 << 30))
    size = world.Scene(*scene, seed).size
    places, boxes = [], []
    share = rng.uniform(least, 1.1 if count < 3 else 0.6)
    for _ in range(200):
        if len(places) == count:
            break
        s = share * rng.uniform(0.8, 1.2)
        w, h = half_w * size * s, tall * size * s
        x, y = rng.uniform(0.15, 0.85), rng.uniform(0.3, 0.92)
        box = (x - w - 0.03, y - h - 0.03, x + w + 0.03, y + 0.03)
        if all(box[2] < b[0] or b[2] < box[0] or box[3] < b[1] or b[3] < box[1] for b in boxes):
            boxes.append(box)
            places.append((x, y, s))
    return Crowd(*scene, seed, places)


class Finder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        conv = torch.nn.Conv2d
        self.a, self.b = conv(3, 16, 4, 2, 1), conv(16, 32, 3, 2, 1)
        self.c, self.d = conv(32, 40, 3, 2, 1), conv(40, 40, 3, 1, 1)
        self.e, self.f = conv(72, 32, 3, 1, 1), conv(48, 16, 3, 1, 1)
        self.g = conv(16, 1, 3, 1, 1)

    def forward(self, x):
        a = F.relu(self.a(x))
        b = F.relu(self.b(a))
        c = F.relu(self.d(F.relu(self.c(b))))
        up = lambda t: F.interpolate(t, scale_factor=2.0)
        b = F.relu(self.e(torch.cat([up(c), b], 1)))
        a = F.relu(self.f(torch.cat([up(b), a], 1)))
        return self.g(a)[:, 0]

    @torch.no_grad()
    def mask(self, picture):
        """Which cells of the 48 x 48 grid show a thing."""
        small = np.array(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX))
        return self(check_world.to_tensor(small[None]))[0].numpy() > 0

    def count(self, picture):
        return sum(n >= SMALLEST for n in areas(self.mask(picture)))


def areas(mask):
    """Cells of each connected part (8 neighbours), gaps of one cell closed."""
    near = F.max_pool2d(torch.from_numpy(mask)[None, None].float(), 3, 1, 1)[0, 0] > 0
    label = torch.arange(1.0, mask.size + 1).reshape(mask.shape) * near
    while True:
        spread = F.max_pool2d(label[None, None], 3, 1, 1)[0, 0] * near
        if torch.equal(spread, label):
            break
        label = spread
    return [int(mask[(label == v).numpy()].sum()) for v in torch.unique(label) if v > 0]


def load():
    return small_nets.load(Finder(), FILE)


def example(index):
    """Training picture `index` and its mask on the grid. Most show one thing, as most pictures do."""
    rng = np.random.default_rng([SEED, index])
    rgb, mask = crowd(rng, int(rng.choice([0, 1, 1, 1, 2, 2, 3, 4]))).draw_marked(SIDE)
    return rgb, mask.reshape(GRID, 2, GRID, 2).mean((1, 3))


def train(count=3000, epochs=14):
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    with Pool(2) as pool:
        drawn = pool.map(example, range(count), chunksize=50)
    x = check_world.to_tensor(np.stack([d[0] for d in drawn]))
    y = torch.from_numpy(np.stack([d[1] for d in drawn]))
    finder = Finder()

    def loss(step):
        i = torch.randint(count, (30,))
        batch, want = x[i], y[i]
        if step % 2:
            batch, want = batch.flip(3), want.flip(2)
        return F.binary_cross_entropy_with_logits(finder(check_world.disturb(batch)), want)

    small_nets.fit(finder, loss, epochs * count // 30, rate=3e-3, peak=4e-3, decay=0.01)
    small_nets.save(finder, FILE, "tools/quality train", SEED)
