//! Compiling one variant of a kernel, with errors that cite the WGSL file.

use super::device::Gpu;
use crate::error::{Error, Result};
use crate::shader::{Access, Binding, KernelSpec, Variant, compose};

/// A compiled kernel variant.
pub struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
    /// The operands in binding order.
    pub bindings: Vec<Binding>,
    /// `kernel[variant]`.
    pub label: String,
}

impl Pipeline {
    pub(super) fn build(
        gpu: &Gpu,
        spec: &'static KernelSpec,
        variant: &Variant,
        checks: bool,
    ) -> Result<Self> {
        let label = format!("{}{variant}", spec.name);
        let composed = compose(spec, variant).map_err(|e| e.at(&label))?;
        let accesses: Vec<Access> = composed.bindings.iter().map(|b| b.access).collect();
        let (layout, pipeline_layout) = gpu.layout(&accesses);
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(&label),
            source: wgpu::ShaderSource::Wgsl(composed.wgsl.as_str().into()),
        };

        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let module = if checks {
            gpu.device.create_shader_module(descriptor)
        } else {
            // SAFETY: every kernel keeps its indices inside the bound windows and its loops finite;
            // the kernel tests run all of them with the checks on.
            unsafe {
                gpu.device.create_shader_module_trusted(
                    descriptor,
                    wgpu::ShaderRuntimeChecks::unchecked(),
                )
            }
        };
        let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let failure = pollster::block_on(scope.pop());
        if let Some(failure) = failure {
            let info = pollster::block_on(module.get_compilation_info());
            let place = info.messages.first().and_then(|m| m.location.as_ref()).map_or_else(
                || format!("shaders/{}", spec.file),
                |l| composed.origin(l.line_number as usize),
            );
            return Err(Error::device(format!("{label}: {place}: {failure}")).with_hint(
                "try --tier plain; if that works the driver is at fault, please report it",
            ));
        }
        Ok(Self { pipeline, layout, bindings: composed.bindings, label })
    }
}
