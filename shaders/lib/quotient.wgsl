// a / b for a, b < 2^31: a division in f32, corrected twice. Integer division is tens of instructions per lane on
// processors, which have none for vectors, and no faster than this elsewhere.
fn quotient(a: u32, b: u32) -> u32 {
    let guess = u32(f32(a) / f32(b));
    let rest = i32(a - guess * b);
    let more = i32(floor(f32(rest) / f32(b)));
    let last = rest - more * i32(b);
    return u32(i32(guess) + more + select(0, 1, last >= i32(b)) - select(0, 1, last < 0));
}
