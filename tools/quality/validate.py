"""Shows each measure to be right on drawn pictures and to react to broken ones."""

from multiprocessing import Pool

import numpy as np
from PIL import Image, ImageFilter

import check_world
import world
from quality import finder, make, measures


def blur(rgb, radius=2.5):
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(radius)))


def tiles(rgb, side, strength=0.03):
    """Every second block of `side` pixels is a little brighter."""
    n = len(rgb)
    odd = np.add.outer(np.arange(n) // side, np.arange(n) // side) % 2
    return np.clip(rgb * (1 + strength * odd[..., None]), 0, 255).astype(np.uint8)


def tint(rgb):
    return np.clip(rgb * (1.1, 1.0, 0.9), 0, 255).astype(np.uint8)


def grain(rgb):
    noise = np.random.default_rng(3).normal(0, 8, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


def collage(rgb):
    """Four small copies: what windows that each show the whole prompt come to."""
    small = np.asarray(Image.fromarray(rgb).resize((len(rgb) // 2,) * 2, Image.Resampling.BOX))
    return np.concatenate([np.concatenate([small, small], 1)] * 2)


def scene(args):
    prompt, seed = args
    return world.Scene(*world.parse(prompt), seed).draw(512)


def recoloured(args):
    """The same scene with the next colour (trees: with a house in their place), and its neighbours' sky."""
    prompt, seed = args
    thing, colour, ground, sky = world.parse(prompt)
    after = lambda words, word: words[(words.index(word) + 1) % len(words)]
    thing, colour = ("house", "red") if thing == "tree" else (thing, after(world.COLOURS, colour))
    return world.Scene(thing, colour, ground, after(world.SKIES, sky), seed).draw(512)


def counted(index):
    """A crowd of 0 to 3 things, its true number, whether it was blurred."""
    rng = np.random.default_rng([finder.SEED, 10**6 + index])
    drawn = finder.crowd(rng, index % 4, least=0.4)
    rgb = drawn.draw_marked(256)[0]
    return (blur(rgb, 2.0) if index // 4 % 2 else rgb), len(drawn.places)


def run(count=24, crowds=400):
    prompts = make.prompts(count)
    with Pool(2) as pool:
        drawn = pool.map(scene, [(p, 900 + i) for i, p in enumerate(prompts)])
        other = pool.map(scene, [(p, 1900 + i) for i, p in enumerate(prompts)])
        wrong = pool.map(recoloured, [(p, 900 + i) for i, p in enumerate(prompts)])
        truth = pool.map(scene, [(p, 2900 + i) for i in range(3) for p in prompts])
        pictures = pool.map(counted, range(crowds), chunksize=20)
    net = finder.load()
    judge = check_world.load()
    sides = measures.block_side(make.MODELS[0])
    side = min(sides)
    kinds = {
        "drawn": drawn,
        "drawn, other seeds": other,
        "blurred": [blur(p) for p in drawn],
        "3 % tiles": [tiles(p, side) for p in drawn],
        "other colours": wrong,
        "tinted": [tint(p) for p in drawn],
        "grain": [grain(p) for p in drawn],
        "four copies": [collage(p) for p in drawn],
    }
    reference = np.stack([measures.features(p) for p in truth])
    detail = np.mean([measures.high_band(p) for p in truth])
    seams = np.log([measures.seam(p, sides, 8) for p in drawn])
    rows = {}
    for kind, made in kinds.items():
        right = check_world.score(judge.answer(made), prompts)[0]["all"]
        rows[kind] = {
            "attributes": right,
            "count": float(np.mean([net.count(p) == 1 for p in made])),
            "seam": float(np.exp(np.mean(np.log([measures.seam(p, sides, 8) for p in made]) - seams))),
            "detail": float(np.mean([measures.high_band(p) for p in made]) / detail),
            "drift": float(np.mean([measures.drift(a, b) for a, b in zip(drawn, made)])),
            "frechet": measures.frechet(np.stack([measures.features(p) for p in made]), reference),
        }
    print("| pictures | attributes right | one thing | seam | detail | drift | Fréchet |\n|---|---|---|---|---|---|---|")
    for kind, r in rows.items():
        print(f"| {kind} | {r['attributes']:.2f} | {r['count']:.2f} | {r['seam']:.3f} | {r['detail']:.2f} | {r['drift']:.2f} | {r['frechet']:.1f} |")
    found = np.array([net.count(p) for p, _ in pictures])
    true = np.array([n for _, n in pictures])
    exact = float(np.mean(found == true))
    one = float(np.mean((found == 1) == (true == 1)))
    print(f"counting: {100 * exact:.1f} % of {crowds} drawn crowds of 0 to 3 exact, one or not one {100 * one:.1f} %")
    for n in range(4):
        print(f"  {n}: found " + " ".join(f"{k}×{(found[true == n] == k).sum()}" for k in range(6)))
    floor = rows["drawn, other seeds"]
    wanted = {
        "attributes: drawn": rows["drawn"]["attributes"] >= 0.98,
        "attributes: other colours": rows["other colours"]["attributes"] <= 0.1,
        "count: drawn": rows["drawn"]["count"] >= 0.95,
        "count: four copies": rows["four copies"]["count"] <= 0.1,
        "count: crowds": exact >= 0.93,
        "seam: 3 % tiles": rows["3 % tiles"]["seam"] > 1.05,
        "seam: blur is none": abs(rows["blurred"]["seam"] - 1) < 0.05,
        "detail: other seeds": 0.85 < floor["detail"] < 1.15,
        "detail: blurred": rows["blurred"]["detail"] < 0.5,
        "detail: grain": rows["grain"]["detail"] > 1.1,
        "drift: tinted": rows["tinted"]["drift"] > 3,
        "drift: blur is none": rows["blurred"]["drift"] < 0.5,
        **{f"frechet: {k}": rows[k]["frechet"] > 1.5 * floor["frechet"] for k in ("blurred", "grain", "four copies")},
    }
    for name, ok in wanted.items():
        if not ok:
            print(f"FAILED {name}")
    return all(wanted.values())
