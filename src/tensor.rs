//! Value types for tensors: element type, shape and handle. Nothing here knows a GPU.

use std::fmt;

/// How an element is stored. Arithmetic is f32 everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
}

impl DType {
    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            DType::F32 => 4,
            DType::F16 => 2,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
        })
    }
}

/// `[batch, height, width, channels]`, channels last: a matrix of `rows() × channels`.
///
/// Pictures, latents and token lists share this one layout, so that tokens are pictures without a
/// transpose and a band of picture rows is a contiguous range of the buffer. A row is padded to
/// whole vec4s; the padding lanes are always zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    pub batch: u32,
    pub height: u32,
    pub width: u32,
    pub channels: u32,
}

impl Shape {
    /// A picture or a grid of tokens.
    pub const fn new(batch: u32, height: u32, width: u32, channels: u32) -> Self {
        Self { batch, height, width, channels }
    }

    /// A list of `len` tokens.
    pub const fn tokens(batch: u32, len: u32, channels: u32) -> Self {
        Self::new(batch, 1, len, channels)
    }

    /// A plain matrix.
    pub const fn matrix(rows: u32, channels: u32) -> Self {
        Self::new(rows, 1, 1, channels)
    }

    /// The same rows with another number of channels.
    pub const fn with_channels(self, channels: u32) -> Self {
        Self { channels, ..self }
    }

    /// Rows of one batch item: `height × width`.
    pub const fn rows_per_item(self) -> u32 {
        self.height * self.width
    }

    /// Rows in all: `batch × height × width`.
    pub const fn rows(self) -> u32 {
        self.batch * self.height * self.width
    }

    /// Vec4s in a row, the padding included.
    pub const fn stride4(self) -> u32 {
        self.channels.div_ceil(4)
    }

    /// Elements that carry data, without the padding.
    pub const fn elems(self) -> u64 {
        self.rows() as u64 * self.channels as u64
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { batch, height, width, channels } = self;
        write!(f, "[{batch}, {height}, {width}, {channels}]")
    }
}

/// A handle on a tensor of one [`Graph`](crate::graph::Graph): cheap to copy, meaningless elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tensor {
    pub(crate) id: u32,
    pub shape: Shape,
    pub dtype: DType,
}

impl Tensor {
    /// Bytes of one row as stored.
    pub const fn row_bytes(self) -> u64 {
        self.shape.stride4() as u64 * 4 * self.dtype.bytes()
    }

    /// Bytes of the whole tensor as stored.
    pub const fn bytes(self) -> u64 {
        self.row_bytes() * self.shape.rows() as u64
    }
}
