"""Measures every picture that is there, and writes the table, the raw numbers and the contact sheet."""

import json
from multiprocessing import Pool

import numpy as np

import check_world
from quality import finder, make, measures, sheet

# Further drawn pictures of each prompt, which stand for the truth.
REFERENCES = 3
# What is measured per picture: title, format, and which way is better on average.
PER_PICTURE = {
    "attributes": ("sky, ground, colour right", "{:.0%}", 1),
    "thing": ("kind of thing right", "{:.0%}", 1),
    "one": ("one thing", "{:.0%}", 1),
    "drift": ("colour drift ΔE", "{:.2f}", -1),
}


def measure(rgb, base, model):
    """The numbers of one picture that need no network."""
    return {
        "seam": measures.seam(rgb, measures.block_side(model), measures.unit_of(model)),
        "high_band": measures.high_band(rgb),
        "drift": measures.drift(base, rgb),
        "features": [round(v, 5) for v in measures.features(rgb)],
    }


def measure_reference(job):
    prompt, seed = job
    rgb = make.truth(prompt, seed)
    return {"high_band": measures.high_band(rgb), "features": list(measures.features(rgb))}


def measure_file(job):
    out, model, variant, index, prompt = job
    base = make.load(out / "base" / f"{index:03}.png")
    if variant == make.BICUBIC:
        rgb, note = make.bicubic(base), {}
    elif variant == make.DRAWN:
        rgb, note = make.truth(prompt, index), {}
    elif variant == make.ENCODED:
        rgb, note = make.through_autoencoder([make.truth(prompt, index)], model)[0], {}
    else:
        file = make.folder(out, variant) / f"{index:03}.png"
        rgb, note = make.load(file), json.loads(file.with_suffix(".json").read_text())
    answer = check_world.load().answer([rgb])[0]
    wanted = check_world.wanted(prompt)
    count = finder.load().count(rgb)
    return {
        **measure(rgb, base, model),
        "attributes": all(answer[k] == wanted[k] for k in check_world.NEEDED),
        "thing": answer["thing"] == wanted["thing"],
        "count": int(count),
        "one": count == 1,
        "seconds": note.get("seconds"),
        "gflop": note.get("gflop"),
    }


def existing(out, variant):
    return sorted(int(f.stem) for f in make.folder(out, variant).glob("[0-9]*.png"))


def collect(out, model):
    """{variant: {index: numbers}} and {index: [numbers of drawn pictures]}; what is drawn is cached."""
    indices = existing(out, make.DEFAULT)
    if not indices:
        raise SystemExit(f"{out} holds no pictures of {make.DEFAULT}; start with: python tools/quality run {out}")
    texts = make.prompts(max(indices) + 1)
    cache = out / "drawn.json"
    drawn = json.loads(cache.read_text()) if cache.exists() else {}
    jobs = [(out, model, v, i, texts[i]) for v in make.variants(model) for i in existing(out, v)]
    jobs += [(out, model, make.BICUBIC, i, texts[i]) for i in indices]
    new = [i for i in indices if str(i) not in drawn]
    with Pool(2) as pool:
        seeds = [(texts[i], 1000 * (k + 1) + i) for i in new for k in range(REFERENCES)]
        made = pool.map(measure_reference, seeds, chunksize=4)
        own = pool.map(measure_file, [(out, model, v, i, texts[i]) for v in (make.DRAWN, make.ENCODED) for i in new], chunksize=4)
        for n, i in enumerate(new):
            references = made[n * REFERENCES : (n + 1) * REFERENCES]
            drawn[str(i)] = {make.DRAWN: own[n], make.ENCODED: own[len(new) + n], "references": references}
        cache.write_text(json.dumps(drawn))
        rows = pool.map(measure_file, jobs, chunksize=4)
    table = {v: {i: drawn[str(i)][v] for i in indices} for v in (make.DRAWN, make.ENCODED)}
    for (_, _, variant, index, _), row in zip(jobs, rows):
        table.setdefault(variant, {})[index] = row
    return table, {i: drawn[str(i)]["references"] for i in indices}


