//! Record → plan → replay.
//!
//! A model's `forward` records [`Op`]s on [`Tensor`](crate::tensor::Tensor) handles into a [`Graph`];
//! [`Plan::compile`] finds lifetimes, assigns buffers, cuts what exceeds a limit and builds the bind
//! groups once; [`Plan::run`] replays it, as often as there are steps.

mod layout;
mod liveness;
mod plan;
#[doc(hidden)]
pub mod probe;
mod record;
mod replay;
mod rows;
mod schedule;
mod split;

pub use layout::{BufferSpec, Layout, Piece, Place, Source};
pub use liveness::{Lifetime, assign};
pub use plan::Plan;
pub use record::{Graph, Launch, Op, OpBuilder, Operand, Origin, Stream, WeightRef, Window};
pub use replay::Pulse;
pub use split::{Chunk, STEP, band_rows, split};
