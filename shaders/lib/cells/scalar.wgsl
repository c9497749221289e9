// Halves in workgroup memory one by one: Metal loads matrices from arrays of their own scalars only.
const CELLS: u32 = 8u; // to an octet
alias Cell = f16;
fn cells(v: mat2x4<f16>) -> array<Cell, CELLS> {
    return array<Cell, CELLS>(v[0].x, v[0].y, v[0].z, v[0].w, v[1].x, v[1].y, v[1].z, v[1].w);
}
