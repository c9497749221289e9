"""Makes fixture folders (`model/` and `cases/`, the format of `scalediff verify`) of tiny SDXL models with random
weights, and what diffusers, transformers and plain torch compute with them.

    python tools/goldens/sdxl.py                     # the committed ones, into tests/goldens
    python tools/goldens/sdxl.py --all --out DIR     # every configuration, into DIR
    python tools/goldens/sdxl.py --probe NAME …      # how visible each epsilon and each GELU kind is

Weights are rounded to the type they are stored in, then everything is computed in float64, so that what a float32
engine errs is its own. Residual streams are small (`SMALL`), since only there an epsilon shows. Versions and seed
stand in the metadata of every file.
"""

import argparse
import json
import math
import shutil
import zlib
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

SEED = 31415
SMALL = 0.04
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
MADE_WITH = {"script": "tools/goldens/sdxl.py", "seed": SEED, "torch": torch.__version__,
             "diffusers": diffusers.__version__, "transformers": transformers.__version__}
# Layers that write into a residual stream from something normalised; of the others there only the bias is small.
WRITERS = ("conv_in", "conv1", "conv2", "time_emb_proj", "proj_in", "to_out.0", "token_embedding",
           "position_embedding", "out_proj", "fc2")
STREAM = ("conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "post_quant_conv", "proj_out", "ff.net.2")
# Gains of what would else be drowned: attention near uniform, and the gate whose GELU must show.
GAINS = {"to_q": 1.5, "to_k": 1.5, "q_proj": 1.5, "k_proj": 1.5, "ff.net.2": 1.5 * SMALL, "proj_out": 0.3,
         "fc1": 1.5}

# Every configuration. `unet`: channels, heads per level, depth per level, layers, groups, levels with attention.
# `sizes`: (batch, height, width) of latents; `npa`: (batch, height, width, base height, base width).
CONFIGS = {
    # Channels that no vec4 divides, odd grids, attention everywhere, windows of odd size, short last blocks; bf16.
    "sdxl-odd": dict(
        unet=dict(channels=[10, 20, 30], heads=[1, 5, 5], depth=[1, 2, 1], layers=1, groups=5, attention=[0, 1, 2]),
        vae=dict(channels=[6, 12, 18], layers=1, groups=3, names="query"), type="bf16",
        clip=[dict(width=12, heads=3, layers=2, act="quick_gelu", eos=2, prefix=False),
              dict(width=20, heads=2, layers=3, act="gelu", eos=50, prefix=True)],
        sizes=[(1, 9, 13), (2, 17, 24)], npa=[(1, 18, 26, 9, 13), (2, 13, 21, 8, 6), (1, 12, 24, 16, 8)],
        schedule=dict(timestep_spacing="leading", steps_offset=1), ops=True,
        pipeline=dict(height=36, width=52, steps=5, guidance_scale=5.0, stages=1, restart_ratio=0.6, scale_factor=0.25)),
    # Four levels, attention on the lowest only, shards, no quant convs, no mid attention, one branch, 3 stages.
    "sdxl-deep": dict(
        unet=dict(channels=[8, 8, 12, 12], heads=[1, 1, 1, 3], depth=[1, 1, 1, 2], layers=1, groups=4, attention=[3],
                  linear=False),
        vae=dict(channels=[8, 12], layers=2, groups=4, quant=False, mid=False, scaling=0.6), type="f32", shards=3,
        clip=[dict(width=8, heads=2, layers=2, act="gelu_new", eos=40, prefix=True),
              dict(width=16, heads=4, layers=2, act="gelu_new", eos=2, prefix=True)],
        sizes=[(3, 17, 24)], npa=[(1, 33, 26, 17, 12)],
        schedule=dict(timestep_spacing="trailing", prediction_type="v_prediction"),
        pipeline=dict(height=10, width=14, steps=6, guidance_scale=1.0, stages=3, restart_ratio=0.5, scale_factor=0.125)),
    # Two wide levels with heads of 64, three resnets each; f16 files under their fp16 names; a four-level VAE.
    "sdxl-wide": dict(
        unet=dict(channels=[64, 128], heads=[1, 2], depth=[2, 3], layers=3, groups=32, attention=[0, 1]),
        vae=dict(channels=[8, 16, 24, 24], layers=2, groups=8, names="query4d"), type="f16", variant=True,
        clip=[dict(width=64, heads=1, layers=3, act="quick_gelu", eos=2, prefix=True),
              dict(width=32, heads=8, layers=3, act="gelu", eos=2, prefix=True)],
        sizes=[(2, 9, 13), (1, 16, 16)], npa=[(1, 20, 28, 10, 14)],
        schedule=dict(timestep_spacing="linspace"),
        pipeline=dict(height=64, width=96, steps=7, guidance_scale=3.0, stages=1, restart_ratio=0.4, scale_factor=0.5)),
    # Three groups and channels such as 18 and 30, three resnets: joins at every alignment.
    "sdxl-joins": dict(
        unet=dict(channels=[6, 18, 30], heads=[1, 3, 5], depth=[1, 1, 3], layers=3, groups=3, attention=[1, 2],
                  linear=False, flip=False, shift=1),
        vae=dict(channels=[5, 10, 15], layers=3, groups=5), type="f16", variant=True, shards=2,
        clip=[dict(width=10, heads=1, layers=4, act="gelu", eos=33, prefix=False),
              dict(width=22, heads=2, layers=2, act="quick_gelu", eos=60, prefix=True)],
        sizes=[(1, 17, 24), (3, 9, 13)], npa=[(2, 17, 24, 9, 13), (1, 31, 19, 12, 7)],
        schedule=dict(timestep_spacing="trailing"),
        pipeline=dict(height=44, width=28, steps=4, guidance_scale=7.5, stages=2, restart_ratio=0.5, scale_factor=0.3)),
    # One group, one head of odd width, other latent and embedding sizes, attention on the finest level alone.
    "sdxl-plain": dict(
        unet=dict(channels=[10, 20], heads=[1, 4], depth=[1, 1], layers=1, groups=1, attention=[0]),
        vae=dict(channels=[7, 14], layers=1, groups=7, mid=True, quant=True), type="f32", shards=2,
        clip=[dict(width=6, heads=1, layers=2, act="gelu_new", eos=2, prefix=True),
              dict(width=14, heads=1, layers=3, act="gelu", eos=2, prefix=True)],
        sizes=[(3, 5, 7), (1, 1, 1), (1, 2, 9)], npa=[(3, 10, 14, 5, 7), (1, 7, 7, 2, 3), (1, 6, 6, 1, 1)],
        schedule=dict(timestep_spacing="leading", prediction_type="v_prediction", steps_offset=1),
        pipeline=dict(height=10, width=14, steps=10, guidance_scale=2.0, stages=2, restart_ratio=0.9, scale_factor=0.25)),
}
COMMITTED = ["sdxl-odd", "sdxl-deep"]
VOCAB = 64


def normal(name, *shape, scale=1.0):
    """Unit normals from a generator of the name's own."""
    generator = torch.Generator().manual_seed(SEED + zlib.crc32(name.encode()))
    return torch.randn(*shape, generator=generator, dtype=torch.float32) * scale


def randomise(model, label, dtype):
    """Weights scaled to their fan-in, biases and norms random too; rounded to `dtype`; then in float64."""
    for name, p in model.named_parameters():
        layer, kind = name.rsplit(".", 1)
        ends = lambda names: any(layer == n or layer.endswith("." + n) for n in names)
        values = normal(f"{label}/{name}", *p.shape)
        if "norm" in layer.rsplit(".", 1)[-1]:
            values = 1 + 0.2 * values if kind == "weight" else 0.2 * values
        elif kind == "bias":
            values *= 0.2 * (SMALL if ends(WRITERS + STREAM) else 1)
        elif "embedding" in layer and p.shape[0] in (VOCAB, 77):
            values *= SMALL
        else:
            values /= math.sqrt(p[0].numel())
            values *= SMALL if ends(WRITERS) else next((g for n, g in GAINS.items() if ends((n,))), 1.0)
        p.data = values.to(dtype).double()
    return model.double().eval().requires_grad_(False)


# Networks


def make_unet(c):
    u, levels = c["unet"], len(c["unet"]["channels"])
    kind = lambda side, i: f"CrossAttn{side}Block2D" if i in u["attention"] else f"{side}Block2D"
    context, pooled, time_id = sum(t["width"] for t in c["clip"]), c["clip"][1]["width"] + 2, 6
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=u["channels"], layers_per_block=u["layers"],
        down_block_types=[kind("Down", i) for i in range(levels)],
        up_block_types=[kind("Up", i) for i in reversed(range(levels))],
        attention_head_dim=u["heads"], transformer_layers_per_block=u["depth"], norm_num_groups=u["groups"],
        cross_attention_dim=context, use_linear_projection=u.get("linear", True), addition_embed_type="text_time",
        addition_time_embed_dim=time_id, projection_class_embeddings_input_dim=pooled + 6 * time_id,
        flip_sin_to_cos=u.get("flip", True), freq_shift=u.get("shift", 0))


