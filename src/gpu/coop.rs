//! Matrix units: what an adapter offers of them, and whether they keep it.

use half::f16;

use super::caps::Coop;
use super::device::{Gpu, PARAM_BYTES};
use crate::error::{Error, Result};
use crate::shader::{Elem, KernelSpec, Variant};

static SPEC: KernelSpec = KernelSpec { name: "matrix_units", file: "check/matrix_units.wgsl" };

/// Invocations of the test's workgroup.
const WG: u32 = 128;

/// Square matrices of f16 with sums in f32 that `adapter` lists, the larger ones if it has both that the shaders know.
/// The size of a subgroup is a guess until [`test`].
pub(super) fn offered(adapter: &wgpu::Adapter) -> Option<Coop> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let wanted = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
        | wgpu::Features::SHADER_F16
        | wgpu::Features::SUBGROUP;
    if !adapter.features().contains(wanted) {
        return None;
    }
    let info = adapter.get_info();
    let lists = |side: u32| {
        adapter.cooperative_matrix_properties().iter().any(|p| {
            (p.m_size, p.n_size, p.k_size) == (side, side, side)
                && (p.ab_type, p.cr_type) == (F16, F32)
        })
    };
    let side = [16, 8].into_iter().find(|side| lists(*side))?;
    Some(Coop {
        side,
        subgroup: info.subgroup_max_size.max(side),
        scalars: info.backend == wgpu::Backend::Metal,
    })
}

/// Multiplies small matrices, and measures the subgroups that do it.
///
/// # Errors
/// The shader does not compile, a result is wrong, or subgroups are not what the engines count on.
pub(super) fn test(gpu: &Gpu, offered: Coop) -> Result<Coop> {
    let side = offered.side as usize;
    let most = (WG / gpu.caps().subgroup_min.max(1)).clamp(1, 16);
    let variant = Variant::new()
        .coop(offered.side, offered.subgroup, offered.scalars)
        .num("WG", WG)
        .num("MOST", most)
        .elem("x", Elem::Octets)
        .elem("y", Elem::F32);
    let pipeline = gpu.pipeline(&SPEC, &variant)?;

    // Small whole numbers in no order: every product and sum is exact.
    let values: Vec<f32> = (0..3 * side * side)
        .map(|i| ((i * 7919 + i * i * 104_729) % 613 % 7) as f32 - 3.0)
        .collect();
    let bytes: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
    let block = side * side + 4;
    let x = gpu.buffer("matrices", bytes.len() as u64)?;
    let y = gpu.buffer("products", (4 * block) as u64 * u64::from(most))?;
    gpu.write(&x, 0, &bytes);
    let entries = [(0, &x), (1, &y)].map(|(binding, buffer)| wgpu::BindGroupEntry {
        binding,
        resource: buffer.as_entire_binding(),
    });
    let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(SPEC.name),
        layout: &pipeline.layout,
        entries: &entries,
    });
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline.pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.set_immediates(0, &[0; PARAM_BYTES as usize]);
    pass.dispatch_workgroups(1, 1, 1);
    drop(pass);
    gpu.queue.submit([encoder.finish()]);
    let bytes = gpu.read(&y, 0, (4 * block) as u64)?;
    let result: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);

    let at = |matrix: usize, row: usize, col: usize| values[(matrix * side + row) * side + col];
    for (row, col) in (0..side * side).map(|i| (i / side, i % side)) {
        let expected: f32 =
            (0..side).map(|k| at(0, row, k) * (at(1, k, col) + at(2, col, k))).sum();
        let got = result[row * side + col];
        if got != expected {
            return Err(Error::device(format!(
                "matrix units: element ({row}, {col}) of a product is {got}, expected {expected}"
            )));
        }
    }
    let (subgroup, count, misplaced) =
        (result[side * side] as u32, result[side * side + 1], result[side * side + 2]);
    if misplaced != 0.0 || !subgroup.is_multiple_of(offered.side) {
        return Err(Error::device(format!(
            "matrix units: {count} subgroups of {subgroup} in a workgroup of {WG}, expected whole ones \
             of a multiple of {side} whose invocations follow each other"
        )));
    }
    Ok(Coop { subgroup, ..offered })
}
