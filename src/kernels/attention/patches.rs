//! The geometry of neighborhood patches (the paper's NPA).

use std::ops::Range;

/// Neighborhood patches: queries in blocks of half a window, each with one window of keys around it.
/// Isolated ones see no further than their own block, which is then the window: for measuring what the
/// overlap is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PatchGeometry {
    /// The grid of tokens.
    pub height: u32,
    pub width: u32,
    /// The grid of the base size at this level, which is the window where the grid is larger.
    pub window_h: u32,
    pub window_w: u32,
    /// Shift of the blocks, 0 to half a window.
    pub jitter_h: u32,
    pub jitter_w: u32,
    pub isolated: bool,
}

impl PatchGeometry {
    /// Overlapping patches; of each pair height, then width.
    pub const fn new(grid: (u32, u32), window: (u32, u32), jitter: (u32, u32)) -> Self {
        Self {
            height: grid.0,
            width: grid.1,
            window_h: window.0,
            window_w: window.1,
            jitter_h: jitter.0,
            jitter_w: jitter.1,
            isolated: false,
        }
    }

    /// Queries of one block, per axis.
    pub fn patch(&self) -> (u32, u32) {
        (block_of(self.window_h, self.isolated), block_of(self.window_w, self.isolated))
    }

    /// Blocks per axis; the jitter adds at most one.
    pub fn blocks(&self) -> (u32, u32) {
        let (ph, pw) = self.patch();
        ((self.height - 1 + self.jitter_h) / ph + 1, (self.width - 1 + self.jitter_w) / pw + 1)
    }

    /// The rows of keys that the queries `rows` see in some lines of their windows.
    pub(super) fn key_rows(&self, rows: &Range<u32>, lines: &Range<u32>) -> Range<u32> {
        let per_item = self.height * self.width;
        let line = |row: u32| {
            let at = row % per_item / self.width;
            row / per_item * self.height + self.vertical().origin_at(at)
        };
        let last = rows.end.max(1) - 1;
        (line(rows.start) + lines.start) * self.width..(line(last) + lines.end) * self.width
    }

    /// The rows of keys that the `runs` of text queries see in some lines of their windows; run `n` is that of
    /// item `n % items` in distinct window `n / items`.
    pub(super) fn window_rows(
        &self,
        runs: &Range<u32>,
        items: u32,
        shifted: bool,
        lines: &Range<u32>,
    ) -> Range<u32> {
        let (ys, xs) = self.distinct(shifted);
        let origin = |run: u32| ys.windows[(run / items) as usize / xs.windows.len()].0;
        let last = runs.end.max(runs.start + 1) - 1;
        // Several runs may be those of any item.
        let among = if last == runs.start { last % items..last % items + 1 } else { 0..items };
        let line =
            |item: u32, run: u32, at: u32| (item * self.height + origin(run) + at) * self.width;
        line(among.start, runs.start, lines.start)..line(among.end - 1, last, lines.end)
    }

    /// By how many lines the windows of one chunk's queries may differ, if chunks begin at multiples of `step` rows
    /// of `items`: none where a row of blocks does.
    pub(super) fn straddled(&self, step: u32, items: u32) -> u32 {
        let (patch, _) = self.patch();
        let aligned = |lines: u32| (lines * self.width).is_multiple_of(step);
        if aligned(patch) && aligned(self.jitter_h) && (items == 1 || aligned(self.height)) {
            return 0;
        }
        // A step longer than a line may reach over several rows of blocks, and into the next item.
        let rows = step.div_ceil(patch * self.width);
        if items == 1 { patch * rows } else { patch * rows + self.window_h.min(self.height) }
    }

    /// The same for runs of `queries` text queries, of each item in turn.
    pub(super) fn straddled_by_text(&self, step: u32, queries: u32, items: u32) -> u32 {
        if queries.is_multiple_of(step) {
            return 0;
        }
        let windows = step.div_ceil(queries * items);
        self.patch().0 * windows + (items - 1) * self.height
    }

    /// Lines of a window that are seen at a time, where `room` lines can be bound and windows of one binding differ
    /// by `straddled`: all of them, or as many as leave tiles of `block` keys what they are.
    pub(super) fn line_parts(&self, room: u32, straddled: u32, block: u32) -> Vec<Range<u32>> {
        let (height, width) = (self.window_h.min(self.height), self.window_w.min(self.width));
        if room >= height.saturating_add(straddled) {
            return std::iter::once(0..height).collect();
        }
        let lines = room.saturating_sub(straddled);
        let whole = block / gcd(width, block);
        let step = (lines / whole * whole).max(whole);
        (0..height.div_ceil(step)).map(|i| i * step..((i + 1) * step).min(height)).collect()
    }

    /// The windows that differ, per axis. Text sees each once, weighted by the number of blocks that share
    /// it. `shifted`: the blocks are those of a canvas one block larger, on which the grid is shifted, as in
    /// the official code; also those that hold no query count.
    pub fn distinct(&self, shifted: bool) -> (Distinct, Distinct) {
        (self.vertical().distinct(shifted), self.horizontal().distinct(shifted))
    }

    fn vertical(&self) -> Axis {
        Axis {
            len: self.height,
            window: self.window_h,
            jitter: self.jitter_h,
            isolated: self.isolated,
        }
    }

    fn horizontal(&self) -> Axis {
        Axis {
            len: self.width,
            window: self.window_w,
            jitter: self.jitter_w,
            isolated: self.isolated,
        }
    }
}