class Set:
    """The pictures of one variant at some prompts, and the drawn ones of the same prompts."""

    def __init__(self, rows, references, indices):
        self.rows = [rows[i] for i in indices]
        self.features = np.array([r["features"] for r in self.rows])
        self.references = np.array([[r["features"] for r in references[i]] for i in indices])
        self.true_band = np.array([np.mean([r["high_band"] for r in references[i]]) for i in indices])

    def column(self, name):
        return np.array([r[name] for r in self.rows], float)

    def detail(self, pick):
        """Power of the high band, relative to the drawn pictures of the same prompts."""
        return self.column("high_band")[pick].mean() / self.true_band[pick].mean()

    def frechet(self, pick):
        return measures.frechet(self.features[pick], np.concatenate(self.references[pick]))

    def mean(self, name):
        return lambda pick: self.column(name)[pick].mean()

    def statistics(self):
        """{measure: (statistic of picked pictures, badness of its value)}."""
        found = {k: (self.mean(k), lambda v, sign=sign: -sign * v) for k, (_, _, sign) in PER_PICTURE.items()}
        found["detail"] = (self.detail, lambda v: abs(np.log(v)))
        if len(self.rows) > 8:
            found["frechet"] = (self.frechet, lambda v: v)
        return found


def seam_ratio(a, b):
    """Ratio of two sets' geometric mean seams, paired by picture, and its 95 % interval."""
    logs = np.log(a.column("seam")) - np.log(b.column("seam"))
    low, high = measures.bootstrap(lambda pick: logs[pick].mean(), len(logs))
    return tuple(float(np.exp(v)) for v in (logs.mean(), low, high))


def interval(form, value, low, high):
    return f"{form.format(value)} ({form.format(low)} to {form.format(high)})"


def line(name, s, full, timing):
    """One row of the table."""
    every = np.arange(len(s.rows))
    cells = [name, str(len(s.rows))]
    titles = {**{k: form for k, (_, form, _) in PER_PICTURE.items()}, "detail": "{:.2f}", "frechet": "{:.1f}"}
    for key, form in titles.items():
        if key not in s.statistics():
            cells.append("")
            continue
        statistic = s.statistics()[key][0]
        cells.append(interval(form, statistic(every), *measures.bootstrap(statistic, len(every), 400, key == "frechet")))
    cells.insert(5, interval("{:.3f}", *seam_ratio(s, full)) if full else "")
    return "| " + " | ".join(cells + timing) + " |"


TITLES = ["variant", "n", *[PER_PICTURE[k][0] for k in ("attributes", "thing", "one")], "seams, ratio to full attention"]
TITLES += [PER_PICTURE["drift"][0], "detail, share of drawn", "Fréchet", "s", "GFLOP"]
HEAD = "| " + " | ".join(TITLES) + " |\n" + "|---" * len(TITLES) + "|"


def compare(name, mine, other):
    """Sentences on what is better in `other` than in the default, and worse, with 95 % certainty."""
    better, worse = [], []
    count = len(mine.rows)
    for key, (statistic, badness) in mine.statistics().items():
        theirs = other.statistics()[key][0]
        low, high = measures.bootstrap(lambda p: badness(theirs(p)) - badness(statistic(p)), count, 400, key == "frechet")
        if high < 0:
            better.append(key)
        elif low > 0:
            worse.append(key)
    ratio, low, high = seam_ratio(other, mine)
    if high < 1:
        better.append("seams")
    elif low > 1:
        worse.append("seams")
    say = lambda keys: ", ".join(NAMES[k] for k in keys)
    return better, f"* {name}: " + "; ".join(
        part
        for part in (
            f"better than the default in {say(better)}" if better else "",
            f"worse in {say(worse)}" if worse else "",
            "" if better or worse else "no certain difference from the default",
        )
        if part
    )


