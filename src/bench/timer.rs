//! Repeating a call often enough that its time means something.

use std::time::Instant;

use crate::error::Result;
use crate::gpu::{DeviceClass, Gpu, Slabs, lock};
use crate::graph::{Graph, Plan};
use crate::tensor::Tensor;

/// Seconds of one replay at least: long against what a submission and a wait cost.
const REPLAY_SECONDS: f64 = 0.02;
/// Seconds without a faster replay after which a device counts as warm: the clocks of a GPU fall while the host computes
/// references, and take their time to rise, however short the measurement (an H200 was seen at a third of its speed after 0.12 s).
const WARM_SECONDS: f64 = 0.5;
const FEWEST: usize = 5;
const MOST: usize = 200;
const MOST_CALLS: usize = 2000;

/// Whose clock a time is by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The device's: the launches alone, without what the host does around them.
    Device,
    /// The host's, from before the first submission to after the last wait.
    Host,
}

/// Times of one call in seconds, sorted.
#[derive(Debug, Clone)]
pub struct Times {
    sorted: Vec<f64>,
    pub source: Source,
    /// Median by the host's clock.
    pub host: f64,
}

impl Times {
    /// Device times count where there is one for every replay and they agree with the host's: drivers are known
    /// to leave stamps out or to scale them wrongly, and launches cannot take longer than the replay.
    fn of(laps: &[Lap]) -> Self {
        let sorted = |mut v: Vec<f64>| {
            v.sort_by(f64::total_cmp);
            v
        };
        let host = sorted(laps.iter().map(|l| l.host).collect());
        let median = host[host.len() / 2];
        let agrees = |l: &Lap| l.device.filter(|d| (0.2..1.05).contains(&(d / l.host)));
        match laps.iter().map(agrees).collect::<Option<Vec<f64>>>() {
            Some(device) => Self { sorted: sorted(device), source: Source::Device, host: median },
            None => Self { sorted: host, source: Source::Host, host: median },
        }
    }

    #[cfg(test)]
    pub(super) fn once(host: f64) -> Self {
        Self::of(&[Lap { host, device: None }])
    }

    pub fn median(&self) -> f64 {
        self.sorted[self.sorted.len() / 2]
    }

    /// Half of the range that holds the middle half of all times, as a share of the median.
    pub fn spread(&self) -> f64 {
        let n = self.sorted.len();
        (self.sorted[(3 * n / 4).min(n - 1)] - self.sorted[n / 4]) / 2.0 / self.median()
    }

    pub fn best(&self) -> f64 {
        self.sorted[0]
    }

    pub fn count(&self) -> usize {
        self.sorted.len()
    }
}

/// The upper middle of `times`; 0 of none.
pub(super) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

/// One replay by both clocks, in seconds.
struct Lap {
    host: f64,
    device: Option<f64>,
}

fn lap(gpu: &Gpu, plan: &Plan) -> Result<Lap> {
    let stamped = || {
        gpu.profile.as_ref().map(|profile| {
            let profile = lock(profile);
            (profile.seconds(), profile.missing())
        })
    };
    let before = stamped();
    let start = Instant::now();
    plan.run(gpu, &mut |_| Ok(()))?;
    let host = start.elapsed().as_secs_f64();
    let device = match (before, stamped()) {
        (Some((from, missing)), Some((to, still))) if missing == still => Some(to - from),
        _ => None,
    };
    Ok(Lap { host, device })
}

/// A call, compiled into a replay that holds it often enough to be timed, and warmed up.
pub(super) struct Timed<'g> {
    gpu: &'g Gpu,
    plan: Plan,
    calls: usize,
    laps: Vec<Lap>,
}

