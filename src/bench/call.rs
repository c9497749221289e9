//! One call of a kernel as data.

use crate::error::Result;
use crate::graph::Graph;
use crate::kernels::attention::AttentionScope;
use crate::kernels::conv2d::Geometry;
use crate::kernels::latent::StepCoefficients;
use crate::kernels::matmul::Activation;
use crate::reference::joint::Queries;
use crate::scalediff::Mask;
use crate::tensor::{DType, Shape, Tensor};

/// How operands are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Types {
    /// Activations that are read, and the result.
    pub act: DType,
    pub weight: DType,
    /// The residual.
    pub residual: DType,
}

impl Types {
    pub const F32: Types = Types::of(DType::F32);
    pub const F16: Types = Types::of(DType::F16);
    /// Half precision around a residual stream in full.
    pub const MIXED: Types = Types { residual: DType::F32, ..Types::F16 };

    /// All stored alike.
    pub const fn of(dtype: DType) -> Self {
        Self { act: dtype, weight: dtype, residual: dtype }
    }
}

/// Operands of an epilogue.
#[derive(Debug, Clone, Copy)]
pub struct Tail {
    pub bias: bool,
    pub row_vector: bool,
    /// Columns of a larger table.
    pub gate: bool,
    pub activation: Activation,
    pub residual: bool,
}

impl Tail {
    pub const NONE: Tail = Tail {
        bias: false,
        row_vector: false,
        gate: false,
        activation: Activation::None,
        residual: false,
    };
    pub const BIAS: Tail = Tail { bias: true, ..Tail::NONE };
    pub const RESIDUAL: Tail = Tail { residual: true, ..Tail::BIAS };
    pub const GATE: Tail = Tail { gate: true, ..Tail::RESIDUAL };
    pub const ALL: Tail = Tail { row_vector: true, ..Tail::RESIDUAL };

    pub const fn act(activation: Activation) -> Tail {
        Tail { activation, ..Tail::BIAS }
    }
}

/// The kinds of convolution that the networks have.
#[derive(Debug, Clone, Copy)]
pub enum Taps {
    Same(u32),
    /// Stride 2, with padding 0 or 1 above and left.
    Halved(u32),
    /// Doubled to this height and width.
    Doubled(u32, u32),
}

/// A kernel call. Shapes are `[items, height, width, channels]`; `c2` is a second tensor joined on
/// channels, 0 for none.
#[derive(Debug, Clone, Copy)]
pub enum Call {
    Matmul {
        items: u32,
        rows: u32,
        k: u32,
        n: u32,
        tail: Tail,
    },
    Conv2d {
        x: [u32; 4],
        c2: u32,
        n: u32,
        taps: Taps,
        tail: Tail,
    },
    /// `column` unused channels lie before the heads in q, k and v.
    Attention {
        items: u32,
        lq: u32,
        lk: u32,
        heads: u32,
        dim: u32,
        scope: AttentionScope,
        column: u32,
    },
    /// Unscaled, with a bias by distance (T5).
    Biased {
        items: u32,
        lq: u32,
        lk: u32,
        heads: u32,
        dim: u32,
    },
    /// Text with a picture of `pixels` (height, width), in `scope`; pairs of channels from `x_pair` on turn by the
    /// column.
    Joint {
        items: u32,
        text: u32,
        pixels: [u32; 2],
        heads: u32,
        dim: u32,
        x_pair: u32,
        scope: AttentionScope,
        queries: Queries,
        column: u32,
    },
    /// What the text's queries see in the windows `part` (first, one after the last) of `windows`; with the sum of
    /// others `before`.
    WindowMean {
        windows: u32,
        part: [u32; 2],
        before: bool,
        items: u32,
        text: u32,
        channels: u32,
    },
    /// Heads from `column` on, turned by their place where pairs turn by the column from `x_pair` on.
    Rotary {
        x: [u32; 4],
        heads: u32,
        dim: u32,
        column: u32,
        x_pair: Option<u32>,
    },
    /// Latents to tokens, or back.
    Patchify {
        x: [u32; 4],
        pack: bool,
    },
    GroupNorm {
        x: [u32; 4],
        c2: u32,
        groups: u32,
        eps: f32,
        silu: bool,
    },
    LayerNorm {
        rows: u32,
        channels: u32,
        eps: f32,
    },
    RmsNorm {
        rows: u32,
        channels: u32,
        eps: f32,
    },
    /// A layer norm with scale and shift by batch item.
    ModulatedNorm {
        items: u32,
        rows: u32,
        channels: u32,
        eps: f32,
    },
    Silu {
        rows: u32,
        channels: u32,
    },
    ModelInput {
        x: [u32; 4],
        branches: u32,
    },
    /// `apart`: the branches in two tensors.
    PredictX0 {
        x: [u32; 4],
        guided: bool,
        apart: bool,
    },
    /// `terms` are x, x2, x3 and low.
    Lift {
        x: [u32; 4],
        low: [u32; 2],
        terms: [bool; 4],
    },
    Bicubic {
        x: [u32; 4],
        out: [u32; 2],
    },
    Reduce {
        x: [u32; 4],
        factor: f64,
        minus: bool,
        base: bool,
    },
    /// Over height and width, of pairs of channels.
    Fft {
        x: [u32; 4],
        inverse: bool,
    },
    /// A low-pass by a mask; with `base` that of x taken off it.
    Masked {
        x: [u32; 4],
        mask: Mask,
        cutoff: f64,
        minus: bool,
        base: bool,
    },
    /// Windows `part` (first, one after the last) of the picture `x`, half a window or a whole one apart.
    GatherWindows {
        x: [u32; 4],
        window: [u32; 2],
        apart: bool,
        part: [u32; 2],
    },
    /// The same windows, back to the picture.
    AverageWindows {
        x: [u32; 4],
        window: [u32; 2],
        apart: bool,
        part: [u32; 2],
        before: bool,
    },
}

