//! Two-dimensional convolution as an implicit matrix product.

use bytemuck::NoUninit;

use super::engine::{Engine, Product};
use super::lanes::fits;
use super::matmul::{Epilogue, check_tail, choose_tail};
use crate::error::Result;
use crate::gpu::Caps;
use crate::graph::{Graph, Launch, Window};
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Shape, Tensor};

/// `conv2d`.
pub const SPEC: KernelSpec = KernelSpec { name: "conv2d", file: "conv/conv2d.wgsl" };

/// Taps, stride, padding and the size of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Taps along each axis.
    pub size: u32,
    pub stride: u32,
    /// Zeros above and left; those below and right follow from the output's size.
    pub pad: u32,
    /// Read the input doubled by nearest neighbour.
    pub doubled: bool,
    pub out_h: u32,
    pub out_w: u32,
}

impl Geometry {
    /// Output as large as the input.
    pub fn same(x: Shape, size: u32) -> Self {
        Self { size, stride: 1, pad: size / 2, doubled: false, out_h: x.height, out_w: x.width }
    }

    /// Stride 2. With `pad` 1 an odd side rounds up, with `pad` 0 (one zero below and right) down.
    pub fn halved(x: Shape, size: u32, pad: u32) -> Self {
        let half = |n: u32| if pad == 0 { n / 2 } else { n.div_ceil(2) };
        Self { size, stride: 2, pad, doubled: false, out_h: half(x.height), out_w: half(x.width) }
    }

    /// Whether it is one of 3 × 3 over a picture doubled as a whole: then all taps of a pixel read the same two lines and columns.
    fn folds(&self, x: Shape) -> bool {
        self.doubled && self.size == 3 && (self.out_h, self.out_w) == (2 * x.height, 2 * x.width)
    }

    /// Nearest-neighbour doubling, cropped to the given size, then the taps.
    pub fn doubled(height: u32, width: u32, size: u32) -> Self {
        Self { size, stride: 1, pad: size / 2, doubled: true, out_h: height, out_w: width }
    }
}

/// Parameters of `conv2d`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct Params {
    pub first_group: u32,
    pub rows: u32,
    pub cols: u32,
    pub c4: u32,
    pub row0: u32,
    pub rows_per_item: u32,
    pub col0_4: u32,
    pub n4: u32,
    pub x_row0: u32,
    pub x2_row0: u32,
    pub c1: u32,
    pub c2: u32,
    pub in_h: u32,
    pub in_w: u32,
    pub out_w: u32,
    pub stride_pad: u32,
}

fn engine(
    caps: &Caps,
    x: Tensor,
    x2: Option<Tensor>,
    weight: DType,
    n: u32,
    geometry: Geometry,
) -> Engine {
    let even =
        |t: Tensor| t.shape.channels.is_multiple_of(4) && t.shape.stride4().is_multiple_of(2);
    let rows_per_item = geometry.out_h * geometry.out_w;
    let product = Product {
        rows: x.shape.batch * rows_per_item,
        cols: n,
        gated: false,
        conv: true,
        k4: x.shape.stride4() + x2.map_or(0, |t| t.shape.stride4()),
        even_k: even(x) && x2.is_none_or(even),
        rows_per_item,
        doubled_w: if geometry.folds(x.shape) { geometry.out_w } else { 0 },
        halves: [Some(x), x2].iter().flatten().all(|t| t.dtype == DType::F16)
            && weight == DType::F16,
    };
    Engine::choose(caps, &product)
}

/// Variant of `conv2d` to `n` channels.
pub fn choose(
    caps: &Caps,
    x: Tensor,
    x2: Option<Tensor>,
    weight: DType,
    n: u32,
    geometry: Geometry,
    e: &Epilogue,
) -> Variant {
    let engine = engine(caps, x, x2, weight, n, geometry);
    choose_tail(caps, weight, e, engine)
        .num("SIZE", geometry.size)
        .flag("DOUBLED", geometry.doubled)
        .flag("HAS_X2", x2.is_some())
        .flag("ALIGNED_JOIN", x.shape.channels.is_multiple_of(4))
        .elem("x", engine.elem_in(caps, x.dtype))
        .elem("x2", engine.elem_in(caps, x2.unwrap_or(x).dtype))
}

