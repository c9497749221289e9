//! Null ring: how the plan cuts work, checked over random ops.

use std::ops::Range;

use proptest::prelude::*;
use scalediff::error::ErrorKind;
use scalediff::gpu::{Caps, Limits};
use scalediff::graph::{
    Chunk, Graph, Launch, Layout, Op, Origin, WeightRef, Window, band_rows, split,
};
use scalediff::kernels::conv2d::{self, Geometry};
use scalediff::kernels::matmul::{self, Epilogue};
use scalediff::shader::{KernelSpec, Variant};
use scalediff::tensor::{DType, Shape, Tensor};

const SPEC: KernelSpec = KernelSpec { name: "none", file: "none" };

fn dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::F16)]
}

/// Limits on bindings and buffers alone.
fn limits(binding_bytes: u64, buffer_bytes: u64) -> Limits {
    Limits { binding_bytes, buffer_bytes, ..Limits::WEBGPU }
}

/// An op over `rows × cols` with one operand of each kind of window.
fn op(rows: u32, cols: u32, channels: [u32; 4], dtype: DType, halo: u32) -> Graph {
    let mut g = Graph::new(Caps::FLOOR);
    let x = g.input("rows", Shape::matrix(rows, channels[0]), dtype);
    let map = g.input("map", Shape::matrix(rows, channels[1]), dtype);
    let cols_of = g.input("cols", Shape::matrix(2 * cols.next_multiple_of(4), channels[2]), dtype);
    let whole = g.input("whole", Shape::matrix(1, 4), DType::F32);
    let y = g.tensor(Shape::matrix(rows, channels[3]), dtype);
    let around = move |r: &Range<u32>| r.start.saturating_sub(halo)..r.end + halo;
    g.op(&SPEC, Variant::new())
        .read(x, Window::Rows)
        .read(map, Window::Map(Box::new(around)))
        .read(cols_of, Window::Cols { times: 2 })
        .read_opt(None, Window::Whole)
        .read(whole, Window::Whole)
        .write(y, Window::Rows)
        .over(rows, cols)
        .launch(|_| Launch::new(&[0u32; 1], 1));
    g
}

/// Every binding within the limit, aligned and inside its tensor; all work done exactly once.
fn check_chunks(op: &Op, chunks: &[Chunk], limit: u64) -> Result<(), TestCaseError> {
    let mut cells = 0;
    for (i, chunk) in chunks.iter().enumerate() {
        prop_assert!(chunk.rows.start % 64 == 0 && chunk.cols.start % 64 == 0);
        prop_assert!(chunk.rows.end <= op.rows && chunk.cols.end <= op.cols);
        cells += u64::from(chunk.row_count()) * u64::from(chunk.col_count().max(1));
        for other in &chunks[..i] {
            let overlap = |a: &Range<u32>, b: &Range<u32>| a.start < b.end && b.start < a.end;
            let same_cols = op.cols == 0 || overlap(&chunk.cols, &other.cols);
            prop_assert!(!(overlap(&chunk.rows, &other.rows) && same_cols));
        }
        for (operand, bound) in op.operands.iter().zip(&chunk.bound) {
            let Some(tensor) = operand.tensor else {
                prop_assert!(bound.is_empty());
                continue;
            };
            let bytes = tensor.row_bytes() * u64::from(bound.end - bound.start);
            prop_assert!(bytes <= limit, "{bytes} bytes bound, the limit is {limit}");
            prop_assert!(bound.end <= tensor.shape.rows());
            prop_assert_eq!(tensor.row_bytes() * u64::from(bound.start) % 256, 0);
            check_window(&operand.window, tensor, chunk, bound)?;
        }
    }
    prop_assert_eq!(cells, u64::from(op.rows) * u64::from(op.cols.max(1)));
    Ok(())
}

