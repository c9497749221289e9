//! Group normalisation, optionally with SiLU, of one tensor or of two joined on channels.
//!
//! Three kernels: statistics per chunk of rows and channel, their merge per group, and the
//! application. Chunks depend on the shape and the device's class, not on its limits, so the sums are the same
//! however work is cut. On processors one kernel does it all where tensors are small.

use std::ops::Range;

use bytemuck::NoUninit;

use super::lanes::{WG, check_lanes, groups_for};
use crate::error::Result;
use crate::gpu::{Caps, DeviceClass, LANES};
use crate::graph::{Graph, Launch, Window};
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Shape, Tensor};

/// Partial statistics.
pub const STATS: KernelSpec =
    KernelSpec { name: "group_norm_stats", file: "norm/group_norm_stats.wgsl" };
/// Merge of the partial statistics.
pub const MERGE: KernelSpec =
    KernelSpec { name: "group_norm_merge", file: "norm/group_norm_merge.wgsl" };
/// Application.
pub const APPLY: KernelSpec =
    KernelSpec { name: "group_norm_apply", file: "norm/group_norm_apply.wgsl" };

/// All of it, for small tensors on processors.
pub const FUSED: KernelSpec =
    KernelSpec { name: "group_norm_fused", file: "norm/group_norm_fused.wgsl" };

/// Parameters of `group_norm_stats`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct StatsParams {
    pub first_group: u32,
    pub lanes: u32,
    pub chunk0: u32,
    pub chunks_per_item: u32,
    pub rows_per_chunk: u32,
    pub rows_per_item: u32,
    pub x_row0: u32,
    pub x2_row0: u32,
    pub c1: u32,
    pub c2: u32,
}

/// Parameters of `group_norm_merge`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct MergeParams {
    pub first_group: u32,
    pub groups_in_all: u32,
    pub item0: u32,
    pub part_row0: u32,
    pub channels: u32,
    pub groups: u32,
    pub chunks: u32,
    pub rows_per_chunk: u32,
    pub rows_per_item: u32,
    pub eps: f32,
}

/// Parameters of `group_norm_apply`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct ApplyParams {
    pub first_group: u32,
    pub lanes: u32,
    pub row0: u32,
    pub rows_per_item: u32,
    pub x_row0: u32,
    pub x2_row0: u32,
    pub c1: u32,
    pub c2: u32,
}

/// Parameters of `group_norm_fused`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct FusedParams {
    pub first_group: u32,
    pub row0: u32,
    pub rows_per_item: u32,
    pub x_row0: u32,
    pub x2_row0: u32,
    pub c1: u32,
    pub c2: u32,
    pub eps: f32,
}

/// What is normalised, and how.
#[derive(Debug, Clone, Copy)]
pub struct GroupNorm {
    /// `[channels]` f32.
    pub weight: Tensor,
    /// `[channels]` f32.
    pub bias: Tensor,
    pub groups: u32,
    pub eps: f32,
    /// Apply SiLU to the result.
    pub silu: bool,
}

/// Bytes that a launch binds at least, of rows for the statistics and of statistics for their merge, where the
/// shape lets both be so few.
const BOUND_BYTES: u32 = 1 << 20;

/// Rows of one chunk: enough chunks to fill the device and none shorter than 32 rows; but no more chunks than
/// the merge, which takes those of an item at once, and no more rows than the statistics should bind.
pub fn rows_per_chunk(caps: &Caps, rows_per_item: u32, channels: u32) -> u32 {
    let row_bytes = 4 * channels.max(1).next_multiple_of(4);
    let most_chunks = (BOUND_BYTES / (2 * row_bytes)).max(1);
    let fill = if caps.class == DeviceClass::Cpu { 128 } else { 1024 };
    let most = (BOUND_BYTES / row_bytes).clamp(32, 4096);
    rows_per_item.div_ceil(most_chunks.min(fill)).clamp(32, most).min(rows_per_item.max(1))
}

/// Whether lanes take two vec4s at a time.
fn paired(caps: &Caps, x: Tensor, x2: Option<Tensor>) -> bool {
    let even = |t: Tensor| t.shape.channels.is_multiple_of(8);
    caps.class == DeviceClass::Cpu && even(x) && x2.is_none_or(even)
}

/// Rows that a lane of `group_norm_apply` takes: they share mean and scale, so they lie in one item.
fn rows_each(caps: &Caps, rows_per_item: u32) -> u32 {
    let most = if caps.class == DeviceClass::Cpu { 16 } else { 1 };
    1 << rows_per_item.trailing_zeros().min(u32::ilog2(most))
}