def make_vae(c):
    v = c["vae"]
    levels = len(v["channels"])
    return AutoencoderKL(
        block_out_channels=v["channels"], layers_per_block=v["layers"], norm_num_groups=v["groups"], latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels,
        use_quant_conv=v.get("quant", True), use_post_quant_conv=v.get("quant", True),
        mid_block_add_attention=v.get("mid", True), scaling_factor=v.get("scaling", 0.13025), sample_size=64)


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


def save_weights(c, folder, stem, state, config):
    """One file or shards with an index; plain names or those of the fp16 variant."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True, default=str) + "\n")
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
    index = f"{stem}.safetensors.index{variant}.json"
    total = sum(v.numel() * v.element_size() for v in state.values())
    (folder / index).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": place}, indent=1) + "\n")


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


def save_model(c, folder, nets):
    plain = lambda config: {k: v for k, v in dict(config).items() if not callable(v)}
    unet, vae, clips, scheduler = nets
    save_weights(c, folder / "unet", "diffusion_pytorch_model", unet.state_dict(),
                 plain(unet.config) | {"_class_name": "UNet2DConditionModel"})
    state, how = vae.state_dict(), c["vae"].get("names")
    save_weights(c, folder / "vae", "diffusion_pytorch_model", old_names(state, how) if how else state,
                 plain(vae.config) | {"_class_name": "AutoencoderKL"})
    for i, (t, model) in enumerate(zip(c["clip"], clips)):
        bare = {k.removeprefix("text_model."): v for k, v in model.state_dict().items()}
        prefix = lambda k: k if k.startswith("text_projection") or not t["prefix"] else "text_model." + k
        config = model.config.to_dict() | {"architectures": [type(model).__name__]}
        save_weights(c, folder / ("text_encoder" if i == 0 else "text_encoder_2"), "model",
                     {prefix(k): v for k, v in bare.items()}, config)
    (folder / "scheduler").mkdir()
    config = plain(scheduler.config) | {"_class_name": "EulerDiscreteScheduler"}
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(config, indent=1) + "\n")
    index = {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True, "made_with": MADE_WITH}
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")


def save_case(folder, name, component, params, rel, inputs, outputs):
    """Inputs are stored as given (float32 or int64), outputs rounded to float32."""
    case = {"component": component, "params": params, "tolerance": {"rel": rel}}
    tensors = {f"in.{k}": v for k, v in inputs.items()} | {f"out.{k}": v for k, v in outputs.items()}
    tensors = {k: (v if v.dtype == torch.int64 else v.float()).contiguous().clone() for k, v in tensors.items()}
    save_file(tensors, folder / f"{name}.safetensors", {"case": json.dumps(case), "made_with": json.dumps(MADE_WITH)})


# Neighborhood patch attention, block by block


def blocks(length, window):
    """(queries, keys) of every block of one axis."""
    step, w = max(window // 2, 1), min(window, length)
    for start in range(0, length, step):
        origin = min(max(start - window // 4, 0), max(length - window, 0))
        yield slice(start, min(start + step, length)), slice(origin, origin + w)


def npa(q, k, v, grid, window):
    """Attention of [batch, heads, h·w, dim] within the windows of each block of queries."""
    b, n, _, d = q.shape
    q, k, v = (t.reshape(b, n, *grid, d) for t in (q, k, v))
    out = torch.full_like(q, math.nan)
    for rows, key_rows in blocks(grid[0], window[0]):
        for cols, key_cols in blocks(grid[1], window[1]):
            one_q = q[:, :, rows, cols]
            one_k, one_v = (t[:, :, key_rows, key_cols].reshape(b, n, -1, d) for t in (k, v))
            scores = one_q.reshape(b, n, -1, d) @ one_k.transpose(-1, -2) / math.sqrt(d)
            out[:, :, rows, cols] = (scores.softmax(-1) @ one_v).reshape(one_q.shape)
    assert not out.isnan().any()
    return out.reshape(b, n, -1, d)


class NpaProcessor:
    """Replaces the processor of a self-attention; its transformer's input tells the grid."""

    def __init__(self, window):
        self.window, self.grid = window, None

    def __call__(self, attn, hidden_states, *_, **__):
        heads = lambda t: t.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        q, k, v = (heads(f(hidden_states)) for f in (attn.to_q, attn.to_k, attn.to_v))
        return attn.to_out[0](npa(q, k, v, self.grid, self.window).transpose(1, 2).flatten(2))


