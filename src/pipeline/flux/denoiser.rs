//! The transformer with its conditioning.

use std::ops::Range;
use std::sync::Arc;

use super::text::FluxText;
use crate::error::{Error, Result};
use crate::gpu::Slabs;
use crate::graph::Graph;
use crate::kernels::patchify;
use crate::models::flux::{self, Conditioning};
use crate::pipeline::model::{Loaded, Precision};
use crate::pipeline::windows::with_windows;
use crate::scalediff::{Attention, Denoiser, Prediction};
use crate::tensor::{DType, Shape, Tensor};

/// Latents to the side of a token.
pub(super) const PATCH: u32 = 2;

/// The transformer with its conditioning: the second row of the [`Denoiser`] seam. Guidance is an input of the
/// network, so that there is one branch.
pub struct FluxDenoiser {
    /// The network.
    pub flux: Arc<Loaded<flux::Flux>>,
    /// What it is asked for.
    pub text: FluxText,
    /// The scale it is told, where it takes one.
    pub guidance: f32,
    /// What activations are stored in.
    pub precision: Precision,
}

impl Denoiser for FluxDenoiser {
    fn latent_channels(&self) -> u32 {
        self.flux.net.config.in_channels / 4
    }

    fn patch(&self) -> u32 {
        PATCH
    }

    fn branches(&self) -> u32 {
        1
    }

    fn guidance(&self) -> f32 {
        1.0
    }

    fn input_dtype(&self) -> DType {
        self.precision.dtype()
    }

    fn predict(
        &self,
        g: &mut Graph,
        input: Tensor,
        _: Range<u32>,
        attention: Attention,
    ) -> Result<Prediction> {
        let net = &self.flux.net;
        let (batch, act) = (input.shape.batch, self.input_dtype());
        let sinusoids = |g: &mut Graph, name: &str| {
            g.input(name, Shape::matrix(batch, flux::SINUSOIDS), DType::F32)
        };
        let conditioning = Conditioning {
            time: sinusoids(g, "time"),
            guidance: net.config.guidance.then(|| sinusoids(g, "guidance")),
            pooled: g.input("pooled", Shape::matrix(batch, net.config.pooled_dim), DType::F32),
            context: g.input(
                "context",
                Shape::tokens(batch, self.text.tokens, net.config.context_dim),
                act,
            ),
        };
        let mut fixed = Vec::new();
        let mut fix = |tensor: Tensor, values: &[f32]| -> Result<()> {
            let values = values.repeat(batch as usize);
            if values.len() as u64 != tensor.shape.elems() {
                return Err(Error::model(format!(
                    "the text encoders make {} values, the transformer takes {}",
                    values.len(),
                    tensor.shape
                ))
                .with_hint("transformer and text encoders belong to different models"));
            }
            fixed.push((tensor, values));
            Ok(())
        };
        fix(conditioning.pooled, &self.text.pooled)?;
        fix(conditioning.context, &self.text.context)?;
        if let Some(tensor) = conditioning.guidance {
            fix(tensor, &flux::Flux::sinusoid_values(self.guidance))?;
        }
        let output = with_windows(attention, PATCH, |windows| {
            g.scope("transformer", |g| {
                let x = patchify::pack(g, input, act)?;
                let y = net.forward(g, x, conditioning, windows, act, &mut fixed)?;
                patchify::unpack(g, y, DType::F32)
            })
        })?;
        Ok(Prediction { output, step: vec![conditioning.time], fixed })
    }

    fn step_values(&self, timestep: f32) -> Vec<Vec<f32>> {
        vec![flux::Flux::sinusoid_values(timestep / 1000.0)]
    }

    fn slabs(&self) -> &Slabs {
        &self.flux.slabs
    }
}
