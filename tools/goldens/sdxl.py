"""Makes fixture folders (`model/` and `cases/`, the format of `scalediff verify`) of tiny SDXL models with random
weights, and what diffusers, transformers and plain torch compute with them.

    python tools/goldens/sdxl.py                     # the committed ones, into tests/goldens
    python tools/goldens/sdxl.py --all --out DIR     # every configuration, into DIR
    python tools/goldens/sdxl.py --probe NAME …      # how visible each epsilon and each GELU kind is
"""

import math

import torch
import transformers
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch.nn import functional as F

from common import (MADE_WITH, TYPES, bicubic, blocks, cascade, clip_case, decode, encode, factor_of, fresh, low_pass,
                    main, make_clip, make_vae, mix, normal, plain, randomise, report, run_clip, save_case, save_clip,
                    save_json, save_vae, save_weights, stage_noise, token_ids, vae_cases)

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
ENCODERS = ["text_encoder", "text_encoder_2"]


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


# Files


def save_model(c, folder, nets):
    unet, vae, clips, scheduler = nets
    save_weights(c, folder / "unet", "diffusion_pytorch_model", unet.state_dict(),
                 plain(unet.config) | {"_class_name": "UNet2DConditionModel"})
    save_vae(c, folder, vae)
    for where, t, model in zip(ENCODERS, c["clip"], clips):
        save_clip(c, folder / where, t, model)
    save_json(folder / "scheduler/scheduler_config.json",
              plain(scheduler.config) | {"_class_name": "EulerDiscreteScheduler"})
    index = {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True, "made_with": MADE_WITH}
    save_json(folder / "model_index.json", index)


# Neighborhood patch attention, block by block


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


def run_cascade(nets, p, embeds, noise):
    """All stages; `embeds` are (context, pooled) with the negative branch first, or one branch."""
    unet, vae, _, scheduler = nets
    scheduler.set_timesteps(p["steps"])
    sigmas, timesteps = scheduler.sigmas.double(), scheduler.timesteps
    base = (p["height"] // factor_of(vae), p["width"] // factor_of(vae))
    context, pooled = embeds
    ids = torch.tensor([[p["height"], p["width"], 0, 0, p["height"], p["width"]]], dtype=torch.float64)
    one_minus_abar = lambda i: sigmas[i] ** 2 / (1 + sigmas[i] ** 2)

    def clean(x, i, stage):
        sigma = sigmas[i]
        scaled = (x / (sigma**2 + 1).sqrt()).expand(len(context), -1, -1, -1)
        o = run_unet(unet, scaled, timesteps[i], context, pooled, ids.expand(len(context), -1), base if stage else None)
        if len(context) == 2:
            o = o[:1] + p["guidance_scale"] * (o[1:] - o[:1])
        if scheduler.config.prediction_type == "epsilon":
            return x - sigma * o
        return x / (sigma**2 + 1) - o * sigma / (sigma**2 + 1).sqrt()

    return cascade(p, vae, noise, sigmas, start=lambda noise: noise * scheduler.init_noise_sigma,
                   renoise=lambda reference, noise, sigma: reference + sigma * noise, clean=clean,
                   weight=lambda i, first: one_minus_abar(i) / one_minus_abar(first))


# Cases


def conditions(c, label, batch):
    """Random context, pooled text and time ids in float32."""
    time_ids = torch.tensor([[512.0, 768.0, 0.0, 3.0, 1024.0, 640.0]]) - 7 * torch.arange(batch)[:, None]
    return {"encoder_hidden_states": normal(f"{label}/context", batch, 77, sum(t["width"] for t in c["clip"])),
            "text_embeds": normal(f"{label}/pooled", batch, c["clip"][1]["width"] + 2), "time_ids": time_ids}


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
    noise = stage_noise(name, p, vae)
    inputs = {f"noise.{i}": v for i, v in enumerate(noise)}
    rows = []
    for which in ("negative", "prompt"):
        ids = [token_ids(f"{name}/{which}{i}", t["eos"], 1) for i, t in enumerate(c["clip"])]
        inputs |= {f"{which}_ids": ids[0], f"{which}_ids_2": ids[1]}
        a, b = (run_clip(model, i) for model, i in zip(clips, ids))
        rows.append((torch.cat([a["penultimate"], b["penultimate"]], -1), b["text_embeds"]))
    rows = rows if p["guidance_scale"] > 1 else rows[1:]
    embeds = tuple(torch.cat(part) for part in zip(*rows))
    save_case(out, "pipeline", "pipeline", {**p, "encode": "mean"}, 2e-5, inputs, run_cascade(nets, p, embeds, noise))


def make(name, root):
    c, (folder, out) = CONFIGS[name], fresh(root, name)
    nets = networks(name, c)
    save_model(c, folder / "model", nets)
    unet_cases(name, c, nets[0], out)
    vae_cases(name, nets[1], out)
    for i, (where, t, model) in enumerate(zip(ENCODERS, c["clip"], nets[2])):
        clip_case(name, where, f"clip{i}", t, model, out)
    for steps in (3, 10):
        nets[3].set_timesteps(steps)
        save_case(out, f"schedule-{steps}", "schedule", {"steps": steps}, 1e-6, {},
                  {"sigmas": nets[3].sigmas, "timesteps": nets[3].timesteps})
    if c.get("ops"):
        op_cases(name, out)
    pipeline_case(name, c, nets, out)
    report(folder)


def networks(name, c):
    dtype = TYPES[c["type"]]
    schedule = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear") | c["schedule"]
    clips = [randomise(make_clip(t, i == 1), f"{name}/clip{i}", dtype) for i, t in enumerate(c["clip"])]
    return (randomise(make_unet(c), f"{name}/unet", dtype), randomise(make_vae(c["vae"]), f"{name}/vae", dtype), clips,
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
    main(make, probe, CONFIGS, COMMITTED)
