//! Overlapping windows of a picture: as items of a batch, and averaged back into the picture.
//!
//! What MultiDiffusion rests on. Windows may come in groups, so that not all are in memory at once.

use std::ops::Range;

use bytemuck::NoUninit;

use super::lanes::{WG, check_lanes, fits, groups_for};
use crate::error::Result;
use crate::gpu::Caps;
use crate::graph::{Chunk, Graph, Launch, Window};
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Shape, Tensor};

/// `gather_windows`.
pub const GATHER_WINDOWS: KernelSpec =
    KernelSpec { name: "gather_windows", file: "latent/gather_windows.wgsl" };
/// `average_windows`.
pub const AVERAGE_WINDOWS: KernelSpec =
    KernelSpec { name: "average_windows", file: "latent/average_windows.wgsl" };

/// Windows a stride apart, numbered in row order; the last of an axis ends at the border.
///
/// A picture as large as s × s windows holds (2s - 1)² of them at half a window's stride.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowGrid {
    /// The picture.
    pub height: u32,
    pub width: u32,
    /// One window.
    pub window_h: u32,
    pub window_w: u32,
    /// From window to window, at most a window.
    pub stride_h: u32,
    pub stride_w: u32,
}

impl WindowGrid {
    /// Windows of at most the size `window` (height, width) over a picture: half a window apart, or
    /// side by side where `apart`.
    pub fn new(picture: Shape, window: (u32, u32), apart: bool) -> Self {
        let fit = |window: u32, len: u32| window.clamp(1, len.max(1));
        let (window_h, window_w) = (fit(window.0, picture.height), fit(window.1, picture.width));
        let stride = |window: u32| if apart { window } else { (window / 2).max(1) };
        Self {
            height: picture.height,
            width: picture.width,
            window_h,
            window_w,
            stride_h: stride(window_h),
            stride_w: stride(window_w),
        }
    }

    /// Windows along the height and the width.
    pub fn counts(&self) -> (u32, u32) {
        let along = |len: u32, window: u32, stride: u32| (len - window).div_ceil(stride) + 1;
        (
            along(self.height, self.window_h, self.stride_h),
            along(self.width, self.window_w, self.stride_w),
        )
    }

    /// Windows in all.
    pub fn count(&self) -> u32 {
        self.counts().0 * self.counts().1
    }

    /// The shape of some windows of each item of `picture`.
    fn shape(&self, picture: Shape, windows: &Range<u32>) -> Shape {
        Shape {
            batch: picture.batch * (windows.end - windows.start),
            height: self.window_h,
            width: self.window_w,
            ..picture
        }
    }

    /// A chunk of the rows of `out`, either kernel's result, from or to some windows.
    fn launch(&self, chunk: &Chunk, out: Shape, windows: &Range<u32>) -> Launch {
        let lanes = chunk.row_count() * out.stride4();
        let (rows, columns) = self.counts();
        let params = Params {
            first_group: 0,
            lanes,
            row0: chunk.rows.start,
            channels: out.channels,
            h: self.height,
            w: self.width,
            window_h: self.window_h,
            window_w: self.window_w,
            stride_h: self.stride_h,
            stride_w: self.stride_w,
            rows,
            columns,
            first: windows.start,
            count: windows.end - windows.start,
        };
        Launch::new(&params, groups_for(lanes))
    }

    /// Refuses a picture or a range of windows that are not this grid's.
    fn check(&self, g: &Graph, picture: Shape, windows: &Range<u32>) -> Result<()> {
        let Self { height, width, .. } = *self;
        fits(g, "the picture", picture, Shape { height, width, ..picture })?;
        if windows.is_empty() || windows.end > self.count() {
            return Err(g.error(format!("windows {windows:?} of {} do not exist", self.count())));
        }
        Ok(())
    }
}

/// Parameters of both kernels.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct Params {
    pub first_group: u32,
    pub lanes: u32,
    pub row0: u32,
    pub channels: u32,
    pub h: u32,
    pub w: u32,
    pub window_h: u32,
    pub window_w: u32,
    pub stride_h: u32,
    pub stride_w: u32,
    pub rows: u32,
    pub columns: u32,
    pub first: u32,
    pub count: u32,
}

/// Variant of `gather_windows`.
pub fn choose_gather(caps: &Caps, dtype: DType) -> Variant {
    Variant::new().num("WG", WG).elem("x", caps.elem_in(dtype)).elem("y", caps.elem(dtype))
}

/// Records some windows of every item of `x`: item `b · windows + k` is window `k` of item `b`.
///
/// # Errors
/// A picture or windows that are not those of `grid`.
pub fn gather(g: &mut Graph, x: Tensor, grid: WindowGrid, windows: Range<u32>) -> Result<Tensor> {
    grid.check(g, x.shape, &windows)?;
    let shape = grid.shape(x.shape, &windows);
    let y = g.tensor(shape, x.dtype);
    check_lanes(g, y)?;
    let variant = choose_gather(g.caps(), x.dtype);
    g.op(&GATHER_WINDOWS, variant)
        .read(x, Window::Whole)
        .write(y, Window::Rows)
        .over(shape.rows(), 0)
        .launch(move |chunk| grid.launch(chunk, shape, &windows));
    Ok(y)
}

/// Variant of `average_windows`.
pub fn choose_average(caps: &Caps, dtype: DType, before: bool) -> Variant {
    Variant::new()
        .num("WG", WG)
        .flag("HAS_BEFORE", before)
        .elem("p", caps.elem_in(dtype))
        .elem("before", caps.elem_in(dtype))
        .elem("y", caps.elem(dtype))
}

/// Records the share of some windows in the average of all; `before` holds that of other windows.
///
/// # Errors
/// Operands that do not fit `grid`.
pub fn average(
    g: &mut Graph,
    p: Tensor,
    before: Option<Tensor>,
    grid: WindowGrid,
    windows: Range<u32>,
) -> Result<Tensor> {
    let count = windows.end.saturating_sub(windows.start).max(1);
    let WindowGrid { height, width, .. } = grid;
    let shape = Shape { batch: p.shape.batch / count, height, width, ..p.shape };
    grid.check(g, shape, &windows)?;
    fits(g, "a batch of windows", p.shape, grid.shape(shape, &windows))?;
    if let Some(before) = before {
        fits(g, "the average so far", before.shape, shape)?;
    }
    let y = g.tensor(shape, p.dtype);
    check_lanes(g, y)?;
    let variant = choose_average(g.caps(), p.dtype, before.is_some());
    g.op(&AVERAGE_WINDOWS, variant)
        .read(p, Window::Whole)
        .read_opt(before, Window::Rows)
        .write(y, Window::Rows)
        .over(shape.rows(), 0)
        .launch(move |chunk| grid.launch(chunk, shape, &windows));
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::WindowGrid;
    use crate::tensor::Shape;

    #[test]
    fn s_windows_per_axis_make_2s_minus_1_squared() {
        let grid = |h, w, window| WindowGrid::new(Shape::new(1, h, w, 4), window, false);
        assert_eq!(grid(32, 32, (16, 16)).count(), 9);
        assert_eq!(grid(64, 64, (16, 16)).count(), 49);
        assert_eq!(grid(16, 16, (16, 16)).count(), 1);
        assert_eq!(grid(9, 20, (16, 16)).counts(), (1, 2));
        assert_eq!(grid(10, 11, (1, 3)).counts(), (10, 9));
        assert_eq!(WindowGrid::new(Shape::new(1, 9, 8, 4), (4, 4), true).counts(), (3, 2));
    }
}
