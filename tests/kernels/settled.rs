//! What does not change from replay to replay is computed once.

use scalediff::gpu::Slabs;
use scalediff::graph::{Graph, Plan};
use scalediff::kernels::group_norm::{self, GroupNorm};
use scalediff::kernels::silu;
use scalediff::tensor::{DType, Shape, Tensor};

use super::setups;

/// Joins what follows from a fixed input with what follows from another, so that one group norm reads both.
#[test]
fn settled_ops_run_again_only_for_new_inputs() {
    let gpu = &setups()[0].whole;
    let mut g = Graph::new(gpu.caps().clone());
    let shape = Shape::new(1, 4, 4, 8);
    let affine = g.input("affine", Shape::matrix(1, 16), DType::F32);
    let varying = g.input("varying", shape, DType::F32);
    let from_varying = silu::record(&mut g, varying, DType::F32).unwrap();
    let fixed = g.input("fixed", shape, DType::F32);
    let inner = silu::record(&mut g, fixed, DType::F32).unwrap();
    let from_fixed = silu::record(&mut g, inner, DType::F32).unwrap();
    let norm = GroupNorm { weight: affine, bias: affine, groups: 1, eps: 1e-5, silu: false };
    let y = group_norm::record(&mut g, from_fixed, Some(from_varying), norm, DType::F32).unwrap();
    g.output(y);
    let ops = g.ops().len();
    g.settle([affine, fixed]);
    let reads = |i: usize| g.ops()[i].operands[0].tensor;
    assert_eq!((g.ops().len(), reads(0), reads(1)), (ops, Some(fixed), Some(inner)));

    let plan = Plan::compile(gpu, &g, &Slabs::new()).unwrap();
    let values = |seed: u32| -> Vec<f32> {
        (0..128).map(|i| ((i * 37 + seed * 11) % 23) as f32 / 7.0 - 1.0).collect()
    };
    let write = |tensor: Tensor, values: &[f32]| plan.write(gpu, tensor, values).unwrap();
    let run = || {
        plan.run(gpu, &mut |_| Ok(())).unwrap();
        plan.read(gpu, y).unwrap()
    };
    write(affine, &[1.0; 16]);
    write(fixed, &values(1));
    write(varying, &values(2));
    let first = run();
    assert_eq!(run(), first);

    // What the settled ops made is put to zero: it stays so until an input of theirs is written.
    write(varying, &values(3));
    let third = run();
    assert_ne!(third, first);
    write(from_fixed, &[0.0; 128]);
    let without = run();
    assert_ne!(without, third);
    write(fixed, &values(1));
    assert_eq!(run(), third);
    // A replay that was stopped settled nothing.
    write(fixed, &values(4));
    assert!(plan.run(gpu, &mut |_| Err(scalediff::error::Error::usage("stop"))).is_err());
    write(from_fixed, &[0.0; 128]);
    assert_ne!(run(), without);
}