/// A recorded call with the values of its inputs, rounded to what is stored.
pub struct Built {
    pub(super) inputs: Vec<(&'static str, Tensor, Vec<f32>)>,
    pub output: Tensor,
    /// Records the same call once more, over the same inputs.
    pub again: Again,
}

/// Records a call over inputs that exist, and returns its result.
pub type Again = Box<dyn Fn(&mut Graph) -> Result<Tensor>>;

impl Built {
    /// What to write before the first run.
    pub fn inputs(&self) -> impl Iterator<Item = (Tensor, &[f32])> {
        self.inputs.iter().map(|(_, tensor, values)| (*tensor, values.as_slice()))
    }

    /// The same without the call.
    pub(super) fn into_inputs(self) -> Vec<(Tensor, Vec<f32>)> {
        self.inputs.into_iter().map(|(_, tensor, values)| (tensor, values)).collect()
    }

    pub(super) fn get(&self, name: &str) -> &[f32] {
        self.inputs.iter().find(|(n, ..)| *n == name).map_or(&[], |(.., values)| values)
    }
}

/// Coefficients that are all different, so that swapping any two is seen.
pub(super) const STEP: StepCoefficients = StepCoefficients {
    c_in: 0.3,
    c_x: 0.9,
    c_out: -1.7,
    cfg: 5.5,
    a: 0.7,
    b: -0.4,
    c: -2.1,
    g: 1.3,
};

/// Weight rows per output column.
pub(super) fn times(tail: Tail) -> u32 {
    if tail.activation.is_gated() { 2 } else { 1 }
}

/// Where the scale of a modulated norm begins in its table; the shift begins at 4.
pub(super) fn modulation_scale(channels: u32) -> u32 {
    4 + channels.next_multiple_of(4)
}

pub(super) fn shape([items, height, width, channels]: [u32; 4]) -> Shape {
    Shape::new(items, height, width, channels)
}

pub(super) fn geometry(x: Shape, taps: Taps) -> Geometry {
    match taps {
        Taps::Same(size) => Geometry::same(x, size),
        Taps::Halved(pad) => Geometry::halved(x, 3, pad),
        Taps::Doubled(height, width) => Geometry::doubled(height, width, 3),
    }
}

impl Call {
    /// The kernel's name, as tests and benches are filtered by.
    pub fn kernel(&self) -> &'static str {
        match self {
            Call::Matmul { .. } => "matmul",
            Call::Conv2d { .. } => "conv2d",
            Call::Attention { .. } | Call::Biased { .. } | Call::Joint { .. } => "attention",
            Call::WindowMean { .. } => "window_mean",
            Call::Rotary { .. } => "rotary",
            Call::Patchify { .. } => "patchify",
            Call::GroupNorm { .. } => "group_norm",
            Call::LayerNorm { .. } | Call::RmsNorm { .. } | Call::ModulatedNorm { .. } => {
                "layer_norm"
            }
            Call::Silu { .. } => "silu",
            Call::ModelInput { .. } => "model_input",
            Call::PredictX0 { .. } => "predict_x0",
            Call::Lift { .. } => "lift",
            Call::Bicubic { .. } | Call::Reduce { .. } => "resample",
            Call::Fft { .. } | Call::Masked { .. } => "fft",
            Call::GatherWindows { .. } => "gather_windows",
            Call::AverageWindows { .. } => "average_windows",
        }
    }

    /// Whether storage types other than f32 exist for it.
    pub fn is_typed(&self) -> bool {
        !matches!(
            self,
            Call::Lift { .. }
                | Call::Bicubic { .. }
                | Call::Reduce { .. }
                | Call::Fft { .. }
                | Call::Masked { .. }
        )
    }

    /// Whether it can have a residual of a type of its own.
    pub fn has_residual(&self) -> bool {
        matches!(self, Call::Matmul { tail, .. } | Call::Conv2d { tail, .. } if tail.residual)
    }
}