/// What the window asks for is bound, and rows that a launch indexes from its own first row start
/// exactly there.
fn check_window(
    window: &Window,
    tensor: Tensor,
    chunk: &Chunk,
    bound: &Range<u32>,
) -> Result<(), TestCaseError> {
    let all = tensor.shape.rows();
    match window {
        Window::Whole => prop_assert_eq!(bound, &(0..all)),
        Window::Rows => prop_assert_eq!(bound, &chunk.rows),
        Window::Map(map) => {
            let wanted = map(&chunk.rows);
            prop_assert!(bound.start <= wanted.start && bound.end >= wanted.end.min(all));
        }
        Window::Cols { times } => {
            prop_assert_eq!(bound.start, times * chunk.cols.start);
            prop_assert!(bound.end >= (times * chunk.cols.end).min(all));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn chunks_fit_the_limit_and_cover_the_work_once(
        rows in 1u32..3000,
        cols in 0u32..1500,
        channels in prop::array::uniform4(1u32..700),
        dtype in dtype(),
        halo in 0u32..200,
        limit_kib in 1u64..2048,
    ) {
        let g = op(rows, cols, channels, dtype, halo);
        let op = &g.ops()[0];
        let limit = limit_kib << 10;
        match split(&g, op, &limits(limit, u64::MAX)) {
            Ok(chunks) => check_chunks(op, &chunks, limit)?,
            Err(e) => {
                // Only when even 64 rows, with the halo, or 64 columns do not fit.
                prop_assert_eq!(e.kind(), ErrorKind::OutOfMemory);
                let bytes = |c: u32, rows: u32| {
                    u64::from(c.div_ceil(4) * 4) * dtype.bytes() * u64::from(rows)
                };
                // Alignment can add up to 63 rows before a halo.
                let rows_short = bytes(channels[0].max(channels[3]), 64.min(rows)) > limit
                    || bytes(channels[1], (64 + 2 * halo + 63).min(rows + 63)) > limit;
                let cols_short = bytes(channels[2], 128.min(2 * cols.next_multiple_of(4))) > limit;
                prop_assert!(rows_short || cols_short, "{e}");
            }
        }
    }

    #[test]
    fn bands_fit_their_buffers_and_chunks_write_into_one_band(
        rows in 1u32..3000,
        cols in 1u32..500,
        channels in prop::array::uniform4(1u32..300),
        dtype in dtype(),
        halo in 0u32..100,
        binding_kib in 1u64..2048,
        buffer_kib in 1u64..2048,
    ) {
        let g = op(rows, cols, channels, dtype, halo);
        let op = &g.ops()[0];
        let limits = limits(binding_kib << 10, buffer_kib << 10);
        let Ok(layout) = Layout::new(&g, &limits) else { return Ok(()) };
        check_chunks(op, &layout.chunks[0], limits.binding_bytes)?;
        for buffer in &layout.buffers {
            prop_assert!(buffer.bytes <= limits.buffer_bytes, "{} {}", buffer.label, buffer.bytes);
        }
        for chunk in &layout.chunks[0] {
            for (i, (operand, bound)) in op.operands.iter().zip(&chunk.bound).enumerate() {
                let Some(tensor) = operand.tensor else { continue };
                let pieces = layout.pieces(tensor, bound);
                let bytes: u64 = pieces.iter().map(|p| p.bytes).sum();
                prop_assert_eq!(bytes, tensor.row_bytes() * u64::from(bound.end - bound.start));
                prop_assert!(pieces.iter().all(|p| p.offset % 256 == 0));
                if pieces.len() > 1 {
                    prop_assert!(!operand.writes && !matches!(operand.window, Window::Rows));
                    prop_assert!(layout.scratch[i] >= bytes && bytes <= limits.buffer_bytes);
                }
            }
        }
    }

    #[test]
    fn kernels_cut_by_rows_and_columns_cover_their_work(
        side in 1u32..60,
        c in 1u32..80,
        n in 1u32..300,
        dtype in dtype(),
        stride in 1u32..3,
        limit_kib in 16u64..256,
    ) {
        let mut g = Graph::new(Caps::FLOOR);
        let x = g.input("x", Shape::new(2, side, side, c), dtype);
        let (n4, c4) = (n.next_multiple_of(4), c.next_multiple_of(4));
        let weight = g.input("w", Shape::matrix(n4, c4), dtype);
        let taps = g.input("w", Shape::matrix(n4, 9 * c4), dtype);
        let geometry = match stride {
            1 => Geometry::same(x.shape, 3),
            _ => Geometry::halved(x.shape, 3, 1),
        };
        let e = Epilogue { out: dtype, ..Default::default() };
        matmul::record(&mut g, x, weight, n, e).unwrap();
        conv2d::record(&mut g, x, None, taps, n, geometry, e).unwrap();
        let limit = limit_kib << 10;
        for op in g.ops() {
            if let Ok(chunks) = split(&g, op, &limits(limit, u64::MAX)) {
                check_chunks(op, &chunks, limit)?;
            }
        }
    }
}

#[test]
fn an_impossible_cut_names_the_op_the_bytes_and_the_limit() {
    let g = op(64, 0, [1024, 4, 4, 4], DType::F32, 0);
    let error = split(&g, &g.ops()[0], &limits(4096, u64::MAX)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    let text = error.to_string();
    for part in ["none", "262144", "4096"] {
        assert!(text.contains(part), "{text:?} lacks {part}");
    }
}

#[test]
fn what_is_written_across_bands_names_the_buffer_limit() {
    let mut g = Graph::new(Caps::FLOOR);
    let y = g.tensor(Shape::matrix(1000, 16), DType::F32);
    g.op(&SPEC, Variant::new())
        .write(y, Window::Whole)
        .over(1, 0)
        .launch(|_| Launch::new(&[0u32; 1], 1));
    let error = split(&g, &g.ops()[0], &limits(1 << 20, 16384)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    let text = error.to_string();
    assert!(text.contains("64000") && text.contains("buffer limit is 16384"), "{text}");
}

#[test]
fn weights_lie_in_one_piece_whatever_the_buffer_limit() {
    let mut g = Graph::new(Caps::FLOOR);
    let shape = Shape::matrix(1024, 64);
    let w = g.weight(WeightRef { slab: 0, offset: 0, shape, dtype: DType::F32 });
    let y = g.tensor(Shape::matrix(64, 16), DType::F32);
    g.op(&SPEC, Variant::new())
        .read(w, Window::Map(Box::new(|rows| rows.start * 16..rows.end * 16)))
        .write(y, Window::Rows)
        .over(64, 0)
        .launch(|_| Launch::new(&[0u32; 1], 1));
    let layout = Layout::new(&g, &limits(1 << 20, w.bytes() - 1)).unwrap();
    assert_eq!((layout.chunks[0].len(), layout.scratch.len()), (1, 0));
}

#[test]
fn what_fits_is_not_cut() {
    let g = op(1000, 320, [320, 320, 320, 320], DType::F16, 3);
    assert_eq!(split(&g, &g.ops()[0], &limits(128 << 20, 128 << 20)).unwrap().len(), 1);
}

#[test]
fn only_rows_at_the_border_of_bands_are_gathered() {
    // A convolution over 4 bands: what is gathered is the halo's surroundings, not the picture.
    let mut g = Graph::new(Caps::FLOOR);
    let x = g.input("x", Shape::new(1, 1024, 256, 16), DType::F32);
    let taps = g.input("w", Shape::matrix(16, 9 * 16), DType::F32);
    let e = Epilogue { out: DType::F32, ..Default::default() };
    conv2d::record(&mut g, x, None, taps, 16, Geometry::same(x.shape, 3), e).unwrap();
    let limits = limits(128 << 20, x.bytes() / 4);
    assert_eq!(band_rows(x, Origin::Input, limits.buffer_bytes).unwrap(), x.shape.rows() / 4);
    let layout = Layout::new(&g, &limits).unwrap();
    let gathered: u64 = layout.chunks[0]
        .iter()
        .map(|c| &c.bound[0])
        .filter(|bound| layout.is_gathered(x, bound))
        .map(|bound| u64::from(bound.end - bound.start))
        .sum();
    assert!(gathered > 0 && gathered < u64::from(x.shape.rows()) / 20, "{gathered} rows");
    assert!(layout.chunks[0].len() < 100, "{} chunks", layout.chunks[0].len());
}

#[test]
fn the_fullest_op_bounds_the_plan_from_below() {
    let mut g = Graph::new(Caps::FLOOR);
    let mut x = g.input("x", Shape::new(1, 8, 8, 64), DType::F32);
    let w = g.input("w", Shape::matrix(64, 64), DType::F32);
    for _ in 0..5 {
        let e = Epilogue { residual: Some(x), ..Default::default() };
        x = matmul::record(&mut g, x, w, 64, e).unwrap();
    }
    let layout = Layout::new(&g, &Limits::WEBGPU).unwrap();
    // The input, the weight, and two results at a time.
    let bytes = x.bytes();
    assert_eq!(layout.live_bytes, bytes + w.bytes() + 2 * bytes);
    assert_eq!(layout.buffer_bytes(), layout.live_bytes);
}
