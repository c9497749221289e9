// Halves in workgroup memory one by one: Metal loads matrices from arrays of their own scalars only.
const CELLS: u32 = 4u; // to a vec4 of halves
alias Cell = f16;
fn cells(v: vec4<f16>) -> array<Cell, CELLS> { return array<Cell, CELLS>(v.x, v.y, v.z, v.w); }
