//! Python's `random.Random`, as far as the recorded programs draw from it.

const WORDS: usize = 624;
const MIDDLE: usize = 397;

/// A Mersenne twister (MT19937), seeded as Python seeds it with a small whole number.
pub(super) struct Random {
    state: [u32; WORDS],
    next: usize,
}

impl Random {
    /// `random.Random(seed)`.
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [0_u32; WORDS];
        let mut last = 19_650_218_u32;
        for (i, word) in (0_u32..).zip(&mut state) {
            if i > 0 {
                last = 1_812_433_253_u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i);
            }
            *word = last;
        }
        // `init_by_array` with one word.
        let mix = |before: u32, factor: u32| (before ^ (before >> 30)).wrapping_mul(factor);
        let mut at = 1;
        for _ in 0..WORDS {
            let mixed = state[at] ^ mix(state[at - 1], 1_664_525);
            state[at] = mixed.wrapping_add(seed);
            at += 1;
            if at == WORDS {
                state[0] = state[WORDS - 1];
                at = 1;
            }
        }
        for _ in 1..WORDS {
            let mixed = state[at] ^ mix(state[at - 1], 1_566_083_941);
            state[at] = mixed.wrapping_sub(u32::try_from(at).unwrap_or(0));
            at += 1;
            if at == WORDS {
                state[0] = state[WORDS - 1];
                at = 1;
            }
        }
        state[0] = 0x8000_0000;
        Self { state, next: WORDS }
    }

    fn word(&mut self) -> u32 {
        if self.next == WORDS {
            for i in 0..WORDS {
                let joined =
                    (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % WORDS] & 0x7fff_ffff);
                let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + MIDDLE) % WORDS] ^ (joined >> 1) ^ odd;
            }
            self.next = 0;
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// `random()`: 53 bits.
    pub(super) fn random(&mut self) -> f64 {
        let (high, low) = (f64::from(self.word() >> 5), f64::from(self.word() >> 6));
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    /// `gammavariate(alpha, 1)` for an `alpha` below 1.
    pub(super) fn gamma(&mut self, alpha: f64) -> f64 {
        let e = std::f64::consts::E;
        loop {
            let b = (e + alpha) / e;
            let p = b * self.random();
            let x = if p <= 1.0 { p.powf(1.0 / alpha) } else { -((b - p) / alpha).ln() };
            let u = self.random();
            let taken = if p > 1.0 { u <= x.powf(alpha - 1.0) } else { u <= (-x).exp() };
            if taken {
                return x;
            }
        }
    }
}
