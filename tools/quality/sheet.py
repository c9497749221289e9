"""The contact sheet: some prompts, every variant, whole and one part at full size."""

import io

import numpy as np
from PIL import Image, ImageDraw

from quality import finder, make

TILE, HEAD, GAP = 128, 14, 2
MOST_BYTES = 195_000


def part_of(truth_mask, side):
    """Upper left corner of a window of `side` pixels in 512 around the thing."""
    ys, xs = np.nonzero(truth_mask)
    if not len(ys):
        return 256 - side // 2, 256 - side // 2
    scale = 512 / len(truth_mask)
    corner = lambda v: int(np.clip((v.min() + v.max() + 1) / 2 * scale - side / 2, 0, 512 - side))
    return corner(ys), corner(xs)


def write(out, variants, indices, prompts):
    skipped = (make.BICUBIC, make.CONTROLS[0])
    columns = [make.BICUBIC, make.DEFAULT, *[v for v in variants if v not in skipped], make.DRAWN]
    width = len(columns) * (TILE + GAP)
    page = Image.new("RGB", (width, len(indices) * (2 * (TILE + GAP) + HEAD) + HEAD), "white")
    pen = ImageDraw.Draw(page)
    for c, name in enumerate(columns):
        pen.text((c * (TILE + GAP) + 2, 1), name, "black")
    net = finder.load()
    for r, index in enumerate(indices):
        top = HEAD + r * (2 * (TILE + GAP) + HEAD)
        pen.text((2, top + 1), prompts[index], "black")
        base = make.load(out / "base" / f"{index:03}.png")
        corner = None
        for c, name in enumerate(columns):
            if name == make.BICUBIC:
                rgb = make.bicubic(base)
                corner = part_of(net.mask(rgb), TILE)
            elif name == make.DRAWN:
                rgb = make.truth(prompts[index], index)
            else:
                rgb = make.load(make.folder(out, name) / f"{index:03}.png")
            y, x = corner if name != make.DRAWN else part_of(net.mask(rgb), TILE)
            small = Image.fromarray(rgb).resize((TILE, TILE), Image.Resampling.LANCZOS)
            left = c * (TILE + GAP)
            page.paste(small, (left, top + HEAD))
            page.paste(Image.fromarray(rgb[y : y + TILE, x : x + TILE]), (left, top + HEAD + TILE + GAP))
    for quality in range(92, 30, -4):
        data = io.BytesIO()
        page.save(data, "JPEG", quality=quality, optimize=True)
        if data.tell() <= MOST_BYTES:
            break
    (out / "sheet.jpg").write_bytes(data.getvalue())
