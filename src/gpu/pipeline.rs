//! Compiling one variant of a kernel, with errors that cite the WGSL file.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::device::{Gpu, PARAM_BYTES, lock};
use super::storage;
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
        let composed = compose(&gpu.sources, spec, variant).map_err(|e| e.at(&label))?;
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

impl Gpu {
    /// The pipeline of a kernel's variant, compiled on first use.
    ///
    /// # Errors
    /// The shader does not compile on this device; the message cites the WGSL line.
    pub fn pipeline(&self, spec: &'static KernelSpec, variant: &Variant) -> Result<Arc<Pipeline>> {
        if let Some(found) = self.compiled(spec, variant) {
            return Ok(found);
        }
        let built = Arc::new(Pipeline::build(self, spec, variant, self.shader_checks)?);
        lock(&self.pipelines).insert((spec.name, variant.clone()), Arc::clone(&built));
        Ok(built)
    }

    fn compiled(&self, spec: &KernelSpec, variant: &Variant) -> Option<Arc<Pipeline>> {
        lock(&self.pipelines).get(&(spec.name, variant.clone())).map(Arc::clone)
    }

    /// Compiles what is missing of many pipelines on all processors: most of what a first step waits for. One that does not
    /// compile is left to [`Gpu::pipeline`], which says so.
    pub(crate) fn prepare<'v>(
        &self,
        wanted: impl Iterator<Item = (&'static KernelSpec, &'v Variant)>,
    ) {
        let mut seen = HashSet::new();
        let missing: Vec<_> = wanted
            .filter(|(spec, variant)| seen.insert((spec.name, *variant)))
            .filter(|(spec, variant)| self.compiled(spec, variant).is_none())
            .collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((spec, variant)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(e) = self.pipeline(spec, variant) {
                    log::debug!("{e}");
                }
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(missing.len());
        let start = Instant::now();
        thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        if !missing.is_empty() {
            log::debug!("{} pipelines in {:.3} s", missing.len(), start.elapsed().as_secs_f64());
        }
    }

    /// The layout for a list of accesses, made once.
    pub(crate) fn layout(
        &self,
        accesses: &[Access],
    ) -> (wgpu::BindGroupLayout, wgpu::PipelineLayout) {
        let mut layouts = lock(&self.layouts);
        let make = || {
            let entries: Vec<_> = (0u32..)
                .zip(accesses)
                .map(|(binding, access)| wgpu::BindGroupLayoutEntry {
                    binding,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: match access {
                        Access::ReadTexels => storage::TEXELS,
                        Access::Read | Access::Write | Access::ReadWrite => {
                            let read_only = *access == Access::Read;
                            wgpu::BindingType::Buffer {
                                ty: wgpu::BufferBindingType::Storage { read_only },
                                has_dynamic_offset: false,
                                min_binding_size: None,
                            }
                        }
                    },
                    count: None,
                })
                .collect();
            let groups = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: None,
                entries: &entries,
            });
            let pipeline = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&groups)],
                immediate_size: PARAM_BYTES,
            });
            (groups, pipeline)
        };
        layouts.entry(accesses.to_vec()).or_insert_with(make).clone()
    }
}
