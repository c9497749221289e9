//! Running the cases: estimate, verify, time.

use super::call::{Built, Call, Types};
use super::cases::{CASES, Case};
use super::inputs::Maker;
use super::peak::{MultiplyAdds, Peak};
use super::report::{Measured, Outcome};
use super::timer::{Timed, by_turns};
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Caps, Clock, DeviceClass, Gpu, GpuOptions, Slabs};
use crate::graph::{Graph, Plan};
use crate::tensor::DType;

/// What is run, and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Storage of activations and weights.
    pub dtype: DType,
    /// Seconds spent on timing each case.
    pub seconds: f64,
    /// A case whose single call is estimated to take more seconds is skipped.
    pub max_seconds: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { dtype: DType::F16, seconds: 1.0, max_seconds: 2.0 }
    }
}

/// Rows verified of every case.
const SAMPLES: usize = 12;
/// Most error relative to |wanted| + root mean square: the kernel tests are strict, this only says
/// that what is timed is what is meant.
const TOLERANCE: f64 = 2e-3;
/// Share of its peaks that an estimate takes a device to reach.
const ESTIMATED_SHARE: f64 = 0.3;

/// The cases whose id contains `filter`, or one of its parts between commas.
///
/// # Errors
/// There is none.
pub fn select(filter: &str) -> Result<Vec<Case>> {
    let cases: Vec<Case> = CASES
        .iter()
        .filter(|c| filter.split(',').any(|part| c.id().contains(part)))
        .copied()
        .collect();
    if cases.is_empty() {
        return Err(Error::usage(format!("no case contains {filter:?}"))
            .with_hint("scalediff bench --list names them all"));
    }
    Ok(cases)
}

/// Opens a device for measuring, with its own clock where it has one. A software device's is the host's, and its
/// stamps cost time of their own.
///
/// # Errors
/// As [`Gpu::open`].
pub fn open(options: &GpuOptions) -> Result<Gpu> {
    let gpu = Gpu::open(&GpuOptions { profile: true, ..options.clone() })?;
    if gpu.clock() != Clock::Host && gpu.caps().class != DeviceClass::Cpu {
        return Ok(gpu);
    }
    Gpu::open(&GpuOptions { profile: false, ..options.clone() })
}

/// Runs `cases` on each of `gpus`, by turns, and hands over what came of each case there as soon as it is known.
///
/// # Errors
/// What `each` returns; a case that fails is an [`Outcome`].
pub fn run(
    gpus: &[Gpu],
    cases: &[Case],
    peak: Peak,
    options: &Options,
    each: &mut dyn FnMut(&[Outcome]) -> Result<()>,
) -> Result<()> {
    let on: Vec<(&Gpu, &Caps)> = gpus.iter().map(|gpu| (gpu, gpu.caps())).collect();
    // A processor does other work meanwhile, and its peak must meet that as the cases do.
    let processor = gpus.first().filter(|gpu| gpu.caps().class == DeviceClass::Cpu);
    let mut beside = processor.map(|gpu| MultiplyAdds::new(gpu, peak.chains)).transpose()?;
    cases.iter().try_for_each(|case| each(&run_by_turns(&on, case, peak, options, beside.as_mut())))
}

/// Runs one case on each device with the kernels that the caps beside it make, and with `beside`.
pub(super) fn run_by_turns<'g>(
    on: &[(&'g Gpu, &Caps)],
    case: &Case,
    peak: Peak,
    options: &Options,
    beside: Option<&mut MultiplyAdds<'g>>,
) -> Vec<Outcome> {
    let id = case.id();
    let failed = |error: &Error| {
        let (id, why) = (id.clone(), error.to_string());
        match error.kind() {
            ErrorKind::OutOfMemory => Outcome::Skipped { id, why },
            _ => Outcome::Failed { id, why },
        }
    };
    let mut ready: Vec<std::result::Result<Ready<'g>, Box<Outcome>>> = on
        .iter()
        .map(|(gpu, caps)| {
            make_ready(gpu, caps, case, peak, options).unwrap_or_else(|e| Err(Box::new(failed(&e))))
        })
        .collect();
    let mut calls: Vec<&mut Timed<'g>> = ready.iter_mut().flatten().map(|r| &mut r.timed).collect();
    let mut beside = beside.filter(|_| !calls.is_empty());
    calls.extend(beside.as_mut().map(|adds| &mut adds.timed));
    let timed = by_turns(calls, options.seconds);
    let peak_flops = beside.filter(|_| timed.is_ok()).map(|adds| adds.rate());
    let outcome = |ready: Ready<'g>| match &timed {
        Ok(()) => Outcome::Measured(Measured {
            id: id.clone(),
            variant: ready.variant,
            dtype: options.dtype,
            times: ready.timed.times(),
            peak_flops,
            flops: ready.flops,
            bytes: ready.bytes,
            error: ready.error,
        }),
        Err(e) => failed(e),
    };
    ready.into_iter().map(|ready| ready.map_or_else(|outcome| *outcome, outcome)).collect()
}

