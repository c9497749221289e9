//! Schedules and samplers against diffusers.

use scalediff::error::ErrorKind;
use scalediff::sampling::{
    PredictionType, Sampler, SamplerChoice, Schedule, Scheduler, restart_step,
};
use serde_json::{Value, json};

use super::{floats, golden};

/// The scheduler of a config as it stands.
fn scheduler(config: &Value) -> Scheduler {
    Scheduler::from_config(config, SamplerChoice::default()).unwrap()
}

fn cases() -> Vec<Value> {
    golden("sampling.json")["cases"].as_array().unwrap().clone()
}

/// sqrt(sigma² + 1): between our scale, x0 + sigma·noise, and diffusers' for DDIM and DPM++.
fn norm(sigma: f32) -> f64 {
    f64::from(sigma).hypot(1.0)
}

#[test]
fn schedules_equal_those_of_diffusers() {
    for case in cases() {
        let scaled = case["trajectory"]["scaled"] == true;
        for want in case["schedules"].as_array().unwrap() {
            let steps = want["steps"].as_u64().unwrap() as usize;
            let run = scheduler(&case["config"]).schedule(steps).unwrap();
            assert_eq!(
                (run.steps(), run.sigmas.len(), run.targets.len()),
                (steps, steps + 1, steps)
            );
            let first = f64::from(run.init_noise_sigma);
            let first = if scaled { first / norm(run.sigmas[0]) } else { first };
            let pairs = [
                (&run.sigmas, &want["sigmas"]), // null for DDIM, which has no table of them
                (&run.timesteps, &want["timesteps"]),
                (&vec![first as f32], &json!([want["init_noise_sigma"]])),
            ];
            for (got, want) in pairs.into_iter().filter(|(_, want)| !want.is_null()) {
                let want = floats(want);
                assert_eq!(got.len(), want.len());
                for (a, b) in got.iter().zip(want) {
                    // The timestep of the smallest sigma is a difference of logarithms: absolute 1e-3.
                    let close = (a - b).abs() <= 1e-6 * b.abs().max(1e-3) + 1e-6;
                    assert!(close, "{} {steps}: {a} for {b}", case["config"]);
                }
            }
        }
    }
}

/// The golden's stand-in for a denoiser.
fn model(x: f64, t: f64) -> f64 {
    x * (0.5 + 0.0004 * t) + 0.25 * (2.0 * x + t / 300.0).cos()
}

/// Runs the golden's two stages through [`Schedule::step`]; the state after every step, at diffusers' scale.
fn run(schedule: &Schedule, golden: &Value) -> Vec<Vec<f64>> {
    let doubles = |v: &Value| -> Vec<f64> { floats(v).into_iter().map(f64::from).collect() };
    let restart = golden["restart"].as_u64().unwrap() as usize;
    let (low, scaled) = (golden["low"].as_f64().unwrap(), golden["scaled"] == true);
    let mut added = golden["added"].as_array().unwrap().iter().map(doubles);
    let (mut states, mut reference) = (Vec::new(), Vec::new());
    for (first, noise) in [0, restart].into_iter().zip(golden["noises"].as_array().unwrap()) {
        let noise = doubles(noise);
        let start = if first == 0 { schedule.init_noise_sigma } else { schedule.sigmas[first] };
        let mut x: Vec<f64> = noise.iter().map(|n| n * f64::from(start)).collect();
        x.iter_mut().zip(&reference).for_each(|(x, r)| *x += r);
        let mut previous = vec![0.0; x.len()];
        for i in first..schedule.steps() {
            let (step, sigma) = (schedule.step(i, first), f64::from(schedule.sigmas[i]));
            let fresh = added.next().unwrap_or_else(|| vec![0.0; x.len()]);
            for k in 0..x.len() {
                let out = model(x[k] / norm(schedule.sigmas[i]), f64::from(schedule.timesteps[i]));
                let mut x0 = match schedule.prediction {
                    PredictionType::Epsilon | PredictionType::Flow => x[k] - sigma * out,
                    PredictionType::VPrediction => {
                        x[k] / (sigma * sigma + 1.0) - out * sigma / norm(schedule.sigmas[i])
                    }
                };
                if first > 0 {
                    x0 += f64::from(schedule.sg_weight(i, first)) * low * (reference[k] - x0);
                }
                x[k] = step.x * x[k]
                    + step.x0 * x0
                    + step.previous * previous[k]
                    + step.noise * fresh[k];
                previous[k] = x0;
            }
            let scale = if scaled { norm(schedule.sigmas[i + 1]) } else { 1.0 };
            states.push(x.iter().map(|v| v / scale).collect());
        }
        reference = x;
    }
    states
}

