//! Latents as tokens, by naive loops.

use crate::tensor::Shape;

/// `[b, 2h, 2w, c]` to `[b, h, w, 4c]`, features by channel, row and column of a patch; or back.
pub fn patchify(x: &[f32], shape: Shape, pack: bool) -> Vec<f32> {
    let [b, h, w, c] = [shape.batch, shape.height, shape.width, shape.channels].map(|v| v as usize);
    let (tokens_h, tokens_w, latent_c) = if pack { (h / 2, w / 2, c) } else { (h, w, c / 4) };
    let mut y = vec![0.0; x.len()];
    for item in 0..b {
        for row in 0..2 * tokens_h {
            for column in 0..2 * tokens_w {
                for channel in 0..latent_c {
                    let latent =
                        ((item * 2 * tokens_h + row) * 2 * tokens_w + column) * latent_c + channel;
                    let token =
                        ((item * tokens_h + row / 2) * tokens_w + column / 2) * 4 * latent_c
                            + 4 * channel
                            + 2 * (row % 2)
                            + column % 2;
                    if pack {
                        y[token] = x[latent];
                    } else {
                        y[latent] = x[token];
                    }
                }
            }
        }
    }
    y
}
