//! SDXL: two text encoders, micro-conditioning, classifier-free guidance.

use super::codec::VaeCodec;
use super::image::Image;
use super::model::{Loaded, Model, Precision};
use super::request::{DEFAULT_STAGES, Defaults, Request};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Slabs};
use crate::graph::{Graph, Plan};
use crate::models::sdxl_unet::{Conditioning, Draw, Unet, Windows};
use crate::models::text::{ClipEncoder, ClipTokenizer};
use crate::sampling::{EulerDiscrete, Schedule, TorchRng, stream_seed};
use crate::scalediff::{
    Attention, Cascade, Denoiser, MAX_STAGES, Observer, Prediction, SizePlan, StageResult,
};
use crate::tensor::{DType, Shape, Tensor};
use crate::weights::ModelFiles;

/// Token ids of one prompt for both encoders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptIds {
    pub first: Vec<u32>,
    pub second: Vec<u32>,
}

/// What the U-Net gets of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct TextEmbedding {
    /// `[tokens, width of both encoders]`: their penultimate states side by side.
    pub context: Vec<f32>,
    /// The second encoder's projected pooled state.
    pub pooled: Vec<f32>,
    pub tokens: u32,
}

impl TextEmbedding {
    fn zeros(&self) -> Self {
        Self {
            context: vec![0.0; self.context.len()],
            pooled: vec![0.0; self.pooled.len()],
            ..*self
        }
    }
}

/// A model folder of the SDXL family, ready to make pictures.
pub struct SdxlPipeline<'a> {
    model: Model<'a>,
    defaults: Defaults,
    zeros_for_absent_prompt: bool,
}

impl<'a> SdxlPipeline<'a> {
    /// Opens the folder; weights are loaded phase by phase.
    pub fn new(gpu: &'a Gpu, files: ModelFiles, precision: Precision) -> Result<Self> {
        let defaults = Defaults::of(&files)?;
        let model = Model::new(gpu, files, precision);
        let zeros_for_absent_prompt = model.zeros_for_absent_prompt()?;
        Ok(Self { model, defaults, zeros_for_absent_prompt })
    }

    /// The model's default settings.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// Makes a picture. `keep` takes the picture of every stage, the last one cropped to the size.
    ///
    /// # Errors
    /// A request out of range, a broken model, the device's limits, or what `observer` returned.
    pub fn generate(
        &self,
        request: &Request,
        observer: Observer,
        keep: &mut dyn FnMut(u32, Image) -> Result<()>,
    ) -> Result<Image> {
        let cfg = self.defaults.cfg_scale(request)?;
        let options = self.defaults.options(request);
        options.check()?;
        self.model.scheduler()?.schedule(options.steps)?;
        let vae = self.model.vae_config()?;
        let unet = self.model.unet_config()?;
        let latent = vae.latent_channels;
        if unet.in_channels != latent || unet.out_channels != latent {
            return Err(Error::model(format!(
                "unet/config.json: {} channels in and {} out, vae/config.json: latent_channels {latent}",
                unet.in_channels, unet.out_channels
            ))
            .with_hint("this looks like an inpainting or editing model; text-to-image models are supported"));
        }
        let native = unet.sample_size * vae.factor();
        let stages = request.stages.unwrap_or(DEFAULT_STAGES).min(MAX_STAGES);
        let side = |asked: Option<u32>, default: Option<u32>| {
            asked.or(default).unwrap_or_else(|| native.saturating_mul(1 << stages))
        };
        let size = SizePlan::new(
            side(request.width, self.defaults.width),
            side(request.height, self.defaults.height),
            native,
            vae.factor(),
            request.stages,
        )?;

        let positive = self.tokenize(&request.prompt)?;
        let mut prompts = Vec::new();
        let guided = cfg > 1.0;
        let zero_negative = request.negative_prompt.is_none() && self.zeros_for_absent_prompt;
        if guided && !zero_negative {
            prompts.push(self.tokenize(request.negative_prompt.as_deref().unwrap_or(""))?);
        }
        prompts.push(positive);
        let mut embeddings = self.embed(&prompts)?;
        if guided && zero_negative {
            let zeros = embeddings[0].zeros();
            embeddings.insert(0, zeros);
        }

        let unet = self.model.unet()?;
        let seed = request.seed;
        let channels = vae.latent_channels;
        let mut noise = |stage: u32, h: u32, w: u32| {
            let stream = match stage {
                0 => seed,
                stage => stream_seed(seed, &format!("noise.{stage}")),
            };
            let planes = TorchRng::new(stream).randn((channels * h * w) as usize);
            channels_last(&planes, channels as usize)
        };
        let mut last = None;
        let mut keep_stage = |stage: u32, result: &StageResult| {
            let (width, height) = size.cropped_size(stage);
            let image = Image::from_decoded(&result.image, result.width, result.height)
                .centred(width, height);
            if stage == size.stages {
                last = Some(image.clone());
            }
            keep(stage, image)
        };
        self.run(unet, embeddings, cfg, &size, options, &mut noise, &mut keep_stage, observer)?;
        last.ok_or_else(|| Error::internal("the cascade made no picture"))
    }

