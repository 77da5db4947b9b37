//! The order in which threads and thread blocks run.

use super::Order;

/// Decides which thread or warp runs next; its random numbers depend on the seed and the thread block only.
pub(super) struct Scheduler {
    order: Order,
    state: u64,
}

impl Scheduler {
    /// A scheduler for one thread block of a grid.
    pub fn new(order: Order, block: u64) -> Scheduler {
        let seed = if let Order::Random(seed) = order { seed } else { 0 };
        // An odd multiplier spreads neighbouring blocks; xorshift must not start at zero.
        Scheduler { order, state: (seed ^ block.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1 << 63 }
    }

    fn below(&mut self, n: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        // The upper half: the lower bits of xorshift are the weaker ones.
        (((self.state >> 32) * n as u64) >> 32) as usize
    }

    /// Which of `n` candidates, lowest index first, runs next.
    pub fn pick(&mut self, n: usize) -> usize {
        match self.order {
            Order::Forward => 0,
            Order::Reverse => n - 1,
            Order::Random(_) => self.below(n),
        }
    }

    /// Puts the indices 0, 1, ... in the order to run in. `indices` holds them in any order.
    pub fn arrange(&mut self, indices: &mut [u32]) {
        let n = indices.len();
        match self.order {
            Order::Forward => (0..).zip(indices).for_each(|(i, index)| *index = i),
            Order::Reverse => (0..).zip(indices.iter_mut().rev()).for_each(|(i, index)| *index = i),
            Order::Random(_) => {
                for last in (1..n).rev() {
                    let other = self.below(last + 1);
                    indices.swap(last, other);
                }
            }
        }
    }
}
