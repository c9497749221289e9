//! Overlapping windows, by listing their corners and counting how often each pixel is held.

use std::ops::Range;

use crate::kernels::windows::WindowGrid;

/// Corners of all windows in row order: a stride apart, the last one at the border.
fn corners(grid: WindowGrid) -> Vec<(usize, usize)> {
    let along = |len: u32, window: u32, stride: u32| {
        let mut at: Vec<usize> = Vec::new();
        let mut next = 0;
        while next + window < len {
            at.push(next as usize);
            next += stride;
        }
        at.push((len - window) as usize);
        at
    };
    let columns = along(grid.width, grid.window_w, grid.stride_w);
    let rows = along(grid.height, grid.window_h, grid.stride_h);
    rows.iter().flat_map(|y| columns.iter().map(|x| (*y, *x))).collect()
}

/// Rows of the picture under the pixels of a window, in row order.
fn pixels(grid: WindowGrid, (y, x): (usize, usize)) -> impl Iterator<Item = usize> {
    let width = grid.width as usize;
    let columns = x..x + grid.window_w as usize;
    (y..y + grid.window_h as usize).flat_map(move |y| columns.clone().map(move |x| y * width + x))
}

/// The windows `windows` of each item of `x`, one after the other.
pub fn gather(x: &[f32], channels: usize, grid: WindowGrid, windows: Range<u32>) -> Vec<f32> {
    let corners = corners(grid);
    let mut y = Vec::new();
    for item in x.chunks_exact((grid.height * grid.width) as usize * channels) {
        for k in windows.clone() {
            for row in pixels(grid, corners[k as usize]) {
                y.extend_from_slice(&item[row * channels..(row + 1) * channels]);
            }
        }
    }
    y
}

/// `before` (or zero) + the share of the windows `windows`, in `p`, in the average of all windows.
pub fn average(
    p: &[f32],
    before: &[f32],
    channels: usize,
    grid: WindowGrid,
    windows: Range<u32>,
) -> Vec<f32> {
    let corners = corners(grid);
    let mut held = vec![0u32; (grid.height * grid.width) as usize];
    for corner in &corners {
        pixels(grid, *corner).for_each(|row| held[row] += 1);
    }
    let mut y = Vec::new();
    let per_window = (grid.window_h * grid.window_w) as usize * channels;
    for item in p.chunks_exact(windows.len() * per_window) {
        let mut sums = vec![0.0f64; held.len() * channels];
        for (values, k) in item.chunks_exact(per_window).zip(windows.clone()) {
            for (row, pixel) in pixels(grid, corners[k as usize]).zip(values.chunks(channels)) {
                for (c, v) in pixel.iter().enumerate() {
                    sums[row * channels + c] += f64::from(*v) / f64::from(held[row]);
                }
            }
        }
        y.extend(sums);
    }
    let before = |i: usize| before.get(i).map_or(0.0, |v| f64::from(*v));
    y.iter().enumerate().map(|(i, v)| (v + before(i)) as f32).collect()
}
