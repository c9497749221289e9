//! Repeating a call often enough that its time means something.

use std::time::{Duration, Instant};

use scalediff::error::Result;
use scalediff::gpu::{Gpu, Slabs};
use scalediff::graph::{Graph, Plan};
use scalediff::tensor::Tensor;

/// How long one replay of a plan takes: the seam for GPU timestamps, which exclude what the host does.
pub trait Clock {
    fn time(&mut self, gpu: &Gpu, plan: &Plan) -> Result<Duration>;
}

/// From before the first submission to after the last wait.
pub struct WallClock;

impl Clock for WallClock {
    fn time(&mut self, gpu: &Gpu, plan: &Plan) -> Result<Duration> {
        let start = Instant::now();
        plan.run(gpu, &mut |_| Ok(()))?;
        Ok(start.elapsed())
    }
}

/// Seconds of one replay at least: long against what a submission and a wait cost.
const REPLAY_SECONDS: f64 = 0.02;
const FEWEST: usize = 5;
const MOST: usize = 200;
const MOST_CALLS: usize = 2000;

/// Times of one call in seconds, sorted.
pub struct Times(Vec<f64>);

impl Times {
    pub fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// Half of the range that holds the middle half of all times, as a share of the median.
    pub fn spread(&self) -> f64 {
        let n = self.0.len();
        (self.0[(3 * n / 4).min(n - 1)] - self.0[n / 4]) / 2.0 / self.median()
    }

    pub fn best(&self) -> f64 {
        self.0[0]
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Times `call`, recorded as often as makes a replay long enough, for about `seconds`.
///
/// `graph` records the inputs and returns their values with the call.
pub fn measure(
    gpu: &Gpu,
    clock: &mut dyn Clock,
    seconds: f64,
    graph: impl Fn(usize) -> Result<(Graph, Vec<(Tensor, Vec<f32>)>)>,
) -> Result<Times> {
    let compile = |calls: usize| -> Result<Plan> {
        let (graph, inputs) = graph(calls)?;
        let plan = Plan::compile(gpu, &graph, &Slabs::new())?;
        for (tensor, values) in &inputs {
            plan.write(gpu, *tensor, values)?;
        }
        Ok(plan)
    };
    // The first replay warms caches and clocks up; the second says how many calls fill the time.
    let plan = compile(1)?;
    clock.time(gpu, &plan)?;
    let once = clock.time(gpu, &plan)?.as_secs_f64().max(1e-7);
    let calls = ((REPLAY_SECONDS / once).ceil() as usize).clamp(1, MOST_CALLS);
    let plan = if calls > 1 { compile(calls)? } else { plan };
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < FEWEST || (times.len() < MOST && start.elapsed().as_secs_f64() < seconds) {
        times.push(clock.time(gpu, &plan)?.as_secs_f64() / calls as f64);
        // A case so slow that five take minutes still ends.
        if start.elapsed().as_secs_f64() > 10.0 * seconds {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(Times(times))
}
