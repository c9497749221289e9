//! The halves of the autoencoder.

use super::{Nothing, Outputs, one, picture, to_planes, to_rows};
use crate::error::Result;
use crate::pipeline::{Model, decode_raw, encode_raw};
use crate::tensor::Shape;
use crate::verify::Case;

pub fn vae_encoder(model: &Model, case: &Case) -> Result<Outputs> {
    let Nothing {} = case.params()?;
    let (dims, image) = case.input::<4>("image")?;
    let shape = picture(dims)?;
    let encoder = model.vae_encoder()?;
    let config = model.vae_config()?;
    let mean = encode_raw(
        model.engine()?,
        &encoder,
        &to_rows(image, shape),
        shape,
        None,
        &mut |_| Ok(()),
    )?;
    let factor = config.factor();
    let (h, w) = (shape.height / factor, shape.width / factor);
    let (dims, planes) = to_planes(&mean, Shape::new(shape.batch, h, w, config.latent_channels));
    Ok(one("mean", dims, planes))
}

pub fn vae_decoder(model: &Model, case: &Case) -> Result<Outputs> {
    let Nothing {} = case.params()?;
    let (dims, latents) = case.input::<4>("latents")?;
    let shape = picture(dims)?;
    let decoder = model.vae_decoder()?;
    let config = model.vae_config()?;
    let (image, _) =
        decode_raw(model.engine()?, &decoder, &to_rows(latents, shape), shape, &mut |_| Ok(()))?;
    let factor = config.factor();
    let full =
        Shape::new(shape.batch, factor * shape.height, factor * shape.width, config.image_channels);
    let (dims, planes) = to_planes(&image, full);
    Ok(one("image", dims, planes))
}
