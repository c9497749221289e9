// Halves in workgroup memory by fours: matrices may be loaded from arrays of vec4s in SPIR-V, with strides in vec4s.
const CELLS: u32 = 1u; // to a vec4 of halves
alias Cell = vec4<f16>;
fn cells(v: vec4<f16>) -> array<Cell, CELLS> { return array<Cell, CELLS>(v); }
