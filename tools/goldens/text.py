"""Makes tests/goldens/host/t5 and t5.json: a small SentencePiece model and what T5's tokenizer makes of texts.

    python tools/goldens/text.py

trains a unigram model on made-up sentences (nmt_nfkc, so its character map is the real one) and writes it as
`spiece.model`, as the `tokenizer.json` that transformers saves for it (without the character map, which the test puts
back from the model), and the ids that transformers' `T5Tokenizer` gives. That one is the reference, as FLUX's pipeline
uses it; where SentencePiece itself differs is recorded beside it. Needs sentencepiece, protobuf and transformers.
"""

import base64
import io
import json
import random
import shutil
import tempfile
from pathlib import Path

import sentencepiece
import tokenizers
import transformers
from transformers import T5Tokenizer

OUT = Path(__file__).resolve().parents[2] / "tests/goldens/host"
SEED = 50257
LENGTH = 48
WORDS = """a the red blue green ball cube on sand under day night sky snow mountain lake fox cat photo of painting highly
detailed resolution best quality misty dawn forest castle river bright small large tree house street rain it's fox's
caf\u00e9 na\u00efve \u00fcber stra\u00dfe gar\u00e7on ni\u00f1o \u6771\u4eac \u5bcc\u58eb\u5c71 \u8d64\u3044 \u732b \u0642\u0637 \u0623\u062d\u0645\u0631
\u0441\u043d\u0435\u0433 \u0433\u043e\u0440\u0430 4k 8k 50mm (1:2) \U0001f600 \U0001f98a"""


def train():
    """Sentences of real words and of words made of syllables, so that there are pieces of every length."""
    rng = random.Random(SEED)
    syllable = lambda: rng.choice("bdfgklmnprstv") + rng.choice("aeiou") + rng.choice(["", "", "n", "r", "st"])
    words = WORDS.split() + ["".join(syllable() for _ in range(rng.randint(1, 3))) for _ in range(300)]
    sentence = lambda: " ".join(rng.choice(words) for _ in range(rng.randint(3, 12)))
    sentences = [rng.choice([str, str.capitalize])(sentence()) + rng.choice(".!?,") for _ in range(4000)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, model_type="unigram", vocab_size=420, pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, normalization_rule_name="nmt_nfkc", num_threads=1, minloglevel=2,
        user_defined_symbols=["<sks>"])
    return model.getvalue()


def configs():
    """Config files in the forms found in the wild, by name: (tokenizer_config, special_tokens_map)."""
    extra = [f"<extra_id_{n}>" for n in range(100)]
    plain = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "additional_special_tokens": extra}
    rules = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    wide = rules | {"lstrip": True, "rstrip": True}
    first = 420  # the id after the pieces
    listed = {str(i): {"content": t, **rules} for i, t in enumerate(["<pad>", "</s>", "<unk>"])}
    listed |= {str(first + i): {"content": t, **wide} for i, t in enumerate(reversed(extra))}
    return {
        "bare": (None, None),
        "map": ({"extra_ids": 100, "model_max_length": 512}, plain),
        "decoder": ({**plain, "extra_ids": 100, "model_max_length": 512, "added_tokens_decoder": listed}, None),
    }


