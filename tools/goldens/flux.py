"""Makes fixture folders (`model/` and `cases/`, the format of `scalediff verify`) of tiny FLUX models with random
weights, and what diffusers, transformers and plain torch compute with them.

    python tools/goldens/flux.py                     # the committed ones, into tests/goldens
    python tools/goldens/flux.py --probe NAME …      # how visible each epsilon and each GELU kind is

Full attention is diffusers' own; neighborhood patch attention is written here as the official form: every window of
the canvas apart, rotary embedding at absolute positions, text at the window's origin.
"""

import math

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from transformers import T5Config, T5EncoderModel

from common import (MADE_WITH, SMALL, TYPES, VOCAB, blocks, cascade, clip_case, decode, encode, factor_of, fresh, main,
                    make_clip, make_vae, normal, plain, randomise, report, run_clip, save_case, save_clip, save_json,
                    save_vae, save_weights, stage_noise, token_ids, vae_cases)

# `transformer`: heads, width of a head and its split over the axes, blocks. `sizes`: (batch, height, width, text) in
# tokens; `npa`: the same, then the base's height and width and whether the query grid is shifted.
CONFIGS = {
    # Guidance, heads of 20 split unevenly, odd grids and windows, T5 with buckets of its own; bf16.
    "flux-odd": dict(
        transformer=dict(heads=3, dim=20, axes=[4, 6, 10], double=1, single=2, guidance=True), type="bf16",
        t5=dict(width=20, heads=3, kv=6, ff=28, layers=2, buckets=12, distance=40, eps=1e-6, length=150, batch=2),
        clip=dict(width=12, heads=3, layers=2, act="quick_gelu", eos=2, prefix=False),
        vae=dict(channels=[5, 10, 15], layers=1, groups=5, latent=16, quant=False, scaling=0.3611, shift=0.1159),
        sizes=[(1, 5, 7, 9), (2, 6, 4, 13)],
        npa=[(1, 9, 13, 9, 5, 7, False), (1, 11, 8, 10, 5, 6, True), (2, 7, 6, 7, 8, 4, True)],
        schedule=dict(shift=3.0, use_dynamic_shifting=True, base_shift=0.4, max_shift=1.3),
        pipeline=dict(height=24, width=40, steps=5, guidance=3.5, stages=1, restart_ratio=0.6, scale_factor=0.25)),
    # No guidance, the plain schedule, one head of 32, three double blocks, T5's own buckets over 300 tokens; f16.
    "flux-plain": dict(
        transformer=dict(heads=1, dim=32, axes=[8, 12, 12], double=3, single=1, guidance=False), type="f16", shards=2,
        t5=dict(width=16, heads=2, kv=10, ff=24, layers=3, buckets=32, distance=128, eps=1e-5, length=300, batch=1),
        clip=dict(width=10, heads=2, layers=3, act="gelu", eos=50, prefix=True),
        vae=dict(channels=[8, 12], layers=2, groups=4, latent=16, quant=False, scaling=0.5, shift=-0.2),
        sizes=[(1, 8, 8, 12)],
        npa=[(1, 12, 10, 12, 8, 5, False), (1, 9, 12, 5, 4, 8, True), (1, 7, 5, 3, 2, 1, True)],
        schedule=dict(shift=1.0, use_dynamic_shifting=False),
        pipeline=dict(height=16, width=24, steps=4, guidance=0.0, stages=1, restart_ratio=0.5, scale_factor=0.25)),
}
# Queries and keys are small because a norm follows, whose epsilon must show.
TRANSFORMER = dict(
    writers=("x_embedder", "context_embedder", "to_out.0", "to_add_out", "ff.net.2", "ff_context.net.2",
             "single_transformer_blocks.*.proj_out", "to_q", "to_k", "add_k_proj"),
    stream=("add_q_proj",), gains={"net.0.proj": 1.5, "proj_mlp": 1.5, "add_q_proj": 0.3 * SMALL}, embeddings=())
