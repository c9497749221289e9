"""Says whether pictures of the little world show what their prompts ask for.

    python tools/check_world.py train                  draw pictures, train, save, test
    python tools/check_world.py test                   score the check itself
    python tools/check_world.py judge FOLDER           PNGs and a prompts.json {name: prompt}
    python tools/check_world.py judge LIST.jsonl       lines {"file": ..., "prompt": ...}

A small network sees the picture at 64 x 64 and names the sky, the ground, the
colour of the thing and the thing itself. A picture is right when sky, ground and
colour are; the thing is reported as well. The network is trained on drawn
pictures only, blurred and noisy ones among them, and knows nothing of the models
that it judges. Its weights are in check_world.safetensors; `train` makes them
again in a few minutes.
"""

import argparse
import json
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import small_nets
import world

FILE = Path(__file__).with_suffix(".safetensors")
SIDE = 64
SEED = 11
ANSWERS = {
    "sky": world.SKIES,
    "ground": world.GROUNDS,
    "colour": (*world.COLOURS, "green"),
    "thing": (*world.THINGS, "tree"),
}
NEEDED = ("sky", "ground", "colour")


class Judge(torch.nn.Module):
    def __init__(self):
        super().__init__()
        widths = (3, 16, 32, 48, 64)
        self.convs = torch.nn.ModuleList(torch.nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(widths, widths[1:]))
        self.hidden = torch.nn.Linear(64 * 16, 64)
        self.heads = torch.nn.ModuleDict({k: torch.nn.Linear(64, len(v)) for k, v in ANSWERS.items()})

    def forward(self, x):
        for conv in self.convs:
            x = F.relu(conv(x))
        x = F.relu(self.hidden(x.flatten(1)))
        return {k: head(x) for k, head in self.heads.items()}

    @torch.no_grad()
    def answer(self, pictures):
        """A list of {attribute: word} for RGB uint8 arrays or PIL images of any size."""
        small = np.stack([np.asarray(shrink(p)) for p in pictures])
        found = self(to_tensor(small))
        found = {k: v.argmax(1).tolist() for k, v in found.items()}
        return [{k: ANSWERS[k][found[k][i]] for k in ANSWERS} for i in range(len(small))]


def shrink(picture):
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    return picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)


def to_tensor(rgb):
    return torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 127.5 - 1


def wanted(prompt):
    thing, colour, ground, sky = world.parse(prompt)
    return {"sky": sky, "ground": ground, "colour": colour, "thing": thing}


def load():
    return small_nets.load(Judge(), FILE)


def draw_one(index):
    """Training picture `index`, and its prompt, at a size that varies."""
    rng = np.random.default_rng([SEED, index])
    scenes = world.all_scenes()
    scene = world.Scene(*scenes[rng.integers(len(scenes))], int(rng.integers(1 << 30)))
    return np.asarray(shrink(scene.draw(int(rng.choice([48, 64, 96]))))), scene.prompt


def disturb(x):
    """What models do to pictures: blur, noise, and slightly wrong light and colour."""
    n = len(x)
    blurred = F.avg_pool2d(F.pad(x, (1,) * 4, mode="replicate"), 3, 1)
    more = F.avg_pool2d(F.pad(blurred, (2,) * 4, mode="replicate"), 5, 1)
    kind = torch.randint(3, (n, 1, 1, 1))
    x = torch.where(kind == 1, blurred, torch.where(kind == 2, more, x))
    x = x * (1 + 0.08 * torch.randn(n, 3, 1, 1)) + 0.06 * torch.randn(n, 3, 1, 1)
    return x + 0.12 * torch.rand(n, 1, 1, 1) * torch.randn_like(x)


