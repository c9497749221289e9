"""The parts of the tiny FLUX model: sizes, the T5 tokenizer and the diffusers folder."""

import json

import diffusers
import tokenizers
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from tokenizers import decoders, normalizers, pre_tokenizers, processors
from transformers import CLIPTextModel, T5Config, T5EncoderModel

import tiny_sdxl
import world
from tiny_sdxl import plain, size_of, versions, write_json, write_model

LATENTS = 16
POOLED, TEXT_WIDTH, HEAD = 32, 48, 32
TOKENS = 32
GRID = 8  # tokens a side of a 128 x 128 picture: 8 pixels a latent, 2 latents a token
PAD, END, UNKNOWN = 0, 1, 2
DEFAULTS = {
    "native_size": 128,
    "steps": 20,
    "cfg_scale": 2.5,
    "restart_ratio": 0.35,
    "scale_factor": 0.25,
    "max_sequence_length": TOKENS,
    "width": 512,
    "height": 512,
}


# ---------------------------------------------------------------- tokenizer


def pieces():
    """[piece, score] of a SentencePiece unigram model: our words whole, and every letter.

    The ids of the special pieces are T5's.
    """
    words = sorted({w for s in world.all_scenes() for w in world.prompt_of(*s).split()})
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    # A word costs less than its letters do, so the best split keeps it whole.
    return special + [("▁" + w, -3.0) for w in words] + [("▁", -4.0)] + [(c, -6.0) for c in letters]


def t5_tokenizer():
    t = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces(), unk_id=UNKNOWN, byte_fallback=False))
    t.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    t.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    t.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return t


def t5_ids(prompt):
    ids = t5_tokenizer().encode(prompt).ids
    return ids + [PAD] * (TOKENS - len(ids))


# ---------------------------------------------------------------- models


def new_vae():
    return tiny_sdxl.new_vae(LATENTS, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.0, shift_factor=0.0)


@torch.no_grad()
def start_from_sdxl(vae, folder):
    """Takes over the autoencoder of the tiny SDXL model: its latents become the first four
    channels, its 1x1 convolutions around them are multiplied into their neighbours."""
    old = AutoencoderKL.from_pretrained(folder)
    taken = {k: v for k, v in old.state_dict().items() if "quant_conv" not in k and not k.startswith(("encoder.conv_out", "decoder.conv_in"))}
    vae.load_state_dict(taken, strict=False)
    n = old.config.latent_channels
    into, out = old.quant_conv.weight[:, :, 0, 0], old.post_quant_conv.weight[:, :, 0, 0]
    weight = torch.einsum("ok,kchw->ochw", into, old.encoder.conv_out.weight)
    bias = into @ old.encoder.conv_out.bias + old.quant_conv.bias
    conv = vae.encoder.conv_out
    for part in range(2):  # means, then logarithms of variances
        rows, theirs = slice(part * LATENTS, part * LATENTS + n), slice(part * n, (part + 1) * n)
        conv.weight[rows], conv.bias[rows] = weight[theirs], bias[theirs]
    # the new channels start quiet: small values, little noise
    conv.weight[LATENTS + n :] *= 0.1
    conv.bias[LATENTS + n :] = -4
    conv = vae.decoder.conv_in
    conv.weight[:, :n] = torch.einsum("ochw,ck->okhw", old.decoder.conv_in.weight, out)
    conv.bias[:] = old.decoder.conv_in.bias + old.decoder.conv_in.weight.sum((2, 3)) @ old.post_quant_conv.bias
    return vae


@torch.no_grad()
def even_channels(vae, deviation):
    """Scales every latent channel to unit deviation: exact, by the layers beside the latents."""
    conv = vae.encoder.conv_out
    conv.weight[:LATENTS] /= deviation[:, None, None, None]
    conv.bias[:LATENTS] /= deviation
    conv.bias[LATENTS:] -= 2 * deviation.log()
    vae.decoder.conv_in.weight *= deviation[None, :, None, None]


def new_transformer():
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENTS,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=HEAD,
        num_attention_heads=3,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )


