"""What the golden scripts of both families share: random weights, VAEs and CLIP encoders, files, the method.

Weights are rounded to the type they are stored in, then everything is computed in float64, so that what a float32
engine errs is its own. Residual streams are small (`SMALL`), since only there an epsilon shows. Versions and seed
stand in the metadata of every file.
"""

import argparse
import json
import math
import shutil
import sys
import zlib
from fnmatch import fnmatch
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

SEED = 31415
SMALL = 0.04
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
MADE_WITH = {"script": f"tools/goldens/{Path(sys.argv[0]).name}", "seed": SEED, "torch": torch.__version__,
             "diffusers": diffusers.__version__, "transformers": transformers.__version__}
VOCAB = 64
# How layers are scaled, by the ends of their names. `writers` write into a residual stream from something normalised;
# of `stream` there only the bias is small. `gains` of what would else be drowned: attention near uniform, and the gate
# whose GELU must show.
RULES = dict(
    writers=("conv_in", "conv1", "conv2", "time_emb_proj", "proj_in", "to_out.0", "out_proj", "fc2"),
    stream=("conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "post_quant_conv", "proj_out", "ff.net.2"),
    gains={"to_q": 1.5, "to_k": 1.5, "q_proj": 1.5, "k_proj": 1.5, "ff.net.2": 1.5 * SMALL, "proj_out": 0.3,
           "fc1": 1.5},
    embeddings=("token_embedding", "position_embedding"))


def normal(name, *shape, scale=1.0):
    """Unit normals from a generator of the name's own."""
    generator = torch.Generator().manual_seed(SEED + zlib.crc32(name.encode()))
    return torch.randn(*shape, generator=generator, dtype=torch.float32) * scale


def randomise(model, label, dtype, rules=RULES):
    """Weights scaled to their fan-in, biases and norms random too; rounded to `dtype`; then in float64."""
    for name, p in model.named_parameters():
        layer, kind = name.rsplit(".", 1)
        ends = lambda names: any(fnmatch(layer, n) or fnmatch(layer, "*." + n) for n in names)
        values = normal(f"{label}/{name}", *p.shape)
        if "norm" in layer.rsplit(".", 1)[-1]:
            values = 1 + 0.2 * values if kind == "weight" else 0.2 * values
        elif kind == "bias":
            values *= 0.2 * (SMALL if ends(rules["writers"] + rules["stream"]) else 1)
        elif ends(rules["embeddings"]):
            values *= SMALL
        else:
            values /= math.sqrt(p[0].numel())
            gain = next((g for n, g in rules["gains"].items() if ends((n,))), 1.0)
            values *= SMALL if ends(rules["writers"]) else gain
        p.data = values.to(dtype).double()
    return model.double().eval().requires_grad_(False)


# Networks


def make_vae(v):
    levels = len(v["channels"])
    return AutoencoderKL(
        block_out_channels=v["channels"], layers_per_block=v["layers"], norm_num_groups=v["groups"],
        latent_channels=v.get("latent", 4), down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels, use_quant_conv=v.get("quant", True),
        use_post_quant_conv=v.get("quant", True), mid_block_add_attention=v.get("mid", True),
        scaling_factor=v.get("scaling", 0.13025), shift_factor=v.get("shift"), sample_size=64)


def factor_of(vae):
    """Pixels per latent."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def decode(vae, z):
    return vae.decode(z, return_dict=False)[0]


def encode(vae, x):
    return vae.encode(x).latent_dist.mean


def make_clip(t, projected):
    config = CLIPTextConfig(
        vocab_size=VOCAB, hidden_size=t["width"], intermediate_size=3 * t["width"] + 1, num_hidden_layers=t["layers"],
        num_attention_heads=t["heads"], hidden_act=t["act"], eos_token_id=t["eos"], bos_token_id=0, pad_token_id=1,
        projection_dim=t["width"] + 2, max_position_embeddings=77)
    config._attn_implementation = "eager"
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def run_clip(model, ids):
    """The second-to-last state, the pooled state and (with a projection) that projected."""
    out = model(input_ids=ids, output_hidden_states=True)
    if isinstance(model, CLIPTextModelWithProjection):
        return {"penultimate": out.hidden_states[-2], "text_embeds": out.text_embeds}
    return {"penultimate": out.hidden_states[-2], "pooled": out.pooler_output}


# Files


def save_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, default=str) + "\n")


def plain(config):
    """Without what is no JSON, and without a list whose order changes from run to run."""
    return {k: v for k, v in dict(config).items() if not callable(v) and k != "_use_default_values"}


def save_weights(c, folder, stem, state, config):
    """One file or shards with an index; plain names or those of the fp16 variant."""
    save_json(folder / "config.json", dict(sorted(config.items())))
    state = {k: v.to(TYPES[c["type"]]).contiguous() for k, v in state.items() if not k.endswith("position_ids")}
    metadata = {"format": "pt", "made_with": json.dumps(MADE_WITH)}
    variant = ".fp16" if c.get("variant") else ""
    shards = c.get("shards", 1)
    if shards == 1:
        save_file(state, folder / f"{stem}{variant}.safetensors", metadata)
        return
    names, place = sorted(state), {}
    for i in range(shards):
        file = f"{stem}{variant}-{i + 1:05}-of-{shards:05}.safetensors"
        part = {n: state[n] for n in names[i::shards]}
        save_file(part, folder / file, metadata)
        place |= dict.fromkeys(part, file)
    total = sum(v.numel() * v.element_size() for v in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": place}
    save_json(folder / f"{stem}.safetensors.index{variant}.json", index)


def old_names(state, how):
    """A VAE's attention as old checkpoints spell it, with linear layers or with 1×1 convolutions."""
    spelled = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    out = {}
    for name, value in state.items():
        for new, old in spelled.items():
            if ".attentions.0." + new + "." in name:
                name = name.replace(new, old)
                if how == "query4d" and value.dim() == 2:
                    value = value[:, :, None, None]
        out[name] = value
    return out


def save_vae(c, folder, vae):
    state, how = vae.state_dict(), c["vae"].get("names")
    save_weights(c, folder / "vae", "diffusion_pytorch_model", old_names(state, how) if how else state,
                 plain(vae.config) | {"_class_name": "AutoencoderKL"})


def save_clip(c, folder, t, model):
    bare = {k.removeprefix("text_model."): v for k, v in model.state_dict().items()}
    prefix = lambda k: k if k.startswith("text_projection") or not t["prefix"] else "text_model." + k
    config = model.config.to_dict() | {"architectures": [type(model).__name__]}
    save_weights(c, folder, "model", {prefix(k): v for k, v in bare.items()}, config)


def save_case(folder, name, component, params, rel, inputs, outputs):
    """Inputs are stored as given (float32 or int64), outputs rounded to float32."""
    case = {"component": component, "params": params, "tolerance": {"rel": rel}}
    tensors = {f"in.{k}": v for k, v in inputs.items()} | {f"out.{k}": v for k, v in outputs.items()}
    tensors = {k: (v if v.dtype == torch.int64 else v.float()).contiguous().clone() for k, v in tensors.items()}
    save_file(tensors, folder / f"{name}.safetensors", {"case": json.dumps(case), "made_with": json.dumps(MADE_WITH)})


# The method, plainly


def blocks(length, window, shift=None):
    """(queries, keys) of every block of one axis; with a `shift`, of the canvas that is a block longer."""
    step, w, lead = max(window // 2, 1), min(window, length), shift or 0
    for start in range(-lead, length if shift is None else -lead + step * (-(-length // step) + 1), step):
        origin = min(max(start - window // 4, 0), max(length - window, 0))
        yield slice(max(start, 0), min(max(start + step, 0), length)), slice(origin, origin + w)


def bicubic(x, height, width):
    return F.interpolate(x, (height, width), mode="bicubic", align_corners=False)


def low_pass(x, scale_factor):
    h, w = x.shape[2:]
    low = (max(1, int(h * scale_factor)), max(1, int(w * scale_factor)))
    low = F.interpolate(x, low, mode="bilinear", align_corners=False, antialias=True)
    return F.interpolate(low, (h, w), mode="bilinear", align_corners=False)


def mix(reference, x, weight, scale_factor):
    return x + weight * (low_pass(reference, scale_factor) - low_pass(x, scale_factor))


def cascade(p, vae, noise, sigmas, start, renoise, clean, weight):
    """Every stage's latents and picture. A family gives what differs: `start(noise)`, `renoise(reference, noise,
    sigma)`, the prediction `clean(x, i, stage)` and the guidance's `weight(i, first)`."""
    n, scaling, shift = p["steps"], vae.config.scaling_factor, vae.config.shift_factor or 0
    restart, out = int(n * (1 - p["restart_ratio"])), {}
    for stage in range(p["stages"] + 1):
        if stage == 0:
            x, first = start(noise[0].double()), 0
        else:
            lifted = bicubic(x, 2 * x.shape[2], 2 * x.shape[3])
            encoded = (encode(vae, bicubic(image, 2 * image.shape[2], 2 * image.shape[3])) - shift) * scaling
            reference = mix(lifted, encoded, 1.0, p["scale_factor"])
            x, first = renoise(reference, noise[stage].double(), sigmas[restart]), restart
        for i in range(first, n):
            x0 = clean(x, i, stage)
            if stage:
                x0 = mix(reference, x0, weight(i, first), p["scale_factor"])
            x = x + (sigmas[i + 1] - sigmas[i]) * (x - x0) / sigmas[i]
        image = decode(vae, x / scaling + shift)
        out |= {f"latents.{stage}": x, f"image.{stage}": image}
    return out


# Cases of both families


def token_ids(label, eos, batch):
    """Ids with larger ones than `eos` before it; under the old rule (2) the largest occurs twice."""
    generator = torch.Generator().manual_seed(SEED + zlib.crc32(label.encode()))
    ids = torch.randint(3, VOCAB - 1, (batch, 77), generator=generator)
    end = VOCAB - 1 if eos == 2 else eos
    ids[ids == end] = 3
    for row in ids:
        at = int(torch.randint(2, 60, (1,), generator=generator))
        row[at] = end
        row[at + 5 :] = end if eos == 2 else 0
    ids[:, 0] = 0
    return ids


def clip_case(name, where, label, t, model, out):
    ids = token_ids(f"{name}/{label}", t["eos"], 2)
    save_case(out, where, "clip_text", {"subfolder": where}, 1e-5, {"input_ids": ids}, run_clip(model, ids))


def vae_cases(name, vae, out):
    factor, channels = factor_of(vae), vae.config.latent_channels
    for i, (batch, h, w) in enumerate([(1, 9, 13), (2, 6, 5)]):
        z = normal(f"{name}/latents{i}", batch, channels, h, w)
        save_case(out, f"vae_decoder-{i}", "vae_decoder", {}, 1e-5, {"latents": z}, {"image": decode(vae, z.double())})
        odd = i * (factor - 1)  # the second picture is no multiple of the factor
        image = normal(f"{name}/image{i}", batch, 3, h * factor + odd, w * factor + odd, scale=0.5)
        save_case(out, f"vae_encoder-{i}", "vae_encoder", {}, 1e-5, {"image": image}, {"mean": encode(vae, image.double())})


def stage_noise(name, p, vae):
    factor, channels = factor_of(vae), vae.config.latent_channels
    return [normal(f"{name}/noise{s}", 1, channels, (p["height"] << s) // factor, (p["width"] << s) // factor)
            for s in range(p["stages"] + 1)]


def fresh(root, name):
    """The emptied folder of a fixture, and that of its cases."""
    folder = root / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "cases").mkdir(parents=True)
    return folder, folder / "cases"


def report(folder):
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{folder}: {size / 1e6:.2f} MB", flush=True)


def main(make, probe, names, committed):
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[2] / "tests/goldens")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--probe", nargs="+", default=[])
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    for name in args.probe:
        probe(name)
    if not args.probe:
        for name in args.names or (names if args.all else committed):
            make(name, args.out)
