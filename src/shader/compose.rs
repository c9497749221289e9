//! Prelude + kernel file + imported snippets, joined as plain text.
//!
//! A kernel file is ordinary WGSL with directives, each on a line of its own:
//! `#bind read|write|read_write NAME` declares the next binding of group 0 with accessors
//! `load_NAME(i)` / `store_NAME(i, v)` over vec4s of the element type that the variant picked
//! (`#bind raw ACCESS NAME: TYPE` declares it literally), and `#import NAME` pastes
//! `shaders/lib/NAME.wgsl`, or the implementation that fills the slot NAME, once. `#unroll NAME COUNT` repeats the
//! lines up to its `#end`, with NAME as a constant of each round and COUNT computed from the constants declared above;
//! `#when SLOT IMPLEMENTATION …` keeps them only where one of those fills the slot.
//!
//! Every loop over an array in registers is unrolled here: what a compiler leaves of an index that changes is memory, and
//! whether it unrolls a loop differs between versions of one driver (Mesa 25.0 to 25.2 leaves most of them).

use super::constants::Constants;
use super::{Elem, KernelSpec, Sources, Variant};
use crate::error::{Error, Result};

/// How a binding is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
    /// Read through a texture.
    ReadTexels,
}

/// One binding of group 0, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub name: String,
    pub access: Access,
}

/// The text of one module with what the launcher must know of it.
#[derive(Debug)]
pub struct Composed {
    pub wgsl: String,
    pub bindings: Vec<Binding>,
    /// For every line of `wgsl`, the file and line it came from.
    lines: Vec<(String, usize)>,
}

impl Composed {
    /// The origin of a line of the composed text (1-based), as `file:line`.
    pub fn origin(&self, line: usize) -> String {
        match self.lines.get(line.saturating_sub(1)) {
            Some((file, line)) => format!("shaders/{file}:{line}"),
            None => format!("line {line}"),
        }
    }
}

/// Joins the kernel's file with what `variant` picks, out of `sources`.
///
/// # Errors
/// A directive that names an unknown file, slot or operand: a mistake of whoever wrote the shaders.
pub fn compose(sources: &Sources, spec: &KernelSpec, variant: &Variant) -> Result<Composed> {
    let mut out = Composer {
        sources,
        variant,
        composed: Composed { wgsl: String::new(), bindings: Vec::new(), lines: Vec::new() },
        imported: Vec::new(),
        constants: Constants::default(),
    };
    if variant.needs_f16() || variant.needs_coop() {
        out.line("prelude", 0, "enable f16;");
    }
    if variant.needs_coop() {
        out.line("prelude", 0, "enable wgpu_cooperative_matrix;");
    }
    for (name, value) in &variant.consts {
        let ty = match value {
            super::Const::Bool(_) => "bool",
            super::Const::U32(_) => "u32",
        };
        out.line("prelude", 0, &format!("const {name}: {ty} = {value};"));
    }
    out.file(spec.file)?;
    Ok(out.composed)
}

/// Takes the lines of a block and its `#end` off `lines`; blocks may hold others.
fn block<'l, 't>(lines: &mut &'l [(usize, &'t str)]) -> Result<&'l [(usize, &'t str)]> {
    let mut open = 1;
    let end = lines.iter().position(|(_, line)| {
        let line = line.trim_start();
        let begins = line.starts_with("#unroll ") || line.starts_with("#when ");
        open += i32::from(begins) - i32::from(line.starts_with("#end"));
        open == 0
    });
    let end = end.ok_or_else(|| Error::internal("a block without #end"))?;
    let (body, rest) = lines.split_at(end);
    *lines = &rest[1..];
    Ok(body)
}

struct Composer<'a> {
    sources: &'a Sources,
    variant: &'a Variant,
    composed: Composed,
    imported: Vec<String>,
    constants: Constants,
}

impl<'a> Composer<'a> {
    fn line(&mut self, file: &str, number: usize, text: &str) {
        self.constants.declare(text);
        self.composed.wgsl.push_str(text);
        self.composed.wgsl.push('\n');
        self.composed.lines.push((file.to_string(), number));
    }

