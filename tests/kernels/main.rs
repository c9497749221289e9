//! Kernel ring: every case on every tier of this machine's device, against a naive reference on the
//! CPU. Needs a device: `tools/test` installs a software one where there is none.

mod cases;
mod fourier;
mod nan;
mod settled;
mod tiles;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use cases::Case;
use scalediff::bench::call::{Built, Types};
use scalediff::bench::inputs::Maker;
use scalediff::error::{ErrorKind, Result};
use scalediff::gpu::{Caps, Gpu, GpuOptions, Slabs, Tier, list_adapters};
use scalediff::graph::probe::POISON;
use scalediff::graph::{Graph, Plan};
use scalediff::tensor::{DType, Tensor};

/// Rounding of an f16 result, with room for its ties falling the other way.
const F16_ROUNDING: f64 = 6e-4;

/// Matrix units take probabilities as f16, and queries after the text's rotation: two more roundings than in an f16
/// result, of numbers that softmax raises to powers.
const UNITS_ROUNDING: f64 = 1e-3;

/// Limits under which nearly every case of some size is cut.
const LOW_LIMITS: &str = "binding=64KiB,buffer=80KiB,groups=3";

/// One way to run the kernels.
struct Setup {
    name: String,
    /// The shaders keep their bounds checks.
    checks: bool,
    whole: Gpu,
    /// The same under [`LOW_LIMITS`].
    cut: Gpu,
}

fn open(tier: Option<Tier>, limits: Option<&str>, shader_checks: bool) -> Gpu {
    let limits = limits.map(str::to_string);
    let options = GpuOptions { tier, limits, shader_checks, ..Default::default() };
    Gpu::open(&options).unwrap_or_else(|e| {
        panic!("{e}\nthe kernel tests need a Vulkan, Metal or DX12 device: run them by tools/test")
    })
}

/// As the product runs, without checks in the shaders; and each tier with them, so that an index
/// beyond a binding is caught by a guard in one and by a wrong value in the other. `SCALEDIFF_TIERS=coop` leaves only the
/// tiers that it names.
fn setups() -> &'static [Setup] {
    static SETUPS: OnceLock<Vec<Setup>> = OnceLock::new();
    SETUPS.get_or_init(|| {
        let mut tiers = list_adapters().first().map(|a| a.caps.tiers()).unwrap_or_default();
        if let Ok(only) = std::env::var("SCALEDIFF_TIERS") {
            tiers.retain(|t| only.split(',').any(|name| name == t.to_string()));
        }
        let make = |tier: Option<Tier>, checks: bool| Setup {
            name: tier.map_or("native".into(), |t| t.to_string()),
            checks,
            whole: open(tier, None, checks),
            cut: open(tier, Some(LOW_LIMITS), checks),
        };
        std::iter::once(make(None, false))
            .chain(tiers.into_iter().map(|t| make(Some(t), true)))
            .collect()
    })
}

/// A case recorded for one device.
struct Recorded {
    graph: Graph,
    built: Built,
}

impl Recorded {
    fn new(gpu: &Gpu, case: &Case, types: Types) -> Result<Self> {
        Self::with_caps(gpu.caps(), case, types)
    }

    fn with_caps(caps: &Caps, case: &Case, types: Types) -> Result<Self> {
        let mut graph = Graph::new(caps.clone());
        let built = case.call.record(&mut graph, types, Maker::new(case.name, case.fill))?;
        Ok(Self { graph, built })
    }

    /// Whether attention runs on matrix units.
    fn attends_on_units(&self) -> bool {
        let on_units = |slot: &str| slot.starts_with("coop");
        self.graph.ops().iter().any(|op| op.variant.slot_of("attend").is_some_and(on_units))
    }

    /// What runs: tiers that choose the same for a case need not both run it.
    fn variants(&self) -> String {
        self.graph.ops().iter().map(|op| format!("{}{}", op.spec.name, op.variant)).collect()
    }
}

