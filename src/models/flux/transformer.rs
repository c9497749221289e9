//! The network: embeddings, double blocks, single blocks, output.

use super::blocks::{DoubleBlock, EPS, Pass, SingleBlock, Streams};
use super::config::FluxConfig;
use crate::error::Result;
use crate::graph::Graph;
use crate::kernels::attention::{Heads, Turn};
use crate::kernels::layer_norm::Modulation;
use crate::kernels::matmul::Activation;
use crate::kernels::{rotary, silu};
use crate::models::embed::sinusoids;
use crate::models::windows::Windows;
use crate::nn::{Linear, modulated_norm};
use crate::tensor::{DType, Shape, Tensor};
use crate::weights::Weights;

/// Channels of the sinusoids of time and guidance.
pub const SINUSOIDS: u32 = 256;

/// The base of the rotary embedding's frequencies.
const THETA: f64 = 10_000.0;

/// What steers a forward pass beside the sample.
#[derive(Debug, Clone, Copy)]
pub struct Conditioning {
    /// `[batch, 256]` f32: sinusoids of 1000 × sigma.
    pub time: Tensor,
    /// The same of 1000 × the guidance scale, for models that take it.
    pub guidance: Option<Tensor>,
    /// `[batch, pooled_dim]` f32.
    pub pooled: Tensor,
    /// `[batch, 1, tokens, context_dim]`.
    pub context: Tensor,
}

/// The denoiser of FLUX: tokens `[batch, h, w, in_channels]` to the predicted velocity of the same shape.
pub struct Flux {
    pub config: FluxConfig,
    x_embedder: Linear,
    context_embedder: Linear,
    time: Embedder,
    guidance: Option<Embedder>,
    pooled: Embedder,
    double: Vec<DoubleBlock>,
    single: Vec<SingleBlock>,
    norm_out: Linear,
    proj_out: Linear,
}

/// Two linear layers with SiLU between them.
struct Embedder([Linear; 2]);

impl Embedder {
    fn load(w: &Weights, input: u32, width: u32) -> Result<Self> {
        let first = Linear::load(&w.at("linear_1"), width, input)?;
        Ok(Self([first, Linear::load(&w.at("linear_2"), width, width)?]))
    }

    fn forward(&self, g: &mut Graph, x: Tensor, sum: Option<Tensor>) -> Result<Tensor> {
        let h = self.0[0].forward_act(g, x, Activation::Silu)?;
        match sum {
            Some(sum) => self.0[1].forward_add(g, h, sum),
            None => self.0[1].forward(g, h),
        }
    }
}

impl Flux {
    /// Loads the weights that `config` calls for.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape.
    pub fn load(w: &Weights, config: FluxConfig) -> Result<Self> {
        let c = &config;
        let width = c.width();
        let t = w.at("time_text_embed");
        let guidance = t.at("guidance_embedder");
        Ok(Self {
            x_embedder: Linear::load(&w.at("x_embedder"), width, c.in_channels)?,
            context_embedder: Linear::load(&w.at("context_embedder"), width, c.context_dim)?,
            time: Embedder::load(&t.at("timestep_embedder"), SINUSOIDS, width)?,
            guidance: if c.guidance {
                Some(Embedder::load(&guidance, SINUSOIDS, width)?)
            } else {
                None
            },
            pooled: Embedder::load(&t.at("text_embedder"), c.pooled_dim, width)?,
            double: (0..c.double_blocks)
                .map(|i| DoubleBlock::load(&w.at("transformer_blocks").at(i), c))
                .collect::<Result<_>>()?,
            single: (0..c.single_blocks)
                .map(|i| SingleBlock::load(&w.at("single_transformer_blocks").at(i), c))
                .collect::<Result<_>>()?,
            norm_out: Linear::load(&w.at("norm_out.linear"), 2 * width, width)?,
            proj_out: Linear::load(&w.at("proj_out"), c.out_channels, width)?,
            config,
        })
    }

    /// Values of [`Conditioning::time`] at a noise level, and of [`Conditioning::guidance`] at a scale.
    pub fn sinusoid_values(value: f32) -> Vec<f32> {
        sinusoids(1000.0 * f64::from(value), SINUSOIDS, true, 0.0)
    }

    /// Records the network on tokens `x [batch, h, w, in_channels]`. Inputs that are written once, whatever the
    /// step, come back in `fixed`. `act`: what is stored between the residual streams.
    ///
    /// # Errors
    /// Tokens or conditioning of other widths than the config's.
    pub fn forward(
        &self,
        g: &mut Graph,
        x: Tensor,
        conditioning: Conditioning,
        windows: &mut Windows,
        act: DType,
        fixed: &mut Vec<(Tensor, Vec<f32>)>,
    ) -> Result<Tensor> {
        let c = &self.config;
        let mut sum = g.scope("time", |g| self.time.forward(g, conditioning.time, None))?;
        if let (Some(embedder), Some(scale)) = (&self.guidance, conditioning.guidance) {
            sum = g.scope("guidance", |g| embedder.forward(g, scale, Some(sum)))?;
        }
        sum = g.scope("pooled", |g| self.pooled.forward(g, conditioning.pooled, Some(sum)))?;
        let mut streams = Streams {
            image: g.scope("x_embedder", |g| self.x_embedder.forward_as(g, x, DType::F32))?,
            text: g.scope("context_embedder", |g| {
                self.context_embedder.forward_as(g, conditioning.context, DType::F32)
            })?,
        };
        let positions = x.shape.height.max(x.shape.width);
        let table = g.input("turn", Shape::matrix(positions, c.head_dim), DType::F32);
        fixed.push((table, rotary::table(c.axes, THETA, positions)));
        let mut pass = Pass {
            conditioning: silu::record(g, sum, DType::F32)?,
            heads: Heads { count: c.heads, dim: c.head_dim },
            turn: Turn { table, x_pair: (c.axes[0] + c.axes[1]) / 2 },
            windows,
            act,
            fixed,
        };
        for (i, block) in self.double.iter().enumerate() {
            let name = format!("transformer_blocks.{i}");
            streams = g.scope(name, |g| block.forward(g, streams, &mut pass))?;
        }
        for (i, block) in self.single.iter().enumerate() {
            let name = format!("single_transformer_blocks.{i}");
            streams = g.scope(name, |g| block.forward(g, streams, &mut pass))?;
        }
        g.scope("norm_out", |g| {
            let table = self.norm_out.forward(g, pass.conditioning)?;
            // Here the scale comes first.
            let modulation = Modulation { table, scale: 0, shift: c.width() };
            let h = modulated_norm(g, streams.image, modulation, EPS, act)?;
            self.proj_out.forward_as(g, h, DType::F32)
        })
    }
}
