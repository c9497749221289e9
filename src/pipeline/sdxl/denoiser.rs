//! The U-Net with its conditioning.

use std::ops::Range;
use std::sync::Arc;

use super::text::TextEmbedding;
use crate::error::{Error, Result};
use crate::gpu::Slabs;
use crate::graph::Graph;
use crate::models::sdxl_unet::{Conditioning, Unet};
use crate::pipeline::model::{Loaded, Precision};
use crate::pipeline::windows::with_windows;
use crate::scalediff::{Attention, Denoiser, Prediction};
use crate::tensor::{DType, Shape, Tensor};

/// The U-Net with its conditioning: the first row of the [`Denoiser`] seam.
pub struct SdxlDenoiser {
    /// The network.
    pub unet: Arc<Loaded<Unet>>,
    /// One per branch, the negative first.
    pub embeddings: Vec<TextEmbedding>,
    /// Micro-conditioning in pixels: original height and width, crop top and left, target height and width.
    pub time_ids: [f32; 6],
    /// Scale between the branches.
    pub guidance: f32,
    /// What activations are stored in.
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

    fn predict(
        &self,
        g: &mut Graph,
        input: Tensor,
        branches: Range<u32>,
        attention: Attention,
    ) -> Result<Prediction> {
        let unet = &self.unet.net;
        let c = &unet.config;
        let embeddings = &self.embeddings[branches.start as usize..branches.end as usize];
        let tokens = embeddings.first().map_or(0, |e| e.tokens);
        let batch = input.shape.batch;
        let copies = batch as usize / embeddings.len().max(1);
        let conditioning = Conditioning {
            time: g.input("time", Shape::matrix(batch, c.channels[0]), DType::F32),
            added: g.input("added", Shape::matrix(batch, c.added_dim), DType::F32),
            context: g.input(
                "context",
                Shape::tokens(batch, tokens, c.context_dim),
                self.input_dtype(),
            ),
        };
        let mut added = Vec::new();
        let mut context = Vec::new();
        for e in embeddings {
            added.extend(unet.added_values(&e.pooled, &self.time_ids)?.repeat(copies));
            context.extend(e.context.repeat(copies));
        }
        if context.len() as u64 != conditioning.context.shape.elems() {
            return Err(Error::model(format!(
                "the text encoders make {} values per token, cross_attention_dim is {}",
                context.len() / (batch * tokens).max(1) as usize,
                c.context_dim
            )));
        }
        let output = with_windows(attention, 1, |windows| {
            g.scope("unet", |g| unet.forward(g, input, conditioning, windows))
        })?;
        Ok(Prediction {
            output,
            step: vec![conditioning.time],
            fixed: vec![(conditioning.added, added), (conditioning.context, context)],
        })
    }

    fn step_values(&self, timestep: f32) -> Vec<Vec<f32>> {
        vec![self.unet.net.time_values(timestep)]
    }

    fn slabs(&self) -> &Slabs {
        &self.unet.slabs
    }
}