/// Values that one kernel normalises on processors at most: a launch costs more than reading them twice, and as they cannot be
/// cut they stay far below any limit.
const FUSED_VALUES: u64 = 1 << 15;
/// Pairs of vec4s that its lanes hold at most.
const FUSED_PAIRS: u32 = 5;

/// Pairs of vec4s that hold whole groups, where one kernel does it all.
fn fused_pairs(caps: &Caps, x: Tensor, x2: Option<Tensor>, groups: u32) -> Option<u32> {
    let channels = x.shape.channels + x2.map_or(0, |t| t.shape.channels);
    let group = channels.checked_div(groups).filter(|group| group * groups == channels)?;
    let pairs = group >> group.trailing_zeros().min(3);
    let values = u64::from(x.shape.rows()) * u64::from(channels);
    let small = values <= FUSED_VALUES && pairs <= FUSED_PAIRS;
    let fused = small && caps.has_vectors() && paired(caps, x, x2);
    fused.then_some(pairs)
}

/// Variant of the kernels that read `x` and `x2`, but for the invocations of a workgroup.
fn joined(caps: &Caps, x: Tensor, x2: Option<Tensor>) -> Variant {
    let paired = paired(caps, x, x2);
    let elem = |dtype| caps.elem_in_paired(dtype, paired);
    Variant::new()
        .flag("HAS_X2", x2.is_some())
        .flag("ALIGNED_JOIN", x.shape.channels.is_multiple_of(4))
        .elem("x", elem(x.dtype))
        .elem("x2", elem(x2.unwrap_or(x).dtype))
}

/// The same with a lane for each vec4, or two of them.
fn joined_by_lanes(caps: &Caps, x: Tensor, x2: Option<Tensor>) -> Variant {
    joined(caps, x, x2).num("WG", WG).flag("PAIRED", paired(caps, x, x2))
}

/// Variant of `group_norm_stats`.
pub fn choose_stats(caps: &Caps, x: Tensor, x2: Option<Tensor>) -> Variant {
    joined_by_lanes(caps, x, x2).elem("part", caps.elem(DType::F32))
}

/// The implementation of the slot `reduce` in the merge, and the lanes that share a group: there are too few
/// groups for a lane each.
fn reduce(caps: &Caps) -> (&'static str, u32) {
    match caps.class {
        DeviceClass::Cpu if caps.subgroups && caps.subgroup_min >= 8 => ("lanes", 8),
        _ => caps.reduce(),
    }
}

/// Variant of `group_norm_merge`.
pub fn choose_merge(caps: &Caps) -> Variant {
    let (implementation, lanes) = reduce(caps);
    // One group for each workgroup on processors, so that all of them have work.
    Variant::new().num("WG", merge_invocations(lanes)).slot("reduce", implementation)
}

/// Invocations of a workgroup of the merge: as few as share a group on processors, whose cores each take one.
fn merge_invocations(lanes: u32) -> u32 {
    if lanes == 8 { 8 } else { 64 }
}

/// Variant of `group_norm_apply`.
pub fn choose_apply(caps: &Caps, x: Tensor, x2: Option<Tensor>, out: DType, silu: bool) -> Variant {
    joined_by_lanes(caps, x, x2)
        .num("EACH", rows_each(caps, x.shape.rows_per_item()))
        .flag("SILU", silu)
        .elem("fold", caps.elem_in(DType::F32))
        .elem("bias", caps.elem_in(DType::F32))
        .elem("y", caps.elem_paired(out, paired(caps, x, x2)))
}

/// Records the normalisation of `[x | x2]`; the result has the joined channels and type `out`.
///
/// # Errors
/// Channels that do not divide into the groups.
pub fn record(
    g: &mut Graph,
    x: Tensor,
    x2: Option<Tensor>,
    norm: GroupNorm,
    out: DType,
) -> Result<Tensor> {
    if let Some(pairs) = fused_pairs(g.caps(), x, x2, norm.groups) {
        return Ok(record_fused(g, x, x2, norm, pairs, out));
    }
    let fold = record_statistics(g, x, x2, norm)?;
    record_apply(g, x, x2, fold, norm, out)
}

