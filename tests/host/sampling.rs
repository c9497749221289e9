//! Schedules against diffusers, random numbers against torch.

use scalediff::error::ErrorKind;
use scalediff::sampling::{EulerDiscrete, PredictionType, restart_step};
use scalediff::sampling::{TorchRng, stream_seed};
use serde_json::{Value, json};

use super::golden;

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

#[test]
fn schedules_equal_those_of_diffusers() {
    for case in golden("schedule.json")["cases"].as_array().unwrap() {
        let steps = case["steps"].as_u64().unwrap() as usize;
        let run = EulerDiscrete::from_config(&case["config"]).unwrap().schedule(steps).unwrap();
        assert_eq!((run.steps(), run.sigmas.len()), (steps, steps + 1));
        let pairs = [
            (&run.sigmas, floats(&case["sigmas"])),
            (&run.timesteps, floats(&case["timesteps"])),
            (&vec![run.init_noise_sigma], floats(&json!([case["init_noise_sigma"]]))),
        ];
        for (got, want) in pairs {
            assert_eq!(got.len(), want.len());
            for (a, b) in got.iter().zip(want) {
                // The timestep of the smallest sigma is a difference of logarithms: absolute 1e-3.
                assert!((a - b).abs() <= 1e-6 * b.abs().max(1e-3) + 1e-6, "{case}: {a} for {b}");
            }
        }
    }
}

fn sdxl() -> Value {
    json!({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
           "timestep_spacing": "leading", "steps_offset": 1})
}

#[test]
fn guidance_weight_falls_from_one_at_the_restart() {
    let scheduler = EulerDiscrete::from_config(&sdxl()).unwrap();
    let run = scheduler.schedule(50).unwrap();
    let restart = restart_step(50, 0.4);
    assert_eq!((restart, run.timesteps[restart]), (30, 381.0));
    for (step, want) in
        [(30, 1.0), (31, 0.9395), (35, 0.6932), (40, 0.3990), (49, 0.0031), (50, 0.0)]
    {
        assert!((run.sg_weight(step, restart) - want).abs() < 6e-5, "step {step}");
    }
    let abar = scheduler.alphas_cumprod();
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
        let error = EulerDiscrete::from_config(&config).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(what), "{error} lacks {key} or {what}");
    };
    says("_class_name", json!("DDIMScheduler"), "\"DDIMScheduler\"");
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
    assert!(EulerDiscrete::from_config(&json!(null)).is_err());
    let velocity = json!({"prediction_type": "v_prediction", "trained_betas": null, "mystery": 1});
    let scheduler = EulerDiscrete::from_config(&velocity).unwrap();
    assert_eq!(scheduler.prediction(), PredictionType::VPrediction);
    for steps in [0, 1001, usize::MAX] {
        assert_eq!(scheduler.schedule(steps).unwrap_err().kind(), ErrorKind::Usage);
    }
}

#[test]
fn every_step_count_gives_a_falling_schedule() {
    for spacing in ["leading", "linspace", "trailing"] {
        for karras in [false, true] {
            let mut config = sdxl();
            config["timestep_spacing"] = json!(spacing);
            config["use_karras_sigmas"] = json!(karras);
            let scheduler = EulerDiscrete::from_config(&config).unwrap();
            for steps in [1, 2, 3, 9, 29, 97, 499, 500, 999, 1000] {
                let run = scheduler.schedule(steps).unwrap();
                // 1000 steps from offset 1 start past the table's end, so the first two levels are equal.
                assert!(
                    run.sigmas.windows(2).all(|w| w[0] >= w[1] && w[1] >= 0.0),
                    "{config} {steps}"
                );
                assert_eq!(run.sigmas[steps], 0.0);
            }
        }
    }
    let one = EulerDiscrete::from_config(&json!({"num_train_timesteps": 1})).unwrap();
    assert_eq!(one.schedule(1).unwrap().steps(), 1);
}

#[test]
fn normals_and_integers_equal_those_of_torch() {
    for case in golden("randn.json")["cases"].as_array().unwrap() {
        let mut rng = TorchRng::new(case["seed"].as_u64().unwrap());
        for want in case["normals"].as_array().unwrap() {
            let want = floats(want);
            let got = rng.randn(want.len());
            for (a, b) in got.iter().zip(&want) {
                assert!((a - b).abs() <= 4e-6, "{} values: {a} for {b}", want.len());
            }
        }
        for (limit, want) in
            case["limits"].as_array().unwrap().iter().zip(case["integers"].as_array().unwrap())
        {
            let got = rng.uniform_u32(limit.as_u64().unwrap() as u32);
            assert_eq!(u64::from(got), want.as_u64().unwrap());
        }
    }
}

#[test]
fn the_generator_is_the_published_mersenne_twister() {
    let mut rng = TorchRng::new(5489);
    let ten_thousandth = (0..10_000).map(|_| rng.next_u32()).last();
    assert_eq!(ten_thousandth, Some(4_123_659_995));
}

#[test]
fn streams_have_their_own_seeds() {
    assert_eq!(stream_seed(5, ""), 5 ^ 0xcbf2_9ce4_8422_2325);
    assert_eq!(stream_seed(0, "a"), 0xaf63_dc4c_8601_ec8c); // published FNV-1a test value
    let low = |name: &str| stream_seed(9, name) as u32;
    assert!(low("noise.1") != low("noise.2") && low("noise.1") != low("jitter.1"));
    assert!(TorchRng::new(0).randn(0).is_empty());
}