NAMES = {
    "attributes": "sky, ground and colour",
    "thing": "kind of thing",
    "one": "number of things",
    "drift": "colour drift",
    "detail": "detail",
    "frechet": "Fréchet distance",
    "seams": "seams",
}


def timing_of(out, variant, rows):
    """Seconds and GFLOP: of `time` where it was run, else the median of all pictures."""
    alone = json.loads((out / "times.json").read_text()) if (out / "times.json").exists() else {}
    seconds = alone.get(variant) or np.median([r["seconds"] or 0 for r in rows])
    gflop = rows[0]["gflop"]
    return [f"{seconds:.1f}" if gflop else "", str(gflop) if gflop else ""]


def write(out, model):
    table, references = collect(out, model)
    make_set = lambda v, indices: Set(table[v], references, indices)
    everyone = sorted(table[make.DEFAULT])
    others = [v for v in (*make.variants(model), make.BICUBIC) if v in table and v != make.DEFAULT]
    generated = [v for v in others if v != make.BICUBIC]
    # The prompts that all variants have.
    shared = sorted(set(everyone).intersection(*(table[v] for v in generated)))
    lines = [HEAD]
    full = None
    if "full attention" in table:
        full = make_set("full attention", shared)
    if len(everyone) > len(shared):
        lines.append(line("npa (default)", make_set(make.DEFAULT, everyone), None, timing_of(out, make.DEFAULT, list(table[make.DEFAULT].values()))))
    mine = make_set(make.DEFAULT, shared)
    lines.append(line("npa, the same prompts as below" if len(everyone) > len(shared) else "npa (default)", mine, full, timing_of(out, make.DEFAULT, mine.rows)))
    notes, wins = [], []
    for variant in others:
        s = make_set(variant, shared)
        lines.append(line(variant, s, full, timing_of(out, variant, s.rows)))
        if variant not in make.CONTROLS:
            better, note = compare(variant, mine, s)
            notes.append(note)
            wins += [f"{NAMES[k]} ({variant})" for k in better]
            if variant == make.BICUBIC or s.rows[0]["gflop"] < mine.rows[0]["gflop"]:
                wins.append(f"work ({variant})")
    for variant in (make.ENCODED, make.DRAWN):
        lines.append(line(variant, make_set(variant, shared), full, ["", ""]))
    text = "\n".join(lines) + "\n\n" + "Against the default, paired by prompt and seed, at 95 %:\n\n" + "\n".join(notes) + "\n\n"
    if full:
        text += seam_verdict(mine, full, {v: make_set(v, shared) for v in make.CONTROLS if v in table})
    text += "Where ScaleDiff does not win: " + ("; ".join(wins) if wins else "nowhere with certainty on these pictures") + ".\n"
    (out / "table.md").write_text(text)
    (out / "measures.json").write_text(json.dumps({"pictures": table, "references": references}, indent=1))
    sheet.write(out, others, shared[:3], make.prompts(max(shared) + 1))
    print(text)


def seam_verdict(mine, full, controls):
    ratio, low, high = seam_ratio(mine, full)
    text = f"Seams: npa / full attention is {ratio:.3f} ({low:.3f} to {high:.3f}), at most 1.05 passes: {'passed' if ratio <= 1.05 else 'FAILED'}. "
    for name, s in controls.items():
        ratio, low, high = seam_ratio(s, full)
        text += f"Control, {name}: {ratio:.3f} ({low:.3f} to {high:.3f}), {'seen' if ratio > 1.05 else 'no seam'}. "
    return text + "\n\n"


def time_variants(out, model):
    """Makes the first picture once more per variant and keeps the time: run it on an idle machine."""
    prompt = make.prompts(1)[0]
    place = out / "timing"
    place.mkdir(exist_ok=True)
    times = {v: make.generate(prompt, 0, place / "now.png", ["-m", model, *flags])[0] for v, flags in make.supported(model).items()}
    (out / "times.json").write_text(json.dumps(times, indent=1))
    for variant, seconds in times.items():
        print(f"{variant}: {seconds:.1f} s")