/// Variant of `group_norm_fused`, whose lanes take so many pairs of vec4s.
fn choose_fused(
    caps: &Caps,
    x: Tensor,
    x2: Option<Tensor>,
    group: u32,
    pairs: u32,
    out: DType,
    silu: bool,
) -> Variant {
    joined(caps, x, x2)
        .num("WG", LANES)
        .slot("reduce", "lanes")
        .num("PAIRS", pairs)
        .num("GROUP", group)
        .flag("SILU", silu)
        .elem("weight", caps.elem_in(DType::F32))
        .elem("bias", caps.elem_in(DType::F32))
        .elem("y", caps.elem_paired(out, true))
}

fn record_fused(
    g: &mut Graph,
    x: Tensor,
    x2: Option<Tensor>,
    norm: GroupNorm,
    pairs: u32,
    out: DType,
) -> Tensor {
    let (c1, c2) = (x.shape.channels, x2.map_or(0, |t| t.shape.channels));
    let channels = c1 + c2;
    let rows_per_item = x.shape.rows_per_item();
    let rows_of = move || {
        Window::Map(Box::new(move |items: &Range<u32>| {
            items.start * rows_per_item..items.end * rows_per_item
        }))
    };
    let group = channels / norm.groups;
    let variant = choose_fused(g.caps(), x, x2, group, pairs, out, norm.silu);
    let y = g.tensor(x.shape.with_channels(channels), out);
    g.op(&FUSED, variant)
        .read(x, rows_of())
        .read_opt(x2, rows_of())
        .read(norm.weight, Window::Whole)
        .read(norm.bias, Window::Whole)
        .write(y, rows_of())
        .over(x.shape.batch, 0)
        .launch(move |chunk| {
            let params = FusedParams {
                first_group: 0,
                row0: chunk.rows.start * rows_per_item,
                rows_per_item,
                x_row0: chunk.first(0),
                x2_row0: chunk.first(1),
                c1,
                c2,
                eps: norm.eps,
            };
            Launch::new(&params, chunk.row_count() * (channels / (8 * pairs)))
        });
    y
}

/// Records the statistics of `[x | x2]` with the norm's weight folded in: `[items, 2, 1, channels]` f32.
///
/// # Errors
/// As [`record`].
pub fn record_statistics(
    g: &mut Graph,
    x: Tensor,
    x2: Option<Tensor>,
    norm: GroupNorm,
) -> Result<Tensor> {
    let (c1, c2) = (x.shape.channels, x2.map_or(0, |t| t.shape.channels));
    let channels = c1 + c2;
    if norm.groups == 0 || !channels.is_multiple_of(norm.groups) {
        return Err(
            g.error(format!("{channels} channels do not divide into {} groups", norm.groups))
        );
    }
    let rows_per_item = x.shape.rows_per_item();
    let caps = g.caps().clone();
    let rows_per_chunk = rows_per_chunk(&caps, rows_per_item, channels);
    let chunks_per_item = rows_per_item.div_ceil(rows_per_chunk);
    let items = x.shape.batch;
    let chunks = items * chunks_per_item;
    // Lanes of a row.
    let across = if paired(&caps, x, x2) { channels / 8 } else { channels.div_ceil(4) };

    let part = g.tensor(Shape::new(chunks, 2, 1, channels), DType::F32);
    // Chunks are whole rows of the picture list: chunk i of an item covers rows_per_chunk rows.
    let row_of = move |chunk: u32| {
        (chunk / chunks_per_item) * rows_per_item
            + ((chunk % chunks_per_item) * rows_per_chunk).min(rows_per_item)
    };
    let window = move || {
        Window::Map(Box::new(move |chunks| {
            let last = chunks.end.max(1) - 1;
            let end =
                (row_of(last) + rows_per_chunk).min((last / chunks_per_item + 1) * rows_per_item);
            row_of(chunks.start)..end
        }))
    };
    g.op(&STATS, choose_stats(&caps, x, x2))
        .read(x, window())
        .read_opt(x2, window())
        .write(part, Window::Map(Box::new(|chunks| chunks.start * 2..chunks.end * 2)))
        .over(chunks, 0)
        .row_step(256 >> (2 * part.row_bytes()).trailing_zeros().min(8))
        .launch(move |chunk| {
            let lanes = chunk.row_count() * across;
            let params = StatsParams {
                first_group: 0,
                lanes,
                chunk0: chunk.rows.start,
                chunks_per_item,
                rows_per_chunk,
                rows_per_item,
                x_row0: chunk.first(0),
                x2_row0: chunk.first(1),
                c1,
                c2,
            };
            Launch::new(&params, groups_for(lanes))
        });

    let fold = g.tensor(Shape::new(items, 2, 1, channels), DType::F32);
    let lanes_per_row = reduce(&caps).1;
    g.op(&MERGE, choose_merge(&caps))
        .read(
            part,
            Window::Map(Box::new(move |items| {
                2 * chunks_per_item * items.start..2 * chunks_per_item * items.end
            })),
        )
        .read(norm.weight, Window::Whole)
        .write(fold, Window::Whole)
        .over(items, 0)
        .row_step(1)
        .launch(move |chunk| {
            let groups_in_all = chunk.row_count() * norm.groups;
            let params = MergeParams {
                first_group: 0,
                groups_in_all,
                item0: chunk.rows.start,
                part_row0: chunk.first(0),
                channels,
                groups: norm.groups,
                chunks: chunks_per_item,
                rows_per_chunk,
                rows_per_item,
                eps: norm.eps,
            };
            Launch::new(
                &params,
                groups_in_all.div_ceil(merge_invocations(lanes_per_row) / lanes_per_row),
            )
        });

    Ok(fold)
}

