//! What the device can do at most, by microbenchmarks: multiply-adds, products on matrix units, copied bytes.

use std::time::Instant;

use bytemuck::NoUninit;

use super::timer::{Timed, by_turns, measure, median};
use crate::error::{Error, Result};
use crate::gpu::{Coop, DeviceClass, Gpu, Slabs};
use crate::graph::{Graph, Launch, Plan, Window};
use crate::kernels::silu;
use crate::shader::{Elem, KernelSpec, Variant};
use crate::tensor::{DType, Shape};

static FMA: KernelSpec = KernelSpec { name: "fma_peak", file: "bench/fma_peak.wgsl" };
static UNITS: KernelSpec = KernelSpec { name: "coop_peak", file: "bench/coop_peak.wgsl" };
static COPY: KernelSpec = KernelSpec { name: "copy", file: "bench/copy.wgsl" };

const WG: u32 = 64;
/// Seconds that each is timed for.
const SECONDS: f64 = 0.3;

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct FmaParams {
    first_group: u32,
    steps: u32,
    b: f32,
    c: f32,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct UnitsParams {
    first_group: u32,
    steps: u32,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct CopyParams {
    first_group: u32,
    lanes: u32,
}

/// The peaks of a device, as measured.
#[derive(Debug, Clone, Copy)]
pub struct Peak {
    /// f32 multiply-adds, two operations each, per second.
    pub flops: f64,
    /// Independent chains of them in an invocation that are the fastest.
    pub chains: u32,
    /// The same in products on matrix units, f16 with f32 sums, where kernels use them.
    pub units: Option<f64>,
    /// Bytes read and written per second by a copy that exceeds the caches.
    pub bytes: f64,
    /// Seconds of the host to encode one launch of a replay.
    pub launch: f64,
}

impl Peak {
    /// Runs the microbenchmarks, about two seconds.
    ///
    /// # Errors
    /// A device that fails.
    pub fn measure(gpu: &Gpu) -> Result<Self> {
        // By turns: one that meets other work of the machine alone would lose.
        let tried = [2, 4, 8].into_iter().map(|chains| MultiplyAdds::new(gpu, chains));
        let mut tried = tried.collect::<Result<Vec<_>>>()?;
        by_turns(tried.iter_mut().map(|adds| &mut adds.timed).collect(), SECONDS)?;
        let fastest = tried.iter().max_by(|a, b| a.rate().total_cmp(&b.rate()));
        let fastest = fastest.ok_or_else(|| Error::internal("no multiply-adds were timed"))?;
        let (flops, chains) = (fastest.per_call / fastest.timed.times().best(), fastest.chains);
        let mut units: Option<f64> = None;
        if let Some(coop) = gpu.caps().coop {
            for chains in [2, 4, 8] {
                units = Some(products(gpu, coop, chains)?.max(units.unwrap_or(0.0)));
            }
        }
        Ok(Self { flops, chains, units, bytes: copy(gpu)?, launch: launch(gpu)? })
    }

    /// What bounds a kernel's variant, named by its label; `meanwhile`: what the device reached in f32 when it was timed.
    pub fn flops_of(&self, variant: &str, meanwhile: Option<f64>) -> f64 {
        let on_units = variant.contains("mma=coop") || variant.contains("attend=coop");
        self.units.filter(|_| on_units).or(meanwhile).unwrap_or(self.flops)
    }
}

fn products(gpu: &Gpu, coop: Coop, chains: u32) -> Result<f64> {
    let subgroups = 4;
    let wg = subgroups * coop.subgroup;
    // A software device whose units are forced has none to fill.
    let (groups, steps) = if coop.subgroup < 16 { (16, 256) } else { (4096, 4096) };
    let products = f64::from(groups * subgroups) * f64::from(steps) * f64::from(chains);
    let per_call = products * 2.0 * f64::from(coop.side).powi(3);
    let times = measure(gpu, SECONDS, |calls| {
        let mut g = Graph::new(gpu.caps().clone());
        let y = g.input("y", Shape::matrix(groups * wg, 4), DType::F32);
        for _ in 0..calls {
            let variant = Variant::new()
                .coop(coop.side, coop.subgroup, coop.scalars)
                .num("WG", wg)
                .num("CHAINS", chains)
                .elem("y", Elem::F32);
            g.op(&UNITS, variant)
                .write(y, Window::Whole)
                .over(groups, 0)
                .flops(per_call as u64)
                .launch(move |_| Launch::new(&UnitsParams { first_group: 0, steps }, groups));
        }
        Ok((g, Vec::new()))
    })?;
    Ok(per_call / times.best())
}

/// The microbenchmark of f32 multiply-adds.
pub(super) struct MultiplyAdds<'g> {
    pub timed: Timed<'g>,
    chains: u32,
    /// Operations of a call.
    per_call: f64,
}

impl<'g> MultiplyAdds<'g> {
    /// With so many independent chains in an invocation.
    pub(super) fn new(gpu: &'g Gpu, chains: u32) -> Result<Self> {
        // Enough lanes for any GPU; a processor needs only a few groups per core.
        let (groups, steps) = match gpu.caps().class {
            DeviceClass::Cpu => (256, 4096),
            DeviceClass::Integrated => (4096, 4096),
            DeviceClass::Discrete if gpu.facts().caps.limits.binding_bytes <= 128 << 20 => {
                (256, 4096)
            }
            DeviceClass::Discrete => (16384, 4096),
        };
        let per_call = f64::from(groups * WG) * f64::from(steps) * f64::from(chains) * 8.0;
        let timed = Timed::warm(gpu, SECONDS, |calls| {
            let mut g = Graph::new(gpu.caps().clone());
            let y = g.input("y", Shape::matrix(groups * WG, 4), DType::F32);
            for _ in 0..calls {
                let variant =
                    Variant::new().num("WG", WG).num("CHAINS", chains).elem("y", Elem::F32);
                g.op(&FMA, variant)
                    .write(y, Window::Whole)
                    .over(groups, 0)
                    .flops(per_call as u64)
                    .launch(move |_| {
                        let params = FmaParams { first_group: 0, steps, b: 0.999, c: 0.001 };
                        Launch::new(&params, groups)
                    });
            }
            Ok((g, Vec::new()))
        })?;
        Ok(Self { timed, chains, per_call })
    }

    /// Operations per second, by the median, the last time that they were timed.
    pub(super) fn rate(&self) -> f64 {
        self.per_call / self.timed.times().median()
    }
}

/// The median over replays of a thousand small launches, of two pipelines by turns.
fn launch(gpu: &Gpu) -> Result<f64> {
    const LAUNCHES: usize = 1000;
    let mut g = Graph::new(gpu.caps().clone());
    let x = g.input("x", Shape::matrix(64, 64), DType::F32);
    for i in 0..LAUNCHES {
        let out = if i % 2 == 0 { DType::F16 } else { DType::F32 };
        silu::record(&mut g, x, out)?;
    }
    let plan = Plan::compile(gpu, &g, &Slabs::new())?;
    let times = (0..21).map(|_| {
        let start = Instant::now();
        plan.encode(gpu);
        start.elapsed().as_secs_f64() / LAUNCHES as f64
    });
    Ok(median(times.collect()))
}

fn copy(gpu: &Gpu) -> Result<f64> {
    // 64 MiB exceed the caches of most devices, and twice that fits the floor's bindings.
    let lanes: u32 = 4 << 20;
    let times = measure(gpu, SECONDS, |calls| {
        let mut g = Graph::new(gpu.caps().clone());
        let x = g.input("x", Shape::matrix(lanes, 4), DType::F32);
        let y = g.input("y", Shape::matrix(lanes, 4), DType::F32);
        for _ in 0..calls {
            let (x_elem, y_elem) = (gpu.caps().elem_in(DType::F32), gpu.caps().elem(DType::F32));
            let variant = Variant::new().num("WG", WG).elem("x", x_elem).elem("y", y_elem);
            g.op(&COPY, variant)
                .read(x, Window::Rows)
                .write(y, Window::Rows)
                .over(lanes, 0)
                .launch(|chunk| {
                    let lanes = chunk.row_count();
                    Launch::new(&CopyParams { first_group: 0, lanes }, lanes.div_ceil(WG))
                });
        }
        Ok((g, Vec::new()))
    })?;
    Ok(2.0 * 16.0 * f64::from(lanes) / times.best())
}
