"""Makes an SDXL of full size with random f16 weights, records what torch computes with it, and times torch.

    python tools/gpu_report/torch_model.py make FOLDER [--small]
    python tools/gpu_report/torch_model.py unet FOLDER [--small]
    python tools/gpu_report/torch_model.py vae FOLDER [--small]

`make`: FOLDER/model is a `diffusers` folder (the U-Net and the autoencoder of tests/configs/sdxl-base-1.0; text encoders of its
widths with two layers, since only their widths matter here). `unet` and `vae`: FOLDER/cases are recorded cases for `scalediff verify`:
a U-Net step at 1024², one at 4096² in neighborhood patches, and the decoder at 4096², computed in float32.
FOLDER/torch.json holds seconds per step of torch in f16 (eager, channels last, the default attention; patches gather
their windows) and what f16 errs there. `--small` is a narrow model at an eighth of the size, for a machine without CUDA.
"""

import json
import shutil
import statistics
import sys
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "tests/configs/sdxl-base-1.0"
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
HALF = torch.float16 if CUDA else torch.float32


def config(part, small):
    c = json.loads((CONFIGS / part / "config.json").read_text())
    if small and part == "unet":
        c |= dict(block_out_channels=[32, 64, 64], attention_head_dim=[1, 2, 2], norm_num_groups=8)
    if small and part == "vae":
        c |= dict(block_out_channels=[16, 16, 32, 32], norm_num_groups=8)
    return c


def randomise(model, seed):
    """Weights scaled to their fan-in, norms at one, no biases; what writes into a residual stream is small."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    for name, p in model.named_parameters():
        layer, kind = name.rsplit(".", 1)
        if kind == "bias" or "norm" in layer.rsplit(".", 1)[-1]:
            p.data.fill_(float(kind == "weight"))
            continue
        gain = 0.3 if layer.endswith(("conv2", "to_out.0", "net.2", "proj_out", "out_proj", "fc2")) else 1.0
        p.data = torch.randn(p.shape, generator=generator, device=DEVICE) * (gain / p[0].numel() ** 0.5)
    return model.to(DEVICE).half().eval().requires_grad_(False)


def save(model, folder, values):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(values, indent=1))
    stem = "model" if "text" in folder.name else "diffusion_pytorch_model"
    state = {k: v.cpu().contiguous() for k, v in model.state_dict().items() if not k.endswith("position_ids")}
    save_file(state, folder / f"{stem}.fp16.safetensors", {"format": "pt"})


def make(folder, small):
    """Writes the model."""
    shutil.copytree(CONFIGS / "scheduler", folder / "scheduler")
    shutil.copy(CONFIGS / "model_index.json", folder)
    for part in ("tokenizer", "tokenizer_2"):
        shutil.copytree(ROOT / "src/embedded/tiny-sdxl" / part, folder / part)
    for i, (part, kind) in enumerate([("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)]):
        c = config(part, small) | {"num_hidden_layers": 2}
        save(randomise(kind(CLIPTextConfig(**c)), i), folder / part, c)
    for i, (part, kind) in enumerate([("unet", UNet2DConditionModel), ("vae", AutoencoderKL)]):
        c = config(part, small)
        with torch.device(DEVICE):
            net = kind.from_config(c)
        save(randomise(net, 10 + i), folder / part, c)


class Patches:
    """Self-attention in neighborhood patches: windows are gathered, then one batched attention."""

    def __init__(self, window, grid):
        self.window, self.grid = window, grid

    def __call__(self, attn, hidden_states, *_, **__):
        (window, grid), block = (self.window, self.grid), self.window // 2
        n, batch = grid // block, len(hidden_states)
        q, k, v = (f(hidden_states).view(batch, grid, grid, attn.heads, -1)
                   for f in (attn.to_q, attn.to_k, attn.to_v))
        starts = [min(max(i * block - window // 4, 0), grid - window) for i in range(n)]
        at = (torch.tensor(starts, device=q.device)[:, None] + torch.arange(window, device=q.device)).flatten()
        apart = lambda t, side: (t.unflatten(1, (n, side)).unflatten(3, (n, side)).permute(0, 1, 3, 5, 2, 4, 6)
                                 .reshape(batch * n * n, attn.heads, side * side, -1))
        k, v = (apart(t.index_select(1, at).index_select(2, at), window) for t in (k, v))
        y = F.scaled_dot_product_attention(apart(q, block), k, v)
        y = y.view(batch, n, n, attn.heads, block, block, -1).permute(0, 1, 4, 2, 5, 3, 6)
        return attn.to_out[0](y.reshape(batch, grid * grid, -1))


def see_patches(unet, latents, base):
    """Patches as large as the base's picture at every level; the whole picture where they are it."""
    levels = len(unet.config.block_out_channels)
    for name, module in unet.named_modules():
        if not name.endswith("attn1"):
            continue
        part, index = name.split(".")[:2]
        level = levels - 1
        if part != "mid_block":
            level = int(index) if part == "down_blocks" else levels - 1 - int(index)
        module.set_processor(Patches(base >> level, latents >> level))


