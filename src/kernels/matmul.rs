//! Linear layers: `y = epilogue(x · wᵀ)`.

use bytemuck::NoUninit;

use super::engine::{Engine, Product};
use super::lanes::fits;
use crate::error::Result;
use crate::gpu::Caps;
use crate::graph::{Graph, Launch, Window};
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Shape, Tensor};

/// `matmul`.
pub const SPEC: KernelSpec = KernelSpec { name: "matmul", file: "gemm/matmul.wgsl" };

/// What is applied to a product before the residual is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Activation {
    #[default]
    None,
    Silu,
    GeluErf,
    GeluTanh,
    QuickGelu,
    /// value · gelu(gate), over a weight with interleaved value and gate rows.
    Geglu,
    /// The same with the tanh form of gelu (T5).
    GegluTanh,
}

impl Activation {
    /// Whether each column of the result takes two of the product.
    pub fn is_gated(self) -> bool {
        matches!(self, Activation::Geglu | Activation::GegluTanh)
    }
}

/// Columns `column ..` of a table `[batch, ..]` f32, a multiple of 4.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    pub table: Tensor,
    pub column: u32,
}

/// What happens to a product: `gate · activation(acc + bias + row_vector) + residual`.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue {
    /// `[n]` f32.
    pub bias: Option<Tensor>,
    /// `[batch, n]` f32, one row per batch item.
    pub row_vector: Option<Tensor>,
    /// One row per batch item; without a row vector, and of matrix products only.
    pub gate: Option<Gate>,
    pub activation: Activation,
    /// Of the output's shape.
    pub residual: Option<Tensor>,
    /// Element type of the output.
    pub out: DType,
}

impl Default for Epilogue {
    fn default() -> Self {
        Self {
            bias: None,
            row_vector: None,
            gate: None,
            activation: Activation::None,
            residual: None,
            out: DType::F32,
        }
    }
}

/// Parameters of `matmul`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct Params {
    pub first_group: u32,
    pub rows: u32,
    pub cols: u32,
    pub c4: u32,
    pub row0: u32,
    pub rows_per_item: u32,
    pub col0_4: u32,
    pub n4: u32,
    pub vector4: u32,
    pub vector_col4: u32,
}

/// The part of a variant that belongs to the epilogue and the engine.
pub(super) fn choose_tail(caps: &Caps, weight: DType, e: &Epilogue, engine: Engine) -> Variant {
    let activation = match e.activation {
        Activation::None | Activation::Geglu => 0,
        Activation::Silu => 1,
        Activation::GeluErf => 2,
        Activation::GeluTanh | Activation::GegluTanh => 3,
        Activation::QuickGelu => 4,
    };
    engine
        .apply(Variant::new())
        .num("ACTIVATION", activation)
        .flag("GATED", e.activation.is_gated())
        .flag("HAS_BIAS", e.bias.is_some())
        .flag("HAS_VECTOR", e.row_vector.is_some() || e.gate.is_some())
        .flag("VECTOR_GATES", e.gate.is_some())
        .flag("HAS_RES", e.residual.is_some())
        .elem("w", engine.elem_in(caps, weight))
        .elem("bias", caps.elem_in(DType::F32))
        .elem("vector", caps.elem_in(DType::F32))
        .elem("res", engine.elem_res(caps, e.residual.map_or(e.out, |r| r.dtype)))
        .elem("y", engine.elem_out(caps, e.out))
}

fn engine(caps: &Caps, x: Tensor, weight: DType, n: u32, e: &Epilogue) -> Engine {
    let product = Product {
        rows: x.shape.rows(),
        cols: n,
        gated: e.activation.is_gated(),
        conv: false,
        k4: x.shape.stride4(),
        even_k: x.shape.stride4().is_multiple_of(2),
        rows_per_item: x.shape.rows_per_item(),
        doubled_w: 0,
        halves: x.dtype == DType::F16 && weight == DType::F16,
    };
    Engine::choose(caps, &product)
}

/// Checks what the epilogue reads against the output's shape.
pub(super) fn check_tail(g: &Graph, y: Shape, times: u32, e: &Epilogue) -> Result<()> {
    if let Some(bias) = e.bias {
        fits(g, "the bias", bias.shape, Shape::matrix(1, times * y.channels.next_multiple_of(4)))?;
    }
    if let Some(vector) = e.row_vector {
        fits(g, "the vector", vector.shape, Shape::matrix(y.batch, y.channels))?;
    }
    if let Some(Gate { table, column }) = e.gate {
        let shape = Shape::matrix(y.batch, table.shape.channels);
        fits(g, "the gate", table.shape, shape)?;
        let inside = column + y.channels <= table.shape.channels && column.is_multiple_of(4);
        if !inside || e.row_vector.is_some() || e.activation.is_gated() {
            return Err(g.error(format!("a gate from column {column} of {}", table.shape)));
        }
    }
    match e.residual {
        Some(residual) => fits(g, "the residual", residual.shape, y),
        None => Ok(()),
    }
}

/// Variant of `matmul` for `n` output columns.
pub fn choose(caps: &Caps, x: Tensor, weight: DType, n: u32, e: &Epilogue) -> Variant {
    let engine = engine(caps, x, weight, n, e);
    choose_tail(caps, weight, e, engine).elem("x", engine.elem_in(caps, x.dtype))
}

/// Records `[rows, k] · [n, k]ᵀ`; `n` is the number of output columns.
pub fn record(g: &mut Graph, x: Tensor, weight: Tensor, n: u32, e: Epilogue) -> Result<Tensor> {
    let times = if e.activation.is_gated() { 2 } else { 1 };
    let want = Shape::matrix(times * n.next_multiple_of(4), x.shape.channels.next_multiple_of(4));
    fits(g, "the weight", weight.shape, want)?;
    check_tail(g, x.shape.with_channels(n), times, &e)?;
    let y = g.tensor(x.shape.with_channels(n), e.out);
    let (c4, n4) = (x.shape.stride4(), n.div_ceil(4));
    let rows_per_item = x.shape.rows_per_item();
    let vector = e.gate.map(|gate| gate.table).or(e.row_vector);
    let vector4 = vector.map_or(0, |t| t.shape.stride4());
    let vector_col4 = e.gate.map_or(0, |gate| gate.column / 4);
    let engine = engine(g.caps(), x, weight.dtype, n, &e);
    let variant = choose(g.caps(), x, weight.dtype, n, &e);
    g.op(&SPEC, variant)
        .read(x, Window::Rows)
        .read(weight, Window::Cols { times })
        .read_opt(e.bias, Window::Whole)
        .read_opt(vector, Window::Whole)
        .read_opt(e.residual, Window::Rows)
        .write(y, Window::Rows)
        .over(x.shape.rows(), n)
        .flops(2 * u64::from(x.shape.rows()) * u64::from(times * n) * u64::from(x.shape.channels))
        .launch(move |chunk| {
            let (rows, cols) = (chunk.row_count(), chunk.col_count());
            let params = Params {
                first_group: 0,
                rows,
                cols,
                c4,
                row0: chunk.rows.start,
                rows_per_item,
                col0_4: chunk.cols.start / 4,
                n4,
                vector4,
                vector_col4,
            };
            Launch::new(&params, engine.groups(rows, cols))
        });
    Ok(y)
}
