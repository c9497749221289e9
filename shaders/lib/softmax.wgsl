// What the engines of attention on processors share.
const Q_SCALE: f32 = SCALE; // scaled first, so that no product overflows

// 2^x for x <= 0 to 2 ulp, in a third of the time of the driver's own. No less than 2^-100: products with what is smaller are
// no normal numbers, which processors are slow with. A sum with 1.5 · 2^23 has n in its lowest bits.
fn exp2_of(x: vec4<f32>) -> vec4<f32> {
    let c = max(x, vec4(-100.0));
    let n = round(c);
    let f = c - n;
    var p = fma(f, vec4(1.326472731e-3), vec4(9.671512991e-3));
    p = fma(p, f, vec4(5.550733581e-2));
    p = fma(p, f, vec4(2.402224243e-1));
    p = fma(p, f, vec4(6.931470037e-1));
    p = fma(p, f, vec4(1.0));
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(p) + (bitcast<vec4<u32>>(n + vec4(12582912.0)) << vec4(23u)));
}

fn plus_dot(a: vec4<f32>, b: vec4<f32>, sum: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}
