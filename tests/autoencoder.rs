//! Model ring: an autoencoder whose activations lie beyond f16, as those of SDXL do, makes the same picture in f16.
#![cfg(feature = "embedded")]

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use scalediff::gpu::{Engine, GpuOptions};
use scalediff::graph::{Graph, Plan};
use scalediff::pipeline::{Model, Precision};
use scalediff::tensor::{DType, Shape};
use scalediff::weights::ModelFiles;

/// What the first convolution of the decoder is multiplied by. Norms divide it out of every branch, so that only the
/// stream between them grows: to some hundred thousands, where f16 ends at 65504.
const LOUDER: f32 = 50_000.0;

fn floats(view: &TensorView) -> Vec<f32> {
    let halves = view.data().chunks_exact(2);
    halves.map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
}

/// The small model's folder with a louder autoencoder.
fn loud() -> ModelFiles {
    let ModelFiles::Embedded { files, .. } = scalediff::embedded::tiny_sdxl() else {
        panic!("the small model is embedded")
    };
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("loud");
    let _ = fs::remove_dir_all(&root);
    for (rel, bytes) in files {
        let path = root.join(rel);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let path = root.join("vae/diffusion_pytorch_model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let changed: HashMap<String, (Vec<usize>, Vec<u8>)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            assert_eq!(view.dtype(), Dtype::F16, "{name}");
            let factor = if name.starts_with("decoder.conv_in.") { LOUDER } else { 1.0 };
            let values = floats(&view).into_iter().flat_map(|v| (v * factor).to_le_bytes());
            (name, (view.shape().to_vec(), values.collect()))
        })
        .collect();
    let views = changed.iter().map(|(name, (shape, bytes))| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &path).unwrap();
    ModelFiles::open(&root).unwrap()
}

#[test]
fn activations_beyond_f16_are_kept() {
    let engine = Engine::open(GpuOptions::default()).unwrap();
    let files = loud();
    let shape = Shape::new(1, 16, 12, 4);
    let latents: Vec<f32> = (0..shape.elems()).map(|i| 2.0 * (i as f32 * 0.7).sin()).collect();
    let [want, got] = [Precision::F32, Precision::F16].map(|precision| {
        let decoder = Model::new(engine.clone(), files.clone(), precision).vae_decoder().unwrap();
        let mut g = Graph::new(engine.caps().clone());
        let z = g.input("latents", shape, DType::F32);
        let image = decoder.net.forward(&mut g, z).unwrap();
        g.output(image);
        let inputs = [(z, latents.clone())];
        let plan = Plan::once(&engine, &g, &decoder.slabs, &inputs, &mut |_| Ok(())).unwrap();
        plan.read(&engine, image).unwrap()
    });
    let sum = |f: &dyn Fn(usize) -> f32| (0..want.len()).map(|i| f(i).powi(2)).sum::<f32>();
    let error = (sum(&|i| got[i] - want[i]) / sum(&|i| want[i])).sqrt();
    assert!(sum(&|i| want[i]) > 1.0 && error < 5e-3, "error {error:.1e}");
}
