"""The parts of the tiny SDXL model: sizes, tokenizers and the diffusers folder."""

import json
import platform
from importlib.metadata import version

import diffusers
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import world

TEXT_WIDTH, TEXT_WIDTH_2, HEAD = 32, 48, 16
TOKENS = 77
START, END = "<|startoftext|>", "<|endoftext|>"
# Every picture is trained, and sampled at every stage, with the same size conditioning.
TIME_IDS = (128, 128, 0, 0, 128, 128)
DEFAULTS = {
    "steps": 20,
    "cfg_scale": 3.0,
    "restart_ratio": 0.4,
    "scale_factor": 0.125,
    "width": 512,
    "height": 512,
}


# ---------------------------------------------------------------- tokenizer


def byte_letters():
    """CLIP's letter for every byte: printable ones stand for themselves."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    odd = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(odd))]


def vocabulary():
    """(vocab, merges): all bytes, so that any text has tokens, and our words whole.

    The order is CLIP's: "!" is 0 (tokenizer_2 pads with it) and the end token has the
    largest id (the pooled state is taken at the largest id).
    """
    letters = byte_letters()
    names = letters + [c + "</w>" for c in letters]
    merges = []
    words = sorted({w for s in world.all_scenes() for w in world.prompt_of(*s).split()})
    for word in words:
        parts = [*word[:-1], word[-1] + "</w>"]
        # Left to right, repeating until one token is left; a pair that another word
        # made already keeps its earlier rank, just as the tokenizer will apply it.
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:]))
            known = [p for p in merges if p in pairs]
            pair = known[0] if known else pairs[0]
            if not known:
                merges.append(pair)
            i = pairs.index(pair)
            parts[i : i + 2] = ["".join(pair)]
    names += ["".join(p) for p in merges] + [START, END]
    return {n: i for i, n in enumerate(names)}, merges


def token_ids(prompt, pad):
    """Token ids of one of our own prompts, all of whose words are single tokens."""
    vocab, _ = vocabulary()
    ids = [vocab[START], *(vocab[w + "</w>"] for w in prompt.split()), vocab[END]]
    return ids + [pad] * (TOKENS - len(ids))


# ---------------------------------------------------------------- models


def new_vae(latents=4, **more):
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 16, 32, 48),
        layers_per_block=1,
        latent_channels=latents,
        # Few and wide groups: a group of two channels would normalise the colour of
        # a plain picture away.
        norm_num_groups=2,
        sample_size=128,
        force_upcast=False,
        **more,
    )


@torch.no_grad()
def start_with_colours(vae):
    """Initialises the autoencoder to pass the mean colour of every 8 x 8 patch.

    From a random start, it takes thousands of steps to find out how colours survive
    all the normalisation. Here eight channels of the stream carry red, green, blue,
    their negatives (silu(x) - silu(-x) = x) and two constants that make the
    normalisation's gain nearly independent of the picture. Everything else starts
    as usual, behind residual branches that add nothing yet.
    """
    carriers = 8

    def clear(conv, scale=1.0, taps=((0, 0),)):
        # carriers go straight through; they neither take from other channels
        n = min(carriers, conv.in_channels)
        conv.weight[:carriers] = 0
        conv.bias[:carriers] = 0
        k = conv.kernel_size[0] // 2
        for y, x in taps:
            for c in range(n):
                conv.weight[c, c, k + y, k + x] = scale

    for m in vae.modules():
        if hasattr(m, "conv2"):
            m.conv2.weight.zero_()
            m.conv2.bias.zero_()
            if m.conv_shortcut is not None:
                clear(m.conv_shortcut)
        if hasattr(m, "to_out"):
            m.to_out[0].weight.zero_()
            m.to_out[0].bias.zero_()
    for block in vae.encoder.down_blocks:
        for down in block.downsamplers or ():
            clear(down.conv, 0.25, ((-1, -1), (-1, 0), (0, -1), (0, 0)))
    for block in vae.decoder.up_blocks:
        for up in block.upsamplers or ():
            clear(up.conv)
    for conv in (vae.encoder.conv_in, vae.decoder.conv_in):
        conv.weight[:carriers] = 0
        conv.bias[:carriers] = torch.tensor([0.0] * 6 + [4.0, -4.0])
        for c in range(3):
            conv.weight[c, c, 1, 1] = 1
            conv.weight[3 + c, c, 1, 1] = -1
    for conv, gain in ((vae.encoder.conv_out, 3.0), (vae.decoder.conv_out, 1.6)):
        conv.weight[:3] = 0
        conv.bias[:3] = 0
        for c in range(3):
            conv.weight[c, c, 1, 1] = gain
            conv.weight[c, 3 + c, 1, 1] = -gain
    # little posterior noise at first
    vae.encoder.conv_out.weight[4:] *= 0.1
    vae.encoder.conv_out.bias[4:] = -5
    for conv in (vae.quant_conv, vae.post_quant_conv):
        torch.nn.init.dirac_(conv.weight)
        conv.bias.zero_()
    return vae


def new_unet():
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1, 1),
        # diffusers' historical name: these are numbers of heads
        attention_head_dim=(2, 4, 4),
        cross_attention_dim=TEXT_WIDTH + TEXT_WIDTH_2,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=TEXT_WIDTH_2 + 6 * 16,
        norm_num_groups=4,
    )


def new_text(width, activation, model):
    vocab, _ = vocabulary()
    return model(
        CLIPTextConfig(
            vocab_size=len(vocab),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=width // HEAD,
            max_position_embeddings=TOKENS,
            hidden_act=activation,
            bos_token_id=vocab[START],
            eos_token_id=vocab[END],
            pad_token_id=vocab[END],
        )
    )


class TinySdxl(torch.nn.Module):
    """The U-Net and the text encoders, which are trained together."""

    def __init__(self):
        super().__init__()
        self.unet = new_unet()
        self.text = new_text(TEXT_WIDTH, "quick_gelu", CLIPTextModel)
        self.text_2 = new_text(TEXT_WIDTH_2, "gelu", CLIPTextModelWithProjection)
        prompts = [world.prompt_of(*s) for s in world.all_scenes()]
        end = vocabulary()[0][END]
        self.ids = torch.tensor([token_ids(p, end) for p in prompts])
        self.ids_2 = torch.tensor([token_ids(p, 0) for p in prompts])

    def captions(self, numbers):
        """Context [n, 77, 80] and pooled [n, 48] of scene numbers; -1 gives zeros."""
        unique, place = torch.unique(numbers, return_inverse=True)
        one = self.text(self.ids[unique], output_hidden_states=True)
        two = self.text_2(self.ids_2[unique], output_hidden_states=True)
        context = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1)
        keep = (unique >= 0).float()
        return (context * keep[:, None, None])[place], (two.text_embeds * keep[:, None])[place]

    def forward(self, x, t, context, pooled):
        ids = torch.tensor([TIME_IDS], dtype=torch.float32).expand(len(x), 6)
        added = {"text_embeds": pooled, "time_ids": ids}
        return self.unet(x, t, context, added_cond_kwargs=added).sample


def new_scheduler():
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )


# ---------------------------------------------------------------- files


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_model(folder, name, model, config, notes, prefix=""):
    """Weights in f16, under the names that the published SDXL folders use."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {}
    for k, v in model.state_dict().items():
        if k.endswith("position_ids"):
            continue
        if prefix and not k.startswith((prefix, "text_projection")):
            k = prefix + k
        state[k] = v.detach().to(torch.float16).contiguous()
        if not torch.isfinite(state[k]).all():
            raise SystemExit(f"{k} does not fit into f16")
    save_file(state, folder / name, metadata={"format": "pt", **notes})
    (folder / name).chmod(0o644)
    write_json(folder / "config.json", config)


