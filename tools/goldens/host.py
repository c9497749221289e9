"""Makes tests/goldens/host: what torch, diffusers and transformers compute for the host-side modules.

    python tools/goldens/host.py

writes `tokenizer/` (a small CLIP vocabulary of its own), `tokenize.json`, `schedule.json` and `randn.json`.
Needs torch, diffusers and transformers; every JSON file records their versions and the seed.
"""

import json
import random
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import EulerDiscreteScheduler
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


def schedule():
    sdxl = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    configs = [{**sdxl, "timestep_spacing": s} for s in ("leading", "linspace", "trailing")]
    configs += [{**sdxl, "timestep_spacing": "leading", "use_karras_sigmas": True},
                {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}]
    cases = []
    for config in configs:
        scheduler = EulerDiscreteScheduler(**config)
        for steps in (1, 2, 7, 30):
            scheduler.set_timesteps(steps)
            cases.append({"config": config, "steps": steps, "sigmas": scheduler.sigmas.tolist(),
                          "timesteps": scheduler.timesteps.tolist(),
                          "init_noise_sigma": float(scheduler.init_noise_sigma)})
    write("schedule.json", {"cases": cases})


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


if __name__ == "__main__":
    tokenize()
    schedule()
    randn()
