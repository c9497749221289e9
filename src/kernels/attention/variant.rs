//! The variant of `flash` for a problem.

use super::tiling::{CoopTile, CoopWideTile, Engine, Problem, Scope, tiling};
use super::{Attention, AttentionScope};
use crate::gpu::{Caps, Coop};
use crate::shader::{Elem, Variant};
use crate::tensor::DType;

/// Which part of the keys an op sees: the implementation of the slot `carry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Carry {
    /// All of them.
    None,
    First,
    Middle,
    Last,
}

impl Carry {
    fn name(self) -> &'static str {
        match self {
            Carry::None => "none",
            Carry::First => "first",
            Carry::Middle => "middle",
            Carry::Last => "last",
        }
    }

    /// Whether text keys, which come first, are due.
    pub(super) fn is_first(self) -> bool {
        matches!(self, Carry::None | Carry::First)
    }
}

/// Variant of `flash`.
pub(super) fn choose(caps: &Caps, a: &Attention, p: &Problem, carry: Carry, out: DType) -> Variant {
    let tiling = tiling(caps, p);
    let scope = match p.scope {
        Scope::Full => 0,
        Scope::Causal => 1,
        Scope::Patches(_) => 2,
        Scope::Windows => 3,
    };
    let isolated = matches!(a.scope, AttentionScope::Patches(g) if g.isolated);
    let vectors = matches!(tiling.engine, Engine::Lanes | Engine::Wide);
    let paired = p.paired && vectors;
    let read = |dtype| match tiling.engine {
        Engine::Coop(_) | Engine::CoopWide(_) => Elem::Octets,
        _ => caps.elem_in_paired(dtype, paired),
    };
    let kv = read(a.k.tensor.dtype);
    let turn = a.text.and_then(|text| text.turn);
    let (text, x_pair) = match (a.text, turn) {
        (Some(_), None) if carry.is_first() => ("joint", 0),
        (Some(_), Some(turn)) if carry.is_first() => ("windowed", turn.x_pair),
        // Later parts hold no text keys, but the text's queries still stand at the corner.
        (_, Some(turn)) if p.scope == Scope::Windows => ("turned", turn.x_pair),
        _ => ("none", 0),
    };
    let variant = match tiling.engine {
        Engine::Coop(t) => units(t),
        Engine::CoopWide(t) => units_wide(t),
        _ => Variant::new(),
    };
    variant
        .num("HEAD_DIM", p.heads.dim)
        .num("SCOPE", scope)
        .flag("ISOLATED", isolated)
        .flag("SCALED", a.scaled)
        .num("X_PAIR", x_pair)
        .num("BLOCK_Q", tiling.block_q)
        .num("SLICE4", tiling.slice4)
        .flag("ALIGNED", p.aligned && p.heads.dim.is_multiple_of(4))
        .flag("PAIRED", paired)
        .slot(
            "attend",
            match tiling.engine {
                Engine::Tile => "tile",
                Engine::Lanes => "lanes",
                Engine::Wide => "wide",
                Engine::Columns => "columns",
                Engine::Coop(_) => "coop",
                Engine::CoopWide(_) => "coop_wide",
            },
        )
        .slot("text", text)
        .slot("bias", if a.bias.is_some() { "relative" } else { "none" })
        .slot("carry", carry.name())
        .elem("q", read(a.q.tensor.dtype))
        .elem("k", kv)
        .elem("v", kv)
        .elem("y", caps.elem_paired(out, paired))
        .elem("text_k", kv)
        .elem("text_v", kv)
        .elem("turn", caps.elem_in(DType::F32))
        .elem("bias", caps.elem_in(DType::F32))
        .elem("state", caps.elem(DType::F32))
}

/// The constants of `attend/coop.wgsl`.
fn units(t: CoopTile) -> Variant {
    let Coop { side, subgroup, scalars } = t.coop;
    let (k_tiles, d_tiles) = (t.block_k / side, t.dim / side);
    let own4 = t.block_k / (4 * (subgroup / side));
    Variant::new()
        .coop(side, subgroup, scalars)
        .num("WG", t.invocations())
        .num("BLOCK_K", t.block_k)
        .num("K_TILES", k_tiles)
        .num("D_TILES", d_tiles)
        .num("Q_CHUNKS", d_tiles.div_ceil(k_tiles))
        .num("ACC", d_tiles.next_multiple_of(k_tiles))
        .num("OWN4", own4)
        .num("OWN8", own4 / 2)
        .num("KV_LOADS", (t.block_k * t.dim / 8).div_ceil(t.invocations()))
}

/// The constants of `attend/coop_wide.wgsl`.
fn units_wide(t: CoopWideTile) -> Variant {
    let Coop { side, subgroup, scalars } = t.coop;
    let (tiles, own8) = (t.dim / side, t.block_k() / (8 * t.lanes()));
    Variant::new()
        .coop(side, subgroup, scalars)
        .num("WG", t.invocations())
        .num("BLOCK_K", t.block_k())
        .num("Q_ROWS", t.q_rows)
        .num("K_TILES", t.k_tiles)
        .num("PARTS", t.parts)
        .num("PART_TILES", tiles / t.parts)
        .num("OWN_TILES", tiles / t.subgroups())
        .num("OWN4", 2 * own8)
        .num("OWN8", own8)
        .num("KV_LOADS", (t.block_k() * t.dim / 8).div_ceil(t.invocations()))
}
