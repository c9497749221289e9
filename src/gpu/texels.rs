//! Operands read through textures, where a driver fetches texels faster than words of buffers.

use super::device::Gpu;

/// Bytes of a texel: four 32-bit words.
const TEXEL: u64 = 16;
/// Texels of a line, as `lib/texels.wgsl` has it.
const LINE: u32 = 4096;
const LINE_BYTES: u64 = LINE as u64 * TEXEL;
/// Lines that a texture has on every device.
const MOST_LINES: u64 = 8191;

/// Bytes that one such operand may have.
pub(crate) const MOST_BYTES: u64 = MOST_LINES * LINE_BYTES;

/// How shaders see one.
pub(super) const BINDING: wgpu::BindingType = wgpu::BindingType::StorageTexture {
    access: wgpu::StorageTextureAccess::ReadOnly,
    format: FORMAT,
    view_dimension: wgpu::TextureViewDimension::D2,
};
const FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba32Uint;

/// Bytes of the texture for an operand of `bytes`.
pub(crate) fn texture_bytes(bytes: u64) -> u64 {
    lines_of(bytes) * LINE_BYTES
}

/// Lines that hold `bytes`; never a power of two, since lavapipe compiles a pipeline again for each set of textures of
/// which some are.
fn lines_of(bytes: u64) -> u64 {
    let lines = bytes.div_ceil(LINE_BYTES).max(3);
    lines + u64::from(lines.is_power_of_two())
}

/// Whether shaders may read such textures.
pub(super) fn offered(adapter: &wgpu::Adapter) -> bool {
    let format = adapter.get_texture_format_features(FORMAT);
    let flags = wgpu::TextureFormatFeatureFlags::STORAGE_READ_ONLY;
    format.allowed_usages.contains(wgpu::TextureUsages::STORAGE_BINDING)
        && format.flags.contains(flags)
}

/// A texture that operands are copied to.
#[derive(Clone)]
pub(crate) struct Texels {
    texture: wgpu::Texture,
    pub view: wgpu::TextureView,
}

impl Texels {
    /// Room for `bytes`, at most [`MOST_BYTES`].
    pub fn new(gpu: &Gpu, bytes: u64) -> Self {
        let texture = gpu.device.create_texture(&wgpu::TextureDescriptor {
            label: Some("texels"),
            size: extent(LINE, lines_of(bytes) as u32),
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: FORMAT,
            usage: wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_DST,
            view_formats: &[],
        });
        let view = texture.create_view(&Default::default());
        Self { texture, view }
    }

    /// Copies `bytes` of a buffer from `offset` on: whole lines, then the rest of one.
    pub fn fill(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        buffer: &wgpu::Buffer,
        offset: u64,
        bytes: u64,
    ) {
        let lines = (bytes / LINE_BYTES) as u32;
        let rest = (bytes % LINE_BYTES).div_ceil(TEXEL) as u32;
        let mut copy = |line: u32, width: u32, height: u32| {
            if width * height > 0 {
                encoder.copy_buffer_to_texture(
                    wgpu::TexelCopyBufferInfo {
                        buffer,
                        layout: wgpu::TexelCopyBufferLayout {
                            offset: offset + u64::from(line) * LINE_BYTES,
                            bytes_per_row: Some(LINE_BYTES as u32),
                            rows_per_image: None,
                        },
                    },
                    wgpu::TexelCopyTextureInfo {
                        texture: &self.texture,
                        mip_level: 0,
                        origin: wgpu::Origin3d { x: 0, y: line, z: 0 },
                        aspect: wgpu::TextureAspect::All,
                    },
                    extent(width, height),
                );
            }
        };
        copy(0, LINE, lines);
        copy(lines, rest, 1);
    }
}

fn extent(width: u32, height: u32) -> wgpu::Extent3d {
    wgpu::Extent3d { width, height, depth_or_array_layers: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_the_bytes_and_are_no_power_of_two() {
        for bytes in
            [0, 1, 16, LINE_BYTES, LINE_BYTES + 1, 4 * LINE_BYTES, 7 * LINE_BYTES + 8, MOST_BYTES]
        {
            let lines = lines_of(bytes);
            assert!(lines * LINE_BYTES >= bytes && !lines.is_power_of_two(), "{bytes}: {lines}");
        }
        assert_eq!(lines_of(MOST_BYTES), MOST_LINES);
    }

    #[test]
    fn shaders_have_the_same_lines() {
        let text = crate::shader::Sources::default().get("lib/texels.wgsl").unwrap().to_string();
        assert!(text.contains(&format!("TEXEL_LINE: u32 = {LINE}u;")));
    }
}