/// Values of the result and the number of dispatches.
struct Outcome {
    values: Vec<f32>,
    dispatches: usize,
}

fn run(gpu: &Gpu, Recorded { graph: g, built }: &Recorded) -> Result<Outcome> {
    let plan = Plan::compile(gpu, g, &Slabs::new())?;
    plan.poison(gpu, g)?;
    for (tensor, values) in built.inputs() {
        plan.write(gpu, tensor, values)?;
    }
    plan.run(gpu, &mut |_| Ok(()))?;
    let (bytes, guard) = plan.raw(gpu, built.output)?;
    let damaged = guard.chunks_exact(4).position(|w| w != POISON.to_le_bytes());
    assert!(damaged.is_none(), "word {damaged:?} behind the result was written");
    check_padding(built.output, &bytes);
    Ok(Outcome { values: plan.read(gpu, built.output)?, dispatches: plan.dispatches() })
}

/// Every kernel keeps the padding lanes of its result zero.
fn check_padding(tensor: Tensor, bytes: &[u8]) {
    let elem = tensor.dtype.bytes() as usize;
    let used = tensor.shape.channels as usize * elem;
    for (i, row) in bytes.chunks_exact(tensor.row_bytes() as usize).enumerate() {
        // Either sign of zero.
        let zero = row[used..]
            .chunks_exact(elem)
            .all(|v| v[elem - 1] & 0x7f == 0 && v[..elem - 1].iter().all(|b| *b == 0));
        assert!(zero, "padding of row {i} is {:?}", &row[used..]);
    }
}

/// The largest error, relative to |wanted| + the root mean square, and where it is.
fn worst(got: &[f32], wanted: &[f32]) -> (f64, usize) {
    assert_eq!(got.len(), wanted.len());
    let squares: f64 = wanted.iter().map(|v| f64::from(*v).powi(2)).sum();
    let rms = (squares / wanted.len().max(1) as f64).sqrt().max(1e-30);
    let error = |(i, (a, b)): (usize, (&f32, &f32))| {
        let error = (f64::from(*a) - f64::from(*b)).abs() / (f64::from(*b).abs() + rms);
        // NaN is worst of all.
        (if error.is_nan() { f64::INFINITY } else { error }, i)
    };
    got.iter()
        .zip(wanted)
        .enumerate()
        .map(error)
        .fold((0.0, 0), |a, b| if b.0 > a.0 { b } else { a })
}

/// The most error of a case where results are stored as `types`.
fn tolerance(case: &Case, types: Types, recorded: &Recorded) -> f64 {
    let storage = if types.act == DType::F16 { F16_ROUNDING } else { 0.0 };
    let units = if recorded.attends_on_units() { UNITS_ROUNDING } else { 0.0 };
    case.tolerance + storage + units
}

/// What is known of the cases of one kernel, over all setups.
#[derive(Default)]
struct Known {
    references: HashMap<String, Vec<f32>>,
    /// Variants that ran a case already, by whether the shaders had checks.
    done: HashSet<(String, bool, String)>,
    runs: usize,
    cuts: usize,
}

