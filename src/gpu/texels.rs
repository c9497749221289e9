//! Whether a driver's textures show what lies in the memory of their buffers, and in time.

use super::device::{Gpu, PARAM_BYTES};
use super::storage::Storage;
use crate::error::{Error, Result};
use crate::shader::{Elem, KernelSpec, Variant};

static SPEC: KernelSpec = KernelSpec { name: "copy", file: "bench/copy.wgsl" };

const WG: u32 = 64;
/// Vec4s that are moved: more than a line of texels.
const LANES: u32 = 5000;
const BYTES: u64 = 16 * LANES as u64;
/// Where they begin in each buffer, and so do the textures.
const OFFSET: u64 = 256;

/// Moves numbers by all that writes to buffers, each time to be read through a texture at once.
///
/// # Errors
/// The shader does not compile, a texture cannot be had, or one shows something else.
pub(super) fn test(gpu: &Gpu) -> Result<()> {
    let variant = Variant::new().num("WG", WG).elem("x", Elem::TexelsWide).elem("y", Elem::F32);
    let pipeline = gpu.pipeline(&SPEC, &variant)?;
    let buffer = || gpu.buffer("texels", OFFSET + BYTES);
    let (uploaded, first, second) = (buffer()?, buffer()?, buffer()?);
    let (copied, result, cleared) = (buffer()?, buffer()?, buffer()?);
    let group = |from: &Storage, to: &Storage| -> Result<wgpu::BindGroup> {
        let view = from.texels(&gpu.device, OFFSET, BYTES)?;
        let y = wgpu::BufferBinding { buffer: to, offset: OFFSET, size: None };
        Ok(gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(SPEC.name),
            layout: &pipeline.layout,
            entries: &[
                wgpu::BindGroupEntry {
                    binding: 0,
                    resource: wgpu::BindingResource::TextureView(&view),
                },
                wgpu::BindGroupEntry { binding: 1, resource: wgpu::BindingResource::Buffer(y) },
            ],
        }))
    };
    let mut params = [0; PARAM_BYTES as usize];
    params[4..8].copy_from_slice(&LANES.to_le_bytes());
    let pass = |encoder: &mut wgpu::CommandEncoder, groups: &[wgpu::BindGroup]| {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_immediates(0, &params);
        for group in groups {
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(LANES.div_ceil(WG), 1, 1);
        }
    };

    let values: Vec<f32> = (1..=4 * LANES).map(|i| i as f32).collect();
    gpu.write(&uploaded, OFFSET, bytemuck::cast_slice(&values));
    gpu.write(&cleared, OFFSET, bytemuck::cast_slice(&values));
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    pass(&mut encoder, &[group(&uploaded, &first)?, group(&first, &second)?]);
    encoder.copy_buffer_to_buffer(&second, 0, &copied, 0, OFFSET + BYTES);
    pass(&mut encoder, &[group(&copied, &result)?]);
    encoder.clear_buffer(&cleared, 0, None);
    pass(&mut encoder, &[group(&cleared, &first)?]);
    gpu.queue.submit([encoder.finish()]);

    let zeros = vec![0.0; values.len()];
    for (buffer, expected, after) in
        [(&result, &values, "dispatches and copies"), (&first, &zeros, "a fill")]
    {
        let got: Vec<f32> = bytemuck::pod_collect_to_vec(&gpu.read(buffer, OFFSET, BYTES)?);
        if let Some(i) = (0..got.len()).find(|i| got[*i] != expected[*i]) {
            return Err(Error::device(format!(
                "a texture shows {} at number {i} of a buffer after {after}, expected {}",
                got[i], expected[i]
            )));
        }
    }
    Ok(())
}