def train(count=2000, epochs=24):
    torch.manual_seed(SEED)
    with Pool(2) as pool:
        drawn = pool.map(draw_one, range(count), chunksize=50)
    x = to_tensor(np.stack([d[0] for d in drawn]))
    y = {k: torch.tensor([ANSWERS[k].index(wanted(p)[k]) for _, p in drawn]) for k in ANSWERS}
    judge = Judge()

    def loss(_):
        i = torch.randint(count, (50,))
        batch = torch.where(torch.rand(50, 1, 1, 1) < 0.5, x[i], x[i].flip(3))
        out = judge(disturb(batch))
        return sum(F.cross_entropy(out[k], y[k][i]) for k in ANSWERS)

    small_nets.fit(judge, loss, epochs * count // 50, rate=2e-3, peak=3e-3, decay=0.02)
    small_nets.save(judge, FILE, "tools/check_world.py train", SEED)


def other_prompts(prompts):
    """A random prompt of another picture for every picture, never an equal one.

    By chance a different prompt still shares about a third of the skies and grounds
    and a sixth of the colours, and all three in about one case of fifty.
    """
    if len(set(prompts)) < 2:
        raise ValueError("other prompts need at least two different prompts")
    rng = np.random.default_rng(SEED)
    other = [prompts[i] for i in rng.permutation(len(prompts))]
    for i, prompt in enumerate(prompts):
        while other[i] == prompt:
            k = int(rng.integers(len(prompts)))
            if prompts[k] != other[i] and other[k] != prompt:
                other[i], other[k] = other[k], other[i]
    return other


def score(answers, prompts):
    """Share of right answers per attribute, and of pictures with all that is needed."""
    right = [{k: a[k] == wanted(p)[k] for k in ANSWERS} for a, p in zip(answers, prompts)]
    rates = {k: float(np.mean([r[k] for r in right])) for k in ANSWERS}
    rates["all"] = float(np.mean([all(r[k] for k in NEEDED) for r in right]))
    return rates, right


def report(name, answers, prompts):
    rates, right = score(answers, prompts)
    print(f"{name}: " + " ".join(f"{k} {100 * v:.1f}%" for k, v in rates.items()) + f" of {len(prompts)}")
    return rates, right


def test(count=400):
    """Held-out pictures, as drawn and disturbed, with their own and with other prompts."""
    torch.manual_seed(SEED + 1)
    judge = load()
    with Pool(2) as pool:
        drawn = pool.map(draw_one, range(10**6, 10**6 + count), chunksize=50)
    prompts = [p for _, p in drawn]
    pictures = np.stack([d[0] for d in drawn])
    noisy = ((disturb(to_tensor(pictures)).clamp(-1, 1) + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()
    for name, rgb in (("as drawn", pictures), ("disturbed", noisy)):
        answers = judge.answer(rgb)
        report(f"{name}, own prompt", answers, prompts)
        report(f"{name}, other prompt", answers, other_prompts(prompts))


def judge_files(source):
    if source.is_dir():
        pairs = [(source / n, p) for n, p in json.loads((source / "prompts.json").read_text()).items()]
    else:
        lines = [json.loads(line) for line in source.read_text().splitlines() if line.strip()]
        pairs = [(source.parent / e["file"], e["prompt"]) for e in lines]
    judge = load()
    prompts = [p for _, p in pairs]
    answers = [judge.answer([Image.open(f)])[0] for f, _ in pairs]
    _, right = report("own prompt", answers, prompts)
    if len(set(prompts)) > 1:
        report("other prompt", answers, other_prompts(prompts))
    for (file, prompt), answer, r in zip(pairs, answers, right):
        if not all(r[k] for k in NEEDED):
            wrong = ", ".join(f"{k} looks {answer[k]}" for k in NEEDED if not r[k])
            print(f"wrong: {file.name}: {prompt}: {wrong}")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("command", choices=("train", "test", "judge"))
    p.add_argument("source", type=Path, nargs="?", help="for judge: a folder or a JSONL file")
    a = p.parse_args()
    if a.command == "judge":
        judge_files(a.source)
        return
    if a.command == "train":
        train()
    test()


if __name__ == "__main__":
    main()
