//! Two-dimensional convolutions.

use crate::error::Result;
use crate::graph::{Graph, WeightRef};
use crate::kernels::conv2d::{self, Geometry};
use crate::kernels::matmul::Epilogue;
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

/// A convolution with square taps and a bias.
pub struct Conv2d {
    weight: WeightRef,
    bias: WeightRef,
    c_out: u32,
    size: u32,
}

impl Conv2d {
    /// `weight [c_out, c_in, size, size]` and `bias [c_out]`.
    pub fn load(w: &Weights, c_out: u32, c_in: u32, size: u32) -> Result<Self> {
        Self::load_first(w, c_out, c_in, size, c_out)
    }

    /// Of an input that is stored times `from`, to an output times `to`.
    pub fn load_scaled(
        w: &Weights,
        c_out: u32,
        c_in: u32,
        size: u32,
        (from, to): (f32, f32),
    ) -> Result<Self> {
        Ok(Self {
            weight: w.times(to / from).conv(c_out, c_in, size, c_out)?,
            bias: w.at("bias").times(to).vector(c_out, c_out)?,
            c_out,
            size,
        })
    }

    /// The first `keep` of `c_out` output channels.
    pub fn load_first(w: &Weights, c_out: u32, c_in: u32, size: u32, keep: u32) -> Result<Self> {
        Ok(Self {
            weight: w.conv(c_out, c_in, size, keep)?,
            bias: w.at("bias").vector(c_out, keep)?,
            c_out: keep,
            size,
        })
    }

    /// Same size: stride 1, padded by half the taps.
    pub fn forward(&self, g: &mut Graph, x: Tensor) -> Result<Tensor> {
        self.record(g, x, None, Geometry::same(x.shape, self.size), Self::plain(x))
    }

    /// Bytes of what [`Conv2d::forward_as`] makes of `x`.
    pub fn same_bytes(&self, x: Tensor, dtype: DType) -> u64 {
        Tensor { shape: x.shape.with_channels(self.c_out), dtype, ..x }.bytes()
    }

    /// Same size, stored as `out`.
    pub fn forward_as(&self, g: &mut Graph, x: Tensor, out: DType) -> Result<Tensor> {
        let epilogue = Epilogue { out, ..Epilogue::default() };
        self.record(g, x, None, Geometry::same(x.shape, self.size), epilogue)
    }

    /// Same size over `[x | x2]`, joined on channels.
    pub fn forward_joined(&self, g: &mut Graph, x: Tensor, x2: Option<Tensor>) -> Result<Tensor> {
        self.record(g, x, x2, Geometry::same(x.shape, self.size), Self::plain(x))
    }

    /// Same size, plus a vector per batch item (a time embedding, `[batch, c_out]`).
    pub fn forward_add_vector(
        &self,
        g: &mut Graph,
        x: Tensor,
        vector: Option<Tensor>,
    ) -> Result<Tensor> {
        let epilogue = Epilogue { row_vector: vector, ..Self::plain(x) };
        self.record(g, x, None, Geometry::same(x.shape, self.size), epilogue)
    }

    /// Same size, plus `residual`.
    pub fn forward_add(&self, g: &mut Graph, x: Tensor, residual: Tensor) -> Result<Tensor> {
        let epilogue = Epilogue { residual: Some(residual), ..Self::plain(x) };
        self.record(g, x, None, Geometry::same(x.shape, self.size), epilogue)
    }

    /// Half the size: stride 2 with `pad` zeros above and left (those below and right follow from the size).
    pub fn forward_halved(&self, g: &mut Graph, x: Tensor, pad: u32) -> Result<Tensor> {
        self.record(g, x, None, Geometry::halved(x.shape, self.size, pad), Self::plain(x))
    }

    /// Twice the size (nearest neighbour, cropped to `height × width`), then the convolution.
    pub fn forward_doubled(
        &self,
        g: &mut Graph,
        x: Tensor,
        height: u32,
        width: u32,
    ) -> Result<Tensor> {
        self.record(g, x, None, Geometry::doubled(height, width, self.size), Self::plain(x))
    }

    fn plain(x: Tensor) -> Epilogue {
        Epilogue { out: x.dtype, ..Epilogue::default() }
    }

    fn record(
        &self,
        g: &mut Graph,
        x: Tensor,
        x2: Option<Tensor>,
        geometry: Geometry,
        epilogue: Epilogue,
    ) -> Result<Tensor> {
        let weight = g.weight(self.weight);
        let bias = Some(g.weight(self.bias));
        conv2d::record(g, x, x2, weight, self.c_out, geometry, Epilogue { bias, ..epilogue })
    }
}