#[test]
fn trajectories_equal_those_of_diffusers() {
    let cases = cases();
    assert_eq!(cases.len(), 38);
    for case in cases {
        let want = case["trajectory"]["states"].as_array().unwrap();
        let steps = case["trajectory"]["steps"].as_u64().unwrap() as usize;
        let schedule = scheduler(&case["config"]).schedule(steps).unwrap();
        let got = run(&schedule, &case["trajectory"]);
        assert_eq!(got.len(), want.len());
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let want = floats(want);
            let square = |v: f64| v * v;
            let size: f64 = want.iter().map(|v| square(f64::from(*v))).sum();
            let error: f64 = got.iter().zip(want).map(|(a, b)| square(a - f64::from(b))).sum();
            let error = (error / size).sqrt();
            assert!(error <= 1e-5, "{}: step {i} errs by {error:.1e}", case["config"]);
        }
    }
}

#[test]
fn the_first_step_after_a_restart_has_no_history() {
    let mut config = sdxl();
    config["_class_name"] = json!("DPMSolverMultistepScheduler");
    let run = scheduler(&config).schedule(20).unwrap();
    for (i, first) in [(0, 0), (12, 12), (19, 12)] {
        assert_eq!(run.step(i, first).previous, 0.0, "step {i} from {first}");
    }
    assert!(run.step(12, 0).previous < 0.0 && run.step(13, 12).previous < 0.0);
}

#[test]
fn samplers_have_the_names_that_people_type() {
    let sampler = |name: &str| name.parse::<SamplerChoice>().unwrap();
    let choice = |sampler, karras| SamplerChoice { sampler: Some(sampler), karras };
    for (names, want) in [
        (["euler", "Euler", "EULER"], choice(Sampler::Euler, false)),
        (["euler_a", "Euler a", "euler-ancestral"], choice(Sampler::EulerAncestral, false)),
        (["ddim", "DDIM", "d d i m"], choice(Sampler::Ddim, false)),
        (["dpm++2m", "DPM++ 2M", "dpmpp_2m"], choice(Sampler::DpmPlusPlus2M, false)),
        (
            ["DPM++ 2M Karras", "dpmpp_2m_karras", "dpm++2m-karras"],
            choice(Sampler::DpmPlusPlus2M, true),
        ),
    ] {
        for name in names {
            assert_eq!(sampler(name), want, "{name}");
        }
        let shown = want.sampler.unwrap().to_string();
        assert_eq!(sampler(&shown).sampler, want.sampler, "{shown}");
    }
    for name in ["", "karras", "dpm++2s_a", "ddim_trailing", "DPM++ SDE"] {
        assert_eq!(name.parse::<SamplerChoice>().unwrap_err().kind(), ErrorKind::Usage, "{name}");
    }
}

#[test]
fn a_request_overrides_the_configs_sampler() {
    let choose = |config: &Value, name: &str| {
        Scheduler::from_config(config, name.parse().unwrap()).map(|s| s.schedule(9).unwrap())
    };
    let with = |key: &str, value: Value| {
        let mut config = sdxl();
        config[key] = value;
        config
    };
    // What another class's config holds is read by the rules of the sampler that was named.
    for (class, name) in [
        ("DPMSolverMultistepScheduler", "dpm++2m"),
        ("EulerAncestralDiscreteScheduler", "euler_a"),
        ("DDIMScheduler", "ddim"),
    ] {
        let mut own = with("_class_name", json!(class));
        own["clip_sample"] = json!(false);
        assert_eq!(choose(&sdxl(), name).unwrap(), scheduler(&own).schedule(9).unwrap());
    }
    let karras = with("use_karras_sigmas", json!(true));
    assert_eq!(choose(&karras, "euler").unwrap(), choose(&sdxl(), "Euler Karras").unwrap());
    assert_eq!(choose(&karras, "dpm++2m").unwrap(), choose(&sdxl(), "DPM++ 2M Karras").unwrap());
    assert_eq!(choose(&karras, "ddim").unwrap(), choose(&sdxl(), "ddim").unwrap());
    assert!(choose(&sdxl(), "ddim karras").unwrap_err().to_string().contains("Karras"));
    // A class without a sampler here lends its noise levels; a flow has Euler's alone.
    let unipc = with("_class_name", json!("UniPCMultistepScheduler"));
    assert!(Scheduler::from_config(&unipc, SamplerChoice::default()).is_err());
    assert_eq!(choose(&unipc, "euler").unwrap(), choose(&sdxl(), "euler").unwrap());
    let flow = with("_class_name", json!("FlowMatchEulerDiscreteScheduler"));
    assert_eq!(choose(&flow, "euler").unwrap().prediction, PredictionType::Flow);
    for name in ["ddim", "dpm++2m", "euler_a", "Euler Karras"] {
        assert!(choose(&flow, name).unwrap_err().to_string().contains("flow"), "{name}");
    }
}

