//! Convolutions by naive loops with f64 sums.

use super::matmul::{Tail, finish};
use crate::kernels::conv2d::Geometry;
use crate::tensor::Shape;

/// A picture list and its values.
#[derive(Clone, Copy)]
pub struct Picture<'a> {
    pub shape: Shape,
    pub values: &'a [f32],
}

impl Picture<'_> {
    fn at(&self, item: usize, y: usize, x: usize, c: usize) -> f64 {
        let [h, w, channels] =
            [self.shape.height, self.shape.width, self.shape.channels].map(|v| v as usize);
        f64::from(self.values[((item * h + y) * w + x) * channels + c])
    }
}

/// The convolution of `[x | x2]` with `w [n, size, size, c]`, through the epilogue.
pub fn conv2d(
    x: Picture,
    x2: Option<Picture>,
    w: &[f32],
    n: usize,
    geometry: Geometry,
    tail: Tail,
) -> Vec<f32> {
    let Geometry { size, stride, pad, doubled, out_h, out_w } = geometry;
    let [size, stride, pad, out_h, out_w] = [size, stride, pad, out_h, out_w].map(|v| v as usize);
    let c1 = x.shape.channels as usize;
    let channels = c1 + x2.map_or(0, |p| p.shape.channels as usize);
    // A doubled picture is cropped to the output's size first: beyond that lies padding.
    let (scale, in_h, in_w) = if doubled {
        (2, out_h, out_w)
    } else {
        (1, x.shape.height as usize, x.shape.width as usize)
    };
    let items = x.shape.batch as usize;
    let sum = |row: usize, filter: usize| {
        let (item, at) = (row / (out_h * out_w), row % (out_h * out_w));
        let (oy, ox) = (at / out_w, at % out_w);
        let mut sum = 0.0;
        for tap in 0..size * size {
            let (iy, ix) = (oy * stride + tap / size, ox * stride + tap % size);
            if iy < pad || ix < pad || iy - pad >= in_h || ix - pad >= in_w {
                continue;
            }
            let (iy, ix) = ((iy - pad) / scale, (ix - pad) / scale);
            for c in 0..channels {
                let v = match x2 {
                    Some(second) if c >= c1 => second.at(item, iy, ix, c - c1),
                    _ => x.at(item, iy, ix, c),
                };
                sum += v * f64::from(w[(filter * size * size + tap) * channels + c]);
            }
        }
        sum
    };
    finish((items, items * out_h * out_w, n), tail, sum)
}
