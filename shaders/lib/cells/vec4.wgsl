// Halves in workgroup memory by fours: in SPIR-V matrices load from arrays of vec4s, with strides in those.
// Matrices load and store at multiples of 16 bytes, and drivers pack variables: in a shader that uses matrices every
// variable in workgroup memory takes a multiple of 16 bytes.
const CELLS: u32 = 2u; // to an octet
alias Cell = vec4<f16>;
fn cells(v: mat2x4<f16>) -> array<Cell, CELLS> { return array<Cell, CELLS>(v[0], v[1]); }
