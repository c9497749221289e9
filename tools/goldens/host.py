"""Makes tests/goldens/host: what torch, diffusers and transformers compute for the host-side modules.

    python tools/goldens/host.py

writes `tokenizer/` (a small CLIP vocabulary of its own), `tokenize.json`, `sampling.json`, `randn.json` and
`philox.json`.
Needs torch, diffusers and transformers; every JSON file records their versions and the seed.
"""

import json
import random
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from diffusers import (DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler,
                       EulerDiscreteScheduler)
from transformers import CLIPTokenizer

OUT = Path(__file__).resolve().parents[2] / "tests/goldens/host"
SEED = 20250
MERGES = """o w</w>|s n|sn ow</w>|m o|mo u|n t|a i|ai n</w>|mou nt|mount ain</w>|a t</w>|l a|k e</w>|la ke</w>|o f</w>
f o|fo x</w>|' s</w>|d a|w n</w>|da wn</w>|e r</w>|w a|wa t|wat er</w>|! !|!! !</w>|Ã ©</w>|ð Ł|ðŁ ĺ|ðŁĺ Ģ</w>"""


def versions():
    return {"script": "tools/goldens/host.py", "seed": SEED, "torch": torch.__version__,
            "diffusers": diffusers.__version__, "transformers": transformers.__version__}


def write(name, value):
    text = json.dumps({"made_with": versions(), **value}, ensure_ascii=True)
    (OUT / name).write_text(text + "\n")


def byte_characters():
    """The printable character that stands for each byte in byte-level BPE."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in kept] + [chr(256 + i) for i in range(256 - len(kept))]


def make_tokenizer(folder):
    """A vocabulary in CLIP's layout: bytes, bytes ending a word, merges, the two special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = byte_characters()
    tokens = letters + [c + "</w>" for c in letters]
    merges = []
    for merge in MERGES.replace("\n", "|").split("|"):
        left, right = merge.split(" ")
        assert left in tokens and right in tokens, merge
        merges.append(merge)
        tokens.append(left + right)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")


def configs():
    """Config files in the forms found in the wild, by name: (tokenizer_config, special_tokens_map)."""
    rules = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    start, end = ({"content": c, **rules} for c in ("<|startoftext|>", "<|endoftext|>"))
    plain = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    objects = {"bos_token": start, "eos_token": end, "unk_token": end}
    return {
        "plain": ({**plain, "pad_token": "<|endoftext|>", "model_max_length": 77}, None),
        "pad_zero": ({"model_max_length": 77}, {**objects, "pad_token": "!"}),
        "bare": (None, None),
        "decoder": ({**plain, "pad_token": "!", "model_max_length": 77, "added_tokens_decoder": {
            "0": {"content": "!", **rules, "normalized": False, "special": True},
            "9999": {"content": "<sks>", **rules, "lstrip": True, "special": False}}}, None),
    }


def prompts(rng):
    fixed = [
        "", "  \t\n", "a", "snow on a mountain at dawn", "The FOX'S lake!!! it's we'll", "12345 1st x2",
        "na\u00efve caf\u00e9 e\u0301 \u00dfs \u0130 \u6f22\u5b57 \U0001f600", "a<|endoftext|>b <|ENDOFTEXT|>",
        "<|startoftext|>!<|endoftext|>! <sks> x<sks>", "\x00\x01 \x85\u00a0\u200b\u3000\ufeff", "''''s's",
        "snow " * 75, "snow " * 76, "x" * 200, "(fox:1.2), [a|b]",
    ]
    alphabet = "aA !'sfox\u0301\u00e9\u6f22\U0001f600 9\n"
    return fixed + ["".join(rng.choice(alphabet) for _ in range(rng.randint(1, 60))) for _ in range(10)]