def prompts(rng):
    fixed = [
        "", " ", "\t\n \r", "a", "A red ball on sand.", "the FOX's lake!!! it's we'll", "a  b   c", "  leading", "trailing  ",
        "tab\tnewline\nboth\r\nend", "photo of a mountain, highly detailed, 4k resolution, best quality", "12345 1st x2 50mm",
        "(fox:1.2), [a|b] {c}", "...,;:!?", "--- \u2014 \u2013 \u2026", "\u201cquoted\u201d \u2018it\u2019s\u2019",
        "caf\u00e9 na\u00efve \u00fcber stra\u00dfe", "cafe\u0301 n\u0303 u\u0308ber", "e\u0301\u0301\u0323 a\u030a\u0327 \u0301",
        "\uff32\uff45\uff44 \uff26\uff2f\uff38 \uff11\uff12\uff13\uff01", "\u2460\u2461 \u2168 \u210c \ufb01ne \ufb03", "\u337f \u33a2 \u2122 \u00bd \u00b2",
        "\uff76\uff9e\uff77\uff9e \uff8a\uff9f", "\u6771\u4eac\u306e\u8d64\u3044\u732b", "\u5bcc\u58eb\u5c71\u3000\u96ea", "\u6f22\u5b57\u4eee\u540d",
        "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab", "\u0642\u0637 \u0623\u062d\u0645\u0631 \u0639\u0644\u0649", "\u0642\u0637\u0651\u064f \ufdfa \ufefb",
        "\u0441\u043d\u0435\u0433 \u0438 \u0433\u043e\u0440\u0430", "\u0e01\u0e33 \u0e19\u0e49\u0e33", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0915\u094d\u0937",
        "\U0001f600 \U0001f98a\U0001f98a", "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U0001f44d\U0001f3fd", "\u2603\ufe0f \u26c4", "a\u00a0b\u2003c\u3000d",
        "zero\u200bwidth \ufeffbom \u00adsoft", "\x00\x01\x02", "a\x00b\x1fc\x7fd", "\x85next\u2028line\u2029", "\u202eright\u202c \u061c",
        "</s>", "a</s>b", "a </s> b</s></s>", "<extra_id_0>", "x<extra_id_0>y <extra_id_99> z", "<extra_id_100> <extra_id_", "<pad><unk>",
        " <unk> a <pad> ", "<sks> x<sks>y <SKS>", "<s> </S> < /s>", "\u2581a\u2581\u2581b \u2581", "a\u2581b", "snow " * 60, "snow" * 60, "x" * 300,
        "q\u4e02\u4e03\u4e04 \u4e05", "\ufffd \ue000 \U0010ffff", "\u212b \u2126 \u1e9b\u0323", "\u0130\u0131 \u017f \u00df", "\u01c4 \u1f80 \u0149",
        "\r\n\r\n", "!" * 40,
    ]
    alphabet = "aA !'sfox</>\u0301\u00e9\u6f22\U0001f600 9\n\u3000\uff21\u2581"
    return fixed + ["".join(rng.choice(alphabet) for _ in range(rng.randint(1, 60))) for _ in range(12)]


def tokenizer(model, config, special):
    """The tokenizer of a `spiece.model` with config files, and the same one saved and loaded again."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "spiece.model").write_bytes(model)
        for name, value in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
            if value:
                (folder / name).write_text(json.dumps(value))
        first = T5Tokenizer.from_pretrained(folder)
        first.save_pretrained(folder / "saved")
        return first, T5Tokenizer.from_pretrained(folder / "saved"), (folder / "saved/tokenizer.json").read_text()


def main():
    model, texts, cases = train(), prompts(random.Random(SEED)), []
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert processor.get_piece_size() == 420
    shutil.rmtree(OUT / "t5", ignore_errors=True)
    (OUT / "t5").mkdir()
    (OUT / "t5/spiece.model").write_bytes(model)
    for name, (config, special) in configs().items():
        one, two, saved = tokenizer(model, config, special)
        ids = [one(t, padding="max_length", max_length=LENGTH, truncation=True)["input_ids"] for t in texts]
        again = [two(t, padding="max_length", max_length=LENGTH, truncation=True)["input_ids"] for t in texts]
        assert ids == again, name
        whole = [len(one(t, verbose=False)["input_ids"]) for t in texts]
        ids = [row[:n] for row, n in zip(ids, whole)]  # without padding
        cases.append({"name": name, "tokenizer_config": config, "special_tokens_map": special, "ids": ids,
                      "cut": [max(0, n - LENGTH) for n in whole]})
        if name == "bare":
            file = json.loads(saved)
            charsmap = base64.b64decode(file["normalizer"]["precompiled_charsmap"])
            file["normalizer"]["precompiled_charsmap"] = ""
            text = json.dumps(file, separators=(",", ":")) + "\n"
            (OUT / "t5/tokenizer.json").write_text(text)
            plain = [(processor.encode(t) + [1]) for t in texts]
            differ = [i for i, (a, t) in enumerate(zip(plain, texts)) if a != one(t, verbose=False)["input_ids"]]
    made_with = {"script": "tools/goldens/text.py", "seed": SEED, "sentencepiece": sentencepiece.__version__,
                 "transformers": transformers.__version__, "tokenizers": tokenizers.__version__}
    out = {"made_with": made_with, "length": LENGTH, "charsmap": [model.index(charsmap), len(charsmap)],
           "texts": texts, "cases": cases, "unlike_sentencepiece": differ}
    (OUT / "t5.json").write_text(json.dumps(out) + "\n")
    print(f"{len(texts)} texts, {len(differ)} unlike SentencePiece: {[texts[i] for i in differ]}")


if __name__ == "__main__":
    main()
