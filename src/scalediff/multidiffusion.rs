//! MultiDiffusion (Bar-Tal et al., ICML 2023), the baseline that the method is measured against:
//! overlapping windows of the base size, each predicted as a picture of its own, then averaged.

use std::ops::Range;

use super::denoiser::{Attention, Denoiser, Prediction};
use crate::error::{Error, Result};
use crate::gpu::Slabs;
use crate::graph::Graph;
use crate::kernels::windows::{WindowGrid, average, gather};
use crate::tensor::{DType, Shape, Tensor};

/// A denoiser that sees a large picture through windows: half a window apart, or side by side, which
/// leaves seams.
pub struct MultiDiffusion<'a> {
    inner: &'a dyn Denoiser,
    grid: WindowGrid,
}

impl<'a> MultiDiffusion<'a> {
    /// `window` is the size (height, width) of a window, `latents` that of the picture; `apart` sets
    /// the windows side by side.
    pub fn new(
        inner: &'a dyn Denoiser,
        window: (u32, u32),
        latents: (u32, u32),
        apart: bool,
    ) -> Self {
        let picture = Shape::new(1, latents.0, latents.1, inner.latent_channels());
        Self { inner, grid: WindowGrid::new(picture, window, apart) }
    }

    /// The windows in groups of even size, each with about as many pixels as the picture has: so
    /// that the baseline takes about the memory of one prediction of the whole picture.
    fn groups(&self) -> Vec<Range<u32>> {
        let WindowGrid { height, width, window_h, window_w, .. } = self.grid;
        let count = self.grid.count();
        let most = (height * width).div_ceil(window_h * window_w);
        let groups = count.div_ceil(most);
        (0..groups).map(|i| i * count / groups..(i + 1) * count / groups).collect()
    }
}

impl Denoiser for MultiDiffusion<'_> {
    fn latent_channels(&self) -> u32 {
        self.inner.latent_channels()
    }

    fn branches(&self) -> u32 {
        self.inner.branches()
    }

    fn guidance(&self) -> f32 {
        self.inner.guidance()
    }

    fn input_dtype(&self) -> DType {
        self.inner.input_dtype()
    }

    /// Within its window each prediction is an ordinary one: `_attention` has no say.
    fn predict(
        &self,
        g: &mut Graph,
        input: Tensor,
        branches: Range<u32>,
        _attention: Attention,
    ) -> Result<Prediction> {
        let (mut step, mut fixed, mut mean) = (Vec::new(), Vec::new(), None);
        for (i, windows) in self.groups().into_iter().enumerate() {
            g.scope(format!("windows.{i}"), |g| {
                let pictures = gather(g, input, self.grid, windows.clone())?;
                let mut made =
                    self.inner.predict(g, pictures, branches.clone(), Attention::Full)?;
                mean = Some(average(g, made.output, mean, self.grid, windows)?);
                step.append(&mut made.step);
                fixed.append(&mut made.fixed);
                Ok(())
            })?;
        }
        let output = mean.ok_or_else(|| Error::internal("a picture without windows"))?;
        Ok(Prediction { output, step, fixed })
    }

    fn step_values(&self, timestep: f32) -> Vec<Vec<f32>> {
        let values = self.inner.step_values(timestep);
        self.groups().iter().flat_map(|_| values.clone()).collect()
    }

    fn slabs(&self) -> &Slabs {
        self.inner.slabs()
    }
}