def level_of(name, levels):
    part, index = name.split(".")[:2]
    return {"down_blocks": lambda: int(index), "mid_block": lambda: levels - 1,
            "up_blocks": lambda: levels - 1 - int(index)}[part]()


def with_npa(unet, base, run):
    """Calls `run` while every self-attention works in windows of the base's grid at its level."""
    before, hooks, levels = dict(unet.attn_processors), [], len(unet.config.block_out_channels)
    for name, module in unet.named_modules():
        if not isinstance(module, Transformer2DModel):
            continue
        window = list(base)
        for _ in range(level_of(name, levels)):
            window = [-(-n // 2) for n in window]
        mine = [NpaProcessor(window) for _ in module.transformer_blocks]
        for block, processor in zip(module.transformer_blocks, mine):
            block.attn1.set_processor(processor)

        def grid(_, args, mine=mine):
            for processor in mine:
                processor.grid = tuple(args[0].shape[2:])

        hooks.append(module.register_forward_pre_hook(grid))
    out = run()
    for hook in hooks:
        hook.remove()
    unet.set_attn_processor(before)
    return out


def run_unet(unet, sample, timestep, context, pooled, time_ids, base=None):
    run = lambda: unet(sample, torch.as_tensor(timestep, dtype=torch.float32), encoder_hidden_states=context,
                       added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids}).sample
    return with_npa(unet, base, run) if base else run()


# The method, plainly


def bicubic(x, height, width):
    return F.interpolate(x, (height, width), mode="bicubic", align_corners=False)


def low_pass(x, scale_factor):
    h, w = x.shape[2:]
    low = (max(1, int(h * scale_factor)), max(1, int(w * scale_factor)))
    low = F.interpolate(x, low, mode="bilinear", align_corners=False, antialias=True)
    return F.interpolate(low, (h, w), mode="bilinear", align_corners=False)


def mix(reference, x, weight, scale_factor):
    return x + weight * (low_pass(reference, scale_factor) - low_pass(x, scale_factor))


def decode(vae, z):
    return vae.decode(z, return_dict=False)[0]


def encode(vae, x):
    return vae.encode(x).latent_dist.mean


def cascade(nets, p, embeds, noise):
    """All stages; `embeds` are (context, pooled) with the negative branch first, or one branch."""
    unet, vae, _, scheduler = nets
    scheduler.set_timesteps(p["steps"])
    sigmas, timesteps = scheduler.sigmas.double(), scheduler.timesteps
    scaling, n, factor = vae.config.scaling_factor, p["steps"], 2 ** (len(vae.config.block_out_channels) - 1)
    base, restart = (p["height"] // factor, p["width"] // factor), int(n * (1 - p["restart_ratio"]))
    context, pooled = embeds
    ids = torch.tensor([[p["height"], p["width"], 0, 0, p["height"], p["width"]]], dtype=torch.float64)
    one_minus_abar = lambda i: sigmas[i] ** 2 / (1 + sigmas[i] ** 2)
    out = {}
    for stage in range(p["stages"] + 1):
        if stage == 0:
            x, first = noise[0].double() * scheduler.init_noise_sigma, 0
        else:
            lifted = bicubic(x, 2 * x.shape[2], 2 * x.shape[3])
            encoded = encode(vae, bicubic(image, 2 * image.shape[2], 2 * image.shape[3])) * scaling
            reference = mix(lifted, encoded, 1.0, p["scale_factor"])
            x, first = reference + sigmas[restart] * noise[stage].double(), restart
        for i in range(first, n):
            sigma = sigmas[i]
            scaled = (x / (sigma**2 + 1).sqrt()).expand(len(context), -1, -1, -1)
            o = run_unet(unet, scaled, timesteps[i], context, pooled, ids.expand(len(context), -1), base if stage else None)
            if len(context) == 2:
                o = o[:1] + p["guidance_scale"] * (o[1:] - o[:1])
            if scheduler.config.prediction_type == "epsilon":
                x0 = x - sigma * o
            else:
                x0 = x / (sigma**2 + 1) - o * sigma / (sigma**2 + 1).sqrt()
            if stage:
                x0 = mix(reference, x0, one_minus_abar(i) / one_minus_abar(first), p["scale_factor"])
            x = x + (sigmas[i + 1] - sigma) * (x - x0) / sigma
        image = decode(vae, x / scaling)
        out |= {f"latents.{stage}": x, f"image.{stage}": image}
    return out


# Cases


def conditions(c, label, batch):
    """Random context, pooled text and time ids in float32."""
    time_ids = torch.tensor([[512.0, 768.0, 0.0, 3.0, 1024.0, 640.0]]) - 7 * torch.arange(batch)[:, None]
    return {"encoder_hidden_states": normal(f"{label}/context", batch, 77, sum(t["width"] for t in c["clip"])),
            "text_embeds": normal(f"{label}/pooled", batch, c["clip"][1]["width"] + 2), "time_ids": time_ids}


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


def unet_cases(name, c, unet, out):
    sizes = [(*s, None) for s in c["sizes"]] + [(*s[:3], s[3:]) for s in c["npa"]]
    for i, (batch, h, w, base) in enumerate(sizes):
        label = f"{name}/unet{i}"
        inputs = {"sample": normal(label, batch, 4, h, w), "timestep": torch.tensor([[981.0, 41.0, 333.25][i % 3]]),
                  **conditions(c, label, batch)}
        d = {k: v.double() for k, v in inputs.items()}
        y = run_unet(unet, d["sample"], inputs["timestep"][0], d["encoder_hidden_states"], d["text_embeds"], d["time_ids"], base)
        params = {"npa": {"base_height": base[0], "base_width": base[1]}} if base else {}
        save_case(out, f"unet-npa-{i}" if base else f"unet-{i}", "unet", params, 1e-5, inputs, {"sample": y})


def vae_cases(name, c, vae, out):
    factor = 2 ** (len(c["vae"]["channels"]) - 1)
    for i, (batch, h, w) in enumerate([(1, 9, 13), (2, 6, 5)]):
        z = normal(f"{name}/latents{i}", batch, 4, h, w)
        save_case(out, f"vae_decoder-{i}", "vae_decoder", {}, 1e-5, {"latents": z}, {"image": decode(vae, z.double())})
        odd = i * (factor - 1)  # the second picture is no multiple of the factor
        image = normal(f"{name}/image{i}", batch, 3, h * factor + odd, w * factor + odd, scale=0.5)
        save_case(out, f"vae_encoder-{i}", "vae_encoder", {}, 1e-5, {"image": image}, {"mean": encode(vae, image.double())})


def op_cases(name, out):
    for i, (h, w, s) in enumerate([(17, 26, 0.25), (24, 16, 0.125), (9, 13, 0.3), (6, 50, 1.0)]):
        x, y = (normal(f"{name}/op{i}{v}", 1 + i % 2, 4, h, w) for v in "xy")
        p = {"scale_factor": s}
        save_case(out, f"low_pass-{i}", "low_pass", p, 2e-6, {"x": x}, {"y": low_pass(x.double(), s)})
        save_case(out, f"lfm-{i}", "latent_frequency_mixing", p, 2e-6, {"latent_upsampled": x, "rgb_upsampled": y},
                  {"latents": mix(x.double(), y.double(), 1.0, s)})
        save_case(out, f"sg-{i}", "structure_guidance", {**p, "gamma": 0.6}, 2e-6, {"x0": x, "reference": y},
                  {"x0": mix(y.double(), x.double(), 0.6, s)})
    for i, (h, w) in enumerate([(18, 26), (13, 31), (7, 5)]):
        x = normal(f"{name}/bicubic{i}", 2, 4, 9, 13)
        save_case(out, f"bicubic-{i}", "bicubic_upsample", {"height": h, "width": w}, 2e-6, {"x": x},
                  {"y": bicubic(x.double(), h, w)})
    grids = [(1, 5, 4, (13, 21), (8, 6)), (2, 2, 6, (9, 13), (5, 7)), (1, 1, 10, (17, 24), (9, 13)),
             (1, 1, 64, (7, 12), (8, 4)), (1, 2, 7, (5, 6), (1, 3)), (1, 1, 40, (8, 8), (8, 8))]
    for i, (batch, heads, dim, grid, window) in enumerate(grids):
        q, k, v = (normal(f"{name}/npa{i}{t}", batch, heads, grid[0] * grid[1], dim) for t in "qkv")
        params = {"height": grid[0], "width": grid[1], "base_height": window[0], "base_width": window[1]}
        save_case(out, f"npa-{i}", "npa_attention", params, 1e-5, {"q": q, "k": k, "v": v},
                  {"o": npa(q.double(), k.double(), v.double(), grid, window)})


def pipeline_case(name, c, nets, out):
    p, vae, clips = c["pipeline"], nets[1], nets[2]
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    noise = [normal(f"{name}/noise{s}", 1, 4, (p["height"] << s) // factor, (p["width"] << s) // factor)
             for s in range(p["stages"] + 1)]
    inputs = {f"noise.{i}": v for i, v in enumerate(noise)}
    rows = []
    for which in ("negative", "prompt"):
        ids = [token_ids(f"{name}/{which}{i}", t["eos"], 1) for i, t in enumerate(c["clip"])]
        inputs |= {f"{which}_ids": ids[0], f"{which}_ids_2": ids[1]}
        a, b = (run_clip(model, i) for model, i in zip(clips, ids))
        rows.append((torch.cat([a["penultimate"], b["penultimate"]], -1), b["text_embeds"]))
    rows = rows if p["guidance_scale"] > 1 else rows[1:]
    embeds = tuple(torch.cat(part) for part in zip(*rows))
    save_case(out, "pipeline", "pipeline", {**p, "encode": "mean"}, 2e-5, inputs, cascade(nets, p, embeds, noise))


def make(name, root):
    c, folder = CONFIGS[name], root / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "cases").mkdir(parents=True)
    nets, out = networks(name, c), folder / "cases"
    save_model(c, folder / "model", nets)
    unet_cases(name, c, nets[0], out)
    vae_cases(name, c, nets[1], out)
    for i, (t, model) in enumerate(zip(c["clip"], nets[2])):
        ids, where = token_ids(f"{name}/clip{i}", t["eos"], 2), "text_encoder" if i == 0 else "text_encoder_2"
        save_case(out, where, "clip_text", {"subfolder": where}, 1e-5, {"input_ids": ids}, run_clip(model, ids))
    for steps in (3, 10):
        nets[3].set_timesteps(steps)
        save_case(out, f"schedule-{steps}", "schedule", {"steps": steps}, 1e-6, {},
                  {"sigmas": nets[3].sigmas, "timesteps": nets[3].timesteps})
    if c.get("ops"):
        op_cases(name, out)
    pipeline_case(name, c, nets, out)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{folder}: {size / 1e6:.2f} MB", flush=True)


def networks(name, c):
    dtype = TYPES[c["type"]]
    schedule = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear") | c["schedule"]
    clips = [randomise(make_clip(t, i == 1), f"{name}/clip{i}", dtype) for i, t in enumerate(c["clip"])]
    return (randomise(make_unet(c), f"{name}/unet", dtype), randomise(make_vae(c), f"{name}/vae", dtype), clips,
            EulerDiscreteScheduler(**schedule))


# How visible a wrong constant is


def probe(name):
    """Prints what each output changes by (relative L2) when one constant is the usual wrong one."""
    c = CONFIGS[name]
    batch, h, w = c["sizes"][0]
    sample = normal(f"{name}/unet0", batch, 4, h, w).double()
    cond = [v.double() for v in conditions(c, f"{name}/unet0", batch).values()]
    z, x = normal(f"{name}/latents0", 1, 4, 9, 13).double(), normal(f"{name}/image0", 1, 3, 36, 52, scale=0.5).double()
    runs = {"unet": lambda n: run_unet(n[0], sample, 981.0, *cond), "decoder": lambda n: decode(n[1], z),
            "encoder": lambda n: encode(n[1], x)}
    for i, t in enumerate(c["clip"]):
        ids = token_ids(f"{name}/clip{i}", t["eos"], 2)
        runs[f"clip{i}"] = lambda n, i=i, ids=ids: next(v for k, v in run_clip(n[2][i], ids).items() if k != "penultimate")

    def eps(root, kind, wrong, part=""):
        for n, m in root(nets).named_modules():
            if isinstance(m, kind) and part in n:
                m.eps = wrong

    group, layer = torch.nn.GroupNorm, torch.nn.LayerNorm
    unet, vae = (lambda n: n[0]), (lambda n: n[1])
    changes = [("unet", "resnet norm1 eps 1e-6", lambda: eps(unet, group, 1e-6, "norm1")),
               ("unet", "resnet norm2 eps 1e-6", lambda: eps(unet, group, 1e-6, "norm2")),
               ("unet", "transformer norm eps 1e-5", lambda: eps(unet, group, 1e-5, "attentions")),
               ("unet", "layer norm eps 1e-6", lambda: eps(unet, layer, 1e-6)),
               ("unet", "conv_norm_out eps 1e-6", lambda: eps(unet, group, 1e-6, "conv_norm_out"))]
    for side in ("decoder", "encoder"):
        for part in ("norm1", "norm2", "group_norm", "conv_norm_out"):
            changes.append((side, f"{part} eps 1e-5", lambda part=part: eps(vae, group, 1e-5, part)))
    for i, t in enumerate(c["clip"]):
        changes.append((f"clip{i}", "layer norm eps 1e-6", lambda i=i: eps(lambda n: n[2][i], layer, 1e-6)))
        for act in {"gelu", "gelu_new", "quick_gelu"} - {t["act"]}:
            def other(i=i, act=act):
                for m in nets[2][i].modules():
                    if hasattr(m, "activation_fn"):
                        m.activation_fn = transformers.activations.ACT2FN[act]
            changes.append((f"clip{i}", f"{t['act']} as {act}", other))

    def tanh():
        for m in nets[0].modules():
            if type(m).__name__ == "GEGLU":
                m.gelu = lambda g: F.gelu(g, approximate="tanh")
    changes.append(("unet", "GEGLU tanh", tanh))
    for which, what, change in changes:
        nets = networks(name, c)
        right = runs[which](nets)
        change()
        wrong = runs[which](nets)
        print(f"{name} {which:8} {what:28} {float((wrong - right).norm() / right.norm()):.1e}", flush=True)


if __name__ == "__main__":
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
        for name in args.names or (CONFIGS if args.all else COMMITTED):
            make(name, args.out)