/// Records what [`record_statistics`] made of a tensor equal to `[x | x2]` applied to it.
///
/// # Errors
/// More rows than the kernel counts.
pub fn record_apply(
    g: &mut Graph,
    x: Tensor,
    x2: Option<Tensor>,
    fold: Tensor,
    norm: GroupNorm,
    out: DType,
) -> Result<Tensor> {
    let (c1, c2) = (x.shape.channels, x2.map_or(0, |t| t.shape.channels));
    let channels = c1 + c2;
    let rows_per_item = x.shape.rows_per_item();
    let caps = g.caps().clone();
    let across = if paired(&caps, x, x2) { channels / 8 } else { channels.div_ceil(4) };
    let y = g.tensor(x.shape.with_channels(channels), out);
    check_lanes(g, y)?;
    let each = rows_each(&caps, rows_per_item);
    g.op(&APPLY, choose_apply(&caps, x, x2, out, norm.silu))
        .read(x, Window::Rows)
        .read_opt(x2, Window::Rows)
        .read(fold, Window::Whole)
        .read(norm.bias, Window::Whole)
        .write(y, Window::Rows)
        .over(y.shape.rows(), 0)
        .launch(move |chunk| {
            let lanes = chunk.row_count() / each * across;
            let params = ApplyParams {
                first_group: 0,
                lanes,
                row0: chunk.rows.start,
                rows_per_item,
                x_row0: chunk.first(0),
                x2_row0: chunk.first(1),
                c1,
                c2,
            };
            Launch::new(&params, groups_for(lanes))
        });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Limits;
    use crate::graph::split;

    /// Two branches of SDXL's U-Net at 1024² and at 2048².
    #[test]
    fn norms_of_the_unet_split_within_a_mebibyte() {
        let limits = Limits { binding_bytes: 1 << 20, ..Limits::WEBGPU };
        for class in [DeviceClass::Cpu, DeviceClass::Discrete] {
            for (side, channels) in [(128, 320), (128, 960), (256, 320), (64, 1920), (64, 2560)] {
                let mut g = Graph::new(Caps { class, ..Caps::FLOOR });
                let x = g.input("x", Shape::new(2, side, side, channels), DType::F16);
                let affine = g.input("affine", Shape::matrix(1, channels), DType::F32);
                let norm =
                    GroupNorm { weight: affine, bias: affine, groups: 32, eps: 1e-5, silu: true };
                record(&mut g, x, None, norm, DType::F16).unwrap();
                for op in g.ops() {
                    split(&g, op, &limits).unwrap_or_else(|e| panic!("{side}² × {channels}: {e}"));
                }
            }
        }
    }

    #[test]
    fn pictures_of_every_size_split_within_the_floors_binding() {
        for (side, channels) in [(2048, 512), (4096, 256), (4096, 128), (6144, 256)] {
            let mut g = Graph::new(Caps::FLOOR);
            let x = g.input("x", Shape::new(1, side, side, channels), DType::F32);
            let weight = g.input("weight", Shape::matrix(1, channels), DType::F32);
            let norm = GroupNorm { weight, bias: weight, groups: 32, eps: 1e-6, silu: true };
            record(&mut g, x, None, norm, DType::F32).unwrap();
            for op in g.ops() {
                split(&g, op, &Limits::WEBGPU).unwrap();
            }
        }
    }
}