T5 = dict(writers=("o", "wo"), stream=(), gains={"relative_attention_bias": 2.0, "wi_0": 1.5},
          embeddings=("shared", "embed_tokens"))
SEQUENCE = 4096  # what ScaleDiff tells the scheduler, whatever the size


# Networks


def make_transformer(c):
    t = c["transformer"]
    return FluxTransformer2DModel(
        in_channels=4 * c["vae"]["latent"], num_layers=t["double"], num_single_layers=t["single"],
        attention_head_dim=t["dim"], num_attention_heads=t["heads"], axes_dims_rope=t["axes"],
        joint_attention_dim=c["t5"]["width"], pooled_projection_dim=c["clip"]["width"], guidance_embeds=t["guidance"])


def make_t5(t):
    config = T5Config(
        vocab_size=VOCAB, d_model=t["width"], d_kv=t["kv"], d_ff=t["ff"], num_layers=t["layers"], num_heads=t["heads"],
        relative_attention_num_buckets=t["buckets"], relative_attention_max_distance=t["distance"],
        layer_norm_epsilon=t["eps"], feed_forward_proj="gated-gelu")
    config._attn_implementation = "eager"
    return T5EncoderModel(config)


def networks(name, c):
    dtype = TYPES[c["type"]]
    return {"transformer": randomise(make_transformer(c), f"{name}/transformer", dtype, TRANSFORMER),
            "vae": randomise(make_vae(c["vae"]), f"{name}/vae", dtype),
            "clip": randomise(make_clip(c["clip"], False), f"{name}/clip", dtype),
            "t5": randomise(make_t5(c["t5"]), f"{name}/t5", dtype, T5),
            "scheduler": FlowMatchEulerDiscreteScheduler(**c["schedule"])}


def save_model(c, folder, nets):
    save_weights(c, folder / "transformer", "diffusion_pytorch_model", nets["transformer"].state_dict(),
                 plain(nets["transformer"].config) | {"_class_name": "FluxTransformer2DModel"})
    save_vae(c, folder, nets["vae"])
    save_clip(c, folder / "text_encoder", c["clip"], nets["clip"])
    state = nets["t5"].state_dict()
    state.pop("encoder.embed_tokens.weight", None)  # the same as shared.weight
    save_weights(c, folder / "text_encoder_2", "model", state,
                 nets["t5"].config.to_dict() | {"architectures": ["T5EncoderModel"]})
    save_json(folder / "scheduler/scheduler_config.json",
              plain(nets["scheduler"].config) | {"_class_name": "FlowMatchEulerDiscreteScheduler"})
    save_json(folder / "model_index.json", {"_class_name": "FluxPipeline", "made_with": MADE_WITH})


# Neighborhood patch attention, window by window


def rotate(x, ids, axes):
    """Pairs of [batch, tokens, heads, dim] turned by the angles of (0, row, column) ids."""
    angles = [ids[:, a, None] * 10000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d) for a, d in enumerate(axes)]
    turn = torch.polar(torch.tensor(1.0, dtype=torch.float64), torch.cat(angles, -1))[:, None]
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(-2)


