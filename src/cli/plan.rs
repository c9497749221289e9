//! `scalediff plan`.

use super::args::PlanArgs;
use super::generate::open_model;
use crate::error::Result;
use crate::gpu::{Caps, GpuOptions, Limits, list_adapters};
use crate::pipeline::{Request, plan};

/// Prints a line per phase, and what dominates.
pub fn run(args: &PlanArgs) -> Result<()> {
    let files = open_model(&args.request, None)?;
    let (name, caps) = device(&args.device.gpu_options(false)?)?;
    let phases =
        plan(&files, args.device.precision(), &caps, &args.request.request(Request::default()))?;
    let Limits { binding_bytes, buffer_bytes, .. } = caps.limits;
    outln!(
        "{} planned for {name}: bindings up to {}, buffers up to {}",
        files.name(),
        size(binding_bytes),
        size(buffer_bytes)
    );
    outln!(
        "\n{:<38} {:>10} {:>10} {:>10} {:>10} {:>10} {:>5} {:>9} {:>6} {:>5} {:>6}",
        "phase",
        "peak",
        "weights",
        "others",
        "buffers",
        "(least)",
        "runs",
        "GFLOP",
        "launch",
        "cut",
        "banded"
    );
    for p in &phases {
        outln!(
            "{:<38} {:>10} {:>10} {:>10} {:>10} {:>10} {:>5} {:>9.1} {:>6} {:>5} {:>6}",
            p.name,
            size(p.peak_bytes()),
            size(p.weight_bytes),
            size(p.resident_bytes),
            size(p.activation_bytes),
            size(p.live_bytes),
            p.replays,
            p.flops as f64 / 1e9,
            p.dispatches,
            p.cut_ops,
            p.banded,
        );
    }
    let flops: f64 = phases.iter().map(|p| p.replays as f64 * p.flops as f64).sum();
    outln!(
        "\nin all {:.1} GFLOP; GFLOP, launches, cut ops and banded tensors are those of one run",
        flops / 1e9
    );
    if let Some(p) = phases.iter().max_by_key(|p| p.peak_bytes()) {
        outln!("largest: {} needs {}", p.name, size(p.peak_bytes()));
        outln!(
            "  its largest tensor {} is {}, its largest binding {}, its largest buffer {}",
            p.largest_tensor.1,
            size(p.largest_tensor.0),
            size(p.largest_binding),
            size(p.largest_buffer)
        );
    }
    explain_columns();
    Ok(())
}

fn explain_columns() {
    outln!(
        "\npeak = weights (of this phase) + others (weights that stay loaded) + buffers; least: the bytes alive \
         at the\nphase's fullest op. cut: ops that take several launches; banded: tensors in several buffers"
    );
}

/// The device that would run, under the limits asked for; where there is none, the floor.
fn device(options: &GpuOptions) -> Result<(String, Caps)> {
    if list_adapters().is_empty() && options.device.is_none() {
        let caps = options.apply(Caps::FLOOR, Limits::replaced_by)?;
        return Ok(("WebGPU's floor, since there is no device".to_owned(), caps));
    }
    let facts = options.choose()?;
    let caps = options.apply(facts.caps, Limits::replaced_by)?;
    Ok((facts.name, caps))
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        b if b >= (1u64 << 30) as f64 => format!("{:.2} GiB", b / (1u64 << 30) as f64),
        b if b >= (1u64 << 20) as f64 => format!("{:.1} MiB", b / (1u64 << 20) as f64),
        b => format!("{:.1} KiB", b / 1024.0),
    }
}
