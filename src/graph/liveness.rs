//! Which tensors may share a buffer.

/// The turns between which a tensor, or a band of one, is alive, and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// The turn that makes it, or begins to.
    pub first: usize,
    /// The last turn that touches it. A tensor that ends where another begins must not share its
    /// buffer: one buffer cannot be read and written by the same dispatch.
    pub last: usize,
    pub bytes: u64,
}

impl Lifetime {
    fn overlaps(&self, other: &Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Gives every lifetime the number of a buffer, and every buffer its size: the largest first, each
/// into the first buffer that is free for its whole life.
pub fn assign(lifetimes: &[Lifetime]) -> (Vec<usize>, Vec<u64>) {
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lifetimes[i].bytes), lifetimes[i].first));
    let mut slots = vec![usize::MAX; lifetimes.len()];
    let mut sizes: Vec<u64> = Vec::new();
    let mut tenants: Vec<Vec<usize>> = Vec::new();
    for i in order {
        let free = (0..tenants.len())
            .find(|&s| tenants[s].iter().all(|&t| !lifetimes[t].overlaps(&lifetimes[i])));
        let slot = free.unwrap_or_else(|| {
            sizes.push(lifetimes[i].bytes);
            tenants.push(Vec::new());
            tenants.len() - 1
        });
        tenants[slot].push(i);
        slots[i] = slot;
    }
    (slots, sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_that_live_together_never_share_a_buffer() {
        // A small multiplicative generator: 200 random sets of lifetimes, checked pairwise.
        let mut state = 1u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        for _ in 0..200 {
            let lifetimes: Vec<Lifetime> = (0..next(30))
                .map(|_| {
                    let first = next(20) as usize;
                    Lifetime { first, last: first + next(6) as usize, bytes: 1 + next(100) }
                })
                .collect();
            let (slots, sizes) = assign(&lifetimes);
            for (i, a) in lifetimes.iter().enumerate() {
                assert!(sizes[slots[i]] >= a.bytes);
                for (j, b) in lifetimes.iter().enumerate().skip(i + 1) {
                    assert!(slots[i] != slots[j] || !a.overlaps(b));
                }
            }
        }
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let chain: Vec<Lifetime> =
            (0..10).map(|i| Lifetime { first: i, last: i + 1, bytes: 100 }).collect();
        assert_eq!(assign(&chain).1.iter().sum::<u64>(), 200);
    }
}
