//! Model ring: a streamed graph computes what the same graph does in one piece, in less memory.

use scalediff::error::Result;
use scalediff::gpu::{Engine, GpuOptions, Slabs};
use scalediff::graph::{Graph, Layout, Plan, Stream};
use scalediff::pipeline::{Model, Precision};
use scalediff::tensor::{DType, Shape, Tensor};

const BANDS: Stream = Stream { band_bytes: 64 << 10, kept_bytes: u64::MAX };
/// What a block hands on is kept; hidden tensors and what is enlarged are computed again.
const AGAIN: Stream = Stream { kept_bytes: 2 << 20, ..BANDS };

/// Values, and bytes of all buffers.
fn run(
    engine: &Engine,
    slabs: &Slabs,
    stream: Option<Stream>,
    input: Shape,
    record: &dyn Fn(&mut Graph, Tensor) -> Result<Tensor>,
) -> (Vec<f32>, u64) {
    let mut g = Graph::new(engine.caps().clone());
    stream.into_iter().for_each(|s| g.stream(s));
    let x = g.input("x", input, DType::F32);
    let y = record(&mut g, x).unwrap();
    g.output(y);
    let values = (0..input.elems()).map(|i| (i as f32 * 0.37).sin()).collect();
    let plan = Plan::once(engine, &g, slabs, &[(x, values)], &mut |_| Ok(())).unwrap();
    let layout = Layout::new(&g, &engine.caps().limits).unwrap();
    (plan.read(engine, y).unwrap(), layout.buffer_bytes())
}

fn compare(
    name: &str,
    input: Shape,
    slabs: &Slabs,
    engine: &Engine,
    record: &dyn Fn(&mut Graph, Tensor) -> Result<Tensor>,
) {
    let (whole, all) = run(engine, slabs, None, input, record);
    assert!(whole.iter().all(|v| v.is_finite()) && whole[0] != whole[1]);
    let mut least = all;
    for stream in [BANDS, AGAIN] {
        let (streamed, bytes) = run(engine, slabs, Some(stream), input, record);
        let differs = whole.iter().zip(&streamed).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{name}, {stream:?}");
        assert!(bytes < least, "{name}, {stream:?}: {bytes} bytes, before {least}");
        least = bytes;
    }
}

#[cfg(feature = "embedded")]
#[test]
fn autoencoders_make_the_same_in_bands() {
    let engine = Engine::open(GpuOptions::default()).unwrap();
    let files = scalediff::embedded::by_name("tiny-sdxl").unwrap();
    let model = Model::new(engine.clone(), files, Precision::F16);
    let (decoder, encoder) = (model.vae_decoder().unwrap(), model.vae_encoder().unwrap());
    // Widths that bands do not divide.
    compare("decoder", Shape::new(1, 61, 23, 4), &decoder.slabs, &engine, &|g, x| {
        decoder.net.forward(g, x)
    });
    compare("encoder", Shape::new(1, 488, 184, 3), &encoder.slabs, &engine, &|g, x| {
        encoder.net.forward(g, x)
    });
}