def attention(q, k, v):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return ((q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v).transpose(1, 2)


def joint_npa(text, image, grid, window, jitter, axes):
    """Attention of text and image; each is (q, k, v) of [batch, tokens, heads, dim]. Every window's queries are the
    text and a block; the text's result is the mean over all windows, those of an empty block included."""
    rows, cols = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    places = torch.stack([0 * rows, rows, cols], -1).double()
    tokens = text[0].shape[1]
    image = [t.unflatten(1, grid) for t in image]
    out, sums, windows = torch.full_like(image[0], math.nan), 0, 0
    shifts = jitter or (None, None)
    for query_rows, key_rows in blocks(grid[0], window[0], shifts[0]):
        for query_cols, key_cols in blocks(grid[1], window[1], shifts[1]):
            origin = torch.tensor([[0.0, key_rows.start, key_cols.start]], dtype=torch.float64).expand(tokens, 3)
            cut = lambda t, r, c, at: t[(slice(None),) * at + (r, c)].flatten(at, at + 1)
            ids = [torch.cat([origin, cut(places, r, c, 0)]) for r, c in ((query_rows, query_cols), (key_rows, key_cols))]
            q = torch.cat([text[0], cut(image[0], query_rows, query_cols, 1)], 1)
            k, v = (torch.cat([t, cut(i, key_rows, key_cols, 1)], 1) for t, i in zip(text[1:], image[1:]))
            o = attention(rotate(q, ids[0], axes), rotate(k, ids[1], axes), v)
            sums, windows = sums + o[:, :tokens], windows + 1
            block = out[:, query_rows, query_cols]
            out[:, query_rows, query_cols] = o[:, tokens:].reshape(block.shape)
    assert not out.isnan().any()
    return sums / windows, out.flatten(1, 2)


class JointNpa:
    """The processor of one layer of a FLUX transformer."""

    def __init__(self, **geometry):
        self.geometry = geometry

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *_, **__):
        heads = lambda x, *layers: [f(x).unflatten(-1, (attn.heads, -1)) for f in layers]
        norm = lambda qkv, q, k: [q(qkv[0]), k(qkv[1]), qkv[2]]
        image = norm(heads(hidden_states, attn.to_q, attn.to_k, attn.to_v), attn.norm_q, attn.norm_k)
        if encoder_hidden_states is None:  # a single block: text and image come as one
            tokens = hidden_states.shape[1] - math.prod(self.geometry["grid"])
            text, image = [t[:, :tokens] for t in image], [t[:, tokens:] for t in image]
            return torch.cat([o.flatten(2) for o in joint_npa(text, image, **self.geometry)], 1)
        text = heads(encoder_hidden_states, attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        text = norm(text, attn.norm_added_q, attn.norm_added_k)
        text, image = (o.flatten(2) for o in joint_npa(text, image, **self.geometry))
        return attn.to_out[0](image), attn.to_add_out(text)


def run_transformer(model, grid, hidden, text, pooled, timestep, guidance=None, npa=None):
    """`npa`: the window and a jitter per layer or none; `timestep` and `guidance` are float32, one for all."""
    layers = [b.attn for b in [*model.transformer_blocks, *model.single_transformer_blocks]]
    before = [layer.processor for layer in layers]
    for i, layer in enumerate(layers if npa else []):
        layer.processor = JointNpa(grid=grid, window=npa["window"], axes=model.config.axes_dims_rope,
                                   jitter=npa["jitter"][i] if npa["jitter"] else None)
    rows, cols = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    ids = torch.stack([0 * rows, rows, cols], -1).flatten(0, 1).float()
    batch = lambda x: x.expand(len(hidden)) if x is not None else None
    out = model(hidden_states=hidden, encoder_hidden_states=text, pooled_projections=pooled, timestep=batch(timestep),
                guidance=batch(guidance), img_ids=ids, txt_ids=torch.zeros(text.shape[1], 3), return_dict=False)[0]
    for layer, processor in zip(layers, before):
        layer.processor = processor
    return out


# The method


def pack(x):
    """[b, c, h, w] to [b, h/2 · w/2, 4c], the features in the order c, dy, dx."""
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(x, h, w):
    return x.reshape(len(x), h // 2, w // 2, -1, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(len(x), -1, h, w)


def set_steps(scheduler, steps):
    c, mu = scheduler.config, None
    if c.use_dynamic_shifting:
        slope = (c.max_shift - c.base_shift) / (c.max_image_seq_len - c.base_image_seq_len)
        mu = c.base_shift + slope * (SEQUENCE - c.base_image_seq_len)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)


def run_cascade(nets, p, pooled, text, noise):
    model, vae, scheduler = nets["transformer"], nets["vae"], nets["scheduler"]
    set_steps(scheduler, p["steps"])
    sigmas, timesteps = scheduler.sigmas.double(), scheduler.timesteps
    base = tuple(p[side] // factor_of(vae) // 2 for side in ("height", "width"))
    guidance = torch.tensor([p["guidance"]]) if model.config.guidance_embeds else None

    def clean(x, i, stage):
        h, w = x.shape[2:]
        npa = {"window": base, "jitter": None} if stage else None
        v = run_transformer(model, (h // 2, w // 2), pack(x), text, pooled, timesteps[i : i + 1] / 1000, guidance, npa)
        return x - sigmas[i] * unpack(v, h, w)

    return cascade(p, vae, noise, sigmas, start=lambda noise: noise, clean=clean, weight=lambda i, _: sigmas[i],
                   renoise=lambda reference, noise, sigma: sigma * noise + (1 - sigma) * reference)


# Cases


def transformer_inputs(c, label, batch, h, w, tokens, i):
    inputs = {"hidden_states": normal(label, batch, h * w, 4 * c["vae"]["latent"]),
              "encoder_hidden_states": normal(f"{label}/text", batch, tokens, c["t5"]["width"]),
              "pooled_projections": normal(f"{label}/pooled", batch, c["clip"]["width"]),
              "timestep": torch.tensor([[1.0, 0.53125, 0.25][i % 3]])}
    return inputs | ({"guidance": torch.tensor([3.5])} if c["transformer"]["guidance"] else {})


def transformer_cases(name, c, model, out):
    layers = c["transformer"]["double"] + c["transformer"]["single"]
    sizes = [(*s, None) for s in c["sizes"]] + [(*s[:4], s[4:]) for s in c["npa"]]
    for i, (batch, h, w, tokens, patches) in enumerate(sizes):
        label, params, npa = f"{name}/transformer{i}", {"height": h, "width": w}, None
        if patches:
            *window, shifted = patches
            npa = {"window": window, "jitter": None}
            params["npa"] = {"base_height": window[0], "base_width": window[1]}
            if shifted:  # any shift from none to a whole block
                draw = normal(f"{label}/jitter", layers, 2).abs().mul(97).long()
                npa["jitter"] = (draw % (torch.tensor(window) // 2 + 1)).tolist()
                npa["jitter"][0] = [0, window[1] // 2]
                params["npa"]["jitter"] = npa["jitter"]
        inputs = transformer_inputs(c, label, batch, h, w, tokens, i)
        d = [inputs[k].double() for k in ("hidden_states", "encoder_hidden_states", "pooled_projections")]
        y = run_transformer(model, (h, w), *d, inputs["timestep"], inputs.get("guidance"), npa)
        save_case(out, f"flux-npa-{i}" if npa else f"flux-{i}", "flux_transformer", params, 1e-5, inputs, {"sample": y})


def t5_ids(label, batch, length):
    """Tokens, the end (1), padding (0)."""
    ids = normal(label, batch, length).abs().mul(1000).long() % (VOCAB - 3) + 3
    for i, row in enumerate(ids):
        row[2 * length // (3 + i) :] = 0
        row[2 * length // (3 + i)] = 1
    return ids


def pipeline_case(name, c, nets, out):
    p = c["pipeline"]
    noise = stage_noise(name, p, nets["vae"])
    ids = {"prompt_ids": token_ids(f"{name}/prompt", c["clip"]["eos"], 1), "prompt_ids_2": t5_ids(f"{name}/prompt2", 1, 20)}
    pooled = run_clip(nets["clip"], ids["prompt_ids"])["pooled"]
    text = nets["t5"](input_ids=ids["prompt_ids_2"]).last_hidden_state
    save_case(out, "pipeline", "pipeline", {**p, "encode": "mean", "jitter": False}, 2e-5,
              ids | {f"noise.{i}": v for i, v in enumerate(noise)}, run_cascade(nets, p, pooled, text, noise))


def make(name, root):
    c, (folder, out) = CONFIGS[name], fresh(root, name)
    nets = networks(name, c)
    save_model(c, folder / "model", nets)
    transformer_cases(name, c, nets["transformer"], out)
    vae_cases(name, nets["vae"], out)
    clip_case(name, "text_encoder", "clip", c["clip"], nets["clip"], out)
    ids = t5_ids(f"{name}/t5", c["t5"]["batch"], c["t5"]["length"])
    save_case(out, "text_encoder_2", "t5_encoder", {"subfolder": "text_encoder_2"}, 1e-5, {"input_ids": ids},
              {"hidden": nets["t5"](input_ids=ids).last_hidden_state})
    for steps in (1, 4, 30):
        set_steps(nets["scheduler"], steps)
        save_case(out, f"schedule-{steps}", "schedule", {"steps": steps}, 1e-6, {},
                  {"sigmas": nets["scheduler"].sigmas, "timesteps": nets["scheduler"].timesteps})
    pipeline_case(name, c, nets, out)
    report(folder)


# How visible a wrong constant is


def probe(name):
    """Prints what each output changes by (relative L2) when one constant is the usual wrong one."""
    c = CONFIGS[name]
    batch, h, w, tokens = c["sizes"][0]
    inputs = [v if k in ("timestep", "guidance") else v.double()
              for k, v in transformer_inputs(c, f"{name}/transformer0", batch, h, w, tokens, 0).items()]
    ids = t5_ids(f"{name}/t5", c["t5"]["batch"], c["t5"]["length"])
    z = normal(f"{name}/latents0", 1, 16, 9, 13).double()
    image = normal(f"{name}/image0", 1, 3, 36, 52, scale=0.5).double()
    clip_ids = token_ids(f"{name}/clip", c["clip"]["eos"], 2)
    runs = {"transformer": lambda n: run_transformer(n["transformer"], (h, w), *inputs),
            "t5": lambda n: n["t5"](input_ids=ids).last_hidden_state, "decoder": lambda n: decode(n["vae"], z),
            "encoder": lambda n: encode(n["vae"], image), "clip": lambda n: run_clip(n["clip"], clip_ids)["pooled"]}

    def eps(kind, wrong, part=""):
        def change(model):
            for n, m in model.named_modules():
                if type(m).__name__ == kind and part in n:
                    setattr(m, "variance_epsilon" if kind == "T5LayerNorm" else "eps", wrong)
        return change

    def gelu(model):
        for m in model.modules():
            if getattr(m, "approximate", None) == "tanh":
                m.approximate = "none"
            elif type(m).__name__ == "T5DenseGatedActDense":
                m.act = torch.nn.GELU()

    other = 1e-6 if c["t5"]["eps"] == 1e-5 else 1e-5
    changes = [("transformer", f"{part} norm eps 1e-5", eps("LayerNorm", 1e-5, part)) for part in
               ("transformer_blocks.0.norm1.", "transformer_blocks.0.norm1_context", "transformer_blocks.0.norm2",
                "transformer_blocks.0.norm2_context", "single_transformer_blocks", "norm_out")]
    changes += [("transformer", f"{part} eps 1e-5", eps("RMSNorm", 1e-5, part)) for part in
                ("norm_q", "norm_k", "norm_added_q", "norm_added_k")]
    changes += [("transformer", "GELU erf", gelu), ("t5", "GELU erf", gelu), ("t5", f"eps {other}", eps("T5LayerNorm", other))]
    changes += [("clip", "layer norm eps 1e-6", eps("LayerNorm", 1e-6))]
    changes += [(side, f"{part} eps 1e-5", eps("GroupNorm", 1e-5, part)) for side in ("decoder", "encoder")
                for part in ("norm1", "norm2", "group_norm", "conv_norm_out")]
    for which, what, change in changes:
        nets = networks(name, c)
        right = runs[which](nets)
        change(nets["vae" if which in ("decoder", "encoder") else which])
        error = float((runs[which](nets) - right).norm() / right.norm())
        print(f"{name} {which:11} {what:48} {error:.1e}", flush=True)


if __name__ == "__main__":
    main(make, probe, CONFIGS, list(CONFIGS))
