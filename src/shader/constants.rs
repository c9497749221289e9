//! The integer constants that a module declares, so that the composer can count rounds by them.

use std::collections::BTreeMap;

/// Constants by name.
#[derive(Debug, Default)]
pub(super) struct Constants(BTreeMap<String, u32>);

impl Constants {
    /// Notes what a line such as `const RB: u32 = 4u * QUADS;` declares, if it is computed by `+ - * / %` alone.
    pub(super) fn declare(&mut self, line: &str) {
        let declared =
            line.trim_start().strip_prefix("const ").and_then(|rest| rest.split_once(';'));
        let Some((name, value)) = declared.and_then(|(text, _)| text.split_once('=')) else {
            return;
        };
        if let Some(value) = self.value(value) {
            let name = name.split(':').next().unwrap_or(name).trim();
            self.0.insert(name.to_string(), value);
        }
    }

    /// The value of an expression over what has been declared.
    pub(super) fn value(&self, expression: &str) -> Option<u32> {
        let mut rest = Expression { constants: self, text: expression };
        let value = rest.sum()?;
        rest.peek().is_none().then_some(value)
    }
}

/// What is left of an expression.
struct Expression<'a> {
    constants: &'a Constants,
    text: &'a str,
}

impl<'a> Expression<'a> {
    fn peek(&mut self) -> Option<char> {
        self.text = self.text.trim_start();
        self.text.chars().next()
    }

    fn takes(&mut self, wanted: char) -> bool {
        let taken = self.peek() == Some(wanted);
        if taken {
            self.text = &self.text[wanted.len_utf8()..];
        }
        taken
    }

    fn sum(&mut self) -> Option<u32> {
        let mut value = self.product()?;
        loop {
            value = match self.peek() {
                Some('+') if self.takes('+') => value.checked_add(self.product()?)?,
                Some('-') if self.takes('-') => value.checked_sub(self.product()?)?,
                _ => return Some(value),
            };
        }
    }

    fn product(&mut self) -> Option<u32> {
        let mut value = self.term()?;
        loop {
            value = match self.peek() {
                Some('*') if self.takes('*') => value.checked_mul(self.term()?)?,
                Some('/') if self.takes('/') => value.checked_div(self.term()?)?,
                Some('%') if self.takes('%') => value.checked_rem(self.term()?)?,
                _ => return Some(value),
            };
        }
    }

    fn term(&mut self) -> Option<u32> {
        if self.takes('(') {
            let value = self.sum()?;
            return self.takes(')').then_some(value);
        }
        self.peek()?;
        let end =
            self.text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.text.len());
        let (word, rest) = self.text.split_at(end);
        self.text = rest;
        let literal = word.strip_suffix('u').unwrap_or(word).parse().ok();
        literal.or_else(|| self.constants.0.get(word).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_computed_from_earlier_ones() {
        let mut constants = Constants::default();
        constants.declare("const QUADS: u32 = 2u;   // fours of rows");
        constants.declare("    const RB: u32 = 4u * QUADS + (7u - 1u) / 3u % 4u;");
        assert_eq!(constants.value("RB"), Some(10));
        constants.declare("const GATED: bool = true;");
        constants.declare("const TAKEN: u32 = select(1u, 2u, GATED);");
        for unknown in
            ["TAKEN", "GATED", "", "RB +", "(RB", "RB 1", "1u / 0u", "1u - 2u", "4294967295u + 1u"]
        {
            assert_eq!(constants.value(unknown), None, "{unknown}");
        }
    }
}
