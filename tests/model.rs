//! Model ring: recorded cases of whole networks, on the device at hand.
//!
//! The folders below `tests/goldens` are made by `tools/goldens/sdxl.py` with diffusers, transformers
//! and torch. A machine without a device fails here: `tools/vulkan` installs a software one.

use std::collections::BTreeMap;
use std::path::Path;

use scalediff::gpu::{Engine, GpuOptions, Tier};
use scalediff::pipeline::Precision;
use scalediff::verify::verify_folder;

/// Odd grids and channels, bf16 weights; four levels, shards, three stages.
const FOLDERS: [&str; 4] = ["sdxl-odd", "sdxl-deep", "flux-odd", "flux-plain"];

fn open(tier: Option<Tier>, limits: Option<&str>, shader_checks: bool) -> Engine {
    let limits = limits.map(str::to_string);
    Engine::open(GpuOptions { tier, limits, shader_checks, ..GpuOptions::default() }).unwrap()
}

/// Runs a folder's cases, all of which must pass; the error of every output by `case/output`.
fn errors(gpu: &Engine, folder: &str, precision: Precision) -> BTreeMap<String, f64> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(folder);
    let mut errors = BTreeMap::new();
    verify_folder(gpu, &path, precision, &mut |outcome| {
        let name = &outcome.name;
        let outputs = match &outcome.result {
            Ok(outputs) => outputs,
            Err(error) => panic!("{folder}/{name} in {precision:?}: {error:?}"),
        };
        for c in outputs {
            assert!(c.passed(), "{folder}/{name} in {precision:?}: {c:?}");
            errors.insert(format!("{name}/{}", c.output), c.error);
        }
    })
    .unwrap();
    assert!(errors.len() > 10, "{folder} holds too few cases");
    errors
}

/// A tier that the device lacks has nothing to show.
fn on_tier(tier: Tier) {
    let device = open(None, None, false);
    if !device.facts().caps.tiers().contains(&tier) {
        return;
    }
    let gpu = open(Some(tier), None, false);
    for folder in FOLDERS {
        // In f32 the f16 tier is the plain one.
        if tier != Tier::F16 {
            errors(&gpu, folder, Precision::F32);
        }
        errors(&gpu, folder, Precision::F16);
    }
}

#[test]
fn recorded_cases_pass_on_the_plain_tier() {
    on_tier(Tier::Plain);
}

#[test]
fn recorded_cases_pass_on_the_f16_tier() {
    on_tier(Tier::F16);
}

#[test]
fn recorded_cases_pass_on_the_subgroup_tier() {
    on_tier(Tier::Subgroup);
}

#[test]
fn recorded_cases_pass_with_checks_in_the_shaders() {
    errors(&open(None, None, true), "sdxl-deep", Precision::F32);
}

/// Far below any device's, so that even these small networks are cut.
const LIMITS: &str = "binding=160KiB,buffer=192KiB,groups=16,storage=8";

/// Sums run in an order that the shape alone decides, so cut work gives the same values: the errors
/// agree to the last bit.
#[test]
fn small_limits_change_nothing() {
    let (whole, cut) = (open(None, None, false), open(None, Some(LIMITS), false));
    for folder in FOLDERS {
        let [cut, whole] = [&cut, &whole].map(|gpu| errors(gpu, folder, Precision::F32));
        assert_eq!(cut, whole);
    }
}
