//! Kernel ring: the MultiDiffusion baseline around a model that treats every pixel alone, for which
//! windows must change nothing.

mod common;

use std::cell::RefCell;
use std::ops::Range;

use scalediff::gpu::{Gpu, GpuOptions, Slabs};
use scalediff::graph::{Graph, Plan};
use scalediff::kernels::silu;
use scalediff::scalediff::{Attention, Denoiser, MultiDiffusion, Prediction};
use scalediff::tensor::{DType, Shape, Tensor};

use common::Stub;

#[test]
fn windows_change_nothing_for_a_model_that_sees_single_pixels() {
    let gpu = Gpu::open(&GpuOptions::default()).expect("a device: run by tools/test");
    for ((height, width), base, apart, windows) in [
        ((16, 16), (8, 8), false, 9),
        ((32, 32), (8, 8), false, 49),
        ((32, 32), (8, 8), true, 16),
        ((19, 23), (8, 9), false, 20),
        ((19, 23), (8, 9), true, 9),
        ((8, 8), (8, 8), false, 1),
    ] {
        let seen = RefCell::new(Vec::<Shape>::new());
        let pointwise = |g: &mut Graph, input: Tensor, _: Range<u32>, attention: Attention| {
            assert_eq!(attention, Attention::Full);
            seen.borrow_mut().push(input.shape);
            let output = silu::record(g, input, DType::F32)?;
            Ok(Prediction { output, step: Vec::new(), fixed: Vec::new() })
        };
        let model = Stub::new(pointwise, |timestep| vec![vec![timestep]]);
        let baseline = MultiDiffusion::new(&model, base, (height, width), apart);
        let mut g = Graph::new(gpu.caps().clone());
        let x = g.input("x", Shape::new(2, height, width, 4), DType::F32);
        let patches =
            Attention::Patches { base_height: 8, base_width: 8, isolated: false, jitter: None };
        let output = baseline.predict(&mut g, x, 0..2, patches).unwrap().output;
        g.output(output);
        let plan = Plan::compile(&gpu, &g, &Slabs::new()).unwrap();
        let values: Vec<f32> = (0..x.shape.elems()).map(|i| (i as f32 * 0.37).sin()).collect();
        plan.write(&gpu, x, &values).unwrap();
        plan.run(&gpu, &mut |_| Ok(())).unwrap();
        assert_eq!(output.shape, x.shape);
        for (got, v) in plan.read(&gpu, output).unwrap().iter().zip(&values) {
            let want = v / (1.0 + (-v).exp());
            assert!((got - want).abs() < 1e-5, "{got} for {want}");
        }
        let seen = seen.borrow();
        assert_eq!(seen.iter().map(|s| s.batch).sum::<u32>(), 2 * windows);
        // No prediction is much larger than one of the whole picture.
        let most = 2 * (height * width + base.0 * base.1);
        assert!(seen.iter().all(|s| s.rows() <= most && (s.height, s.width) == base));
        assert_eq!(baseline.step_values(0.0).len(), seen.len());
    }
}