impl Known {
    fn check(&mut self, case: &Case, setup: &Setup, types: Types) {
        let key = format!("{} {types:?}", case.name);
        let whole = Recorded::new(&setup.whole, case, types).unwrap_or_else(|e| panic!("{e}"));
        if !self.done.insert((key.clone(), setup.checks, whole.variants())) {
            return;
        }
        self.runs += 1;
        let out = run(&setup.whole, &whole).unwrap_or_else(|e| panic!("{e}"));
        let make = || case.call.reference(&whole.built, None);
        let wanted = self.references.entry(key).or_insert_with(make);
        let most = tolerance(case, types, &whole);
        let (error, at) = worst(&out.values, wanted);
        assert!(
            error <= most,
            "error {error:.2e} at {at}: got {}, wanted {}; at most {most:.1e}",
            out.values[at],
            wanted[at]
        );
        // How work is cut does not depend on the types: f32 has the most bytes to cut. But matrix units take f16 only.
        if types != Types::F32 && !whole.variants().contains("=coop") {
            return;
        }
        let recorded =
            Recorded::new(&setup.cut, case, types).unwrap_or_else(|e| panic!("cut: {e}"));
        match run(&setup.cut, &recorded) {
            Ok(cut) => {
                let pairs = cut.values.iter().zip(&out.values);
                let differs = |(a, b): &(&f32, &f32)| a.to_bits() != b.to_bits();
                let count = pairs.clone().filter(differs).count();
                let (_, at) = worst(&cut.values, &out.values);
                assert!(
                    count == 0,
                    "cut into {} dispatches: {count} of {} values differ, most at {at}: {} for {}",
                    cut.dispatches,
                    cut.values.len(),
                    cut.values[at],
                    out.values[at]
                );
                self.cuts += usize::from(cut.dispatches > out.dispatches);
            }
            // Not everything can be cut that small; the null ring checks when.
            Err(e) if e.kind() == ErrorKind::OutOfMemory => {}
            Err(e) => panic!("cut: {e}"),
        }
    }
}

/// Runs the cases of one kernel, or with `SCALEDIFF_CASE` those whose name contains it; `must_cut`
/// says whether some of them must have been cut.
fn check_kernel(kernel: &str, must_cut: bool) {
    let filter = std::env::var("SCALEDIFF_CASE").unwrap_or_default();
    let mut known = Known::default();
    let mut failures = Vec::new();
    for setup in setups() {
        let cases = cases::all().filter(|c| c.call.kernel() == kernel);
        for case in cases.filter(|c| c.name.contains(&filter)) {
            let mut kinds = vec![Types::F32];
            kinds.extend(case.call.is_typed().then_some(Types::F16));
            kinds.extend(case.call.has_residual().then_some(Types::MIXED));
            for types in kinds {
                let one = AssertUnwindSafe(|| known.check(case, setup, types));
                if let Err(payload) = catch_unwind(one) {
                    let text = payload.downcast_ref::<String>().cloned().unwrap_or_default();
                    failures.push(format!(
                        "{kernel}/{} on {}, {}, residual {}: {text}",
                        case.name, setup.name, types.act, types.residual
                    ));
                }
            }
        }
    }
    let Known { runs, cuts, .. } = known;
    println!("{kernel}: {runs} runs, {cuts} of them also cut");
    assert!(failures.is_empty(), "{} of {runs} failed:\n{}", failures.len(), failures.join("\n"));
    assert!(cuts > 0 || !must_cut || !filter.is_empty(), "{LOW_LIMITS} cut nothing");
}

macro_rules! kernels {
    ($($test:ident $name:literal $must_cut:literal;)*) => {$(
        #[test]
        fn $test() {
            check_kernel($name, $must_cut);
        }
    )*

        #[test]
        fn every_kernel_has_cases_and_a_test() {
            let tested = [$($name),*];
            for case in cases::all() {
                assert!(tested.contains(&case.call.kernel()), "{}", case.name);
            }
            for name in tested {
                assert!(cases::all().any(|c| c.call.kernel() == name), "{name}: no case");
            }
        }
    };
}
kernels! {
    matmul_is_the_reference "matmul" true;
    conv2d_is_the_reference "conv2d" true;
    attention_is_the_reference "attention" true;
    group_norm_is_the_reference "group_norm" true;
    layer_norm_is_the_reference "layer_norm" true;
    rotary_is_the_reference "rotary" true;
    patchify_is_the_reference "patchify" true;
    window_mean_is_the_reference "window_mean" false;
    silu_is_the_reference "silu" true;
    model_input_is_the_reference "model_input" false;
    predict_x0_is_the_reference "predict_x0" false;
    lift_is_the_reference "lift" true;
    resample_is_the_reference "resample" true;
    fft_is_the_reference "fft" true;
    gather_windows_is_the_reference "gather_windows" true;
    average_windows_is_the_reference "average_windows" true;
}
