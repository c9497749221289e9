// What follows a norm: SiLU when SILU, else nothing.
#import silu
fn act(v: vec4<f32>) -> vec4<f32> {
    if (SILU) { return silu(v); }
    return v;
}
