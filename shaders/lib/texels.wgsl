// Storage that is read through a texture of 16-byte texels, number i of them in lines of TEXEL_LINE: a software driver fetches
// texels for all lanes at once, and words of buffers for one lane after the other, at a tenth of the speed.
const TEXEL_LINE: u32 = 4096u;
fn texel_at(i: u32) -> vec2<u32> { return vec2(i % TEXEL_LINE, i / TEXEL_LINE); }