def new_t5():
    return T5EncoderModel(
        T5Config(
            vocab_size=len(pieces()),
            d_model=TEXT_WIDTH,
            d_kv=16,
            d_ff=2 * TEXT_WIDTH,
            num_layers=2,
            num_heads=3,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
            pad_token_id=PAD,
            eos_token_id=END,
        )
    )


def position_ids(rows, columns):
    """(image, text) ids: the second and third axis are row and column, text is at the origin."""
    grid = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1).reshape(-1, 2)
    return torch.cat([torch.zeros(len(grid), 1), grid.float()], 1), torch.zeros(TOKENS, 3)


def pack(z):
    """[n, c, h, w] latents to [n, h/2 * w/2, 4c] tokens, features in (c, dy, dx) order."""
    n, c, h, w = z.shape
    return z.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, 4 * c)


class TinyFlux(torch.nn.Module):
    """The transformer and the text encoders, which are trained together."""

    def __init__(self):
        super().__init__()
        self.transformer = new_transformer()
        self.text = tiny_sdxl.new_text(POOLED, "quick_gelu", CLIPTextModel)
        self.text_2 = new_t5()
        prompts = [world.prompt_of(*s) for s in world.all_scenes()] + [""]
        end = tiny_sdxl.vocabulary()[0][tiny_sdxl.END]
        self.ids = torch.tensor([tiny_sdxl.token_ids(p, end) for p in prompts])
        self.ids_2 = torch.tensor([t5_ids(p) for p in prompts])

    def captions(self, numbers):
        """T5 states [n, 32, 48] and pooled [n, 32] of scene numbers; -1 is the empty prompt."""
        unique, place = torch.unique(numbers, return_inverse=True)
        pooled = self.text(self.ids[unique]).pooler_output
        return self.text_2(self.ids_2[unique]).last_hidden_state[place], pooled[place]

    def forward(self, tokens, sigma, context, pooled, guidance):
        image, text = position_ids(GRID, GRID)
        return self.transformer(
            tokens, encoder_hidden_states=context, pooled_projections=pooled, timestep=sigma, guidance=guidance, img_ids=image, txt_ids=text
        ).sample


def new_scheduler():
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)


# ---------------------------------------------------------------- files


def write_folder(folder, tiny, vae, notes, defaults=DEFAULTS):
    """The whole model as a diffusers folder."""
    notes = {k: str(v) for k, v in {**notes, **versions()}.items()}
    weights = "diffusion_pytorch_model.safetensors"
    write_model(folder / "transformer", weights, tiny.transformer, plain(tiny.transformer, "FluxTransformer2DModel"), notes)
    write_model(folder / "vae", weights, vae, plain(vae, "AutoencoderKL"), notes)
    config = {**tiny.text.config.to_diff_dict(), "architectures": ["CLIPTextModel"]}
    write_model(folder / "text_encoder", "model.safetensors", tiny.text, config, notes, "text_model.")
    config = {**tiny.text_2.config.to_diff_dict(), "architectures": ["T5EncoderModel"]}
    write_model(folder / "text_encoder_2", "model.safetensors", tiny.text_2, config, notes)
    write_json(folder / "scheduler/scheduler_config.json", plain(new_scheduler(), "FlowMatchEulerDiscreteScheduler"))
    tiny_sdxl.write_tokenizer(folder / "tokenizer", tiny_sdxl.END)
    d = folder / "tokenizer_2"
    write_json(d / "tokenizer.json", json.loads(t5_tokenizer().to_str()))
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(d / "special_tokens_map.json", special)
    write_json(d / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "model_max_length": TOKENS, **special})
    index = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    head = {"_class_name": "FluxPipeline", "_diffusers_version": diffusers.__version__}
    write_json(folder / "model_index.json", {**head, **index})
    write_json(folder / "scalediff.json", defaults)


def count():
    """Prints parameters."""
    vae, tiny = new_vae(), TinyFlux()
    text = size_of(tiny.text) + size_of(tiny.text_2)
    print(f"parameters: transformer {size_of(tiny.transformer)} text {text} vae {size_of(vae)} all {size_of(tiny) + size_of(vae)}")