def tokenize():
    make_tokenizer(OUT / "tokenizer")
    texts, cases = prompts(random.Random(SEED)), []
    for name, (config, special) in configs().items():
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            make_tokenizer(folder)
            if config:
                added = config.get("added_tokens_decoder", {})
                if "9999" in added:  # a new word takes the first id after the vocabulary
                    added[str(len(json.loads((folder / "vocab.json").read_text("utf-8"))))] = added.pop("9999")
                (folder / "tokenizer_config.json").write_text(json.dumps(config))
            if special:
                (folder / "special_tokens_map.json").write_text(json.dumps(special))
            tokenizer = CLIPTokenizer.from_pretrained(folder)
            ids = [tokenizer(t, padding="max_length", max_length=77, truncation=True)["input_ids"] for t in texts]
            whole = [len(tokenizer(t, verbose=False)["input_ids"]) for t in texts]
        ids = [row[:n] for row, n in zip(ids, whole)]  # without padding
        cases.append({"name": name, "tokenizer_config": config, "special_tokens_map": special,
                      "pad": tokenizer.pad_token_id, "ids": ids, "cut": [max(0, n - 77) for n in whole]})
    write("tokenize.json", {"texts": texts, "cases": cases})


SAMPLERS = [EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, DDIMScheduler, DPMSolverMultistepScheduler]
KARRAS = SAMPLERS[0], SAMPLERS[3]
WIDTH = 4  # values of the latents
LOW = 0.5  # stands in for the low-pass of structure guidance: half of every value


def short(values):
    """f32 values, or a tensor of them, with the digits that f32 needs."""
    return [float(f"{float(v):.9g}") for v in values]


def sampler_configs():
    sdxl = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    for cls in SAMPLERS:
        more = {"clip_sample": False} if cls is DDIMScheduler else {}
        for spacing in ("leading", "linspace", "trailing"):
            for prediction in ("epsilon", "v_prediction"):
                config = {**sdxl, **more, "timestep_spacing": spacing, "prediction_type": prediction}
                yield cls, config
                if cls in KARRAS:
                    yield cls, {**config, "use_karras_sigmas": True}
    yield DDIMScheduler, {**sdxl, "clip_sample": False, "set_alpha_to_one": False, "timestep_spacing": "leading"}
    yield EulerDiscreteScheduler, {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}  # linear betas


def model(x, t):
    """Stands in for the denoiser: `x` is its input as the scheduler scales it."""
    x = x.double()
    return (x * (0.5 + 0.0004 * t) + 0.25 * torch.cos(2 * x + t / 300)).float()


def levels(scheduler):
    """The noise level of each step, at the scale x0 + sigma * noise."""
    if isinstance(scheduler, DDIMScheduler):
        abar = scheduler.alphas_cumprod[scheduler.timesteps].double()
        return ((1 - abar) / abar).sqrt()
    return scheduler.sigmas[:-1].double()


def guided(out, x, sigma, reference, weight, kind, scaled):
    """The model output whose clean prediction is x0 + weight * (low(reference) - low(x0))."""
    norm = (1 + sigma**2) ** 0.5
    x, out = x.double() * (norm if scaled else 1), out.double()
    x0 = x - sigma * out if kind == "epsilon" else x / norm**2 - out * sigma / norm
    x0 = x0 + weight * LOW * (reference.double() - x0)
    return ((x - x0) / sigma if kind == "epsilon" else (x / norm**2 - x0) * norm / sigma).float()