def inputs(unet, batch, latents, seed):
    generator = torch.Generator(DEVICE).manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator, device=DEVICE)
    pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    size = 8.0 * latents
    return {"sample": normal(batch, 4, latents, latents), "timestep": torch.tensor([601.0], device=DEVICE),
            "encoder_hidden_states": normal(batch, 77, unet.config.cross_attention_dim),
            "text_embeds": normal(batch, pooled),
            "time_ids": torch.tensor([[size, size, 0, 0, size, size]], device=DEVICE).expand(batch, -1).contiguous()}


def step(unet, i):
    kind = unet.dtype
    return unet(i["sample"].to(kind), i["timestep"][0], i["encoder_hidden_states"].to(kind), added_cond_kwargs={
        "text_embeds": i["text_embeds"].to(kind), "time_ids": i["time_ids"].to(kind)}, return_dict=False)[0]


def save_case(folder, name, component, params, tensors):
    case = {"component": component, "params": params, "tolerance": {"rel": 1e-4}}
    tensors = {k: v.float().cpu().contiguous() for k, v in tensors.items()}
    save_file(tensors, folder / f"{name}.safetensors", {"case": json.dumps(case)})


def wait():
    if CUDA:
        torch.cuda.synchronize()


def seconds(run, repeats=5):
    run()
    times = []
    for _ in range(repeats if CUDA else 1):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def error(got, wanted):
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


def load(folder, part, kind):
    """A network as `make` wrote it."""
    with torch.device("meta"):
        net = kind.from_config(json.loads((folder / part / "config.json").read_text()))
    state = load_file(folder / part / "diffusion_pytorch_model.fp16.safetensors", device=DEVICE)
    net.load_state_dict(state, assign=True)
    return net.eval().requires_grad_(False)


@torch.inference_mode()
def measure(folder, name, component, params, tensors, net, run, repeats=5):
    """Records the case in float32, then adds torch's own f16 to FOLDER/torch.json: its error and its time."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    net.float().to(memory_format=torch.contiguous_format)
    wanted = run(tensors)
    save_case(folder / "cases", name, component, params,
              {f"in.{k}": v for k, v in tensors.items()} |
              {"out.image" if component == "vae_decoder" else "out.sample": wanted})
    net.to(HALF).to(memory_format=torch.channels_last)
    result = {"f16_error": error(run(tensors), wanted), "f16_seconds": seconds(lambda: run(tensors), repeats)}
    print(name, result, flush=True)
    file = folder / "torch.json"
    results = json.loads(file.read_text()) if file.exists() else {"torch": torch.__version__}
    file.write_text(json.dumps(results | {name: result}, indent=1) + "\n")


def measure_unet(folder, base):
    unet = load(folder / "model", "unet", UNet2DConditionModel)
    run = lambda i: step(unet, i)
    measure(folder, f"unet-{8 * base}", "unet", {}, inputs(unet, 2, base, 1), unet, run)
    see_patches(unet, 4 * base, base)
    patches = {"npa": {"base_height": base, "base_width": base}}
    measure(folder, f"unet-npa-{32 * base}", "unet", patches, inputs(unet, 2, 4 * base, 2), unet, run, 2)


def measure_vae(folder, base):
    vae = load(folder / "model", "vae", AutoencoderKL)
    decode = lambda i: vae.decode(i["latents"].to(vae.dtype), return_dict=False)[0]
    latents = torch.randn(1, 4, 4 * base, 4 * base, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(3))
    measure(folder, f"decode-{32 * base}", "vae_decoder", {}, {"latents": latents}, vae, decode, 1)


def main(what, folder, *rest):
    folder, small = Path(folder), "--small" in rest
    base = 16 if small else 128
    if what == "make":
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "model").mkdir(parents=True)
        make(folder / "model", small)
        return
    shutil.rmtree(folder / "cases", ignore_errors=True)
    (folder / "cases").mkdir()
    {"unet": measure_unet, "vae": measure_vae}[what](folder, base)


if __name__ == "__main__":
    main(*sys.argv[1:])