#[test]
fn a_config_as_diffusers_saves_it_can_be_read() {
    let scratch = super::Scratch::new("saved-scheduler");
    scratch.write("model_index.json", "{}");
    scratch.write("scheduler.json", golden("sampling.json")["saved_dpm_solver"].as_str().unwrap());
    let config: Value = scratch.files().read_json("scheduler.json").unwrap();
    assert_eq!(scheduler(&config).schedule(9).unwrap().sampler, Sampler::DpmPlusPlus2M);
}

fn sdxl() -> Value {
    json!({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
           "timestep_spacing": "leading", "steps_offset": 1})
}

#[test]
fn guidance_weight_falls_from_one_at_the_restart() {
    let scheduler = scheduler(&sdxl());
    let run = scheduler.schedule(50).unwrap();
    let restart = restart_step(50, 0.4);
    assert_eq!((restart, run.timesteps[restart]), (30, 381.0));
    for (step, want) in
        [(30, 1.0), (31, 0.9395), (35, 0.6932), (40, 0.3990), (49, 0.0031), (50, 0.0)]
    {
        assert!((run.sg_weight(step, restart) - want).abs() < 6e-5, "step {step}");
    }
    let Scheduler::Diffusion(levels) = &scheduler else { panic!("{scheduler:?}") };
    let abar = levels.alphas_cumprod();
    for step in 30..50 {
        let table = |i: usize| 1.0 - abar[run.timesteps[i] as usize];
        let want = table(step) / table(30);
        assert!((run.sg_weight(step, 30) / want - 1.0).abs() < 1e-6, "step {step}");
    }
    assert_eq!((run.sg_weight(900, 30), run.sg_weight(30, 900)), (0.0, 0.0));
}

#[test]
fn the_restart_step_truncates_in_f64() {
    for (steps, ratio, want) in
        [(50, 0.6, 20), (30, 0.6, 12), (28, 0.6, 11), (4, 0.5, 2), (10, 0.9, 0), (10, 0.0, 10)]
    {
        assert_eq!(restart_step(steps, ratio), want, "{steps} steps at {ratio}");
    }
    assert_eq!((restart_step(9, -1.0), restart_step(9, 2.0), restart_step(9, f64::NAN)), (9, 0, 0));
}

#[test]
fn unsupported_scheduler_values_name_key_and_value() {
    let says = |key: &str, value: Value, what: &str| {
        let mut config = sdxl();
        config[key] = value;
        let error =
            Scheduler::from_config(&config, SamplerChoice::default()).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(what), "{error} lacks {key} or {what}");
    };
    says("_class_name", json!("PNDMScheduler"), "\"PNDMScheduler\"");
    says("beta_schedule", json!("squaredcos_cap_v2"), "\"linear\" or \"scaled_linear\"");
    says("timestep_spacing", json!(3), "is 3");
    says("prediction_type", json!("sample"), "\"epsilon\" or \"v_prediction\"");
    says("use_beta_sigmas", json!(true), "is true, expected false");
    says("rescale_betas_zero_snr", json!("no"), "\"no\"");
    says("num_train_timesteps", json!(0), "is 0");
    says("num_train_timesteps", json!(1e18), "expected 1 to 100000");
    says("steps_offset", json!(-1), "is -1");
    says("beta_start", json!(-0.1), "is -0.1");
    says("beta_end", json!(4.0), "more than 0 and less than 1");
    says("trained_betas", json!([]), "0 values");
    says("trained_betas", json!([0.1, "x"]), "list of numbers");
    assert!(Scheduler::from_config(&json!(null), SamplerChoice::default()).is_err());
    let velocity = json!({"prediction_type": "v_prediction", "trained_betas": null, "mystery": 1});
    let scheduler = scheduler(&velocity);
    assert_eq!(scheduler.schedule(9).unwrap().prediction, PredictionType::VPrediction);
    for steps in [0, 1001, usize::MAX] {
        assert_eq!(scheduler.schedule(steps).unwrap_err().kind(), ErrorKind::Usage);
    }
}