def trajectory(cls, config, steps, restart):
    """A whole run, then one restarted from its result with fresh noise and structure guidance."""
    scheduler = cls(**config)
    scaled = cls in (DDIMScheduler, DPMSolverMultistepScheduler)  # these keep x at sqrt(abar) times ours
    generator, twin = (torch.Generator().manual_seed(SEED) for _ in range(2))
    noises = [torch.randn(WIDTH, generator=torch.Generator().manual_seed(SEED + 1 + i)) for i in range(2)]
    states, added = [], []
    for stage, noise in enumerate(noises):
        scheduler.set_timesteps(steps)  # forgets the steps before
        sigmas, first = levels(scheduler), restart if stage else 0
        weight = sigmas**2 / (1 + sigmas**2)
        if stage == 0:
            x = noise * scheduler.init_noise_sigma
        else:
            reference = x
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(first)
            x = scheduler.add_noise(reference, noise, scheduler.timesteps[first : first + 1])
        for i, t in list(enumerate(scheduler.timesteps))[first:]:
            out = model(scheduler.scale_model_input(x, t), float(t))
            if stage:
                out = guided(out, x, sigmas[i], reference, weight[i] / weight[first], config["prediction_type"], scaled)
            more = {}
            if cls is EulerAncestralDiscreteScheduler:
                more["generator"] = generator
                added.append(short(torch.randn(WIDTH, generator=twin)))
            x = scheduler.step(out, t, x, **more).prev_sample
            states.append(short(x))
    return {"steps": steps, "restart": restart, "low": LOW, "scaled": scaled, "noises": [short(n) for n in noises],
            "added": added, "states": states}


def sampling():
    cases = []
    for cls, config in sampler_configs():
        scheduler, runs = cls(**config), []
        for steps in (1, 2, 7, 30):
            scheduler.set_timesteps(steps)
            sigmas = getattr(scheduler, "sigmas", None)
            runs.append({"steps": steps, "sigmas": None if sigmas is None else short(sigmas),
                         "timesteps": short(scheduler.timesteps), "init_noise_sigma": float(scheduler.init_noise_sigma)})
        full = {"prediction_type": "epsilon", **config}
        cases.append({"config": {"_class_name": cls.__name__, **config}, "schedules": runs,
                      "trajectory": trajectory(cls, full, 7, 2)})
    # As save_pretrained writes it: with words that are not JSON, and keys of its own.
    saved = DPMSolverMultistepScheduler(use_karras_sigmas=True).to_json_string()
    write("sampling.json", {"cases": cases, "saved_dpm_solver": saved})


def randn():
    cases = []
    for seed in (0, SEED, 2**40 + 3):
        generator = torch.Generator().manual_seed(seed)
        sizes = [1, 5, 15, 16, 2, 17, 31, 32, 100]  # one generator: what a draw leaves behind matters too
        normals = [torch.randn(n, generator=generator).tolist() for n in sizes]
        limits = [0, 1, 7, 1000, 2**28, 2**32 - 1]
        integers = [int(torch.randint(0, m + 1, (1,), generator=generator)) for m in limits]
        cases.append({"seed": seed, "normals": normals, "limits": limits, "integers": integers})
    write("randn.json", {"cases": cases})


def philox4x32(counter, key):
    """Philox4x32-10 (Salmon et al. 2011) on four uint32 arrays and a key of two words."""
    c, k, mask = [np.asarray(w, np.uint64) for w in counter], [np.uint64(w) for w in key], np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ k[0], b & mask, (a >> np.uint64(32)) ^ c[3] ^ k[1], a & mask]
        k = [(k[0] + np.uint64(0x9E3779B9)) & mask, (k[1] + np.uint64(0xBB67AE85)) & mask]
    return c


def philox():
    # Known answers published with Random123: counter, key, result.
    known = [("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
             ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
             ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1")]
    known = [[[int(w, 16) for w in words.split()] for words in row] for row in known]
    for counter, key, result in known:
        assert [int(w) for w in philox4x32(counter, key)] == result
    cases = []
    for seed in (0, SEED, 2**40 + 3):
        calls = []
        for call, n in enumerate((7, 1, 100)):  # one generator: the call's number is a part of the counter
            zero = np.zeros(n, np.uint64)
            u, v, *_ = philox4x32([zero + np.uint64(call), zero, np.arange(n), zero], [seed & 0xFFFFFFFF, seed >> 32])
            turn = float(np.float32(2 * np.pi)) / 2**32
            calls.append(short(np.sqrt(-2 * np.log((u + 0.5) / 2**32)) * np.sin((v + 0.5) * turn)))
        cases.append({"seed": seed, "normals": calls})
    write("philox.json", {"known": known, "cases": cases})


if __name__ == "__main__":
    tokenize()
    sampling()
    randn()
    philox()
