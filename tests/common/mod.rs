//! A denoiser made of functions, for tests of what runs around one.

use std::ops::Range;

use scalediff::error::Result;
use scalediff::gpu::Slabs;
use scalediff::graph::Graph;
use scalediff::scalediff::{Attention, Denoiser, Prediction};
use scalediff::tensor::{DType, Tensor};

/// Guidance scale of a [`Stub`].
pub const CFG: f32 = 3.0;

/// Four latent channels in f32, two branches, no weights.
pub struct Stub<P, S> {
    predict: P,
    step_values: S,
    slabs: Slabs,
}

impl<P, S> Stub<P, S>
where
    P: Fn(&mut Graph, Tensor, Range<u32>, Attention) -> Result<Prediction>,
    S: Fn(f32) -> Vec<Vec<f32>>,
{
    /// By [`Denoiser::predict`] and [`Denoiser::step_values`].
    pub fn new(predict: P, step_values: S) -> Self {
        Self { predict, step_values, slabs: Slabs::new() }
    }
}

impl<P, S> Denoiser for Stub<P, S>
where
    P: Fn(&mut Graph, Tensor, Range<u32>, Attention) -> Result<Prediction>,
    S: Fn(f32) -> Vec<Vec<f32>>,
{
    fn latent_channels(&self) -> u32 {
        4
    }

    fn branches(&self) -> u32 {
        2
    }

    fn guidance(&self) -> f32 {
        CFG
    }

    fn input_dtype(&self) -> DType {
        DType::F32
    }

    fn predict(
        &self,
        g: &mut Graph,
        input: Tensor,
        branches: Range<u32>,
        attention: Attention,
    ) -> Result<Prediction> {
        (self.predict)(g, input, branches, attention)
    }

    fn step_values(&self, timestep: f32) -> Vec<Vec<f32>> {
        (self.step_values)(timestep)
    }

    fn slabs(&self) -> &Slabs {
        &self.slabs
    }
}