def write_tokenizer(folder, pad):
    vocab, merges = vocabulary()
    write_json(folder / "vocab.json", vocab)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": START, "eos_token": END, "pad_token": pad, "unk_token": END}
    write_json(folder / "special_tokens_map.json", special)
    more = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, **more, **special})


def plain(model, name):
    """A network's or scheduler's config as the published folders have it."""
    skip = ("_name_or_path", "_use_default_values")
    config = {k: v for k, v in model.config.items() if k not in skip}
    return {"_class_name": name, "_diffusers_version": diffusers.__version__, **config}


def write_folder(folder, tiny, vae, notes, defaults=DEFAULTS):
    """The whole model as a diffusers folder."""
    notes = {k: str(v) for k, v in {**notes, **versions()}.items()}
    weights = "diffusion_pytorch_model.safetensors"
    write_model(folder / "unet", weights, tiny.unet, plain(tiny.unet, "UNet2DConditionModel"), notes)
    write_model(folder / "vae", weights, vae, plain(vae, "AutoencoderKL"), notes)
    for name, model in (("text_encoder", tiny.text), ("text_encoder_2", tiny.text_2)):
        config = {**model.config.to_diff_dict(), "architectures": [type(model).__name__]}
        write_model(folder / name, "model.safetensors", model, config, notes, "text_model.")
    write_json(folder / "scheduler/scheduler_config.json", plain(new_scheduler(), "EulerDiscreteScheduler"))
    write_tokenizer(folder / "tokenizer", END)
    write_tokenizer(folder / "tokenizer_2", "!")
    index = {
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    head = {"_class_name": "StableDiffusionXLPipeline", "_diffusers_version": diffusers.__version__}
    write_json(folder / "model_index.json", {**head, "force_zeros_for_empty_prompt": True, "add_watermarker": False, **index})
    write_json(folder / "scalediff.json", defaults)


def versions():
    return {"python": platform.python_version(), **{n: version(n) for n in ("torch", "diffusers", "transformers", "numpy")}}


def size_of(model):
    return sum(p.numel() for p in model.parameters())


def count():
    """Prints parameters and operations (2 per multiply-add)."""
    from torch.utils.flop_counter import FlopCounterMode

    def giga(run):
        with torch.no_grad(), FlopCounterMode(display=False) as f:
            run()
        return f.get_total_flops() / 1e9

    vae, tiny = new_vae(), TinySdxl()
    text = size_of(tiny.text) + size_of(tiny.text_2)
    print(f"parameters: unet {size_of(tiny.unet)} text {text} vae {size_of(vae)} all {size_of(tiny) + size_of(vae)}")
    total = 0
    for n in (16, 32, 64):
        x = torch.zeros(1, 4, n, n)
        context, pooled = tiny.captions(torch.tensor([0]))
        # The upscaling stages attend in windows of the base grid, so that a forward
        # costs as many base forwards as it has windows of that size.
        u = giga(lambda: tiny(torch.zeros(1, 4, 16, 16), 1, context, pooled)) * (n // 16) ** 2
        d = giga(lambda: vae.decode(x))
        e = giga(lambda: vae.encode(torch.zeros(1, 3, 8 * n, 8 * n)))
        print(f"{8 * n:4} px: unet {u:.3f} decode {d:.2f} encode {e:.2f} GFLOP")
        total += 2 * u * (8 if n > 16 else 20) + d + (e if n > 16 else 0)
    print(f"whole cascade, 20 + 8 + 8 steps with guidance: {total:.1f} GFLOP")