    fn text(&self, file: &str) -> Result<&'a str> {
        self.sources.get(file).ok_or_else(|| Error::internal(format!("no shader file {file}")))
    }

    fn file(&mut self, file: &str) -> Result<()> {
        let text = self.text(file)?;
        let lines: Vec<(usize, &str)> = (1..).zip(text.lines()).collect();
        self.lines(file, &lines)
    }

    fn lines(&mut self, file: &str, mut lines: &[(usize, &str)]) -> Result<()> {
        while let [(number, line), rest @ ..] = lines {
            lines = rest;
            let at = |e: Error| e.at(format!("shaders/{file}:{number}"));
            let line = *line;
            if let Some(rest) = line.strip_prefix("#import ") {
                self.import(rest.split_whitespace().next().unwrap_or("")).map_err(at)?;
            } else if let Some(rest) = line.strip_prefix("#bind ") {
                self.bind(file, *number, rest).map_err(at)?;
            } else if let Some(head) = line.trim_start().strip_prefix("#unroll ") {
                let (name, count) = self.unrolled(head).map_err(at)?;
                let body = block(&mut lines).map_err(at)?;
                for i in 0..count {
                    self.line(file, *number, &format!("{{ const {name}: u32 = {i}u;"));
                    self.lines(file, body)?;
                    self.line(file, *number, "}");
                }
            } else if let Some(condition) = line.strip_prefix("#when ") {
                let body = block(&mut lines).map_err(at)?;
                let mut words = condition.split_whitespace();
                let filled = words.next().and_then(|slot| self.variant.slot_of(slot));
                if words.any(|wanted| filled == Some(wanted)) {
                    self.lines(file, body)?;
                }
            } else {
                self.line(file, *number, line);
            }
        }
        Ok(())
    }

    /// The name and the number of rounds in `#unroll NAME COUNT`.
    fn unrolled<'t>(&self, head: &'t str) -> Result<(&'t str, u32)> {
        head.trim()
            .split_once(' ')
            .and_then(|(name, count)| Some((name, self.constants.value(count)?)))
            .ok_or_else(|| {
                Error::internal(format!("#unroll needs a name and a count of constants: {head}"))
            })
    }

    fn import(&mut self, name: &str) -> Result<()> {
        if self.imported.iter().any(|n| n == name) {
            return Ok(());
        }
        self.imported.push(name.to_string());
        let file = match self.variant.slot_of(name) {
            Some(implementation) => format!("lib/{name}/{implementation}.wgsl"),
            None => format!("lib/{name}.wgsl"),
        };
        self.file(&file)
    }

    fn bind(&mut self, file: &str, number: usize, rest: &str) -> Result<()> {
        let rest = rest.split("//").next().unwrap_or("").trim();
        let (raw, rest) = match rest.strip_prefix("raw ") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let (access, declared) = rest
            .split_once(' ')
            .ok_or_else(|| Error::internal(format!("#bind needs an access and a name: {rest}")))?;
        let declared = declared.trim();
        let (access, wgsl_access) = match access {
            "read" => (Access::Read, "read"),
            // WGSL has no write-only storage buffers.
            "write" => (Access::Write, "read_write"),
            "read_write" => (Access::ReadWrite, "read_write"),
            other => return Err(Error::internal(format!("#bind: unknown access {other}"))),
        };
        let index = self.composed.bindings.len();
        let name = declared.split(':').next().unwrap_or(declared).trim().to_string();
        let place = format!("@group(0) @binding({index})");
        let mut head = format!("{place} var<storage, {wgsl_access}>");
        let mut bound = access;
        if raw {
            self.line(file, number, &format!("{head} {declared};"));
        } else {
            let elem = self.variant.elem_of(&name).ok_or_else(|| {
                Error::internal(format!("variant {} has no element type for {name}", self.variant))
            })?;
            if elem.is_texture() {
                head = format!("{place} var");
                bound = Access::ReadTexels;
            }
            self.accessors(elem, &name, &head, access)?;
        }
        self.composed.bindings.push(Binding { name, access: bound });
        Ok(())
    }

    /// Pastes `lib/elem/<elem>.wgsl`: the declaration, and the load and store that the access allows.
    fn accessors(&mut self, elem: Elem, name: &str, head: &str, access: Access) -> Result<()> {
        match elem {
            Elem::Words | Elem::Pairs => self.import("half")?,
            Elem::F16 | Elem::Packed => self.import("half_range")?,
            Elem::Texels | Elem::TexelsWide => self.import("texels")?,
            Elem::F32 | Elem::Wide | Elem::Octets => {}
        }
        let file = format!("lib/elem/{}.wgsl", elem.name());
        let text = self.text(&file)?;
        for (i, line) in text.lines().enumerate() {
            let skip = (line.contains("fn load") && access == Access::Write)
                || (line.contains("fn store") && access == Access::Read);
            if !skip && !line.starts_with("//") {
                let line = line.replace("DECLARE", head).replace("NAME", name);
                self.line(&file, i + 1, &line);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composed(mma: &'static str, terms: &[&'static str]) -> Result<Composed> {
        let spec = KernelSpec { name: "matmul", file: "gemm/matmul.wgsl" };
        let operands = ["x", "w", "bias", "vector", "res", "y"];
        let variant = operands.iter().fold(Variant::new(), |v, name| v.elem(name, Elem::F32));
        let variant = variant.coop(16, 32, false).slot("mma", mma);
        compose(&Sources::default(), &spec, &terms.iter().fold(variant, |v, name| v.num(name, 3)))
    }

    #[test]
    fn blocks_are_repeated_and_left_out() {
        let constants = ["A_LOADS", "W_LOADS", "K_TILES", "TM", "TN"];
        let coop = composed("coop", &constants).unwrap();
        assert!(coop.wgsl.contains("{ const m: u32 = 2u;") && !coop.wgsl.contains("m: u32 = 3u"));
        assert!(coop.wgsl.contains("fn a_load8") && !coop.wgsl.contains('#'));
        let line = coop.wgsl.lines().position(|l| l.contains("= coopMultiplyAdd(")).unwrap();
        assert!(coop.origin(line + 1).starts_with("shaders/lib/mma/coop.wgsl:"));
        assert!(!composed("direct", &[]).unwrap().wgsl.contains("a_load8"));
        assert!(composed("coop", &constants[..4]).is_err());
    }
}