impl<'g> Timed<'g> {
    /// `graph` records the inputs and so many calls, and returns their values with them.
    pub(super) fn warm(
        gpu: &'g Gpu,
        seconds: f64,
        graph: impl Fn(usize) -> Result<(Graph, Vec<(Tensor, Vec<f32>)>)>,
    ) -> Result<Self> {
        let compile = |calls: usize| -> Result<Plan> {
            let (graph, inputs) = graph(calls)?;
            let plan = Plan::compile(gpu, &graph, &Slabs::new())?;
            for (tensor, values) in &inputs {
                plan.write(gpu, *tensor, values)?;
            }
            Ok(plan)
        };
        // The first replay compiles what the driver left undone, the next ones warm caches and clocks up; the fastest says
        // how many calls fill the time.
        let plan = compile(1)?;
        lap(gpu, &plan)?;
        let warm = match gpu.caps().class {
            DeviceClass::Cpu => WARM_SECONDS.min(seconds),
            DeviceClass::Integrated | DeviceClass::Discrete => WARM_SECONDS,
        };
        let mut once = lap(gpu, &plan)?.host;
        let mut faster = Instant::now();
        while faster.elapsed().as_secs_f64() < warm {
            let again = lap(gpu, &plan)?.host;
            if again < 0.98 * once {
                (once, faster) = (again, Instant::now());
            }
        }
        let once = once.max(1e-7);
        let calls = ((REPLAY_SECONDS / once).ceil() as usize).clamp(1, MOST_CALLS);
        let plan = if calls > 1 { compile(calls)? } else { plan };
        Ok(Self { gpu, plan, calls, laps: Vec::new() })
    }

    fn lap(&mut self) -> Result<()> {
        let Lap { host, device } = lap(self.gpu, &self.plan)?;
        let each = |t: f64| t / self.calls as f64;
        self.laps.push(Lap { host: each(host), device: device.map(each) });
        Ok(())
    }

    /// What its laps took, the last time that it was timed.
    pub(super) fn times(&self) -> Times {
        Times::of(&self.laps)
    }
}

/// Times calls by turns for about `seconds` each: what else the machine does meanwhile falls on all of them alike.
pub(super) fn by_turns(mut calls: Vec<&mut Timed<'_>>, seconds: f64) -> Result<()> {
    calls.iter_mut().for_each(|call| call.laps.clear());
    let seconds = seconds * calls.len() as f64;
    let start = Instant::now();
    for laps in 0..MOST {
        let spent = start.elapsed().as_secs_f64();
        // A case so slow that five laps take minutes still ends.
        if (laps >= FEWEST && spent > seconds) || (laps > 0 && spent > 10.0 * seconds) {
            break;
        }
        calls.iter_mut().try_for_each(|call| call.lap())?;
    }
    Ok(())
}

/// Times one call.
pub(super) fn measure(
    gpu: &Gpu,
    seconds: f64,
    graph: impl Fn(usize) -> Result<(Graph, Vec<(Tensor, Vec<f32>)>)>,
) -> Result<Times> {
    let mut timed = Timed::warm(gpu, seconds, graph)?;
    by_turns(vec![&mut timed], seconds)?;
    Ok(timed.times())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(laps: &[(f64, Option<f64>)]) -> Times {
        let laps: Vec<Lap> = laps.iter().map(|&(host, device)| Lap { host, device }).collect();
        Times::of(&laps)
    }

    #[test]
    fn the_devices_clock_counts_only_where_it_agrees() {
        let good = times(&[(1.0, Some(0.9)), (1.2, Some(0.8)), (1.1, Some(0.7))]);
        assert_eq!(
            (good.source, good.median(), good.host, good.best()),
            (Source::Device, 0.8, 1.1, 0.7)
        );
        for bad in [None, Some(1.2), Some(0.001), Some(0.0)] {
            assert_eq!(times(&[(1.0, Some(0.9)), (1.0, bad)]).source, Source::Host);
        }
    }

    #[test]
    fn the_spread_is_that_of_the_middle_half() {
        let laps: Vec<_> = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 100.0].map(|t| (t, None)).to_vec();
        let t = times(&laps);
        assert_eq!((t.median(), t.count()), (5.0, 8));
        assert!((t.spread() - 0.4).abs() < 1e-12);
    }
}