/// The distinct windows along one axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distinct {
    /// Origin and number of blocks of each, in order.
    pub windows: Vec<(u32, u32)>,
    /// Block whose window is the first one; the windows after it belong to the blocks after it.
    pub first_block: u32,
}

impl Distinct {
    /// Blocks in all.
    pub fn blocks(&self) -> u32 {
        self.windows.iter().map(|(_, count)| count).sum()
    }
}

/// One axis of a geometry.
#[derive(Clone, Copy)]
struct Axis {
    len: u32,
    window: u32,
    jitter: u32,
    isolated: bool,
}

impl Axis {
    fn origin_at(self, at: u32) -> u32 {
        patch_origin(at, self.window, self.len, self.jitter, self.isolated)
    }

    fn distinct(self, shifted: bool) -> Distinct {
        let block = block_of(self.window, self.isolated);
        let mut windows: Vec<(u32, u32)> = Vec::new();
        for b in 0..self.len.div_ceil(block) + u32::from(shifted) {
            let origin = block_origin(b, self.window, self.len, self.jitter, self.isolated);
            match windows.last_mut() {
                Some((last, count)) if *last == origin => *count += 1,
                _ => windows.push((origin, 1)),
            }
        }
        let first_block = if windows.len() > 1 { windows[0].1 - 1 } else { 0 };
        Distinct { windows, first_block }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Queries that share a window, along one axis.
fn block_of(window: u32, isolated: bool) -> u32 {
    if isolated { window } else { (window / 2).max(1) }
}

/// First key of the window of block `number`, along one axis of `len` tokens.
fn block_origin(number: u32, window: u32, len: u32, jitter: u32, isolated: bool) -> u32 {
    let margin = if isolated { 0 } else { window / 4 };
    let start = i64::from(block_of(window, isolated)) * i64::from(number);
    let origin = start - i64::from(jitter) - i64::from(margin);
    origin.clamp(0, i64::from(len.saturating_sub(window))) as u32
}

/// First key of the window that position `at` sees, along one axis of `len` tokens.
pub fn patch_origin(at: u32, window: u32, len: u32, jitter: u32, isolated: bool) -> u32 {
    block_origin((at + jitter) / block_of(window, isolated), window, len, jitter, isolated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_origins_match_the_enumerated_blocks() {
        for (len, window) in [(128u32, 64u32), (20, 8), (19, 8), (9, 8), (5, 8), (7, 1), (12, 3)] {
            let w = window.min(len);
            for (block, margin, isolated) in
                [((window / 2).max(1), window / 4, false), (window, 0, true)]
            {
                for jitter in 0..=window / 2 {
                    for b in 0..=(len + jitter) / block {
                        let from = (b * block) as i64 - jitter as i64;
                        let want = (from - margin as i64).clamp(0, (len - w) as i64) as u32;
                        for at in from.max(0)..(from + block as i64).min(len as i64) {
                            let got = patch_origin(at as u32, window, len, jitter, isolated);
                            assert_eq!(got, want);
                        }
                    }
                }
            }
        }
        let origins: Vec<u32> = (0..4).map(|b| patch_origin(32 * b, 64, 128, 0, false)).collect();
        assert_eq!(origins, [0, 16, 48, 64]);
    }

    #[test]
    fn parts_of_windows_are_whole_tiles() {
        let p = PatchGeometry::new((256, 256), (64, 60), (0, 0));
        assert_eq!(p.line_parts(64, 0, 32), std::slice::from_ref(&(0..64)));
        let parts = p.line_parts(50, 32, 32);
        assert_eq!((parts[0].clone(), parts[3].end, parts.len()), (0..16, 64, 4));
        assert!(parts.iter().all(|lines| lines.start * 60 % 32 == 0));
        assert_eq!(p.line_parts(1, 32, 8).len(), 32);
        // Blocks of 32 lines of 256 begin where chunks do, of 240 lines shifted by one they do not.
        assert_eq!(p.straddled(64, 1), 0);
        assert_eq!(PatchGeometry { width: 240, jitter_h: 1, ..p }.straddled(64, 1), 32);
        assert_eq!((p.straddled_by_text(64, 512, 1), p.straddled_by_text(64, 19, 1)), (0, 128));
    }

    #[test]
    fn distinct_windows_follow_one_another_from_the_first_block_on() {
        for (len, window) in [(256u32, 64u32), (128, 64), (20, 8), (19, 8), (9, 8), (5, 8), (7, 1)]
        {
            for jitter in 0..=window / 2 {
                for shifted in [false, true] {
                    let axis = Axis { len, window, jitter, isolated: false };
                    let all = axis.distinct(shifted);
                    assert_eq!(
                        all.blocks(),
                        len.div_ceil((window / 2).max(1)) + u32::from(shifted)
                    );
                    // The kernel finds them by this formula, and has one bit for the first block.
                    assert!(all.first_block <= 1);
                    for (i, (origin, _)) in all.windows.iter().enumerate() {
                        let block = i as u32 + all.first_block;
                        assert_eq!(*origin, block_origin(block, window, len, jitter, false));
                    }
                }
            }
        }
        // A grid of 4096 pixels, shifted by half a block.
        let axis = Axis { len: 256, window: 64, jitter: 16, isolated: false };
        let want = [(0, 2), (32, 1), (64, 1), (96, 1), (128, 1), (160, 1), (192, 2)];
        assert_eq!(axis.distinct(true).windows, want);
    }
}