    /// The cascade with everything given: for recorded cases and for [`SdxlPipeline::generate`].
    #[allow(clippy::too_many_arguments)]
    pub fn run(
        &self,
        unet: Loaded<Unet>,
        embeddings: Vec<TextEmbedding>,
        guidance: f32,
        size: &SizePlan,
        options: crate::scalediff::CascadeOptions,
        noise: &mut dyn FnMut(u32, u32, u32) -> Vec<f32>,
        keep: &mut dyn FnMut(u32, &StageResult) -> Result<()>,
        observer: Observer,
    ) -> Result<()> {
        let time_ids = [size.base_height, size.base_width, 0, 0, size.base_height, size.base_width];
        let denoiser = SdxlDenoiser {
            unet,
            scheduler: self.model.scheduler()?,
            embeddings,
            time_ids: time_ids.map(|v| v as f32),
            guidance,
            precision: self.model.precision,
        };
        let mut codec = VaeCodec::load(&self.model)?;
        Cascade { gpu: self.model.gpu, denoiser: &denoiser, codec: &mut codec, options }
            .run(size, noise, keep, observer)
    }

    /// The U-Net of this model.
    pub fn load_unet(&self) -> Result<Loaded<Unet>> {
        self.model.unet()
    }

    /// Ids for both tokenizers; a warning is logged where a prompt is too long.
    pub fn tokenize(&self, prompt: &str) -> Result<PromptIds> {
        let ids = |folder: &str| -> Result<Vec<u32>> {
            let encoded = ClipTokenizer::open(&self.model.files, folder)?.encode(prompt)?;
            if encoded.cut > 0 {
                log::warn!(
                    "the prompt is too long: its last {} tokens are ignored ({folder})",
                    encoded.cut
                );
            }
            Ok(encoded.ids)
        };
        Ok(PromptIds { first: ids("tokenizer")?, second: ids("tokenizer_2")? })
    }

    /// Runs both text encoders on some prompts; their weights are released afterwards.
    pub fn embed(&self, prompts: &[PromptIds]) -> Result<Vec<TextEmbedding>> {
        let first: Vec<&[u32]> = prompts.iter().map(|p| p.first.as_slice()).collect();
        let second: Vec<&[u32]> = prompts.iter().map(|p| p.second.as_slice()).collect();
        let a = encode_text(self.model.gpu, &self.model.clip("text_encoder")?, &first)?;
        let b = encode_text(self.model.gpu, &self.model.clip("text_encoder_2")?, &second)?;
        let join = |(a, b): (TextStates, TextStates)| -> Result<TextEmbedding> {
            let pooled = b.projected.ok_or_else(|| {
                Error::model("text_encoder_2 has no projection")
                    .with_hint("SDXL needs CLIPTextModelWithProjection")
            })?;
            let (wa, wb) = (a.width as usize, b.width as usize);
            let rows = a.penultimate.chunks_exact(wa).zip(b.penultimate.chunks_exact(wb));
            let context: Vec<f32> = rows.flat_map(|(a, b)| [a, b].concat()).collect();
            let tokens = (context.len() / (wa + wb)) as u32;
            Ok(TextEmbedding { context, pooled, tokens })
        };
        a.into_iter().zip(b).map(join).collect()
    }
}

/// What a text encoder makes of one prompt.
#[derive(Debug, Clone)]
pub struct TextStates {
    pub width: u32,
    /// `[tokens, width]`.
    pub penultimate: Vec<f32>,
    /// The final-normed state at the end-of-text token.
    pub pooled: Vec<f32>,
    /// That, projected.
    pub projected: Option<Vec<f32>>,
}