#[test]
fn each_class_refuses_what_it_cannot_run() {
    for (class, key, value, expected) in [
        ("DDIM", "clip_sample", json!(true), "false"),
        ("DDIM", "clip_sample", json!(null), "absent, expected false"),
        ("DDIM", "thresholding", json!(true), "false"),
        ("DDIM", "set_alpha_to_one", json!(1), "true or false"),
        ("DPMSolverMultistep", "algorithm_type", json!("sde-dpmsolver++"), "\"dpmsolver++\""),
        ("DPMSolverMultistep", "solver_type", json!("heun"), "\"midpoint\""),
        ("DPMSolverMultistep", "solver_order", json!(3), "2 to 2"),
        ("DPMSolverMultistep", "lambda_min_clipped", json!(-5.1), "null"),
        ("DPMSolverMultistep", "variance_type", json!("learned"), "null"),
        ("DPMSolverMultistep", "use_lu_lambdas", json!(true), "false"),
        ("DPMSolverMultistep", "use_flow_sigmas", json!(true), "false"),
        ("DPMSolverMultistep", "final_sigmas_type", json!("sigma_min"), "\"zero\""),
        ("EulerAncestralDiscrete", "rescale_betas_zero_snr", json!(true), "false"),
        ("EulerDiscrete", "interpolation_type", json!("log_linear"), "\"linear\""),
    ] {
        let mut config = sdxl();
        config["_class_name"] = json!(format!("{class}Scheduler"));
        config["clip_sample"] = json!(false);
        config[key] = value.clone();
        let error = Scheduler::from_config(&config, SamplerChoice::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(key) && text.contains(expected), "{text} lacks {key} or {expected}");
    }
}

#[test]
fn every_step_count_gives_a_falling_schedule_and_finite_steps() {
    let classes = ["EulerDiscrete", "EulerAncestralDiscrete", "DDIM", "DPMSolverMultistep"];
    let spacings = ["leading", "linspace", "trailing"];
    for (class, spacing) in classes.iter().flat_map(|c| spacings.map(|s| (c, s))) {
        for karras in [false, true] {
            let mut config = sdxl();
            config["_class_name"] = json!(format!("{class}Scheduler"));
            config["clip_sample"] = json!(false);
            config["timestep_spacing"] = json!(spacing);
            config["use_karras_sigmas"] = json!(karras);
            let scheduler = scheduler(&config);
            for steps in [1, 2, 3, 9, 29, 97, 499, 500, 999, 1000] {
                // It spaces one point more, for which the training has no room.
                let full = (*class, spacing, steps) == ("DPMSolverMultistep", "leading", 1000);
                if full && !karras {
                    let error = scheduler.schedule(steps).unwrap_err();
                    assert!(error.to_string().contains("1000 steps of DPM++ 2M"), "{error}");
                    continue;
                }
                let run = scheduler.schedule(steps).unwrap();
                // 1000 steps from offset 1 start past the table's end, so the first two levels are equal.
                assert!(
                    run.sigmas.windows(2).all(|w| w[0] >= w[1] && w[1] >= 0.0),
                    "{config} {steps}"
                );
                assert_eq!(run.sigmas[steps], 0.0);
                for i in 0..steps {
                    let s = run.step(i, 0);
                    let finite = [s.x, s.x0, s.previous, s.noise].iter().all(|v| v.is_finite());
                    assert!(finite, "{config}: step {i} of {steps} is {s:?}");
                }
            }
        }
    }
    let reversed = json!({"use_karras_sigmas": true, "sigma_min": 14.6, "sigma_max": 0.03});
    let error = scheduler(&reversed).schedule(20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("expected ones that fall"), "{error}");
    let one = scheduler(&json!({"num_train_timesteps": 1}));
    assert_eq!(one.schedule(1).unwrap().steps(), 1);
}