/// A case that was verified and may be timed.
struct Ready<'g> {
    variant: String,
    timed: Timed<'g>,
    flops: f64,
    bytes: f64,
    error: f64,
}

fn make_ready<'g>(
    gpu: &'g Gpu,
    caps: &Caps,
    case: &Case,
    peak: Peak,
    options: &Options,
) -> Result<std::result::Result<Ready<'g>, Box<Outcome>>> {
    let Case { name, call } = case;
    let types = Types::of(options.dtype);
    let mut g = Graph::new(caps.clone());
    let shapes = call.record(&mut g, types, Maker::shapes_only())?;
    let flops = g.flops() as f64;
    let bytes = shapes.inputs().map(|(t, _)| t.bytes()).sum::<u64>() + shapes.output.bytes();
    let bytes = bytes as f64;
    let estimate = (flops / peak.flops + bytes / peak.bytes) / ESTIMATED_SHARE;
    if estimate > options.max_seconds {
        let why = format!("about {estimate:.1} s a call");
        return Ok(Err(Box::new(Outcome::Skipped { id: case.id(), why })));
    }

    let mut g = Graph::new(caps.clone());
    let built = call.record(&mut g, types, Maker::new(name, (0.0, 1.0)))?;
    let heaviest = g.ops().iter().max_by_key(|op| op.flops);
    let variant = heaviest.map_or(String::new(), |op| format!("{}{}", op.spec.name, op.variant));
    let error = verify(gpu, &g, call, &built)?;
    drop(built);
    let timed = Timed::warm(gpu, options.seconds, |calls| {
        let mut g = Graph::new(caps.clone());
        let built = call.record(&mut g, types, Maker::new(name, (0.0, 1.0)))?;
        for _ in 1..calls {
            (built.again)(&mut g)?;
        }
        Ok((g, built.into_inputs()))
    })?;
    Ok(Ok(Ready { variant, timed, flops, bytes, error }))
}

/// Runs the case once and compares sampled rows; returns the largest error.
fn verify(gpu: &Gpu, g: &Graph, call: &Call, built: &Built) -> Result<f64> {
    let plan = Plan::compile(gpu, g, &Slabs::new())?;
    for (tensor, values) in built.inputs() {
        plan.write(gpu, tensor, values)?;
    }
    plan.run(gpu, &mut |_| Ok(()))?;
    let all = plan.read(gpu, built.output)?;
    let (count, n) = (built.output.shape.rows() as usize, built.output.shape.channels as usize);
    let rows = samples(count);
    let wanted = call.reference(built, Some(&rows));
    let got = rows.iter().flat_map(|r| &all[r * n..(r + 1) * n]);
    let squares: f64 = wanted.iter().map(|v| f64::from(*v).powi(2)).sum();
    let rms = (squares / wanted.len() as f64).sqrt();
    let error = got
        .zip(&wanted)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs() / (f64::from(*b).abs() + rms))
        .fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) });
    if error > TOLERANCE {
        return Err(Error::internal(format!("differs from the reference by {error:.1e}")));
    }
    Ok(error)
}

/// The first row, the last, and some between at no regular distance.
fn samples(count: usize) -> Vec<usize> {
    let samples = SAMPLES.min(count);
    let mut rows: Vec<usize> = (0..samples)
        .map(|i| (i * (count - 1) / (samples - 1).max(1)).saturating_sub(i * 7 % 5))
        .collect();
    if let Some(last) = rows.last_mut() {
        *last = count - 1;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_hold_both_ends_and_stay_inside() {
        for count in [1, 2, 5, 12, 13, 1000] {
            let rows = samples(count);
            assert_eq!((rows[rows.len() - 1], rows.len()), (count - 1, count.min(SAMPLES)));
            assert!(rows[0] == 0 && rows.iter().all(|r| *r < count));
        }
    }

    #[test]
    fn filters_select_by_part_of_the_id() {
        assert!(select("conv2d/tiny_res").unwrap().iter().all(|c| c.call.kernel() == "conv2d"));
        assert_eq!(select("").unwrap().len(), CASES.len());
        let both = select("silu/,lift/").unwrap();
        assert_eq!(both.len(), select("silu/").unwrap().len() + select("lift/").unwrap().len());
        assert_eq!(select("nothing").unwrap_err().kind(), ErrorKind::Usage);
    }
}
