//! In which order the chunks of a graph run.

use std::ops::Range;

use super::record::{Graph, Op};
use super::split::Chunk;

/// One chunk of one op, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    pub op: usize,
    pub chunk: usize,
}

/// The turns of `chunks`: op by op as recorded, or for a [streamed](Graph::stream) graph each chunk when one that
/// needs it is due. The chunks of the last op come in order, so that what a chain of convolutions passes on lives for
/// as many lines as their windows span.
pub fn schedule(graph: &Graph, chunks: &[Vec<Chunk>]) -> Vec<Turn> {
    let all = chunks.iter().enumerate();
    let mut recorded =
        all.flat_map(|(op, chunks)| (0..chunks.len()).map(move |chunk| Turn { op, chunk }));
    if !graph.is_streamed() {
        return recorded.collect();
    }
    let mut demand = Demand {
        ops: &graph.ops,
        chunks,
        touches: touches(graph, chunks),
        done: chunks.iter().map(|c| vec![false; c.len()]).collect(),
        order: Vec::new(),
    };
    let last = chunks.len().saturating_sub(1);
    for chunk in 0..chunks.last().map_or(0, Vec::len) {
        demand.run(Turn { op: last, chunk });
    }
    recorded.by_ref().for_each(|turn| demand.run(turn));
    demand.order
}

/// For every tensor the turns that touch it as recorded, with the rows bound and whether they are written.
fn touches(graph: &Graph, chunks: &[Vec<Chunk>]) -> Vec<Vec<Touch>> {
    let mut touches: Vec<Vec<Touch>> = vec![Vec::new(); graph.tensors.len()];
    for (op, (o, chunks)) in graph.ops.iter().zip(chunks).enumerate() {
        for (chunk, c) in chunks.iter().enumerate() {
            for (operand, rows) in o.operands.iter().zip(&c.bound) {
                if let Some(tensor) = operand.tensor {
                    let (turn, rows, writes) = (Turn { op, chunk }, rows.clone(), operand.writes);
                    touches[tensor.id as usize].push(Touch { turn, rows, writes });
                }
            }
        }
    }
    // What nothing writes imposes no order.
    touches.iter_mut().filter(|t| t.iter().all(|t| !t.writes)).for_each(Vec::clear);
    touches
}

#[derive(Debug, Clone)]
struct Touch {
    turn: Turn,
    rows: Range<u32>,
    writes: bool,
}

struct Demand<'a> {
    ops: &'a [Op],
    chunks: &'a [Vec<Chunk>],
    touches: Vec<Vec<Touch>>,
    done: Vec<Vec<bool>>,
    order: Vec<Turn>,
}

impl Demand<'_> {
    /// Runs a turn after all those of ops before its own that write what it touches, or touch what it writes.
    fn run(&mut self, turn: Turn) {
        if std::mem::replace(&mut self.done[turn.op][turn.chunk], true) {
            return;
        }
        let (ops, chunks) = (self.ops, self.chunks);
        for (operand, rows) in ops[turn.op].operands.iter().zip(&chunks[turn.op][turn.chunk].bound)
        {
            let Some(tensor) = operand.tensor else { continue };
            let mut at = 0;
            while let Some(touch) = self.touches[tensor.id as usize].get(at) {
                let before = touch.turn;
                if before.op >= turn.op {
                    break;
                }
                let meets = touch.rows.start < rows.end && rows.start < touch.rows.end;
                let orders = touch.writes || operand.writes;
                at += 1;
                if meets && orders && !self.done[before.op][before.chunk] {
                    self.run(before);
                }
            }
        }
        self.order.push(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Caps, Limits};
    use crate::graph::{Launch, Stream, Window, split};
    use crate::shader::{KernelSpec, Variant};
    use crate::tensor::{DType, Shape, Tensor};

    const SPEC: KernelSpec = KernelSpec { name: "none", file: "none" };
    const ROWS: u32 = 4096;

    fn blur(g: &mut Graph, x: Tensor) -> Tensor {
        let y = g.tensor(x.shape, DType::F32);
        let around = |r: &Range<u32>| r.start.saturating_sub(64)..r.end + 64;
        g.op(&SPEC, Variant::new())
            .read(x, Window::Map(Box::new(around)))
            .write(y, Window::Rows)
            .over(ROWS, 0)
            .launch(|_| Launch::new(&0u32, 1));
        y
    }

    /// Three blurs in a row, in bands of 256 rows where streamed.
    fn chain(streamed: bool) -> (Graph, Vec<Vec<Chunk>>) {
        let mut g = Graph::new(Caps::FLOOR);
        if streamed {
            g.stream(Stream { band_bytes: 256 * 16, kept_bytes: u64::MAX });
        }
        let x = g.input("x", Shape::matrix(ROWS, 4), DType::F32);
        let y = (0..3).fold(x, |x, _| blur(&mut g, x));
        g.output(y);
        let limits = Limits { binding_bytes: 512 * 16, ..Limits::WEBGPU };
        let chunks = g.ops().iter().map(|op| split(&g, op, &limits).unwrap()).collect();
        (g, chunks)
    }

    #[test]
    fn a_streamed_chain_runs_each_chunk_once_after_what_it_reads() {
        let (g, chunks) = chain(true);
        let turns = schedule(&g, &chunks);
        let place = |op, chunk| turns.iter().position(|t| *t == Turn { op, chunk }).unwrap();
        assert_eq!(turns.len(), chunks.iter().map(Vec::len).sum::<usize>());
        let mut farthest = 0;
        for (op, of_op) in chunks.iter().enumerate().skip(1) {
            for (i, chunk) in of_op.iter().enumerate() {
                let read = &chunk.bound[0];
                for (j, before) in chunks[op - 1].iter().enumerate() {
                    let made = &before.bound[1];
                    if made.start < read.end && read.start < made.end {
                        assert!(place(op - 1, j) < place(op, i));
                        farthest = farthest.max(place(op, i) - place(op - 1, j));
                    }
                }
            }
        }
        // A band waits for its neighbours, not for the whole picture.
        assert!(farthest * 3 < turns.len(), "{farthest} of {}", turns.len());
    }

    #[test]
    fn others_run_as_recorded() {
        let (g, chunks) = chain(false);
        let turns = schedule(&g, &chunks);
        assert!(turns.is_sorted_by_key(|t| (t.op, t.chunk)));
    }
}
