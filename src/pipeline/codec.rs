//! The autoencoder as the cascade uses it.

use super::model::{Loaded, Model};
use crate::error::Result;
use crate::gpu::{Caps, DeviceTensor, Gpu};
use crate::graph::{Graph, Plan, Pulse, Stream};
use crate::models::vae::{Decoder, Encoder, VaeConfig};
use crate::scalediff::{Codec, upsample_bicubic};
use crate::tensor::{DType, Shape, Tensor};

/// Encoder and decoder; the encoder is loaded when the first later stage asks for it.
pub struct VaeCodec {
    model: Model,
    config: VaeConfig,
    decoder: Loaded<Decoder>,
    encoder: Option<Loaded<Encoder>>,
    /// Leave the decoded picture on the device, in `picture`.
    pub keep_picture: bool,
    /// The last picture decoded, where it is kept: `[1, H, W, 3]`.
    pub picture: Option<DeviceTensor>,
}

impl VaeCodec {
    /// Loads the decoder of `model`.
    pub fn load(model: &Model) -> Result<Self> {
        Ok(Self {
            model: model.clone(),
            config: model.vae_config()?,
            decoder: model.vae_decoder()?,
            encoder: None,
            keep_picture: false,
            picture: None,
        })
    }

    /// The autoencoder's dimensions.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }
}

/// Tensors above this size are worth more dispatches.
const STREAM_ABOVE: u64 = 512 << 20;

/// What is computed again is a small part of a whole run, and memory decides whether it runs at all.
const STREAM: Stream = Stream { band_bytes: 128 << 20, kept_bytes: 1 << 30 };

/// Pictures with larger tensors have the device to themselves.
const LARGE: u64 = 2 << 30;

/// Records a graph, and again as a streamed one if it has large tensors: autoencoders work on whole pictures, and at
/// 4096² a single tensor takes 8 GiB in f16.
fn streamed_if_large<T>(
    caps: &Caps,
    record: impl Fn(&mut Graph) -> Result<T>,
) -> Result<(Graph, T)> {
    let mut g = Graph::new(caps.clone());
    let made = record(&mut g)?;
    if g.activations().all(|(tensor, _)| tensor.bytes() <= STREAM_ABOVE) {
        return Ok((g, made));
    }
    let mut g = Graph::new(caps.clone());
    g.stream(STREAM);
    let made = record(&mut g)?;
    Ok((g, made))
}

/// The graph of the decoder for latents of `shape`; with its input and its output.
pub(super) fn record_decoder(
    caps: &Caps,
    decoder: &Decoder,
    shape: Shape,
) -> Result<(Graph, Tensor, Tensor)> {
    let (g, (z, image)) = streamed_if_large(caps, |g| {
        let z = g.input("latents", shape, DType::F32);
        let image = g.scope("vae.decoder", |g| decoder.forward(g, z))?;
        Ok((z, g.output(image)))
    })?;
    Ok((g, z, image))
}

/// Values to write once into an input of a graph.
type Fixed = Vec<(Tensor, Vec<f32>)>;

/// The graph of the encoder for a picture of `shape` enlarged to `to`; with its input, its output
/// and the tables of the enlargement.
pub(super) fn record_encoder(
    caps: &Caps,
    encoder: &Encoder,
    shape: Shape,
    to: Option<(u32, u32)>,
) -> Result<(Graph, Tensor, Tensor, Fixed)> {
    let (g, (image, mean, fixed)) = streamed_if_large(caps, |g| {
        let mut fixed = Vec::new();
        let image = g.input("image", shape, DType::F32);
        let x = match to {
            Some((height, width)) => upsample_bicubic(g, image, height, width, &mut fixed)?,
            None => image,
        };
        let mean = g.scope("vae.encoder", |g| encoder.forward(g, x))?;
        Ok((image, g.output(mean), fixed))
    })?;
    Ok((g, image, mean, fixed))
}

/// Latents in the decoder's own space to a picture, on the host and where it lies on the device.
pub fn decode_raw(
    gpu: &Gpu,
    decoder: &Loaded<Decoder>,
    latents: &[f32],
    shape: Shape,
    pulse: Pulse,
) -> Result<(Vec<f32>, DeviceTensor)> {
    let (g, z, image) = record_decoder(gpu.caps(), &decoder.net, shape)?;
    let plan = Plan::once(gpu, &g, &decoder.slabs, &[(z, latents.to_vec())], pulse)?;
    Ok((plan.read(gpu, image)?, plan.device_tensor(image)?))
}

/// A picture, enlarged by bicubic interpolation to `to` (height, width) where given, to the
/// posterior's mean in the encoder's own space.
pub fn encode_raw(
    gpu: &Gpu,
    encoder: &Loaded<Encoder>,
    image: &[f32],
    shape: Shape,
    to: Option<(u32, u32)>,
    pulse: Pulse,
) -> Result<Vec<f32>> {
    let (g, x, mean, mut fixed) = record_encoder(gpu.caps(), &encoder.net, shape, to)?;
    fixed.push((x, image.to_vec()));
    Plan::once(gpu, &g, &encoder.slabs, &fixed, pulse)?.read(gpu, mean)
}

/// Whether the denoiser makes room for a picture of `height × width` latents.
pub(super) fn is_large(config: &VaeConfig, dtype: DType, height: u32, width: u32) -> bool {
    let (factor, channels) = (config.factor(), config.channels[0]);
    let pixels = u64::from(height * factor) * u64::from(width * factor);
    dtype.bytes() * u64::from(channels) * pixels > LARGE
}

impl Codec for VaeCodec {
    fn factor(&self) -> u32 {
        self.config.factor()
    }

    fn channels(&self) -> u32 {
        self.config.latent_channels
    }

    fn is_large(&self, height: u32, width: u32) -> bool {
        is_large(&self.config, self.model.precision.dtype(), height, width)
    }

    fn decode(
        &mut self,
        latents: &[f32],
        height: u32,
        width: u32,
        pulse: Pulse,
    ) -> Result<Vec<f32>> {
        let VaeConfig { scaling, shift, latent_channels, .. } = self.config;
        let raw: Vec<f32> = latents.iter().map(|v| v / scaling + shift).collect();
        let shape = Shape::new(1, height, width, latent_channels);
        self.picture = None;
        let (image, tensor) = decode_raw(self.model.engine()?, &self.decoder, &raw, shape, pulse)?;
        self.picture = self.keep_picture.then_some(tensor);
        Ok(image)
    }

    fn encode_doubled(
        &mut self,
        image: &[f32],
        height: u32,
        width: u32,
        pulse: Pulse,
    ) -> Result<Vec<f32>> {
        let encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => self.model.vae_encoder()?,
        };
        let shape = Shape::new(1, height, width, self.config.image_channels);
        let to = Some((2 * height, 2 * width));
        let mean = encode_raw(self.model.engine()?, &encoder, image, shape, to, pulse);
        self.encoder = Some(encoder);
        let VaeConfig { scaling, shift, .. } = self.config;
        Ok(mean?.into_iter().map(|v| (v - shift) * scaling).collect())
    }
}