/// Records the convolution of `[x | x2]` to `n` channels.
pub fn record(
    g: &mut Graph,
    x: Tensor,
    x2: Option<Tensor>,
    weight: Tensor,
    n: u32,
    geometry: Geometry,
    e: Epilogue,
) -> Result<Tensor> {
    let Geometry { size, stride, pad, doubled, out_h, out_w } = geometry;
    if out_h == 0 || out_w == 0 {
        return Err(
            g.error(format!("a picture of shape {} is too small for this network", x.shape))
        );
    }
    let (c1, c2) = (x.shape.channels, x2.map_or(0, |t| t.shape.channels));
    let shape = Shape::new(x.shape.batch, out_h, out_w, n);
    let taps_c = size * size * (c1 + c2).next_multiple_of(4);
    fits(g, "the weight", weight.shape, Shape::matrix(n.next_multiple_of(4), taps_c))?;
    if let Some(x2) = x2 {
        fits(g, "the second input", x2.shape, x.shape.with_channels(c2))?;
    }
    check_tail(g, shape, 1, &e)?;
    if e.gate.is_some() || e.activation.is_gated() {
        return Err(g.error("convolutions have no gate"));
    }
    let y = g.tensor(shape, e.out);
    let (in_h, in_w) = (x.shape.height, x.shape.width);
    let rows_per_item = out_h * out_w;
    // Input rows under the output rows first..=last, the halo included.
    let input_y = move |oy: u32, tap: u32| {
        let iy = i64::from(oy * stride + tap) - i64::from(pad);
        let iy = if doubled { iy.max(0) / 2 } else { iy };
        iy.clamp(0, i64::from(in_h) - 1) as u32
    };
    let window = move || {
        Window::Map(Box::new(move |rows| {
            let (first, last) = (rows.start, rows.end.max(1) - 1);
            let row = |r: u32, tap: u32| {
                (r / rows_per_item) * in_h + input_y((r % rows_per_item) / out_w, tap)
            };
            row(first, 0) * in_w..(row(last, size - 1) + 1) * in_w
        }))
    };
    let engine = engine(g.caps(), x, x2, weight.dtype, n, geometry);
    let variant = choose(g.caps(), x, x2, weight.dtype, n, geometry, &e);
    let folded = engine.folded_rows();
    let taps = if folded.is_some() { 4 } else { u64::from(size * size) };
    g.op(&SPEC, variant)
        .read(x, window())
        .read_opt(x2, window())
        .read(weight, Window::Cols { times: 1 })
        .read_opt(e.bias, Window::Whole)
        .read_opt(e.row_vector, Window::Whole)
        .read_opt(e.residual, Window::Rows)
        .write(y, Window::Rows)
        .over(y.shape.rows(), n)
        .row_step(folded.unwrap_or(64))
        .flops(2 * u64::from(y.shape.rows()) * u64::from(n) * taps * u64::from(c1 + c2))
        .launch(move |chunk| {
            let (rows, cols) = (chunk.row_count(), chunk.col_count());
            let params = Params {
                first_group: 0,
                rows,
                cols,
                c4: (c1 + c2).div_ceil(4),
                row0: chunk.rows.start,
                rows_per_item,
                col0_4: chunk.cols.start / 4,
                n4: n.div_ceil(4),
                x_row0: chunk.first(0),
                x2_row0: chunk.first(1),
                c1,
                c2,
                in_h,
                in_w,
                out_w,
                stride_pad: stride | pad << 16,
            };
            Launch::new(&params, engine.groups(rows, cols))
        });
    Ok(y)
}