/// Runs a text encoder on rows of ids of equal length.
pub fn encode_text(
    gpu: &Gpu,
    encoder: &Loaded<ClipEncoder>,
    ids: &[&[u32]],
) -> Result<Vec<TextStates>> {
    let config = &encoder.net.config;
    let tokens = ids.first().map_or(0, |row| row.len());
    let mut embedded = Vec::new();
    for row in ids {
        embedded.extend(encoder.net.embed(row)?);
    }
    let mut g = Graph::new(gpu.caps().clone());
    let shape = Shape::tokens(ids.len() as u32, tokens as u32, config.width);
    let x = g.input("embeddings", shape, DType::F32);
    let outputs = g.scope("text_encoder", |g| encoder.net.forward(g, x))?;
    for tensor in
        [Some(outputs.penultimate), Some(outputs.normed), outputs.projected].into_iter().flatten()
    {
        g.output(tensor);
    }
    let plan = Plan::compile(gpu, &g, &encoder.slabs)?;
    plan.write(gpu, x, &embedded)?;
    plan.run(gpu, &mut |_| Ok(()))?;
    let penultimate = plan.read(gpu, outputs.penultimate)?;
    let normed = plan.read(gpu, outputs.normed)?;
    let projected = outputs.projected.map(|t| plan.read(gpu, t)).transpose()?;

    let row = |values: &[f32], width: u32, item: usize, position: usize| {
        let width = width as usize;
        values[(item * tokens + position) * width..][..width].to_vec()
    };
    let states = ids.iter().enumerate().map(|(item, ids)| {
        let position = config.pooled_position(ids);
        let length = tokens * config.width as usize;
        TextStates {
            width: config.width,
            penultimate: penultimate[item * length..][..length].to_vec(),
            pooled: row(&normed, config.width, item, position),
            projected: projected
                .as_ref()
                .zip(config.projection)
                .map(|(values, width)| row(values, width, item, position)),
        }
    });
    Ok(states.collect())
}

/// The U-Net with its conditioning: the first row of the [`Denoiser`] seam.
pub struct SdxlDenoiser {
    pub unet: Loaded<Unet>,
    pub scheduler: EulerDiscrete,
    /// One per branch, the negative first.
    pub embeddings: Vec<TextEmbedding>,
    pub time_ids: [f32; 6],
    pub guidance: f32,
    pub precision: Precision,
}

impl Denoiser for SdxlDenoiser {
    fn latent_channels(&self) -> u32 {
        self.unet.net.config.in_channels
    }

    fn branches(&self) -> u32 {
        self.embeddings.len() as u32
    }

    fn guidance(&self) -> f32 {
        self.guidance
    }

    fn input_dtype(&self) -> DType {
        self.precision.dtype()
    }

    fn schedule(&self, steps: usize) -> Result<Schedule> {
        self.scheduler.schedule(steps)
    }

    fn predict(&self, g: &mut Graph, input: Tensor, attention: Attention) -> Result<Prediction> {
        let unet = &self.unet.net;
        let c = &unet.config;
        let branches = self.branches();
        let tokens = self.embeddings.first().map_or(0, |e| e.tokens);
        let conditioning = Conditioning {
            time: g.input("time", Shape::matrix(branches, c.channels[0]), DType::F32),
            added: g.input("added", Shape::matrix(branches, c.added_dim), DType::F32),
            context: g.input(
                "context",
                Shape::tokens(branches, tokens, c.context_dim),
                self.input_dtype(),
            ),
        };
        let mut added = Vec::new();
        let mut context = Vec::new();
        for e in &self.embeddings {
            added.extend(unet.added_values(&e.pooled, &self.time_ids)?);
            context.extend_from_slice(&e.context);
        }
        if context.len() as u64 != conditioning.context.shape.elems() {
            return Err(Error::model(format!(
                "the text encoders make {} values per token, cross_attention_dim is {}",
                context.len() / (branches * tokens).max(1) as usize,
                c.context_dim
            )));
        }
        let (base, seed) = match attention {
            Attention::Full => (None, None),
            Attention::Patches { base_height, base_width, jitter } => {
                (Some((base_height, base_width)), jitter)
            }
        };
        let mut rng = seed.map(TorchRng::new);
        let mut draw = rng.as_mut().map(|rng| |most: u32| rng.uniform_u32(most));
        let mut windows = Windows { base, jitter: draw.as_mut().map(|d| d as Draw) };
        let output = g.scope("unet", |g| unet.forward(g, input, conditioning, &mut windows))?;
        Ok(Prediction {
            output,
            step: vec![conditioning.time],
            fixed: vec![(conditioning.added, added), (conditioning.context, context)],
        })
    }

    fn step_values(&self, timestep: f32) -> Vec<Vec<f32>> {
        vec![self.unet.net.time_values(timestep).repeat(self.embeddings.len())]
    }

    fn slabs(&self) -> &Slabs {
        &self.unet.slabs
    }
}

/// `[channels, pixels]` to `[pixels, channels]`.
pub fn channels_last(planes: &[f32], channels: usize) -> Vec<f32> {
    let pixels = planes.len() / channels.max(1);
    (0..pixels).flat_map(|p| (0..channels).map(move |c| planes[c * pixels + p])).collect()
}

/// `[pixels, channels]` to `[channels, pixels]`.
pub fn channels_first(rows: &[f32], channels: usize) -> Vec<f32> {
    let pixels = rows.len() / channels.max(1);
    (0..channels).flat_map(|c| (0..pixels).map(move |p| rows[p * channels + c])).collect()
}
