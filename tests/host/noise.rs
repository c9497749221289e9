//! Random numbers against torch and against the published generators.

use scalediff::sampling::{Noise, Philox, Rng, TorchRng, stream_seed};
use serde_json::Value;

use super::{floats, golden};

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
fn cuda_normals_come_from_the_published_philox() {
    let golden = golden("philox.json");
    let words = |v: &Value| -> Vec<u32> {
        v.as_array().unwrap().iter().map(|w| w.as_u64().unwrap() as u32).collect()
    };
    for known in golden["known"].as_array().unwrap() {
        let [counter, key, want] = [0, 1, 2].map(|i| words(&known[i]));
        let got = Philox::block(counter.try_into().unwrap(), key.try_into().unwrap());
        assert_eq!(got.to_vec(), want);
    }
    for case in golden["cases"].as_array().unwrap() {
        let seed = case["seed"].as_u64().unwrap();
        let mut rng = Philox::new(seed);
        for (call, want) in case["normals"].as_array().unwrap().iter().enumerate() {
            let want = floats(want);
            let got = rng.randn(want.len());
            if call == 0 {
                assert_eq!(got, Rng::Cuda.randn(seed, want.len()));
            }
            for (a, b) in got.iter().zip(&want) {
                assert!((a - b).abs() <= 1e-6, "{seed} call {call}: {a} for {b}");
            }
        }
    }
}

#[test]
fn streams_have_their_own_seeds() {
    assert_eq!(Noise::Stage(0).seed(7), 7);
    assert_eq!(Noise::Stage(2).seed(7), stream_seed(7, "noise.2"));
    assert_eq!(Noise::Step { stage: 1, step: 30 }.seed(7), stream_seed(7, "ancestral.1.30"));
    assert_eq!(stream_seed(5, ""), 5 ^ 0xcbf2_9ce4_8422_2325);
    assert_eq!(stream_seed(0, "a"), 0xaf63_dc4c_8601_ec8c); // published FNV-1a test value
    let low = |name: &str| stream_seed(9, name) as u32;
    assert!(low("noise.1") != low("noise.2") && low("noise.1") != low("jitter.1"));
    assert!(TorchRng::new(0).randn(0).is_empty());
}
