// Matrix units of 8 × 8 × 8, f16 × f16 + f32.
const SIDE: u32 = 8u;
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;
